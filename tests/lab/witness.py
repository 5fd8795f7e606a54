# SPDX-License-Identifier: Apache-2.0
"""What the hosts themselves say about units: asks each host's systemd, never fleet.

A unit's "life" is one start of it on one host. A test that says "nothing was restarted" compares lives before and
after: another start is another InvocationID, whoever asked for it and however short it was.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from fleet import Cluster, write_service
from lab import Host, wait_until

T = TypeVar("T")
PROPERTIES = ("Id", "ActiveState", "MainPID", "InvocationID", "NRestarts")
RUNNING = ("active", "activating", "reloading", "deactivating")


@dataclass(frozen=True)
class Life:
    """One start of a unit on a host."""

    unit: str
    host: str
    main_pid: int
    invocation: str
    restarts: int


def lives(hosts: Iterable[Host], *patterns: str) -> dict[str, list[Life]]:
    """The units of these names that run on these hosts, each with all its copies; hosts that are off have none."""
    found: dict[str, list[Life]] = {}
    for host in hosts:
        if not host.is_up:
            continue
        answer = host.systemctl("show", "-p", ",".join(PROPERTIES), "--", *patterns).stdout
        for block in filter(None, answer.split("\n\n")):
            value = dict(line.split("=", 1) for line in block.strip().splitlines())
            if value["ActiveState"] in RUNNING:
                life = Life(value["Id"], host.name, int(value["MainPID"]), value["InvocationID"],
                            int(value["NRestarts"]))
                found.setdefault(life.unit, []).append(life)
    return found


def homes(hosts: Iterable[Host], *patterns: str) -> dict[str, list[str]]:
    """The same by the names of the hosts alone."""
    return {unit: [life.host for life in copies] for unit, copies in lives(hosts, *patterns).items()}


def wait_once_each(hosts: Sequence[Host], units: Iterable[str], deadline_s: float,
                   what: str = "") -> dict[str, list[Life]]:
    """Waits until every one of the units runs exactly once on these hosts."""
    wanted = sorted(units)

    def not_once() -> dict[str, list[str]]:
        now = homes(hosts, *wanted)
        return {unit: now.get(unit, []) for unit in wanted if len(now.get(unit, [])) != 1}

    wait_until(not_once, deadline_s, what or f"{len(wanted)} units to run once each", accept=lambda wrong: not wrong)
    return lives(hosts, *wanted)


def start_jobs(cluster: Cluster, names: Sequence[str]) -> dict[str, list[Life]]:
    """Starts these instances of job@.service, and nothing else, on three hosts that are well; returns where they run."""
    one = cluster.hosts[0]
    cluster.wait_ready(3)
    cluster.wait_voters(3)
    cluster.ctl(one, "destroy", "*")
    write_service(one, "job@.service")
    cluster.ctl(one, "start", *(f"/root/units/{name}" for name in names))
    return wait_once_each(cluster.hosts, names, 10)


def assert_stays(probe: Callable[[], T], seconds: float, what: str) -> None:
    """The opposite of wait_until: what 'probe' says now, it goes on saying for so long."""
    first = probe()
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        now = probe()
        assert now == first, f"{what} changed: {first!r} became {now!r}"
        time.sleep(0.1)


def of_host(found: dict[str, list[Life]], *hosts: Host) -> dict[str, list[Life]]:
    """Of these lives, those on these hosts."""
    names = [host.name for host in hosts]
    return {unit: here for unit, copies in found.items() if (here := [life for life in copies if life.host in names])}


def fleetd_pid(host: Host) -> int:
    return host.main_pid("fleetd.service")
