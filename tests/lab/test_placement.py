# SPDX-License-Identifier: Apache-2.0
"""The options of [X-Fleet] decide where a unit runs; each host's systemd is asked whether it does."""

from __future__ import annotations

from fleet import Cluster, write_service
from lab import Host, wait_until
from testing import Needs
from witness import homes, lives

SHARED = True
NEEDS = Needs(hosts=3)
RACKS = {1: "a", 2: "b", 3: "b"}


def start(cluster: Cluster, name: str, **xfleet: str | list[str]) -> None:
    host = cluster.hosts[0]
    cluster.ctl(host, "start", write_service(host, f"{name}.service", xfleet))


def names(*hosts: Host) -> list[str]:
    return [host.name for host in hosts]


def where(cluster: Cluster, name: str) -> list[str]:
    return homes(cluster.hosts, f"{name}.service").get(f"{name}.service", [])


def destroy_all(cluster: Cluster) -> None:
    cluster.ctl(cluster.hosts[0], "destroy", "*")
    assert all(host.run(["ls", "/run/fleet/units"]).stdout == "" for host in cluster.hosts)


def test_metadata_takes_effect_with_a_reload(cluster: Cluster) -> None:
    for host in cluster.hosts:
        cluster.configure(host, {"metadata": f"rack={RACKS[host.number]},number={host.number}"})
        host.systemctl("reload", "fleetd")
    wanted = {host.machine_id: f"number={host.number},rack={RACKS[host.number]}" for host in cluster.hosts}
    for host in cluster.hosts:
        wait_until(lambda: {machine.id: machine.metadata for machine in cluster.machines(host)}, 5,
                   f"{host.name} to list the new metadata", accept=lambda seen: seen == wanted)


def test_machine_id_full_short_and_host_name(cluster: Cluster) -> None:
    # All on one host: were the option ignored, the second and third would go to the others.
    for host in (cluster.hosts[2], cluster.hosts[1]):
        for name, wanted in (("full", host.machine_id), ("short", host.machine_id[:8]), ("named", host.name)):
            start(cluster, f"{name}-{host.name}", MachineID=wanted)
            assert where(cluster, f"{name}-{host.name}") == [host.name], wanted
    destroy_all(cluster)


def test_machine_of_follows(cluster: Cluster) -> None:
    home = cluster.hosts[1]
    start(cluster, "db", MachineID=home.machine_id)
    for number in range(3):
        start(cluster, f"backup{number}", MachineOf="db.service")
        assert where(cluster, f"backup{number}") == [home.name]
    destroy_all(cluster)


def test_machine_metadata_restricts(cluster: Cluster) -> None:
    one, two, three = cluster.hosts
    for number in range(3):
        start(cluster, f"in-a{number}", MachineMetadata="rack=a")
        assert where(cluster, f"in-a{number}") == [one.name]
    start(cluster, "either", MachineMetadata=["number=2", "number=3"])
    assert where(cluster, "either")[0] in names(two, three)
    start(cluster, "both", MachineMetadata=["rack=b", "number=3"])
    assert where(cluster, "both") == [three.name]
    destroy_all(cluster)


def test_conflicts_keep_apart(cluster: Cluster) -> None:
    one, two, three = cluster.hosts
    start(cluster, "alone", MachineMetadata="number=1", Conflicts="noisy-*.service")
    for number in range(4):
        start(cluster, f"noisy-{number}")
        assert where(cluster, f"noisy-{number}")[0] in names(two, three)
    # And the other way round: the one with the option comes last.
    start(cluster, "late", Conflicts="noisy-*.service")
    assert where(cluster, "late") == [one.name]
    destroy_all(cluster)


def test_global_runs_everywhere(cluster: Cluster) -> None:
    start(cluster, "everywhere", Global="true")
    assert where(cluster, "everywhere") == names(*cluster.hosts)
    start(cluster, "everywhere-in-b", Global="true", MachineMetadata="rack=b")
    assert where(cluster, "everywhere-in-b") == names(*cluster.hosts[1:])
    cluster.ctl(cluster.hosts[1], "stop", "everywhere")
    assert where(cluster, "everywhere") == []
    destroy_all(cluster)


def test_load_is_spread_evenly(cluster: Cluster) -> None:
    write_service(cluster.hosts[0], "even@.service")
    cluster.ctl(cluster.hosts[0], "start", *(f"/root/units/even@{number}" for number in range(30)))
    placed = [host for hosts in homes(cluster.hosts, "even@*").values() for host in hosts]
    assert sorted(placed.count(host.name) for host in cluster.hosts) == [10, 10, 10]
    before = lives(cluster.hosts, "even@*")
    # Starting what runs already does nothing.
    cluster.ctl(cluster.hosts[2], "start", "even@1", "even@2")
    assert lives(cluster.hosts, "even@*") == before
    destroy_all(cluster)
