# SPDX-License-Identifier: Apache-2.0
"""Random faults, while a client on each host writes down what fleet has acknowledged to it. In the end all of that is
so: nothing is lost, nothing runs twice, what asks for that not for a moment; and nothing was moved or restarted that did
not have to be.

FLEET_LAB_SEED=N draws the same faults again."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable

import patience
from breath import Standstill, assert_alone, copies, prepare
from fleet import Cluster, write_service
from lab import Host, wait_until
from testing import lab_test
from witness import Life, fleetd_pid, homes, lives, wait_once_each

AGENT_TTL_S = 3
CONF = {"agent_ttl": f"{AGENT_TTL_S}s"}
NAMES = [f"job@{number}.service" for number in range(15)]
LEASED = [f"leased@{number}.service" for number in range(5)]  # OnDisconnect=stop.

# Starts one unit after the other and destroys each some time later. What it tries is on the disk before it is tried,
# and what was acknowledged right after. It goes on after a boot, with other names.
CLIENT = """#!/bin/sh
run=$(($(grep -c . /root/ledger) + 1))
i=0
try() {
    echo "try $1 $2" >>/root/ledger
    if [ "$1" = start ]; then set -- "$1" "$2" "/root/units/$2"; else set -- "$1" "$2" "$2"; fi
    if timeout 20 fleetctl "$1" --no-block "$3" >/dev/null 2>&1; then echo "did $1 $2" >>/root/ledger; fi
}
while ! [ -e /root/ledger-end ]; do
    i=$((i + 1))
    cp /root/units/entry.service "/root/units/entry-HOST-$run-$i.service"
    try start "entry-HOST-$run-$i.service"
    [ $i -le 3 ] || try destroy "entry-HOST-$run-$((i - 3)).service"
    sleep 0.1
done
"""
CLIENT_UNIT = """[Service]
ExecStart=/bin/sh /root/client.sh
[Install]
WantedBy=multi-user.target
"""


def ledger(hosts: list[Host]) -> dict[str, tuple[str, bool]]:
    """What each client tried last with each of its units, and whether that was acknowledged."""
    units: dict[str, tuple[str, bool]] = {}
    for host in hosts:
        for line in host.read("/root/ledger").splitlines():
            how, what, unit = line.split()
            units[unit] = (what, how == "did")
    return units


def start_clients(cluster: Cluster) -> None:
    for host in cluster.hosts:
        write_service(host, "entry.service")
        host.write("/root/ledger", "")
        host.write("/root/client.sh", CLIENT.replace("HOST", host.name))
        host.write("/etc/systemd/system/client.service", CLIENT_UNIT)
        host.run(["sh", "-c", "systemctl daemon-reload && systemctl enable --quiet --now client"])


def stop_clients(cluster: Cluster) -> None:
    for host in cluster.hosts:
        host.write("/root/ledger-end", "")
    for host in cluster.hosts:
        wait_until(lambda: host.show("client", "ActiveState"), 60, f"the client on {host.name} to end",
                   accept=lambda state: state == "inactive")


# --- Faults ----------------------------------------------------------------------------------------------------------


def is_back(host: Host, pid: int) -> None:
    wait_until(lambda: fleetd_pid(host), 20, f"another fleetd on {host.name}", accept=lambda now: now not in (0, pid))


def kill(host: Host) -> Callable[[], None]:
    pid = fleetd_pid(host)
    host.systemctl("kill", "--signal=KILL", "fleetd")
    return lambda: is_back(host, pid)


def stop(host: Host) -> Callable[[], None]:
    host.systemctl("kill", "--signal=STOP", "fleetd")
    return lambda: host.systemctl("kill", "--signal=CONT", "fleetd") and None


def freeze(host: Host) -> Callable[[], None]:
    host.freeze()
    return host.thaw


def cut(host: Host) -> Callable[[], None]:
    host.cut()
    return host.mend


def deafen(host: Host) -> Callable[[], None]:
    for other in host.lab.hosts:
        if other is not host:
            host.block(other, one_way=True)
    return host.unblock


def power(host: Host) -> Callable[[], None]:
    host.power_cut()
    return host.boot


# Each begins at once, and returns what ends it.
FAULTS = (kill, stop, freeze, cut, deafen, power)
LOSES_UNITS = (power,)  # They are started again, there or elsewhere.
OUT_OF_REACH = (cut, deafen, power)  # Of the others: after the ttl its units run elsewhere.


def wrongly_changed(before: dict[str, list[Life]], after: dict[str, list[Life]],
                    faults: dict[str, tuple[Callable[[Host], Callable[[], None]], float]]) -> list[str]:
    """The units that were moved or restarted although the rules did not ask for it; 'faults': by host, which and how
    long it was out at most."""
    wrong = []
    for unit, [old] in before.items():
        [new] = after[unit]
        fault, out_s = faults.get(old.host, (None, 0))
        restarted = new.host == old.host and new != old and fault not in LOSES_UNITS
        moved = new.host != old.host and (fault not in OUT_OF_REACH or out_s < AGENT_TTL_S)
        if restarted or moved:
            wrong.append(f"{unit}: {old} became {new}, with {fault.__name__ if fault else 'nothing'} for {out_s:.1f} s")
    return wrong


def chaos(cluster: Cluster, seconds: float) -> None:
    seed = int(os.environ.get("FLEET_LAB_SEED", random.randrange(10**6)))
    dice = random.Random(seed)
    one = cluster.hosts[0]
    cluster.wait_voters(5)
    write_service(one, "job@.service")
    prepare(cluster.hosts)
    write_service(one, "leased@.service", {"OnDisconnect": "stop"}, service={"TimeoutStopSec": "1"},
                  execstart="/usr/bin/python3 /root/copy.py %n obeys")
    cluster.ctl(one, "start", *(f"/root/units/{name}" for name in NAMES + LEASED))
    running = wait_once_each(cluster.hosts, NAMES, 10)
    start_clients(cluster)
    told, moved, wrong, standstills = [], 0, [], []
    slowest_s = 0.0
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        struck = {host: dice.choice(FAULTS) for host in dice.sample(cluster.hosts, dice.choice((1, 1, 2)))}
        hold_s = dice.choice((0.2, 1.0, AGENT_TTL_S + 3.0))
        what = ", ".join(f"{fault.__name__} {host.name}" for host, fault in struck.items()) + f" for {hold_s} s"
        told.append(what)
        begin = time.monotonic()
        endings = [fault(host) for host, fault in struck.items()]
        time.sleep(hold_s)  # The length of the fault itself.
        for ending in endings:
            ending()
        mended, mended_s = patience.now(), time.monotonic()
        cluster.wait_ready(5, deadline_s=60)
        out_s = time.monotonic() - begin
        standstills += [Standstill(host.name, begin, mended_s) for host, fault in struck.items() if fault is freeze]
        wait_once_each(cluster.hosts, LEASED, 30, f"what needs a lease to run once each after {what} (seed {seed})")
        now = wait_once_each(cluster.hosts, NAMES, 30, f"all units to run once each after {what} (seed {seed})")
        slowest_s = max(slowest_s, patience.now() - mended)
        moved += sum(now[unit][0].host != copies[0].host for unit, copies in running.items())
        wrong += wrongly_changed(running, now, {host.name: (fault, out_s) for host, fault in struck.items()})
        running = now
    stop_clients(cluster)
    units = ledger(cluster.hosts)
    acknowledged = sum(done for _, done in units.values())
    print(f"       seed {seed}: {len(told)} faults, {len(units)} units of clients, the last word on {acknowledged} of "
          f"them acknowledged; {moved} moves, {len(wrong)} of them false; well again after {slowest_s:.1f} s at most")
    assert not wrong, f"seed {seed}: {wrong} in {told}"
    assert acknowledged > len(cluster.hosts), units

    started = {unit for unit, tried in units.items() if tried == ("start", True)}
    destroyed = {unit for unit, tried in units.items() if tried == ("destroy", True)}
    for host in cluster.hosts:
        stored = cluster.ctl(host, "list-unit-files", "--no-legend", "--fields=unit", "entry-*").stdout.split()
        assert not started - set(stored), f"lost, as {host.name} says (seed {seed}, {told})"
        assert not destroyed & set(stored), f"risen from the dead, as {host.name} says (seed {seed}, {told})"
    wait_once_each(cluster.hosts, started, 20, f"what was started to run once each (seed {seed}, {told})")
    wait_until(lambda: sorted(destroyed & set(homes(cluster.hosts, "entry-*"))), 20,
               f"what was destroyed to run no more (seed {seed}, {told})", accept=lambda left: not left)
    assert lives(cluster.hosts, "job@*") == running
    print(f"       {sum(len(copies(cluster.hosts, unit)) for unit in LEASED)} copies of {len(LEASED)} units that may not "
          "run twice")
    assert_alone(cluster.hosts, LEASED, standstills=standstills)


@lab_test(hosts=5, conf=CONF, deadline_s=240)
def test_random_faults(cluster: Cluster) -> None:
    chaos(cluster, 25)


@lab_test(hosts=5, conf=CONF, long=True, deadline_s=1200)
def test_random_faults_for_ten_minutes(cluster: Cluster) -> None:
    chaos(cluster, 600)
