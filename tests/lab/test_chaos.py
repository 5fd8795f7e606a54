# SPDX-License-Identifier: Apache-2.0
"""Whatever befalls the store, the leader, the network, the disk, the clock or systemd: nothing is bounced by it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import faults
import patience
from fleet import Cluster, write_service
from lab import Host, wait_until
from testing import Needs, lab_test
from witness import Life, assert_stays, fleetd_pid, lives, of_host, start_jobs, wait_once_each

SHARED = True
AGENT_TTL_S = 3
NEW_LEADER_S = 3
NEEDS = Needs(hosts=3, conf={"agent_ttl": f"{AGENT_TTL_S}s"})
NAMES = [f"job@{number}.service" for number in range(9)]


def start_afresh(cluster: Cluster) -> dict[str, list[Life]]:
    """Nine equal units, and nothing else, on three hosts that are well."""
    for host in cluster.hosts:  # Whatever a failed test before this one has left.
        host.thaw()
        host.mend()
        host.unblock()
    return start_jobs(cluster, NAMES)


def assert_nothing_bounced(cluster: Cluster, before: dict[str, list[Life]]) -> None:
    """All hosts are there again, and each unit lives the life that it lived before."""
    cluster.wait_ready(3)
    assert_stays(lambda: lives(cluster.hosts, "job@*"), 1, "who runs what")
    assert lives(cluster.hosts, "job@*") == before


# --- The leader stands still -----------------------------------------------------------------------------------------


@lab_test(long=True, deadline_s=600)
def test_leader_stopped_or_frozen_for_up_to_a_minute(cluster: Cluster) -> None:
    before = start_afresh(cluster)
    for seconds in (5, 15, 30, 60):
        leader = cluster.wait_leader()
        leader.run(["systemctl", "kill", "--signal=STOP", "fleetd"])
        try:
            assert_stays(lambda: lives(cluster.hosts, "job@*"), seconds, "who runs what")
        finally:
            leader.run(["systemctl", "kill", "--signal=CONT", "fleetd"])
        assert_nothing_bounced(cluster, before)

        leader = cluster.wait_leader()
        leader.freeze()
        try:
            assert_stays(lambda: lives(cluster.others_of(leader), "job@*"), seconds, "who runs what")
        finally:
            leader.thaw()
        assert_nothing_bounced(cluster, before)


# --- The network -----------------------------------------------------------------------------------------------------


def nobody_reaches_anybody(cluster: Cluster, seconds: float) -> None:
    before = start_afresh(cluster)
    for host in cluster.hosts:
        host.cut()
    try:
        for host in cluster.hosts:
            wait_until(lambda: cluster.status(host), 20, f"{host.name} to miss its leader",
                       accept=lambda said: "no leader" in said)
        begin = patience.now()
        for host in cluster.hosts:
            refused = cluster.ctl(host, "start", write_service(host, "new.service"), check=False)
            assert refused.returncode == 1 and "no leader" in refused.stderr, refused
            listed = cluster.ctl(host, "list-units", "--no-legend", "--full")
            assert "out of date" in listed.stderr, listed
            own = {line.split()[0] for line in listed.stdout.splitlines() if f"{host.machine_id}/" in line}
            assert own == set(of_host(before, host)), listed.stdout
        assert_stays(lambda: lives(cluster.hosts, "job@*"), seconds - (patience.now() - begin), "who runs what")
    finally:
        for host in cluster.hosts:
            host.mend()
    assert_nothing_bounced(cluster, before)
    assert cluster.ctl(cluster.hosts[0], "cat", "new.service", check=False).returncode == 4
    cluster.ctl(cluster.hosts[0], "start", "/root/units/new.service")


@lab_test(deadline_s=120)
def test_nobody_reaches_anybody(cluster: Cluster) -> None:
    nobody_reaches_anybody(cluster, 20)


@lab_test(long=True, deadline_s=400)
def test_nobody_reaches_anybody_for_minutes(cluster: Cluster) -> None:
    nobody_reaches_anybody(cluster, 240)


def one_way(cluster: Cluster, lone: Host, cut: Callable[[Host, Host], None]) -> None:
    before = start_afresh(cluster)
    others = cluster.others_of(lone)
    begin = patience.now()
    for other in others:
        cut(lone, other)
    try:
        after = wait_once_each(others, NAMES, NEW_LEADER_S + AGENT_TTL_S + 4)
        print(f"       cut off in one direction: its units ran elsewhere after {patience.now() - begin:.1f} s")
        kept = of_host(before, *others)
        assert {unit: after[unit] for unit in kept} == kept
        # Nothing stops on the lone one, and those that are connected do not take turns.
        assert lives([lone], "job@*") == of_host(before, lone)
        assert_stays(lambda: lives(others, "job@*"), 3, "who runs what")
        cluster.ctl(others[0], "start", write_service(others[0], "meanwhile.service"))
    finally:
        for host in cluster.hosts:
            host.unblock()
    cluster.wait_ready(3)
    wait_until(lambda: lives(cluster.hosts, "job@*"), 15, "the extra copies to end", accept=lambda now: now == after)
    assert_stays(lambda: lives(cluster.hosts, "job@*"), 1, "who runs what")
    cluster.ctl(cluster.hosts[0], "cat", "meanwhile.service")


def deaf(lone: Host, other: Host) -> None:
    lone.block(other, one_way=True)


def mute(lone: Host, other: Host) -> None:
    other.block(lone, one_way=True)


@lab_test(deadline_s=60)
def test_a_leader_that_hears_and_is_not_heard(cluster: Cluster) -> None:
    one_way(cluster, cluster.wait_leader(), mute)


@lab_test(deadline_s=60)
def test_a_leader_that_is_heard_and_does_not_hear(cluster: Cluster) -> None:
    one_way(cluster, cluster.wait_leader(), deaf)


@lab_test(deadline_s=60)
def test_a_follower_that_hears_and_is_not_heard(cluster: Cluster) -> None:
    one_way(cluster, cluster.others_of(cluster.wait_leader())[0], mute)


@lab_test(deadline_s=60)
def test_a_follower_that_is_heard_and_does_not_hear(cluster: Cluster) -> None:
    one_way(cluster, cluster.others_of(cluster.wait_leader())[0], deaf)


# --- The disk and the clock ------------------------------------------------------------------------------------------

SLOW_SYNC_MS = 500


@contextmanager
def faulty(cluster: Cluster) -> Iterator[None]:
    """Every fleetd with the faults of faults.py at hand, none of them there yet."""
    faults.install(cluster)
    for host in cluster.hosts:
        host.systemctl("restart", "fleetd")
        cluster.wait_ready(3)
    try:
        yield
    finally:
        for host in cluster.hosts:
            faults.set_faults(host)


@lab_test(deadline_s=120)
def test_every_sync_of_the_leaders_disk_takes_half_a_second(cluster: Cluster) -> None:
    before = start_afresh(cluster)
    with faulty(cluster):
        leader = cluster.wait_leader()
        faults.set_faults(leader, sync_ms=SLOW_SYNC_MS)
        begin = patience.now()
        for number in range(3):
            asked = cluster.hosts[number]
            cluster.ctl(asked, "start", write_service(asked, f"slow-{number}.service"))
        print(f"       with {SLOW_SYNC_MS} ms for each sync of the leader, a start took "
              f"{(patience.now() - begin) / 3:.2f} s")
        assert_stays(lambda: lives(cluster.hosts, "job@*"), 2 * AGENT_TTL_S, "who runs what")
        assert all(machine.state == "ready" for machine in cluster.machines(cluster.hosts[0]))
    assert_nothing_bounced(cluster, before)


@lab_test(deadline_s=120)
def test_clocks_that_jump_by_hours(cluster: Cluster) -> None:
    before = start_afresh(cluster)
    with faulty(cluster):
        leader = cluster.wait_leader()
        term = cluster.status(leader)
        for jumps in ((7 * 3600, 0, 0), (-7 * 3600, 0, 5 * 3600), (0, 30 * 86400, -30 * 86400), (0, 0, 0)):
            for host, clock_s in zip(cluster.hosts, jumps):
                faults.set_faults(host, clock_s=clock_s)
            assert_stays(lambda: lives(cluster.hosts, "job@*"), 2, "who runs what")
            cluster.ctl(cluster.hosts[1], "start", write_service(cluster.hosts[1], "jump.service"))
            cluster.ctl(cluster.hosts[2], "destroy", "jump.service")
        assert cluster.wait_leader() is leader and cluster.status(leader) == term
    assert_nothing_bounced(cluster, before)


# --- Below us: D-Bus and systemd -------------------------------------------------------------------------------------


@lab_test(deadline_s=120)
def test_dbus_restarted_and_systemd_executed_again(cluster: Cluster) -> None:
    before = start_afresh(cluster)
    for host in cluster.hosts:
        one = cluster.others_of(host)[0]
        pid = fleetd_pid(host)
        for what in (["restart", "dbus.service"], ["kill", "--signal=KILL", "dbus.service"], ["daemon-reexec"],
                     ["daemon-reload"]):
            host.systemctl(*what)
            unit = write_service(one, "next.service", {"MachineID": host.machine_id})
            cluster.ctl(one, "start", unit)
            assert host.is_active("next.service"), f"after {' '.join(what)}"
            # What is not asked for is noticed, too.
            host.systemctl("stop", "next.service")
            wait_until(lambda: [u.active for u in cluster.units(one) if u.name == "next.service"], 10,
                       f"{host.name} to notice that a unit ended, after {' '.join(what)}",
                       accept=lambda seen: seen == ["inactive"])
            cluster.ctl(one, "destroy", "next.service")
        assert fleetd_pid(host) == pid
    assert_nothing_bounced(cluster, before)


# --- Many units ------------------------------------------------------------------------------------------------------

MANY = 500
WRITE_MANY = (f"mkdir -p /root/units; for n in $(seq {2 * MANY}); do "
              "printf '[Service]\\nExecStart=/bin/sleep infinity\\n' >/root/units/many-$n.service; done; "
              "printf '[Service]\\nType=exec\\nExecStart=/nowhere/to/be/found\\n' >/root/units/many-77.service")


def disk_bytes(host: Host) -> int:
    return int(host.run(["du", "-sb", "/var/lib/fleet"]).stdout.split()[0])


@lab_test(deadline_s=180)
def test_one_broken_unit_among_500(cluster: Cluster) -> None:
    before = start_afresh(cluster)
    one = cluster.hosts[0]
    one.run(["sh", "-c", WRITE_MANY])
    begin = patience.now()
    said = cluster.ctl(one, "start", *(f"/root/units/many-{n}.service" for n in range(1, MANY + 1)), check=False,
                       timeout=120)
    print(f"       {MANY} units, one of them broken, took {patience.now() - begin:.1f} s")
    assert said.returncode == 1 and "many-77.service" in said.stderr, said
    assert not [line for line in said.stderr.splitlines() if "many-" in line and "many-77." not in line], said.stderr
    running = wait_once_each(cluster.hosts, (f"many-{n}.service" for n in range(1, MANY + 1) if n != 77), 10)
    assert len(running) == MANY - 1
    assert [unit.active for unit in cluster.units(one) if unit.name == "many-77.service"] == ["failed"]
    assert_nothing_bounced(cluster, before)


@lab_test(deadline_s=240)
def test_1000_units_destroyed_at_once_leave_nothing(cluster: Cluster) -> None:
    before = start_afresh(cluster)
    one = cluster.hosts[0]
    one.run(["sh", "-c", WRITE_MANY + "; cp /root/units/many-1.service /root/units/many-77.service"])
    for half in (range(1, MANY + 1), range(MANY + 1, 2 * MANY + 1)):
        cluster.ctl(one, "start", *(f"/root/units/many-{n}.service" for n in half), timeout=120)
    assert len(lives(cluster.hosts, "many-*")) == 2 * MANY
    begin = patience.now()
    cluster.ctl(one, "destroy", "many-*", timeout=120)
    print(f"       {2 * MANY} units destroyed in {patience.now() - begin:.1f} s")
    for host in cluster.hosts:
        assert not lives([host], "many-*")
        left = host.run(["sh", "-c", "ls -A /run/fleet/units /run/systemd/system /run/systemd/transient 2>/dev/null; "
                                     "find /run/systemd -name '*many-*'; "
                                     "systemctl list-units --all --no-legend --plain 'many-*'"], check=False).stdout
        assert "many-" not in left, left
        # The agent's record keeps them until the leader has taken note.
        wait_until(lambda host=host: host.run(["cat", "/run/fleet/agent.state"]).stdout, 20,
                   f"{host.name} to forget them", accept=lambda record: "many-" not in record)
        for verb in ("list-units", "list-unit-files"):
            assert "many-" not in cluster.ctl(host, verb, "--no-legend").stdout
    assert_nothing_bounced(cluster, before)


ROUND = "for n in 1 2 3; do fleetctl start --no-block $(seq -f /root/units/many-%g.service 200) >/dev/null && " \
        "fleetctl destroy --no-block 'many-*' >/dev/null; done"


@lab_test(long=True, deadline_s=900)
def test_the_store_does_not_grow(cluster: Cluster) -> None:
    """Thousands of units come and go; afterwards it is as small as after the first of them."""
    before = start_afresh(cluster)
    one = cluster.hosts[0]
    one.run(["sh", "-c", WRITE_MANY])
    sizes = []
    for _ in range(30):
        one.run(["sh", "-c", ROUND], timeout=120)
        sizes.append(max(disk_bytes(host) for host in cluster.hosts))
    print(f"       /var/lib/fleet after every 600 units that came and went: {[size >> 20 for size in sizes]} MiB")
    assert max(sizes[15:]) <= max(sizes[:15]), sizes
    assert_nothing_bounced(cluster, before)


# --- Upgrades --------------------------------------------------------------------------------------------------------

# Starts and destroys one unit after the other, and says how many times.
LOAD = r"""i=0; while ! [ -e /run/load-end ]; do
    fleetctl start /root/units/load-HOST.service && fleetctl destroy load-HOST.service && i=$((i + 1))
done >/dev/null 2>&1; echo $i"""


@lab_test(deadline_s=120)
def test_fleetd_upgraded_everywhere_under_load(cluster: Cluster) -> None:
    before = start_afresh(cluster)
    clients = []
    for host in cluster.hosts:
        host.run(["rm", "-f", "/run/load-end"])
        write_service(host, f"load-{host.name}.service")
        clients.append(host.popen(["sh", "-c", LOAD.replace("HOST", host.name)], stdout=-1))
    try:
        for host in cluster.hosts:
            pid = fleetd_pid(host)
            cluster.install(host)
            host.systemctl("restart", "fleetd")
            assert fleetd_pid(host) not in (0, pid)
            cluster.wait_ready(3)
            assert lives(cluster.hosts, "job@*") == before, f"after the upgrade of {host.name}"
    finally:
        for host in cluster.hosts:
            host.write("/run/load-end", "")
    done = [int(client.communicate(timeout=60)[0]) for client in clients]
    print(f"       units started and destroyed during the upgrade, by host: {done}")
    assert all(done)
    assert_nothing_bounced(cluster, before)
