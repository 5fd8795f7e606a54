# SPDX-License-Identifier: Apache-2.0
"""How fast, measured against what systemd itself needs on the same hosts in the same run; and what idling costs."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import time

from fleet import Cluster, write_service
from lab import Host
from testing import Needs, lab_test
from witness import assert_stays, fleetd_pid, lives

SHARED = True
ALONE = True
MEASURES = True
NEEDS = Needs(hosts=3)

# Runs in a host: starts new units by turns with systemctl and with fleetctl, and prints how long each took, in seconds.
PAIRS = r"""
import json, subprocess, time
TEXT = "[Service]\nExecStart=/bin/sleep infinity\n"
def start(path, command):
    with open(path, "w") as file:
        file.write(TEXT)
    begin = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - begin
print(json.dumps([[start(f"/run/systemd/system/floor-{n}.service", ["systemctl", "start", f"floor-{n}.service"]),
                   start(f"/root/units/pair-{n}.service", ["fleetctl", "start", f"/root/units/pair-{n}.service"])]
                  for n in range(15)]))
"""
START_ONE_RATIO = 5
START_MANY_RATIO = 3
MANY = 300
IDLE_UNITS = 100
IDLE_S = 10
IDLE_CPU_PERCENT = 1.0
RSS_MIB = 25
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@lab_test(deadline_s=60)
def test_start_of_one_new_unit(cluster: Cluster) -> None:
    cluster.wait_voters(3)
    one = cluster.hosts[0]
    one.run(["mkdir", "-p", "/root/units"])
    pairs = json.loads(one.run(["python3", "-c", PAIRS]).stdout)
    floor_s, fleet_s = (statistics.median(times) for times in zip(*pairs))
    print(f"       one new unit: systemctl {floor_s * 1000:.0f} ms, fleetctl {fleet_s * 1000:.0f} ms, "
          f"{fleet_s / floor_s:.1f} times as long")
    assert len(lives(cluster.hosts, "pair-*")) == len(pairs)
    assert fleet_s < START_ONE_RATIO * floor_s
    cluster.ctl(one, "destroy", "pair-*")
    one.run(["sh", "-c", "systemctl stop 'floor-*' && rm /run/systemd/system/floor-*"])


def start_with_systemd(hosts: list[Host], round: int) -> float:
    """Starts the units without fleet, on all hosts at the same time; returns how long it took, and removes them."""
    share = MANY // len(hosts)
    for host in hosts:
        host.run(["sh", "-c", f"for n in $(seq {share}); do printf '[Service]\\nExecStart=/bin/sleep infinity\\n' "
                  f">/run/systemd/system/floor{round}-$n.service; done"])
    begin = time.monotonic()
    starting = [host.popen(["systemctl", "start", *(f"floor{round}-{n}.service" for n in range(1, share + 1))],
                           stdout=subprocess.DEVNULL) for host in hosts]
    assert [process.wait(60) for process in starting] == [0] * len(hosts)
    took_s = time.monotonic() - begin
    assert len(lives(hosts, f"floor{round}-*")) == share
    for host in hosts:
        host.run(["sh", "-c", f"systemctl stop 'floor{round}-*' && rm /run/systemd/system/floor{round}-*"])
    return took_s


def start_with_fleet(cluster: Cluster, round: int) -> float:
    one = cluster.hosts[0]
    one.run(["sh", "-c", f"for n in $(seq {MANY}); do printf '[Service]\\nExecStart=/bin/sleep infinity\\n' "
             f">/root/units/many{round}-$n.service; done"])
    begin = time.monotonic()
    cluster.ctl(one, "start", *(f"/root/units/many{round}-{n}.service" for n in range(1, MANY + 1)))
    took_s = time.monotonic() - begin
    running = lives(cluster.hosts, f"many{round}-*")
    assert len(running) == MANY and all(len(copies) == 1 for copies in running.values())
    cluster.ctl(one, "destroy", f"many{round}-*")
    assert not lives(cluster.hosts, f"many{round}-*")
    return took_s


@lab_test(deadline_s=120, long=True)
def test_start_of_300_units(cluster: Cluster) -> None:
    rounds = [(start_with_systemd(cluster.hosts, round), start_with_fleet(cluster, round)) for round in range(3)]
    floor_s, fleet_s = (statistics.median(times) for times in zip(*rounds))
    print(f"       {MANY} units: systemd {floor_s:.2f} s, fleet {fleet_s:.2f} s, {fleet_s / floor_s:.1f} times; "
          f"all rounds: {', '.join(f'{a:.2f}/{b:.2f}' for a, b in rounds)}")
    assert fleet_s < START_MANY_RATIO * floor_s


def cpu_ticks(host: Host) -> int:
    """What fleetd has used of the processor so far, by itself and for the kernel."""
    fields = host.read(f"/proc/{fleetd_pid(host)}/stat").rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def rss_mib(host: Host) -> float:
    status = dict(line.split(":", 1) for line in host.read(f"/proc/{fleetd_pid(host)}/status").splitlines())
    return int(status["VmRSS"].split()[0]) / 1024


@lab_test(deadline_s=60)
def test_idling_costs_next_to_nothing(cluster: Cluster) -> None:
    one = cluster.hosts[0]
    write_service(one, "idle@.service")
    cluster.ctl(one, "start", *(f"/root/units/idle@{n}" for n in range(IDLE_UNITS)))
    leader = cluster.wait_leader()
    before, begin = {host: cpu_ticks(host) for host in cluster.hosts}, time.monotonic()
    assert_stays(lambda: [host.is_up for host in cluster.hosts], IDLE_S, "which hosts are up")  # Asks no daemon.
    took_s = time.monotonic() - begin
    percent = {host: (cpu_ticks(host) - before[host]) / TICKS_PER_S / took_s * 100 for host in cluster.hosts}
    memory = {host: rss_mib(host) for host in cluster.hosts}
    for host in cluster.hosts:
        print(f"       idle with {IDLE_UNITS} units, {'leader' if host is leader else 'follower':8}: "
              f"{percent[host]:.2f} % of a core, {memory[host]:.1f} MiB resident")
    assert max(percent.values()) < IDLE_CPU_PERCENT
    assert max(memory.values()) < RSS_MIB
    cluster.ctl(one, "destroy", "idle@*")
