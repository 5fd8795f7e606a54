# SPDX-License-Identifier: Apache-2.0
"""OnDisconnect=stop: whatever is cut, killed or frozen, no two copies of a unit ever run at one time, on any hosts."""

from __future__ import annotations

from collections.abc import Callable

import patience
from breath import assert_alone, copies, prepare
from fleet import Cluster, write_service
from lab import Host, wait_until
from testing import Needs, lab_test
from witness import Life, assert_stays, homes, lives, of_host, wait_once_each

SHARED = True
AGENT_TTL_S = 4
STOP_S = 2
# The lease, the time to stop and the leader's margin, and then a start.
MOVED_S = AGENT_TTL_S + STOP_S + 2 + 4
NEW_LEADER_S = 3
NEEDS = Needs(hosts=3, conf={"agent_ttl": f"{AGENT_TTL_S}s"})


def start_all(cluster: Cluster, count: int = 6, behaviour: str = "obeys",
              service: dict[str, str] = {}) -> dict[str, list[Life]]:
    """Starts so many units that need a lease, and three that do not; returns where those that do run."""
    for host in cluster.hosts:  # Whatever a failed test before this one has left.
        host.mend()
        host.unblock()
        host.systemctl("kill", "--signal=CONT", "fleetd", check=False)
        host.systemctl("start", "fleetd")
    cluster.wait_ready(3)
    cluster.wait_voters(3)
    one = cluster.hosts[0]
    cluster.ctl(one, "destroy", "*")
    prepare(cluster.hosts)
    write_service(one, "leased@.service", {"OnDisconnect": "stop"},
                  execstart=f"/usr/bin/python3 /root/copy.py %n {behaviour}",
                  service={"TimeoutStopSec": str(STOP_S)} | service)
    write_service(one, "kept@.service")
    leased = [f"leased@{number}.service" for number in range(count)]
    kept = [f"kept@{number}.service" for number in range(3)]
    cluster.ctl(one, "start", *(f"/root/units/{name}" for name in leased + kept))
    wait_once_each(cluster.hosts, leased + kept, 10)
    running = lives(cluster.hosts, "leased@*")
    for host in cluster.hosts:
        assert of_host(running, host), f"nothing runs on {host.name}"
    return running


def others_of(cluster: Cluster, *hosts: Host) -> list[Host]:
    return [host for host in cluster.hosts if host not in hosts]


def check_moves(cluster: Cluster, home: Host, before: dict[str, list[Life]], end: Callable[[], None],
                deadline_s: float = MOVED_S, apart_s: float = 0) -> None:
    """What ran on 'home' runs elsewhere; the units of the others, and those that are kept, run on undisturbed. Then
    the trouble ends, and everything runs once."""
    others = others_of(cluster, home)
    kept = lives([home], "kept@*")
    begin = patience.now()
    try:
        wait_once_each(others, before, deadline_s, f"the units of {home.name} to run elsewhere")
        print(f"       elsewhere after {patience.now() - begin:.1f} s")
        assert not lives([home], "leased@*")
        assert lives([home], "kept@*") == kept
    finally:
        end()
    after = lives(others, "leased@*")
    assert {unit: after[unit] for unit in of_host(before, *others)} == of_host(before, *others)
    cluster.wait_ready(3)
    wait_once_each(cluster.hosts, list(before) + [f"kept@{number}.service" for number in range(3)], 10)
    assert_stays(lambda: lives(cluster.hosts, "leased@*"), 1, "who runs what")
    assert_alone(cluster.hosts, before, apart_s)


@lab_test(deadline_s=60)
def test_a_host_is_cut_off(cluster: Cluster) -> None:
    before = start_all(cluster)
    home = others_of(cluster, cluster.wait_leader())[0]
    unit = sorted(of_host(before, home))[0]
    home.cut()
    wait_until(lambda: lives([home], "leased@*"), MOVED_S, "the lease to end", accept=lambda now: not now)
    assert not lives(others_of(cluster, home), unit), "it was started elsewhere before it was gone"
    wait_until(lambda: home.show("fleet-lease.service", "ActiveState"), 5, "its keeper to have failed",
               accept=lambda state: state == "failed")
    [shown] = [row for row in cluster.units(home) if row.name == unit]
    assert shown.active == "inactive", shown
    assert f"{unit}: stopped: no contact to the leader for" in home.journal("fleetd.service")
    check_moves(cluster, home, before, home.mend)


@lab_test(deadline_s=60)
def test_fleetd_is_killed_and_its_host_cut_off(cluster: Cluster) -> None:
    before = start_all(cluster)
    home = others_of(cluster, cluster.wait_leader())[0]

    def end() -> None:
        home.mend()
        home.systemctl("start", "fleetd")

    home.systemctl("kill", "--signal=KILL", "fleetd")
    home.systemctl("stop", "fleetd")
    home.cut()
    check_moves(cluster, home, before, end)


@lab_test(deadline_s=60)
def test_fleetd_is_frozen(cluster: Cluster) -> None:
    for freeze, thaw in (("kill", "--signal=STOP", "fleetd"), ("kill", "--signal=CONT", "fleetd")), \
                        (("freeze", "fleetd.service"), ("thaw", "fleetd.service")):
        before = start_all(cluster)
        home = others_of(cluster, cluster.wait_leader())[0]
        home.systemctl(*freeze)
        check_moves(cluster, home, before, lambda: home.systemctl(*thaw) and None)


@lab_test(deadline_s=60)
def test_fleetd_and_the_keeper_are_frozen_and_their_host_cut_off(cluster: Cluster) -> None:
    before = start_all(cluster)
    home = others_of(cluster, cluster.wait_leader())[0]

    def end() -> None:
        home.mend()
        home.systemctl("kill", "--signal=CONT", "fleetd")

    home.systemctl("kill", "--signal=STOP", "fleetd", "fleet-lease.service")
    home.cut()
    check_moves(cluster, home, before, end)


def freeze_and_thaw_the_leader(cluster: Cluster, *durations_s: float) -> None:
    for seconds in durations_s:
        before = start_all(cluster)
        leader = cluster.wait_leader()
        others = others_of(cluster, leader)
        leader.systemctl("kill", "--signal=STOP", "fleetd")
        try:
            assert_stays(lambda: lives(others, *of_host(before, *others)), seconds, "what the others run")
        finally:
            leader.systemctl("kill", "--signal=CONT", "fleetd")
        cluster.wait_ready(3)
        wait_once_each(cluster.hosts, before, MOVED_S)
        assert_stays(lambda: lives(cluster.hosts, "leased@*"), 1, "who runs what")
        assert_alone(cluster.hosts, before)


@lab_test(deadline_s=60)
def test_the_leader_is_frozen_and_thawed(cluster: Cluster) -> None:
    freeze_and_thaw_the_leader(cluster, AGENT_TTL_S + 1)


@lab_test(deadline_s=90, long=True)
def test_the_leader_is_frozen_for_several_times_the_ttl(cluster: Cluster) -> None:
    freeze_and_thaw_the_leader(cluster, 15, 30)


@lab_test(deadline_s=60)
def test_the_leader_is_cut_off_with_what_it_runs(cluster: Cluster) -> None:
    before = start_all(cluster)
    leader = cluster.wait_leader()
    leader.cut()
    check_moves(cluster, leader, before, leader.mend, NEW_LEADER_S + MOVED_S)


@lab_test(deadline_s=90)
def test_a_leader_that_does_not_know_that_it_is_deposed(cluster: Cluster) -> None:
    """It stood still while another one was elected and has moved its units; then it goes on where it was, cut off, and
    takes itself for the leader for as long as libraft does. What it says to its own host must start nothing there."""
    for _ in range(2):
        before = start_all(cluster)
        old = cluster.wait_leader()
        others = others_of(cluster, old)
        old.systemctl("kill", "--signal=STOP", "fleetd")
        old.cut()
        try:
            wait_once_each(others, before, NEW_LEADER_S + MOVED_S, f"the units of {old.name} to run elsewhere")
            assert not lives([old], "leased@*")
            old.systemctl("kill", "--signal=CONT", "fleetd")
            assert_stays(lambda: lives([old], "leased@*"), 4, f"what {old.name} runs")
        finally:
            old.mend()
            old.systemctl("kill", "--signal=CONT", "fleetd")
        cluster.wait_ready(3)
        wait_once_each(cluster.hosts, before, 10)
        assert_alone(cluster.hosts, before)


@lab_test(deadline_s=90)
def test_one_way_cuts(cluster: Cluster) -> None:
    for is_deaf in (True, False):
        before = start_all(cluster)
        leader = cluster.wait_leader()
        home = others_of(cluster, leader)[0]

        def end() -> None:
            for host in cluster.hosts:
                host.unblock()

        for other in others_of(cluster, home):
            if is_deaf:
                home.block(other, one_way=True)
            else:
                other.block(home, one_way=True)
        check_moves(cluster, home, before, end)


@lab_test(deadline_s=60)
def test_a_unit_that_will_not_stop(cluster: Cluster) -> None:
    before = start_all(cluster, behaviour="ignores",
                       service={"Restart": "always", "RestartSec": "100ms", "SendSIGKILL": "no",
                                "ExecStop": "/bin/sleep 100", "KillMode": "process"})
    home = others_of(cluster, cluster.wait_leader())[0]
    home.cut()
    # Killed when its time to stop is over, and no later: the leader's margin is not for that.
    check_moves(cluster, home, before, home.mend, apart_s=1)


@lab_test(deadline_s=60)
def test_many_at_once_need_no_reload(cluster: Cluster) -> None:
    """The token is new with every start, and systemd has to read it; but a reload for it would take its time."""
    begin = patience.now()
    start_all(cluster, 60)
    print(f"       60 units under a lease after {patience.now() - begin:.1f} s")
    units = [f"leased@{number}.service" for number in range(60)]
    first = {unit: wait_until(lambda: copies(cluster.hosts, unit), 20, f"the first breath of {unit}")[-1].token
             for unit in units}
    one = cluster.hosts[0]
    [here, *_] = sorted(of_host(lives(cluster.hosts, "leased@*"), one))
    assert f"FLEET_MACHINE_ID={one.machine_id}" in one.show(here, "Environment")
    cluster.ctl(one, "unload", "leased@*")  # So that they are placed anew.
    wait_until(lambda: lives(cluster.hosts, "leased@*"), 20, "all to stop", accept=lambda now: not now)
    cluster.ctl(one, "start", *units)
    wait_once_each(cluster.hosts, units, 20)
    for unit in units:
        wait_until(lambda: copies(cluster.hosts, unit)[-1].token, 20, f"another token of {unit}",
                   accept=lambda token: token > first[unit])
    for host in cluster.hosts:
        assert "reloading systemd" not in host.journal("fleetd.service", 100000)
    assert_alone(cluster.hosts, units)


@lab_test(deadline_s=60)
def test_fleetd_is_restarted(cluster: Cluster) -> None:
    before = start_all(cluster)
    for host in cluster.hosts:
        host.systemctl("restart", "fleetd")
        cluster.wait_ready(3)
    assert_stays(lambda: lives(cluster.hosts, "leased@*"), AGENT_TTL_S + 1, "who runs what")
    assert lives(cluster.hosts, "leased@*") == before


@lab_test(deadline_s=60)
def test_an_operators_stop_is_not_fought(cluster: Cluster) -> None:
    before = start_all(cluster)
    home = others_of(cluster, cluster.wait_leader())[0]
    unit = sorted(of_host(before, home))[0]
    home.systemctl("stop", unit)
    assert_stays(lambda: lives(cluster.hosts, unit), 2, "what an operator has stopped")
    assert not lives(cluster.hosts, unit)


@lab_test(deadline_s=60)
def test_the_keeper_is_killed(cluster: Cluster) -> None:
    before = start_all(cluster)
    home = cluster.hosts[0]
    home.systemctl("kill", "--signal=KILL", "fleet-lease.service")
    wait_until(lambda: homes([home], *of_host(before, home)), 10, "the units to be started again",
               accept=lambda now: len(now) == len(of_host(before, home)) and lives([home], "leased@*") != of_host(
                   before, home))
    assert_alone(cluster.hosts, before)
    assert homes(cluster.hosts, "leased@*") == {unit: [life.host for life in here] for unit, here in before.items()}


def change_to_stop(cluster: Cluster, asked: Host, unit: str) -> None:
    path = write_service(asked, unit, {"OnDisconnect": "stop"}, execstart="/usr/bin/python3 /root/copy.py %n obeys",
                         service={"TimeoutStopSec": str(STOP_S)})
    cluster.ctl(asked, "start", "--replace", "--no-block", path)


def is_changed_behind_its_back(cluster: Cluster, unit: str) -> tuple[Host, Life]:
    """A host with a unit that keeps running is cut off; then the unit is to stop when it is. It stays where it is, for
    what runs there knows of no lease, whoever leads and however long. Returns the host, and what runs there."""
    start_all(cluster)
    home, other = others_of(cluster, cluster.wait_leader())
    cluster.ctl(home, "start", write_service(home, unit, {"MachineMetadata": f"hostname={home.name}"},
                                             execstart="/usr/bin/python3 /root/copy.py %n obeys"))
    [old] = lives([home], unit)[unit]
    home.cut()
    change_to_stop(cluster, other, unit)
    words = f"{home.name} was lost before it had carried out OnDisconnect=stop"
    wait_until(lambda: cluster.ctl(other, "explain", unit).stdout, AGENT_TTL_S + 6, "the reason why it stays",
               accept=lambda said: words in said and f"fleetctl confirm-lost {home.name}" in said)
    leader = next(host for host in others_of(cluster, home) if host is not other)
    leader.systemctl("restart", "fleetd")  # The next one has never heard of that host.
    wait_until(lambda: cluster.ctl(other, "explain", unit, check=False).stdout, 30, "the next leader to know it, too",
               accept=lambda said: words in said)
    assert_stays(lambda: lives(cluster.hosts, unit), MOVED_S, f"who runs {unit}")
    assert lives(cluster.hosts, unit) == {unit: [old]}
    return home, old


@lab_test(deadline_s=120)
def test_a_change_that_a_host_did_not_hear_of(cluster: Cluster) -> None:
    unit = "changed.service"
    home, old = is_changed_behind_its_back(cluster, unit)
    home.mend()
    wait_until(lambda: lives([home], unit).get(unit, []), 20, "it to be started anew, under a lease",
               accept=lambda here: len(here) == 1 and here != [old])
    cluster.wait_ready(3)
    assert_stays(lambda: lives(cluster.hosts, unit), 2, f"who runs {unit}")
    home.cut()  # Now it is one of those that move.
    wait_once_each(others_of(cluster, home), [unit], NEW_LEADER_S + MOVED_S)
    home.mend()
    cluster.wait_ready(3)
    wait_once_each(cluster.hosts, [unit], 10)
    assert_alone(cluster.hosts, [unit])


@lab_test(deadline_s=120, long=True)
def test_a_change_that_a_dead_host_did_not_hear_of(cluster: Cluster) -> None:
    unit = "changed.service"
    home, _ = is_changed_behind_its_back(cluster, unit)
    home.power_cut()
    other = others_of(cluster, home)[0]
    cluster.ctl(other, "confirm-lost", home.name)
    wait_once_each(others_of(cluster, home), [unit], MOVED_S)
    home.mend()
    home.boot()
    cluster.wait_ready(3)
    wait_once_each(cluster.hosts, [unit], 10)
    assert_alone(cluster.hosts, [unit])
