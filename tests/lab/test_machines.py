# SPDX-License-Identifier: Apache-2.0
"""What people decide about machines, and what the leader does not decide for them: cordon, drain, the brake."""

from __future__ import annotations

from fleet import Cluster, write_service
from lab import Host, wait_until
from testing import Needs, lab_test
from witness import assert_stays, homes, lives, of_host, wait_once_each

SHARED = True
AGENT_TTL_S = 3
NEEDS = Needs(hosts=6, conf={"agent_ttl": f"{AGENT_TTL_S}s", "voters": "3"})
NAMES = [f"job@{number}.service" for number in range(12)]


def start_jobs(cluster: Cluster) -> None:
    one = cluster.hosts[0]
    cluster.wait_ready(len(cluster.hosts))
    cluster.ctl(one, "destroy", "*")
    write_service(one, "job@.service")
    cluster.ctl(one, "start", *(f"/root/units/{name}" for name in NAMES))


def states(cluster: Cluster, asked: Host) -> dict[str, str]:
    return {cluster.host_of(machine.id).name: machine.state for machine in cluster.machines(asked)}


def test_a_cordoned_host_gets_nothing_new(cluster: Cluster) -> None:
    start_jobs(cluster)
    before = wait_once_each(cluster.hosts, NAMES, 10)
    cordoned, one = cluster.hosts[2], cluster.hosts[0]
    cluster.ctl(one, "cordon", cordoned.name)
    write_service(one, "new@.service")
    cluster.ctl(one, "start", *(f"/root/units/new@{number}.service" for number in range(10)))
    new = lives(cluster.hosts, "new@*")
    assert len(new) == 10 and not of_host(new, cordoned)
    pinned = write_service(one, "pinned.service", {"MachineID": cordoned.machine_id})
    refused = cluster.ctl(one, "start", pinned, check=False)
    assert refused.returncode == 1 and "the machine is cordoned" in refused.stderr, refused
    assert lives(cluster.hosts, "job@*") == before
    cluster.ctl(one, "uncordon", cordoned.name)
    wait_until(lambda: homes(cluster.hosts, "pinned.service"), 20, "the pinned unit to start",
               accept=lambda seen: seen == {"pinned.service": [cordoned.name]})
    cluster.ctl(one, "destroy", "new@*", "pinned")


# Says on every host, in one clock, when it was up.
WATCHED = "/bin/sh -c 'echo up $(date +%%s%%N) >>/var/log-%n; sleep 0.5; systemd-notify --ready; exec sleep infinity'"


@lab_test(deadline_s=90)
def test_drain_starts_the_new_copy_first(cluster: Cluster) -> None:
    start_jobs(cluster)
    one, drained = cluster.hosts[0], cluster.hosts[4]
    slow = write_service(one, "slow.service", {"MachineMetadata": [f"hostname={drained.name}",
                                                                   f"hostname={cluster.hosts[5].name}"]},
                         execstart=WATCHED, service={"Type": "notify", "NotifyAccess": "all"})
    alone = write_service(one, "alone.service", {"Conflicts": "alone*", "MachineMetadata": [
        f"hostname={drained.name}", f"hostname={cluster.hosts[5].name}"]})
    stays = write_service(one, "stays.service", {"MachineID": drained.machine_id})
    cluster.ctl(one, "cordon", cluster.hosts[5].name)
    cluster.ctl(one, "start", slow, alone, stays)
    cluster.ctl(one, "uncordon", cluster.hosts[5].name)
    before = lives(cluster.hosts, "*.service")
    assert homes(cluster.hosts, "slow.service", "alone.service") == {"slow.service": [drained.name],
                                                                     "alone.service": [drained.name]}

    draining = one.popen(["fleetctl", "drain", drained.name])
    # While the new copy starts, the old one runs on: there is no moment without it.
    both = False
    def moved() -> bool:
        nonlocal both
        where = homes(cluster.hosts, "slow.service").get("slow.service", [])
        assert where, "the unit ran nowhere"
        both = both or len(where) == 2
        return where == [cluster.hosts[5].name]
    wait_until(moved, 20, "the unit to have moved")
    assert both
    assert draining.wait(30) == 1  # One of them fits nowhere else.
    after = lives(cluster.hosts, "*.service")
    assert homes(cluster.hosts, "alone.service") == {"alone.service": [cluster.hosts[5].name]}
    assert after["stays.service"] == before["stays.service"]
    assert sorted(of_host(lives(cluster.hosts, "job@*"), drained)) == []
    others = [host for host in cluster.hosts if host is not drained]
    kept = of_host({unit: before[unit] for unit in NAMES}, *others)
    assert {unit: after[unit] for unit in kept} == kept  # Whoever need not move does not.
    wait_once_each(cluster.hosts, NAMES, 5)
    assert "stays on" in cluster.ctl(one, "drain", drained.name, check=False).stderr

    cluster.ctl(one, "undrain", drained.name)
    assert_stays(lambda: lives(cluster.hosts, "job@*", "slow.service", "alone.service"), 1, "who runs what")
    cluster.ctl(one, "destroy", "*")


@lab_test(deadline_s=120)
def test_half_of_the_hosts_lost_at_once(cluster: Cluster) -> None:
    start_jobs(cluster)
    cluster.wait_voters(3)
    before = wait_once_each(cluster.hosts, NAMES, 10)
    voters = {row[0] for row in cluster._table(cluster.hosts[0], "list-members", ("machine", "role")) if row[1] == "voter"}
    # A majority of the voters stays: what is tested is not that nobody can decide.
    spared = [host for host in cluster.hosts if host.machine_id in voters][:2]
    lost = [host for host in cluster.hosts if host not in spared][:3]
    rest = [host for host in cluster.hosts if host not in lost]
    for host in lost:
        host.cut()
    asked = spared[0]
    wait_until(lambda: states(cluster, asked), 4 * AGENT_TTL_S + 10, "the hosts to be missing",
               accept=lambda seen: sorted(seen[host.name] for host in lost) == ["missing"] * 3)
    assert_stays(lambda: lives(cluster.hosts, "job@*"), 3 * AGENT_TTL_S, "who runs what")
    assert lives(cluster.hosts, "job@*") == before
    said = cluster.ctl(asked, "list-machines").stderr
    assert "3 of 6 machines are missing" in said and "confirm-lost" in said, said
    # One is confirmed: its units start elsewhere, and no others do.
    dead = lost[0]
    dead.power_cut()
    cluster.ctl(asked, "confirm-lost", dead.name)
    moved = of_host(before, dead)
    wait_once_each(rest, moved, 10)
    assert {unit: copies for unit, copies in lives(cluster.hosts, "job@*").items() if unit not in moved} == \
        {unit: copies for unit, copies in before.items() if unit not in moved}
    refused = cluster.ctl(asked, "confirm-lost", rest[0].name, check=False)
    assert refused.returncode == 1 and "it is not lost" in refused.stderr, refused

    for host in lost[1:]:
        host.mend()
    dead.mend()
    dead.boot()
    cluster.wait_ready(6)
    assert "missing" not in cluster.ctl(asked, "list-machines").stderr
    after = wait_once_each(cluster.hosts, NAMES, 10)
    assert {unit: after[unit] for unit in before if unit not in moved} == \
        {unit: before[unit] for unit in before if unit not in moved}
