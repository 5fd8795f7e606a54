# SPDX-License-Identifier: Apache-2.0
"""The daemon's life and its units' lives are separate: whatever happens to fleetd, units run on and are adopted."""

from __future__ import annotations

import random

import patience
from fleet import Cluster, write_service
from lab import Host, wait_until
from testing import Needs, lab_test
from witness import assert_stays, fleetd_pid, homes, lives, of_host, wait_once_each

SHARED = True
# Time enough for a daemon to be away without being taken for dead.
NEEDS = Needs(hosts=3, conf={"agent_ttl": "30s"})
NAMES = [f"job@{number}.service" for number in range(9)]


def start_jobs(cluster: Cluster) -> None:
    write_service(cluster.hosts[0], "job@.service")
    cluster.ctl(cluster.hosts[0], "start", *(f"/root/units/{name}" for name in NAMES))


def wait_back(cluster: Cluster, host: Host, old_pid: int) -> None:
    """Waits until the host's fleetd is another than before, and its cluster has it again."""
    wait_until(lambda: fleetd_pid(host), 20, f"a new fleetd on {host.name}",
               accept=lambda pid: pid not in (0, old_pid))
    cluster.wait_leader()
    cluster.wait_ready(3)
    # And it says itself what its units do.
    mine = sorted(of_host(lives(cluster.hosts, "job@*"), host))
    wait_until(lambda: sorted(u.name for u in cluster.units(host)
                              if u.machine == host.machine_id and u.active == "active" and u.name in NAMES), 10,
               f"{host.name} to report its units", accept=lambda seen: seen == mine)


def write_counting_service(host: Host, name: str, version: int, home: Host) -> str:
    """A service that leaves a line, with its version, wherever and whenever it is started."""
    return write_service(host, name, {"MachineID": home.machine_id},
                         execstart=f"/bin/sh -c 'echo version {version} >>/var/starts-%n; exec sleep infinity'")


def starts(host: Host, unit: str) -> list[str]:
    return host.read(f"/var/starts-{unit}").splitlines()


@lab_test(deadline_s=120)
def test_units_run_on_when_fleetd_ends_and_returns(cluster: Cluster) -> None:
    start_jobs(cluster)
    before = wait_once_each(cluster.hosts, NAMES, 5)
    for host in cluster.hosts:
        for way in ("stop", "kill", "restart"):
            pid = fleetd_pid(host)
            if way == "stop":
                host.systemctl("stop", "fleetd")
                assert host.show("fleetd", "Result") == "success", "fleetd crashed while it stopped"
                assert fleetd_pid(host) == 0 and lives(cluster.hosts, "job@*") == before
                host.systemctl("start", "fleetd")
            elif way == "kill":
                host.systemctl("kill", "--signal=KILL", "fleetd")
            else:
                host.systemctl("restart", "fleetd")
            wait_back(cluster, host, pid)
            assert lives(cluster.hosts, "job@*") == before, f"after {way} on {host.name}"


@lab_test(deadline_s=60)
def test_adopted_units_obey(cluster: Cluster) -> None:
    start_jobs(cluster)
    before = lives(cluster.hosts, "job@*")
    for host in cluster.hosts:
        pid = fleetd_pid(host)
        host.systemctl("kill", "--signal=KILL", "fleetd")
        wait_back(cluster, host, pid)
    for host in cluster.hosts:
        unit = sorted(of_host(before, host))[0]
        cluster.ctl(host, "stop", unit)
        assert not host.is_active(unit)
        cluster.ctl(host, "start", unit)
        after = lives(cluster.hosts, "job@*")
        assert [life.host for life in after[unit]] == [host.name] and after[unit] != before[unit]
        before[unit] = after[unit]
        assert after == before


@lab_test(deadline_s=60)
def test_an_adopted_unit_that_dies_is_noticed(cluster: Cluster) -> None:
    """It is watched again, not only listed."""
    start_jobs(cluster)
    host = cluster.hosts[1]
    unit = sorted(of_host(lives(cluster.hosts, "job@*"), host))[0]
    host.run(["systemctl", "kill", "--signal=KILL", unit])
    wait_until(lambda: [u.active for u in cluster.units(cluster.hosts[0]) if u.name == unit], 20,
               "the failed unit to be listed so", accept=lambda seen: seen == ["failed"])
    cluster.ctl(cluster.hosts[0], "stop", unit)
    cluster.ctl(cluster.hosts[0], "start", unit)
    assert host.is_active(unit)


@lab_test(deadline_s=60)
def test_start_starts_what_does_not_run_and_nothing_else(cluster: Cluster) -> None:
    """What failed, or was stopped by an operator on its host; what runs keeps its life."""
    start_jobs(cluster)
    one = cluster.hosts[0]
    before = lives(cluster.hosts, "job@*")
    victim, stopped = sorted(of_host(before, cluster.hosts[1]))[:2]
    cluster.hosts[1].run(["systemctl", "kill", "--signal=KILL", victim])
    cluster.hosts[1].systemctl("stop", stopped)
    wait_until(lambda: sorted(lives(cluster.hosts, "job@*")), 20, "two units to end",
               accept=lambda seen: seen == sorted(set(before) - {victim, stopped}))
    cluster.ctl(one, "start", *NAMES)
    after = lives(cluster.hosts, "job@*")
    assert [life.host for life in after.pop(victim) + after.pop(stopped)] == [cluster.hosts[1].name] * 2
    assert after == {unit: copies for unit, copies in before.items() if unit not in (victim, stopped)}


@lab_test(deadline_s=60)
def test_what_was_changed_while_fleetd_was_down(cluster: Cluster) -> None:
    start_jobs(cluster)
    for home in cluster.hosts[1:]:  # The first one is where the changes come from.
        one = cluster.hosts[0]
        cluster.ctl(one, "start", *(write_counting_service(one, f"{name}-{home.name}.service", 1, home)
                                    for name in ("gone", "stopped", "replaced", "same")))
        before = lives(cluster.hosts, f"*-{home.name}.service", "job@*")
        gone, stopped, replaced = (f"{name}-{home.name}.service" for name in ("gone", "stopped", "replaced"))

        home.systemctl("stop", "fleetd")
        cluster.ctl(one, "destroy", "--no-block", gone)
        cluster.ctl(one, "stop", "--no-block", stopped)
        changed = write_counting_service(one, replaced, 2, home)
        cluster.ctl(one, "start", "--no-block", "--replace", changed)
        assert lives(cluster.hosts, f"*-{home.name}.service", "job@*") == before
        home.systemctl("start", "fleetd")

        wait_until(lambda: starts(home, replaced), 10, "the replaced unit to run again",
                   accept=lambda seen: seen[-1] == "version 2")
        wait_until(lambda: homes(cluster.hosts, gone, stopped), 10, f"{gone} and {stopped} to end",
                   accept=lambda seen: not seen)
        assert_stays(lambda: lives(cluster.hosts, f"*-{home.name}.service", "job@*"), 1, "who runs what")
        after = lives(cluster.hosts, f"*-{home.name}.service", "job@*")
        assert starts(home, replaced) == ["version 1", "version 2"]
        assert [life.host for life in after.pop(replaced)] == [home.name]
        for unit in (gone, stopped, replaced):
            del before[unit]
        assert after == before
        assert home.show(gone, "LoadState") == "not-found" and home.show(stopped, "LoadState") == "loaded"
        assert gone not in home.run(["ls", "/run/fleet/units"]).stdout
        cluster.ctl(one, "destroy", f"*-{home.name}.service")
        home.run(["sh", "-c", "rm /var/starts-*"])


@lab_test(deadline_s=60)
def test_all_daemons_killed_at_once(cluster: Cluster) -> None:
    start_jobs(cluster)
    before = lives(cluster.hosts, "job@*")
    assert sorted(before) == NAMES

    def as_listed() -> tuple[list[str], list[str]]:
        return tuple(sorted(cluster.ctl(cluster.hosts[0], verb, "--full", "--no-legend", "--fields", fields)
                            .stdout.splitlines())
                     for verb, fields in (("list-units", "unit,load,active,sub,machine,hash"),
                                          ("list-unit-files", "unit,hash,dstate,state,target,desc")))

    listed = as_listed()
    pids = [fleetd_pid(host) for host in cluster.hosts]
    killing = [host.popen(["systemctl", "kill", "--signal=KILL", "fleetd"]) for host in cluster.hosts]
    assert [process.wait(10) for process in killing] == [0, 0, 0]
    for host, pid in zip(cluster.hosts, pids):
        wait_back(cluster, host, pid)
    wait_until(as_listed, 10, "the lists to be as before", accept=lambda seen: seen == listed)
    assert_stays(lambda: lives(cluster.hosts, "job@*"), 1, "who runs what")
    assert lives(cluster.hosts, "job@*") == before
    cluster.ctl(cluster.hosts[0], "destroy", "job@*")


@lab_test(deadline_s=60)
def test_leader_frozen_for_less_than_the_ttl(cluster: Cluster) -> None:
    start_jobs(cluster)
    before = wait_once_each(cluster.hosts, NAMES, 5)
    frozen = cluster.wait_leader()
    others = [host for host in cluster.hosts if host is not frozen]
    frozen.freeze()
    try:
        assert_stays(lambda: lives(others, "job@*"), 5, "who runs what")
    finally:
        frozen.thaw()
    cluster.wait_leader()
    cluster.wait_ready(3)
    assert_stays(lambda: lives(cluster.hosts, "job@*"), 1, "who runs what")
    assert lives(cluster.hosts, "job@*") == before


@lab_test(deadline_s=60)
def test_a_host_that_reboots_long_before_the_ttl(cluster: Cluster) -> None:
    """Its earlier boot is still connected, as the leader sees it, and has not been silent for long."""
    start_jobs(cluster)
    before = wait_once_each(cluster.hosts, NAMES, 5)
    leader = cluster.wait_leader()
    host = next(host for host in cluster.hosts if host is not leader)
    begin = patience.now()
    host.power_cut()
    host.boot()
    wait_until(lambda: homes([host], "job@*"), 8, "its units to run again",
               accept=lambda seen: sorted(seen) == sorted(of_host(before, host)))
    print(f"       the units of a host that lost its power ran there again after {patience.now() - begin:.1f} s")
    others = [other for other in cluster.hosts if other is not host]
    assert lives(others, "job@*") == of_host(before, *others)


# Tries to store one unit after the other, and writes down which were acknowledged.
LEDGER = r"""i=0
while ! [ -e /run/ledger-end ]; do
    i=$((i + 1))
    cp /root/units/entry.service /root/units/NAME-$i.service
    if fleetctl submit /root/units/NAME-$i.service 2>>/root/ledger-errors; then
        echo NAME-$i.service >>/root/ledger
    else
        sleep 0.05
    fi
done >/dev/null"""


@lab_test(deadline_s=180)
def test_what_was_acknowledged_outlives_kills(cluster: Cluster) -> None:
    start_jobs(cluster)
    before = wait_once_each(cluster.hosts, NAMES, 5)
    seed = random.randrange(10**6)
    dice = random.Random(seed)
    for host in cluster.hosts:
        write_service(host, "entry.service")
        host.write("/root/ledger", "")
    # One client on each host, so that somebody can always write: a host alone is away for most of the time.
    clients = [host.popen(["sh", "-c", LEDGER.replace("NAME", f"entry-{host.name}")]) for host in cluster.hosts]

    def acknowledged() -> list[str]:
        return [unit for host in cluster.hosts for unit in host.read("/root/ledger").split()]

    try:
        for _ in range(5):
            for _ in range(2):  # The second before the first is back for sure: a majority may be away for a moment.
                host = dice.choice(cluster.hosts)
                pid = wait_until(lambda: fleetd_pid(host), 20, f"fleetd on {host.name} to be back")
                host.run(["systemctl", "kill", "--signal=KILL", "fleetd"])
                wait_until(lambda: fleetd_pid(host), 20, f"fleetd on {host.name} to be another (seed {seed})",
                           accept=lambda now: now not in (0, pid))
            so_far = len(acknowledged())
            wait_until(lambda: len(acknowledged()), 30, f"writes to be accepted again (seed {seed})",
                       accept=lambda count: count > so_far)
    finally:
        for host in cluster.hosts:
            host.write("/run/ledger-end", "")
        for client in clients:
            client.wait(60)
    cluster.wait_ready(3)
    print(f"       seed {seed}: {len(acknowledged())} units acknowledged")
    for host in cluster.hosts:
        stored = cluster.ctl(host, "list-unit-files", "--no-legend", "--fields=unit", "entry-*").stdout.split()
        assert not set(acknowledged()) - set(stored), f"lost, as {host.name} says (seed {seed})"
        assert len(stored) == len(set(stored)), f"listed twice (seed {seed})"
    assert lives(cluster.hosts, "job@*") == before
    assert len(cluster.ctl(cluster.hosts[0], "cat", acknowledged()[-1]).stdout) > 10
