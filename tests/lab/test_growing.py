# SPDX-License-Identifier: Apache-2.0
"""Clusters that grow from one voter to three, or shrink to one, and lose a fleetd in the very moment of the change: from
one voter to two, and back, both are needed, and what only one of them has on its disk must not leave them without a leader
(docs/RAFT.md, section 1).

Who is to lose the moment has a slow disk: what it was told is on its way there, for as long as the test needs to see that
the other one has it. FLEET_LAB_SEED=N draws the same kills again."""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Sequence

import faults
import patience
from fleet import Cluster, write_service
from lab import Host, wait_until
from test_ledger import is_back
from test_voters import Writers, voters
from testing import lab_test
from witness import Life, fleetd_pid, lives, wait_once_each

CONF = {"agent_ttl": "30s"}  # Time enough to be away without being taken for dead.
NAMES = [f"job@{number}.service" for number in range(4)]
SLOW_MS = 3000
# systemd waits for 1 s, fleetd starts, and an election takes up to two timeouts of 0.7 s; the rest is for slow disks, and for
# a busy machine.
LEADER_S = 15


def roles(asked: Host) -> dict[str, str]:
    """By machine, as this host knows it itself: also what is not decided yet, and without a leader."""
    text = asked.run(["curl", "-sf", "--unix-socket", "/run/fleet.sock", "http://fleet/fleet/v1/members?stale=yes"]).stdout
    return {member["machineID"]: member["role"] for member in json.loads(text)["members"] if "machineID" in member}


def voters_by(asked: Host) -> set[str]:
    return {machine for machine, role in roles(asked).items() if role == "voter"}


def wait_votes(asked: Host, hosts: Sequence[Host], deadline_s: float = 60) -> None:
    wanted = {host.machine_id for host in hosts}
    wait_until(lambda: voters_by(asked), deadline_s, f"{asked.name} to have just {len(wanted)} of the voters in mind",
               accept=lambda now: now == wanted)


def prepare(cluster: Cluster) -> dict[str, list[Life]]:
    """Units that run, and a hundred writes that are acknowledged."""
    one = cluster.hosts[0]
    write_service(one, "job@.service")
    cluster.ctl(one, "start", *(f"/root/units/{name}" for name in NAMES))
    write_service(one, "entry@.service")
    cluster.ctl(one, "submit", *(f"/root/units/entry@{number}.service" for number in range(100)))
    return wait_once_each(cluster.hosts, NAMES, 15)


def load_faults(cluster: Cluster, hosts: Sequence[Host]) -> None:
    faults.install(cluster, hosts)
    for host in hosts:
        host.systemctl("restart", "fleetd")


def kill(hosts: Sequence[Host]) -> dict[Host, int]:
    """Kills these fleetds at one moment, and returns what they were."""
    pids = {host: fleetd_pid(host) for host in hosts}
    killing = [host.popen(["kill", "-KILL", str(pid)]) for host, pid in pids.items()]
    assert [process.wait(10) for process in killing] == [0] * len(hosts)
    return pids


def wait_back(pids: dict[Host, int]) -> None:
    for host, pid in pids.items():
        is_back(host, pid)


def wait_done(cluster: Cluster, asked: Host, name: str, what: str = "the kill") -> None:
    """Waits until a write is acknowledged, and so until there is a leader in earnest."""
    path = write_service(asked, name)
    wait_until(lambda: cluster.ctl(asked, "submit", path, timeout=LEADER_S), LEADER_S, f"a write to be done after {what}")


def assert_well(cluster: Cluster, running: dict[str, list[Life]], count: int) -> None:
    """Nothing bounced, nothing lost, and it goes on."""
    cluster.wait_ready(3)
    cluster.wait_voters(count)
    for host in cluster.hosts:
        stored = cluster.ctl(host, "list-unit-files", "--no-legend", "--fields=unit", "entry@*").stdout.split()
        assert len(stored) == 100, (host, stored)
        cluster.ctl(host, "start", write_service(host, f"after-{host.name}.service"))
    assert lives(cluster.hosts, "job@*") == running


# --- Growing ---------------------------------------------------------------------------------------------------------


def start_growing(cluster: Cluster, slow: str) -> tuple[Host, Host, Host, dict[str, list[Life]]]:
    """One voter and a standby, until a third host joins: then the standby is promoted, and the log of one of the two is
    slow. Returns when the leader has the promotion in mind: the three hosts, and what runs."""
    one = cluster.hosts[0]
    # Of equals the first by machine id is promoted first.
    second, third = sorted((host for host in cluster.lab.hosts if host is not one), key=lambda host: host.machine_id)
    cluster.add(second)
    load_faults(cluster, [one, second])
    cluster.wait_ready(2)
    running = prepare(cluster)
    wait_until(lambda: roles(one), 30, f"{second.name} to stand by",
               accept=lambda now: now == {one.machine_id: "voter", second.machine_id: "standby"})
    cluster.configure_joining(third, one)
    cluster.install(third)
    cluster.hosts.append(third)
    faults.set_faults({"leader": one, "second": second}[slow], log_ms=SLOW_MS)
    third.systemctl("start", "--no-block", "fleetd")
    wait_votes(one, [one, second])
    return one, second, third, running


def grow_and_kill(cluster: Cluster, killed: Sequence[str]) -> None:
    """The leader has written the promotion, the second has not."""
    one, second, third, running = start_growing(cluster, slow="second")
    begin = patience.now()
    pids = kill([{"leader": one, "second": second}[name] for name in killed])
    if second in pids:  # Before systemd starts it anew; otherwise it goes on writing until the leader is back.
        faults.set_faults(second)
    wait_back(pids)
    faults.set_faults(second)
    wait_done(cluster, third, "first.service")
    took_s = patience.now() - begin
    assert_well(cluster, running, 3)
    print(f"       {' and '.join(killed)} killed at the promotion: a write is acknowledged after {took_s:.1f} s, three "
          f"voters after {patience.now() - begin:.1f} s")


@lab_test(hosts=3, spare=2, conf=CONF, deadline_s=120)
def test_the_second_voter_is_killed_at_its_promotion(cluster: Cluster) -> None:
    grow_and_kill(cluster, ["second"])


@lab_test(hosts=3, spare=2, conf=CONF, deadline_s=120)
def test_the_leader_is_killed_at_the_promotion_of_the_second(cluster: Cluster) -> None:
    grow_and_kill(cluster, ["leader"])


@lab_test(hosts=3, spare=2, conf=CONF, deadline_s=120)
def test_both_are_killed_at_the_promotion_of_the_second(cluster: Cluster) -> None:
    grow_and_kill(cluster, ["leader", "second"])


@lab_test(hosts=3, spare=2, conf=CONF, deadline_s=120)
def test_the_second_voter_is_cut_off_at_its_promotion(cluster: Cluster) -> None:
    """It goes on, and still knows a leader when that one asks it for the vote that it does not know of."""
    one, second, third, running = start_growing(cluster, slow="leader")
    second.cut()
    time.sleep(2 * SLOW_MS / 1000)  # The length of the fault itself: the leader has the promotion on its disk then.
    assert voters_by(second) == {one.machine_id}
    assert voters_by(one) == {one.machine_id, second.machine_id}
    faults.set_faults(one)
    begin = patience.now()
    second.mend()
    wait_done(cluster, third, "first.service", "the cut")
    took_s = patience.now() - begin
    assert_well(cluster, running, 3)
    print(f"       second cut off at the promotion: a write is acknowledged {took_s:.1f} s after it can be reached again, "
          f"three voters after {patience.now() - begin:.1f} s")


# --- Shrinking -------------------------------------------------------------------------------------------------------


def shrink_and_kill(cluster: Cluster, left: int) -> None:
    """Three voters are to become one: the leader is killed when it means to be one of 'left', and has it not written yet."""
    cluster.wait_voters(3)
    load_faults(cluster, cluster.hosts)
    cluster.wait_ready(3)
    running = prepare(cluster)
    leader = cluster.wait_leader()
    faults.set_faults(leader, log_ms=SLOW_MS)
    cluster.ctl(cluster.others_of(leader)[0], "set", "voters=1")
    wait_until(lambda: voters_by(leader), 30, f"{leader.name} to have {left} of the voters in mind",
               accept=lambda now: len(now) == left)
    begin = patience.now()
    pids = kill([leader])
    faults.set_faults(leader)
    wait_back(pids)
    wait_done(cluster, cluster.others_of(leader)[0], "first.service")
    took_s = patience.now() - begin
    assert_well(cluster, running, 1)
    print(f"       the leader killed on the way to {left} of 3 voters: a write is acknowledged after {took_s:.1f} s, one "
          f"voter after {patience.now() - begin:.1f} s")


@lab_test(hosts=3, conf=CONF, deadline_s=120)
def test_the_leader_is_killed_on_the_way_from_three_voters_to_two(cluster: Cluster) -> None:
    shrink_and_kill(cluster, 2)


@lab_test(hosts=3, conf=CONF, deadline_s=120)
def test_the_leader_is_killed_on_the_way_from_two_voters_to_one(cluster: Cluster) -> None:
    shrink_and_kill(cluster, 1)


# --- By chance -------------------------------------------------------------------------------------------------------


def kills_by_chance(cluster: Cluster, rounds: int) -> None:
    """In each round to one voter and back to three, with one or two fleetds killed on each way and one disk that is slow."""
    seed = int(os.environ.get("FLEET_LAB_SEED", random.randrange(10**6)))
    dice = random.Random(seed)
    one = cluster.hosts[0]
    cluster.wait_voters(3)
    load_faults(cluster, cluster.hosts)
    cluster.wait_ready(3)
    running = prepare(cluster)
    writers = Writers(cluster, cluster.hosts)
    leaders, kills, slowest_s, slowest_change_s = set(), 0, 0.0, 0.0
    for turn in range(rounds):
        for count in (1, 3):
            struck, slow = dice.sample(cluster.hosts, dice.choice((1, 1, 2))), dice.choice(cluster.hosts)
            what = f"{struck} killed in round {turn}, {count} voters wanted, {slow.name} slow (seed {seed})"
            faults.set_faults(slow, log_ms=dice.choice((0, 100, 400)))
            begin = patience.now()
            cluster.ctl(dice.choice(cluster.hosts), "set", f"voters={count}")
            time.sleep(dice.uniform(0, 2))  # When it strikes is by chance.
            killed = patience.now()
            pids = kill(struck)
            if slow in struck:
                faults.set_faults(slow)
            wait_back(pids)
            wait_done(cluster, one, "beacon.service", what)
            slowest_s = max(slowest_s, patience.now() - killed)
            faults.set_faults(slow)
            wait_until(lambda: len(voters(cluster, one)), 30, f"the voters after {what}", accept=lambda now: now == count)
            slowest_change_s = max(slowest_change_s, patience.now() - begin)
            kills += len(struck)
            leaders.add(cluster.wait_leader().name)
            cluster.wait_ready(3)
            assert lives(cluster.hosts, "job@*") == running, what
    acknowledged, refused = writers.end()
    assert_well(cluster, running, 3)
    print(f"       seed {seed}: {2 * rounds} changes, {kills} kills; a write is acknowledged {slowest_s:.1f} s after one at "
          f"most, a change takes {slowest_change_s:.1f} s at most; {len(leaders)} hosts have led; {acknowledged} writes "
          f"acknowledged, none lost, {len(refused)} refused")
    assert acknowledged > 10 * rounds, acknowledged


@lab_test(hosts=3, conf=CONF, deadline_s=120)
def test_two_rounds_of_shrinking_and_growing_with_a_kill_in_each(cluster: Cluster) -> None:
    kills_by_chance(cluster, 2)


@lab_test(hosts=3, conf=CONF, long=True, deadline_s=900)
def test_a_dozen_rounds_of_shrinking_and_growing_with_a_kill_in_each(cluster: Cluster) -> None:
    kills_by_chance(cluster, 12)
