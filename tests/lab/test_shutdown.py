# SPDX-License-Identifier: Apache-2.0
"""A host is shut down or rebooted through systemd-logind: what can move runs elsewhere first, while logind waits."""

from __future__ import annotations

import re
import subprocess
import time

from fleet import Cluster, write_service
from lab import Host, wait_until
from testing import Needs, lab_test
from witness import assert_stays, homes, lives, of_host, start_jobs, wait_once_each

SHARED = True
AGENT_TTL_S = 4
DELAY_S = 5  # logind's own InhibitDelayMaxSec=.
NEEDS = Needs(hosts=3, conf={"agent_ttl": f"{AGENT_TTL_S}s"})
NAMES = [f"job@{number}.service" for number in range(9)]
LOGIND = "systemd-logind.service"
CONF = "/etc/systemd/logind.conf.d/delay.conf"

# Says in its host's own disk, in one clock for all hosts, when it was up and when it had ended.
LOG = "/var/log/lives-%n"
UP = f"/bin/sh -c 'echo up $(date +%%s%%N) >>{LOG}'"
DOWN = f"/bin/sh -c 'echo down $(date +%%s%%N) >>{LOG}'"


def write_watched(host: Host, name: str, where: list[Host], xfleet: dict[str, str] = {}, slow_s: float = 0) -> str:
    """A service that may run on 'where' only, and takes so long to start."""
    service = {"ExecStartPost": UP, "ExecStopPost": DOWN}
    if slow_s:
        service["ExecStartPre"] = f"/bin/sleep {slow_s}"
    return write_service(host, name, xfleet | {"MachineMetadata": [f"hostname={one.name}" for one in where]},
                         service=service)


def said(host: Host, unit: str, word: str) -> float:
    """When this happened to the unit on this host last, in seconds; of a host that is down, too."""
    text = (host.dir / f"upper/var/log/lives-{unit}").read_text()
    return max(int(at) for what, at in re.findall(r"(\w+) (\d+)", text) if what == word) / 1e9


def holds(host: Host) -> bool:
    return "fleetd" in host.run(["systemd-inhibit", "--list", "--no-legend"]).stdout


def wait_holding(*hosts: Host) -> None:
    for host in hosts:
        wait_until(lambda: holds(host), 15, f"fleetd of {host.name} to hold shutdowns up")


def give_logind(cluster: Cluster, *hosts: Host) -> None:
    """Hosts of the lab have none otherwise; a fleetd that runs already notices."""
    for host in hosts:
        host.run(["rm", "-f", f"/etc/systemd/system/{LOGIND}"])
        host.run(["systemctl", "daemon-reload"])
        host.systemctl("start", LOGIND)
    wait_holding(*hosts)


def begin(cluster: Cluster) -> None:
    for host in cluster.hosts:
        host.run(["sh", "-c", f"rm -f /var/log/lives-* {CONF}"])
    give_logind(cluster, *cluster.hosts)
    start_jobs(cluster, NAMES)


def set_delay(host: Host, seconds: float) -> None:
    host.write(CONF, f"[Login]\nInhibitDelayMaxSec={seconds}\n")
    host.systemctl("restart", LOGIND)
    wait_until(lambda: host.run(["busctl", "get-property", "org.freedesktop.login1", "/org/freedesktop/login1",
                                 "org.freedesktop.login1.Manager", "InhibitDelayMaxUSec"]).stdout.strip(), 10,
               "logind to have read it", accept=lambda text: text == f"t {int(seconds * 1e6)}")
    wait_holding(host)


def power_off(host: Host) -> float:
    """As an administrator does it; returns when it was asked for, once the host is off."""
    began = time.time()
    host.systemctl("poweroff")
    wait_until(lambda: not host.is_up, 60, f"{host.name} to be off")
    return began


def state_of(cluster: Cluster, host: Host) -> str:
    return next(machine.state for machine in cluster.machines(host) if machine.id == host.machine_id)


def start_on(cluster: Cluster, home: Host, *paths: str) -> None:
    """Starts units on one host, where several fit."""
    asked = cluster.hosts[0]
    others = [host.name for host in cluster.others_of(home)]
    cluster.ctl(asked, "cordon", *others)
    cluster.ctl(asked, "start", *paths)
    cluster.ctl(asked, "uncordon", *others)


def fleetd_said(host: Host, text: str) -> bool:
    return text in host.journal("fleetd", 2000)


def moves_first(cluster: Cluster, host: Host) -> None:
    begin(cluster)
    heir = cluster.others_of(host)[0]
    pair = [host, heir]
    start_on(cluster, host,
             write_watched(cluster.hosts[0], "slow.service", pair, slow_s=1),
             write_watched(cluster.hosts[0], "alone.service", pair, {"Conflicts": "alone*"}),
             write_watched(cluster.hosts[0], "leased.service", pair, {"OnDisconnect": "stop"}),
             write_watched(cluster.hosts[0], "stays.service", [host]))
    pairs = ["slow.service", "alone.service", "leased.service"]
    assert homes(cluster.hosts, *pairs, "stays.service") == {name: [host.name] for name in [*pairs, "stays.service"]}
    before = lives(cluster.hosts, *NAMES)

    began = power_off(host)
    after = wait_once_each(cluster.others_of(host), [*NAMES, *pairs], 2)  # No ttl is waited for.
    kept = of_host(before, *cluster.others_of(host))
    assert {unit: after[unit] for unit in kept} == kept
    moved_s = said(heir, "slow.service", "up") - began
    ended_s = said(host, "slow.service", "down") - began
    assert moved_s < ended_s, (moved_s, ended_s)
    for name in ("alone.service", "leased.service"):
        assert said(host, name, "down") < said(heir, name, "up"), name
    # What stays runs until all others have left, and no longer than that: nothing is held up for nothing.
    stayed_s = said(host, "stays.service", "down") - began
    assert moved_s < stayed_s < DELAY_S - 1, (moved_s, stayed_s)
    assert "is shutting down" in cluster.ctl(heir, "explain", "slow.service").stdout
    print(f"slow.service was up elsewhere after {moved_s:.2f} s; what stays was stopped after {stayed_s:.2f} s")
    host.boot()
    back(cluster, host)


def back(cluster: Cluster, host: Host) -> None:
    """It gets work again, and nobody has done anything for that."""
    cluster.wait_ready(3)
    give = write_service(cluster.hosts[0], "new.service", {"MachineID": host.machine_id})
    cluster.ctl(cluster.hosts[0], "start", give)
    assert homes(cluster.hosts, "new.service") == {"new.service": [host.name]}
    cluster.ctl(cluster.hosts[0], "destroy", "new.service")
    wait_holding(host)


@lab_test(deadline_s=120)
def test_what_can_move_runs_elsewhere_first(cluster: Cluster) -> None:
    cluster.wait_ready(3)
    moves_first(cluster, cluster.others_of(cluster.wait_leader())[0])
    wait_once_each(cluster.hosts, ["stays.service"], 10)


@lab_test(deadline_s=120)
def test_the_leader_is_shut_down(cluster: Cluster) -> None:
    cluster.wait_ready(3)
    cluster.wait_voters(3)
    leader = cluster.wait_leader()
    moves_first(cluster, leader)
    assert fleetd_said(leader, "stays.service stays on")  # It led to the end.


@lab_test(deadline_s=120)
def test_the_time_is_kept(cluster: Cluster) -> None:
    """What is not active elsewhere by then is stopped with its host, and goes on starting there."""
    begin(cluster)
    host = cluster.others_of(cluster.wait_leader())[0]
    heir = cluster.others_of(host)[0]
    set_delay(host, 2)
    start_on(cluster, host, write_watched(cluster.hosts[0], "slow.service", [host, heir]))
    # From now on it takes long to start.
    cluster.ctl(cluster.hosts[0], "destroy", "slow.service")
    heir.write("/etc/systemd/system/slow.service.d/slow.conf", "[Service]\nExecStartPre=/bin/sleep 8\n")
    start_on(cluster, host, write_watched(cluster.hosts[0], "slow.service", [host, heir]))
    began = power_off(host)
    stopped_s = said(host, "slow.service", "down") - began
    assert 1.4 < stopped_s < 3, stopped_s
    assert fleetd_said(host, "Not everything that can move has moved")
    wait_until(lambda: homes([heir], "slow.service"), 15, "the unit to run elsewhere",
               accept=lambda seen: seen == {"slow.service": [heir.name]})
    heir.run(["rm", "-r", "/etc/systemd/system/slow.service.d"])
    host.boot()
    back(cluster, host)
    print(f"with InhibitDelayMaxSec=2 units were stopped after {stopped_s:.2f} s")


@lab_test(deadline_s=120)
def test_a_shutdown_that_is_given_up(cluster: Cluster) -> None:
    begin(cluster)
    host = cluster.others_of(cluster.wait_leader())[0]
    others = cluster.others_of(host)
    # Somebody else's lock lasts longer than ours, and meanwhile the reboot becomes impossible.
    other = host.popen(["systemd-inhibit", "--what=shutdown", "--mode=delay", "--who=other", "sleep", "3"])
    wait_until(lambda: "other" in host.run(["systemd-inhibit", "--list"]).stdout, 10, "the other lock")
    host.systemctl("reboot")
    host.systemctl("mask", "--runtime", "reboot.target")
    wait_until(lambda: sorted(lives([host], *NAMES)), 10, "all to have left", accept=lambda seen: not seen)
    assert state_of(cluster, host) == "shutting-down"
    wait_until(lambda: fleetd_said(host, "not being shut down after all"), 10, "the end of it")
    other.wait(10)
    back(cluster, host)
    before = wait_once_each(cluster.hosts, NAMES, 5)
    assert not of_host(before, host)  # Nothing goes back.
    # And the next one is as the first one.
    start_on(cluster, host, write_watched(cluster.hosts[0], "again.service", [host, others[0]]))
    host.systemctl("unmask", "--runtime", "reboot.target")
    power_off(host)
    wait_once_each(others, [*NAMES, "again.service"], 2)
    assert said(others[0], "again.service", "up") < said(host, "again.service", "down")
    host.boot()
    back(cluster, host)


@lab_test(deadline_s=180)
def test_all_are_shut_down_together(cluster: Cluster) -> None:
    """Nothing bounces about: each unit is in the end where it was in the beginning."""
    begin(cluster)
    before = homes(cluster.hosts, *NAMES)
    began = time.time()
    asking = [host.popen(["systemctl", "poweroff"], stderr=subprocess.PIPE) for host in cluster.hosts]
    for process in asking:
        process.communicate(timeout=20)
    wait_until(lambda: not any(host.is_up for host in cluster.hosts), 60, "all to be off")
    print(f"all were off after {time.time() - began:.1f} s")
    for host in cluster.hosts:
        host.boot_begin()
    for host in cluster.hosts:
        host.boot_finish()
    cluster.wait_ready(3)
    wait_once_each(cluster.hosts, NAMES, 30)
    assert homes(cluster.hosts, *NAMES) == before
    wait_holding(*cluster.hosts)


@lab_test(deadline_s=120)
def test_without_a_leader_nothing_is_held_up(cluster: Cluster) -> None:
    begin(cluster)
    host, *others = cluster.hosts
    start_on(cluster, host, write_watched(host, "held.service", [host]))
    for other in others:
        other.power_cut()
    wait_until(lambda: cluster.status(host), 20, "no leader", accept=lambda text: text.startswith("no leader"))
    assert_stays(lambda: cluster.status(host).startswith("no leader"), 2.5, "that there is no leader")
    began = power_off(host)
    stopped_s = said(host, "held.service", "down") - began
    assert stopped_s < 1, stopped_s
    assert fleetd_said(host, "No leader is there to move units")
    for one in cluster.hosts:
        one.boot_begin()
    for one in cluster.hosts:
        one.boot_finish()
    cluster.wait_ready(3)
    wait_once_each(cluster.hosts, NAMES, 30)
    print(f"without a leader units were stopped after {stopped_s:.2f} s")


@lab_test(deadline_s=120)
def test_fleetd_is_stopped_and_the_host_is_not(cluster: Cluster) -> None:
    begin(cluster)
    before = lives(cluster.hosts, *NAMES)
    host = cluster.others_of(cluster.wait_leader())[0]
    host.systemctl("stop", "fleetd")
    assert not holds(host)
    assert_stays(lambda: lives(cluster.hosts, *NAMES), 2 * AGENT_TTL_S, "who runs what")
    host.systemctl("start", "fleetd")
    cluster.wait_ready(3)
    wait_holding(host)
    assert_stays(lambda: lives(cluster.hosts, *NAMES), 1, "who runs what")
    assert lives(cluster.hosts, *NAMES) == before


@lab_test(deadline_s=120)
def test_logind_and_the_bus_come_and_go(cluster: Cluster) -> None:
    begin(cluster)
    before = lives(cluster.hosts, *NAMES)
    host = cluster.hosts[1]

    def held_once() -> bool:
        lines = host.run(["systemd-inhibit", "--list", "--no-legend"], check=False).stdout.splitlines()
        return sum(line.startswith("fleetd") for line in lines) == 1

    for again in (["systemctl", "kill", "--signal=KILL", LOGIND], ["systemctl", "restart", LOGIND],
                  ["systemctl", "restart", "dbus"]):
        host.run(again)
        if again[-1] == "dbus":
            host.systemctl("restart", LOGIND)  # It does not outlive the bus by itself.
        wait_until(held_once, 20, f"the lock to be held once after {again}")

    host.write("/etc/fleet/fleet.conf.d/shutdown.conf", "drain_on_shutdown = no\n")
    host.systemctl("reload", "fleetd")
    wait_until(lambda: not holds(host), 10, "the lock to be let go of")
    host.run(["rm", "/etc/fleet/fleet.conf.d/shutdown.conf"])
    host.systemctl("reload", "fleetd")
    wait_holding(host)

    host.systemctl("mask", "--now", LOGIND)
    host.systemctl("restart", "fleetd")
    cluster.wait_ready(3)
    wait_until(lambda: fleetd_said(host, "No systemd-logind here"), 10, "a line about it")
    assert host.journal("fleetd", 2000).count("No systemd-logind here") < 10
    assert not host.is_active(LOGIND)  # Nor is it started because of us.
    assert lives(cluster.hosts, *NAMES) == before
    host.systemctl("unmask", LOGIND)
    give_logind(cluster, host)
