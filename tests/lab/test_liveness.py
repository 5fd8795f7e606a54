# SPDX-License-Identifier: Apache-2.0
"""A daemon that is silent is not a host that is dead: what runs there runs on, and is not started a second time."""

from __future__ import annotations

from fleet import Cluster, write_service
from lab import Host, wait_until
from testing import Needs, lab_test
from witness import Life, assert_stays, fleetd_pid, homes, lives, of_host, start_jobs, wait_once_each

SHARED = True
AGENT_TTL_S = 4
NEEDS = Needs(hosts=3, conf={"agent_ttl": f"{AGENT_TTL_S}s"})
NAMES = [f"job@{number}.service" for number in range(9)]


def state_of(cluster: Cluster, host: Host, asked: Host) -> str:
    return next(machine.state for machine in cluster.machines(asked) if machine.id == host.machine_id)


def hangs_and_returns(cluster: Cluster, host: Host, seconds: float) -> None:
    before = start_jobs(cluster, NAMES)
    others = cluster.others_of(host)
    host.run(["systemctl", "kill", "--signal=STOP", "fleetd"])
    try:
        if seconds > AGENT_TTL_S + 8:
            wait_until(lambda: state_of(cluster, host, others[0]), seconds, f"{host.name} to be known to hang",
                       accept=lambda state: state == "hung")
        assert_stays(lambda: lives(cluster.hosts, "job@*"), seconds, "who runs what")
    finally:
        host.run(["systemctl", "kill", "--signal=CONT", "fleetd"])
    cluster.wait_ready(3)
    assert_stays(lambda: lives(cluster.hosts, "job@*"), 1, "who runs what")
    assert lives(cluster.hosts, "job@*") == before


@lab_test(deadline_s=120)
def test_fleetd_of_the_leader_stopped_by_a_signal(cluster: Cluster) -> None:
    hangs_and_returns(cluster, cluster.wait_leader(), AGENT_TTL_S + 9)


@lab_test(deadline_s=120, long=True)  # The next but three sees a hung follower, too.
def test_fleetd_of_a_follower_stopped_by_a_signal(cluster: Cluster) -> None:
    hangs_and_returns(cluster, cluster.others_of(cluster.wait_leader())[0], 15)


@lab_test(deadline_s=180, long=True)
def test_fleetd_stopped_on_purpose_for_long(cluster: Cluster) -> None:
    """Of a follower and of the leader: with systemctl stop, for twice the ttl after that is known."""
    for pick in (lambda leader: cluster.others_of(leader)[0], lambda leader: leader):
        before = start_jobs(cluster, NAMES)
        host = pick(cluster.wait_leader())
        others = cluster.others_of(host)
        host.systemctl("stop", "fleetd")
        wait_until(lambda: state_of(cluster, host, others[0]), 20, f"{host.name} to be known as stopped",
                   accept=lambda state: state == "stopped")
        assert_stays(lambda: lives(cluster.hosts, "job@*"), 2 * AGENT_TTL_S, "who runs what")
        host.systemctl("start", "fleetd")
        cluster.wait_ready(3)
        assert_stays(lambda: lives(cluster.hosts, "job@*"), 1, "who runs what")
        assert lives(cluster.hosts, "job@*") == before


@lab_test(deadline_s=120)
def test_a_host_that_dies_while_its_fleetd_is_stopped(cluster: Cluster) -> None:
    before = start_jobs(cluster, NAMES)
    host = cluster.others_of(cluster.wait_leader())[0]
    others = cluster.others_of(host)
    host.systemctl("stop", "fleetd")
    host.power_cut()
    after = wait_once_each(others, NAMES, AGENT_TTL_S + 5)
    kept = of_host(before, *others)
    assert {unit: after[unit] for unit in kept} == kept
    host.boot()
    cluster.wait_ready(3)


@lab_test(deadline_s=120)
def test_a_host_that_is_shut_down_in_order(cluster: Cluster) -> None:
    """fleetd is stopped then, too, but not only fleetd: its units are placed on others."""
    start_jobs(cluster, NAMES)
    host = cluster.others_of(cluster.wait_leader())[0]
    host.reboot()
    wait_once_each(cluster.hosts, NAMES, AGENT_TTL_S + 15)
    cluster.wait_ready(3)


@lab_test(deadline_s=120)
def test_leader_host_frozen(cluster: Cluster) -> None:
    before = start_jobs(cluster, NAMES)
    frozen = cluster.wait_leader()
    others = cluster.others_of(frozen)
    frozen.freeze()
    try:
        assert_stays(lambda: lives(others, "job@*"), 3 * AGENT_TTL_S, "who runs what")
    finally:
        frozen.thaw()
    cluster.wait_ready(3)
    assert_stays(lambda: lives(cluster.hosts, "job@*"), 1, "who runs what")
    assert lives(cluster.hosts, "job@*") == before


@lab_test(deadline_s=120)
def test_a_hung_host_that_dies_is_replaced(cluster: Cluster) -> None:
    before = start_jobs(cluster, NAMES)
    host = cluster.others_of(cluster.wait_leader())[0]
    others = cluster.others_of(host)
    host.run(["systemctl", "kill", "--signal=STOP", "fleetd"])
    wait_until(lambda: state_of(cluster, host, others[0]), 20, f"{host.name} to be known to hang",
               accept=lambda state: state == "hung")
    host.power_cut()
    after = wait_once_each(others, NAMES, AGENT_TTL_S + 8)
    kept = of_host(before, *others)
    assert {unit: after[unit] for unit in kept} == kept
    host.boot()
    cluster.wait_ready(3)


@lab_test(deadline_s=120)
def test_a_hung_host_dies_and_another_one_has_its_address(cluster: Cluster) -> None:
    """Then somebody accepts connections at its address, but that proves nothing."""
    before = start_jobs(cluster, NAMES)
    host, heir = cluster.others_of(cluster.wait_leader())
    others = cluster.others_of(host)
    host.run(["systemctl", "kill", "--signal=STOP", "fleetd"])
    wait_until(lambda: state_of(cluster, host, others[0]), 20, f"{host.name} to be known to hang",
               accept=lambda state: state == "hung")
    host.power_cut()
    device = heir.run(["sh", "-c", f"ip -o -4 address show to {heir.ip} | awk '{{ print $2 }}'"]).stdout.strip()
    heir.run(["ip", "address", "add", f"{host.ip}/24", "dev", device])
    try:
        for other in others:
            other.run(["ip", "neighbour", "flush", "to", host.ip])
        after = wait_once_each(others, NAMES, AGENT_TTL_S + 8)
        assert state_of(cluster, host, others[0]) == "lost"
    finally:
        heir.run(["ip", "address", "del", f"{host.ip}/24", "dev", device])
    kept = of_host(before, *others)
    assert {unit: after[unit] for unit in kept} == kept
    host.boot()
    for other in others:
        other.run(["ip", "neighbour", "flush", "to", host.ip])
    cluster.wait_ready(3)


@lab_test(deadline_s=120)
def test_a_host_that_reboots_within_the_ttl(cluster: Cluster) -> None:
    """Nobody has missed it, but nothing runs there any more: its units are started again, there and at once."""
    before = start_jobs(cluster, NAMES)
    host = cluster.others_of(cluster.wait_leader())[0]
    mine = of_host(before, host)
    host.power_cut()
    host.boot()
    wait_until(lambda: homes([host], "job@*"), AGENT_TTL_S + 10, "its units to run again",
               accept=lambda seen: sorted(seen) == sorted(mine))
    after = wait_once_each(cluster.hosts, NAMES, 10)
    kept = of_host(before, *cluster.others_of(host))
    assert {unit: after[unit] for unit in kept} == kept
    assert fleetd_pid(host)
