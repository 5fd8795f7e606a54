# SPDX-License-Identifier: Apache-2.0
"""Leaders, hosts and networks fail: units that need not move do not, those that must run elsewhere once each."""

from __future__ import annotations

import patience
from fleet import Cluster, write_service
from lab import Host, wait_until
from testing import Needs, lab_test
from witness import Life, assert_stays, homes, lives, of_host, wait_once_each

SHARED = True
ALONE = True
AGENT_TTL_S = 3
NEEDS = Needs(hosts=3, conf={"agent_ttl": f"{AGENT_TTL_S}s"})
NEW_LEADER_S = 3


def start_jobs(cluster: Cluster, count: int) -> dict[str, list[Life]]:
    """Starts so many equal units, and nothing else; returns where they run."""
    for host in cluster.hosts:  # Whatever a failed test before this one has left.
        if not host.is_up:
            host.boot()
        host.thaw()
        host.mend()
    cluster.wait_ready(3)
    cluster.wait_voters(3)
    one = cluster.hosts[0]
    cluster.ctl(one, "destroy", "*")
    write_service(one, "job@.service")
    names = [f"job@{number}.service" for number in range(count)]
    cluster.ctl(one, "start", *(f"/root/units/{name}" for name in names))
    running = wait_once_each(cluster.hosts, names, 5)
    for host in cluster.hosts:
        assert of_host(running, host), f"nothing runs on {host.name}"
    return running


def others_of(cluster: Cluster, *hosts: Host) -> list[Host]:
    return [host for host in cluster.hosts if host not in hosts]


def nothing_left_over(host: Host) -> bool:
    return host.run(["ls", "/run/fleet/units"]).stdout == "" and not lives([host], "job@*")


@lab_test(deadline_s=60)
def test_leader_killed_while_100_units_run(cluster: Cluster) -> None:
    before = start_jobs(cluster, 100)
    leader = cluster.wait_leader()
    others = others_of(cluster, leader)
    written = write_service(others[0], "after.service", {"MachineID": others[1].machine_id})

    begin = patience.now()
    # And kept down: the others have to do it.
    leader.run(["systemctl", "kill", "--signal=KILL", "fleetd"])
    leader.run(["systemctl", "stop", "fleetd"])
    wait_until(lambda: [host for host in others if cluster.status(host).startswith("leader")], 40, "a new leader")
    took_s = patience.now() - begin
    print(f"       a new leader after {took_s:.2f} s", end="")
    assert took_s < NEW_LEADER_S, f"a new leader took {took_s:.2f} s"
    cluster.ctl(others[0], "start", written)
    print(f", the next write done after {patience.now() - begin:.2f} s")
    assert others[1].is_active("after.service")
    leader.systemctl("start", "fleetd")
    cluster.wait_ready(3)
    assert_stays(lambda: lives(cluster.hosts, "job@*"), 1, "who runs what")
    assert lives(cluster.hosts, "job@*") == before


@lab_test(deadline_s=60)
def test_power_cut_of_the_leader(cluster: Cluster) -> None:
    before = start_jobs(cluster, 12)
    crashed = cluster.wait_leader()
    others = others_of(cluster, crashed)

    begin = patience.now()
    crashed.power_cut()
    # The new leader gives every host its full time to call, counted from when it leads.
    after = wait_once_each(others, before, NEW_LEADER_S + AGENT_TTL_S + 2)
    print(f"       the units of a crashed leader ran elsewhere after {patience.now() - begin:.1f} s")
    assert {unit: after[unit] for unit in of_host(before, *others)} == of_host(before, *others)

    crashed.boot()
    cluster.wait_ready(3)
    assert_stays(lambda: lives(cluster.hosts, "job@*"), 1, "who runs what")
    assert lives(cluster.hosts, "job@*") == after
    assert nothing_left_over(crashed)


@lab_test(deadline_s=60)
def test_network_cut_of_a_follower(cluster: Cluster) -> None:
    before = start_jobs(cluster, 12)
    leader = cluster.wait_leader()
    lone = others_of(cluster, leader)[0]
    others = others_of(cluster, lone)

    lone.cut()
    try:
        after = wait_once_each(others, before, AGENT_TTL_S + 2)
        assert {unit: after[unit] for unit in of_host(before, *others)} == of_host(before, *others)
        # OnDisconnect=keep: it runs on where it was, too.
        assert lives([lone], "job@*") == of_host(before, lone)
    finally:
        lone.mend()
    cluster.wait_ready(3)
    wait_until(lambda: lives(cluster.hosts, "job@*"), 10, "the extra copies to end", accept=lambda now: now == after)
    assert_stays(lambda: lives(cluster.hosts, "job@*"), 1, "who runs what")
    assert nothing_left_over(lone)


@lab_test(deadline_s=90)
def test_majority_lost(cluster: Cluster) -> None:
    before = start_jobs(cluster, 12)
    survivor = others_of(cluster, cluster.wait_leader())[0]
    lost = others_of(cluster, survivor)
    placed = homes(cluster.hosts, "job@*")
    new = write_service(survivor, "new.service")

    for host in lost:
        host.power_cut()
    wait_until(lambda: cluster.status(survivor), 10, "the survivor to notice", accept=lambda s: "no leader" in s)
    begin = patience.now()
    refused = cluster.ctl(survivor, "start", new, check=False)
    took_s = patience.now() - begin
    assert refused.returncode == 1 and "no leader" in refused.stderr and not refused.stdout, refused
    assert took_s < 10, f"a write was refused after {took_s:.1f} s only"
    print(f"       without a majority, a write was refused after {took_s:.1f} s: {refused.stderr.splitlines()[0]}")
    listed = cluster.ctl(survivor, "list-units", "--no-legend", "--full")
    assert listed.stderr.startswith("WARNING:") and "out of date" in listed.stderr, listed.stderr
    # What it does list is true.
    own = {line.split()[0] for line in listed.stdout.splitlines() if f"{survivor.machine_id}/" in line}
    assert own == set(of_host(before, survivor)), listed.stdout
    assert cluster.ctl(survivor, "cat", "job@0").stdout
    assert_stays(lambda: lives([survivor], "job@*"), 2 * AGENT_TTL_S, "what the survivor runs")
    assert lives([survivor], "job@*") == of_host(before, survivor)

    for host in lost:
        host.boot_begin()
    for host in lost:
        host.boot_finish()
    cluster.wait_ready(3)
    wait_until(lambda: homes(cluster.hosts, "job@*"), 15, "all units to run where they were",
               accept=lambda now: now == placed)
    assert lives([survivor], "job@*") == of_host(before, survivor)
    assert cluster.ctl(survivor, "cat", "new.service", check=False).returncode == 4
    cluster.ctl(survivor, "start", new)
