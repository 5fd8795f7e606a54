# SPDX-License-Identifier: Apache-2.0
"""Placement follows what changes: peers move, machines get other metadata, units come and go, a host joins later.

Each host's own systemd is asked what runs; a unit that had no reason to move must be the same life as before.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from fleet import Cluster, write_service
from lab import Host, wait_until
from testing import Needs
from witness import homes, lives

SHARED = True
NEEDS = Needs(hosts=4, spare=1)  # The fourth joins in the last test.
MOVE_S = 15  # Far less is usual; the machine may be busy.
SLOW_TO_STOP = {"ExecStop": "/bin/sleep 1"}
API = "http://fleet/fleet/v1"


def call(host: Host, method: str, path: str, body: object) -> tuple[int, str]:
    """One request to the host's own API, as it is; gives the status and what was answered."""
    answer = host.run(["curl", "-sS", "--unix-socket", "/run/fleet.sock", "-X", method, "-H", "Content-Type: application/json",
                       "-w", "\n%{http_code}", "--data-binary", json.dumps(body), f"{API}{path}"]).stdout
    text, status = answer.rsplit("\n", 1)
    return int(status), text


def set_metadata(cluster: Cluster, key: str, values: Mapping[Host, str | None]) -> None:
    """By one PATCH; None takes the key away."""
    operations = [{"op": "remove" if value is None else "add", "path": f"/{host.machine_id}/metadata/{key}",
                   **({} if value is None else {"value": value})} for host, value in values.items()]
    status, text = call(cluster.hosts[0], "PATCH", "/machines", operations)
    assert status == 204, text


def start(cluster: Cluster, name: str, check: bool = True, execstart: str = "/bin/sleep infinity",
          service: Mapping[str, str] = {}, **xfleet: str | list[str]) -> str:
    """Starts one unit; returns what fleetctl complained of."""
    host = cluster.hosts[0]
    path = write_service(host, f"{name}.service", xfleet, execstart, service)
    return cluster.ctl(host, "start", path, check=check).stderr


def where(cluster: Cluster, *names: str) -> dict[str, list[str]]:
    """The names of the hosts on which each of the units runs, whatever fleet thinks."""
    found = homes(cluster.hosts, *(f"{name}.service" for name in names))
    return {name: sorted(found.get(f"{name}.service", [])) for name in names}


def wait_where(cluster: Cluster, wanted: Mapping[str, list[str]], what: str) -> None:
    wait_until(lambda: where(cluster, *wanted), MOVE_S, what, accept=lambda found: found == dict(wanted))


def reason(cluster: Cluster, name: str) -> str:
    """Why the unit is where it is, or is nowhere."""
    text = cluster.ctl(cluster.hosts[-1], "list-unit-files", "--no-legend", "--fields=reason", f"{name}.service").stdout
    return text.strip()


def wait_reason(cluster: Cluster, name: str, *words: str) -> None:
    wait_until(lambda: reason(cluster, name), MOVE_S, f"{name} to say why it is nowhere",
               accept=lambda text: all(word in text for word in words))


def destroy_all(cluster: Cluster) -> None:
    cluster.ctl(cluster.hosts[0], "destroy", "*")
    assert all(host.run(["ls", "/run/fleet/units"]).stdout == "" for host in cluster.hosts)


def test_a_chain_of_three_follows_its_moved_target(cluster: Cluster) -> None:
    one, two, three = cluster.hosts
    set_metadata(cluster, "role", {two: "db"})
    paths = [write_service(one, "db.service", {"MachineMetadata": "role=db"}),
             write_service(one, "app.service", {"MachineOf": "db.service"}, service=SLOW_TO_STOP),
             "/root/units/sidekick.service",
             write_service(one, "stranger.service")]
    # It is stopped first, by systemd's order, and could not be started where what it requires is not known yet.
    one.write(paths[2], "[Unit]\nRequires=app.service\nAfter=app.service\n\n[Service]\nExecStart=/bin/sleep infinity\n\n"
                        "[X-Fleet]\nMachineOf=app.service\n")
    cluster.ctl(one, "start", *reversed(paths))  # In one command, the last of the chain first.
    chain = ("db", "app", "sidekick")
    assert where(cluster, *chain) == {name: [two.name] for name in chain}
    stranger = lives(cluster.hosts, "stranger.service")

    set_metadata(cluster, "role", {two: None, three: "db"})
    wait_where(cluster, {name: [three.name] for name in chain}, "all three to move together")
    before = lives(cluster.hosts, "app.service", "sidekick.service")
    cluster.ctl(one, "stop", "db")
    assert lives(cluster.hosts, "app.service", "sidekick.service") == before, "a peer that is merely stopped moves nobody"

    cluster.ctl(one, "unload", "db")
    wait_where(cluster, {"db": [], "app": [], "sidekick": []}, "the followers to stop with their target")
    wait_reason(cluster, "app", "db.service", "inactive")
    cluster.ctl(one, "start", "db")
    wait_where(cluster, {name: [three.name] for name in chain}, "the chain to be there again")
    cluster.ctl(one, "destroy", "db")
    wait_where(cluster, {"app": [], "sidekick": []}, "the followers of a destroyed unit to stop")
    wait_reason(cluster, "app", "db.service", "does not exist")
    assert lives(cluster.hosts, "stranger.service") == stranger
    set_metadata(cluster, "role", {three: None})
    destroy_all(cluster)


def test_five_that_conflict_run_on_three_hosts_as_three(cluster: Cluster) -> None:
    one = cluster.hosts[0]
    names = [f"alone@{number}" for number in range(1, 6)]
    write_service(one, "alone@.service", {"Conflicts": "alone@*.service"})
    result = cluster.ctl(one, "start", *(f"/root/units/{name}" for name in names), check=False)
    assert result.returncode == 1
    before = lives(cluster.hosts, "alone@*")
    assert sorted(life.host for copies in before.values() for life in copies) == [host.name for host in cluster.hosts]
    waiting = [name for name in names if f"{name}.service" not in before]
    for name in waiting:
        assert f"{name}.service fits on no machine" in result.stderr and "conflicts with alone@" in result.stderr
        assert "Conflicts" in reason(cluster, name)

    gone = sorted(before)[0]
    cluster.ctl(one, "destroy", gone)
    freed = before[gone][0].host
    wait_where(cluster, {waiting[0]: [freed], waiting[1]: []}, "the first that waited to get the free place")
    after = lives(cluster.hosts, "alone@*")
    assert all(after[unit] == copies for unit, copies in before.items() if unit != gone), "nobody else moved"
    destroy_all(cluster)


def test_what_conflicts_is_stopped_before_the_next_starts(cluster: Cluster) -> None:
    one, two, _ = cluster.hosts
    only_one = "/usr/bin/flock --nonblock /run/only-one /bin/sleep infinity"  # Fails while another one has the lock.
    start(cluster, "holder", execstart=only_one, service=SLOW_TO_STOP, MachineMetadata=f"hostname={two.name}",
          Conflicts="heir.service")
    start(cluster, "heir", check=False, execstart=only_one, MachineMetadata=f"hostname={two.name}")
    cluster.ctl(one, "destroy", "holder")
    wait_where(cluster, {"heir": [two.name]}, "the heir to run when the lock is free")
    assert two.show("heir.service", "NRestarts") == "0"
    destroy_all(cluster)


def test_one_way_conflict_is_released_by_destroy(cluster: Cluster) -> None:
    one, two, _ = cluster.hosts
    start(cluster, "picky", MachineMetadata=f"hostname={two.name}", Conflicts="noisy-*.service")
    said = start(cluster, "noisy-1", check=False, MachineMetadata=f"hostname={two.name}")
    assert "conflicts with picky.service" in said
    assert where(cluster, "picky", "noisy-1") == {"picky": [two.name], "noisy-1": []}
    # A unit that is not wanted anywhere stands in nobody's way, whatever it conflicts with.
    cluster.ctl(one, "submit", write_service(one, "shy.service", {"Global": "yes", "Conflicts": "picky.service"}))
    picky = lives(cluster.hosts, "picky.service")
    cluster.ctl(one, "stop", "picky")
    cluster.ctl(one, "start", "picky")
    assert where(cluster, "picky") == {"picky": [two.name]} and lives(cluster.hosts, "picky.service") != picky
    cluster.ctl(one, "destroy", "picky")
    wait_where(cluster, {"noisy-1": [two.name]}, "the other one to get the place")
    destroy_all(cluster)


def test_replaces_moves_the_replaced_one(cluster: Cluster) -> None:
    start(cluster, "old")
    [home] = where(cluster, "old")["old"]
    start(cluster, "new", Replaces="old.service", MachineMetadata=f"hostname={home}")
    assert where(cluster, "new") == {"new": [home]}
    new = lives(cluster.hosts, "new.service")
    moved = wait_until(lambda: where(cluster, "old")["old"], MOVE_S, "the replaced one to run elsewhere",
                       accept=lambda hosts: len(hosts) == 1 and hosts != [home])
    assert lives(cluster.hosts, "new.service") == new

    # One that may be nowhere else makes room, says why, and returns when it may.
    start(cluster, "bound", MachineMetadata=f"hostname={home}")
    start(cluster, "newer", Replaces="bound.service", MachineMetadata=f"hostname={home}")
    wait_where(cluster, {"bound": [], "newer": [home]}, "the replaced one to make room")
    wait_reason(cluster, "bound", "Replaces")
    cluster.ctl(cluster.hosts[0], "destroy", "newer")
    wait_where(cluster, {"bound": [home]}, "it to return")
    assert where(cluster, "old", "new") == {"old": moved, "new": [home]} and lives(cluster.hosts, "new.service") == new
    destroy_all(cluster)


def test_an_instance_for_each_host(cluster: Cluster) -> None:
    write_service(cluster.hosts[0], "each@.service", {"MachineMetadata": "hostname=%i"})
    cluster.ctl(cluster.hosts[0], "start", *(f"/root/units/each@{host.name}" for host in cluster.hosts))
    assert where(cluster, *(f"each@{host.name}" for host in cluster.hosts)) == {
        f"each@{host.name}": [host.name] for host in cluster.hosts}
    destroy_all(cluster)


def test_machine_id_by_any_unique_prefix(cluster: Cluster) -> None:
    ids = [host.machine_id for host in cluster.hosts]
    for host in cluster.hosts:
        size = next(n for n in range(1, 32) if sum(other[:n] == host.machine_id[:n] for other in ids) == 1)
        for count, wanted in enumerate((host.machine_id[:size], host.machine_id[:size + 1])):
            name = f"prefix-{host.name}-{count}"
            start(cluster, name, MachineID=wanted)
            assert where(cluster, name) == {name: [host.name]}, wanted
    destroy_all(cluster)


def test_a_circle_of_peers_is_refused(cluster: Cluster) -> None:
    one = cluster.hosts[0]
    paths = [write_service(one, "hen.service", {"MachineOf": "egg.service"}),
             write_service(one, "egg.service", {"MachineOf": "hen.service"})]
    result = cluster.ctl(one, "start", *paths, check=False)
    assert result.returncode == 1 and "hen.service" in result.stderr and "egg.service" in result.stderr, result.stderr
    assert len(result.stderr.splitlines()) == 1 and "circle" in result.stderr
    assert cluster.ctl(one, "list-unit-files", "--no-legend").stdout == ""
    # The same one by one, by the first fleet's request.
    options = {name: [{"section": "Service", "name": "ExecStart", "value": "/bin/true"},
                      {"section": "X-Fleet", "name": "MachineOf", "value": f"{peer}.service"}]
               for name, peer in (("hen", "egg"), ("egg", "hen"))}
    assert call(one, "PUT", "/units/hen.service", {"options": options["hen"]})[0] == 201
    status, text = call(one, "PUT", "/units/egg.service", {"options": options["egg"]})
    assert status == 400 and "hen.service" in text and "egg.service" in text
    destroy_all(cluster)


def test_a_peer_that_is_global(cluster: Cluster) -> None:
    _, two, three = cluster.hosts
    start(cluster, "base", Global="yes", MachineMetadata=[f"hostname={two.name}", f"hostname={three.name}"])
    for number in range(4):
        start(cluster, f"on-base-{number}", MachineOf="base.service")
        [home] = where(cluster, f"on-base-{number}")[f"on-base-{number}"]
        assert home in (two.name, three.name)
    destroy_all(cluster)


def test_units_follow_metadata_that_changes(cluster: Cluster) -> None:
    one, two, three = cluster.hosts
    # By the API...
    set_metadata(cluster, "tier", {one: "front"})
    start(cluster, "proxy", Global="yes", MachineMetadata="tier=front")
    start(cluster, "cache", MachineMetadata="tier=front")
    start(cluster, "stranger")
    assert where(cluster, "proxy", "cache") == {"proxy": [one.name], "cache": [one.name]}
    stranger = lives(cluster.hosts, "stranger.service")
    set_metadata(cluster, "tier", {two: "front"})
    wait_where(cluster, {"proxy": [one.name, two.name], "cache": [one.name]}, "the global unit on the second host")
    set_metadata(cluster, "tier", {one: None})
    wait_where(cluster, {"proxy": [two.name], "cache": [two.name]}, "both to leave the first host")
    # ...and by the configuration, with a reload.
    set_metadata(cluster, "tier", {two: None})
    wait_where(cluster, {"proxy": [], "cache": []}, "nothing that does not fit to run")
    wait_reason(cluster, "cache", "MachineMetadata")
    cluster.configure(three, {"metadata": "tier=front"})
    three.systemctl("reload", "fleetd")
    wait_where(cluster, {"proxy": [three.name], "cache": [three.name]}, "both on the host that has it now")
    cluster.configure(three)
    three.systemctl("reload", "fleetd")
    wait_where(cluster, {"proxy": [], "cache": []}, "both to stop again")
    assert lives(cluster.hosts, "stranger.service") == stranger
    destroy_all(cluster)


def test_a_host_that_joins_later(cluster: Cluster) -> None:
    four = cluster.lab.hosts[3]
    start(cluster, "everywhere", Global="yes")
    start(cluster, "rest", Global="yes", MachineMetadata="pool=late")
    assert "hostname=node4" in start(cluster, "awaited", check=False, MachineMetadata=f"hostname={four.name}")
    start(cluster, "settled")
    settled = lives(cluster.hosts, "settled.service", "everywhere.service")
    three = [host.name for host in cluster.hosts]

    cluster.host_conf[four.number] = {"metadata": "pool=late"}
    cluster.add(four)
    wait_where(cluster, {"everywhere": [*three, four.name], "rest": [four.name], "awaited": [four.name]},
               "the new host to run what is meant for it")
    now = lives(cluster.hosts[:3], "settled.service", "everywhere.service")
    assert now == settled, "a host that joins moves nothing"
    destroy_all(cluster)
