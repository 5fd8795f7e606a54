# SPDX-License-Identifier: Apache-2.0
"""Copies of a unit that write down when they began and when they were last alive, by the kernel's clock, which all
hosts of a lab share: for what may never run twice. ExecStart=/usr/bin/python3 /root/copy.py %n obeys"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from lab import Host

# Says that it lives a hundred times in a second; 'ignores': also while it is asked to stop.
COPY = """\
import os, signal, sys, time
if sys.argv[2] == "ignores":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
begin = time.clock_gettime(time.CLOCK_MONOTONIC)
with open(f"/root/copies/{sys.argv[1]}-{begin:.6f}", "w") as f:
    while True:
        now = time.clock_gettime(time.CLOCK_MONOTONIC)
        os.pwrite(f.fileno(), f"{begin:016.6f} {now:016.6f} {os.environ.get('FLEET_TOKEN', 0)}\\n".encode(), 0)
        time.sleep(0.01)
"""


def prepare(hosts: Iterable[Host]) -> None:
    """Installs it, and forgets what there was before."""
    for host in hosts:
        host.run(["sh", "-c", "rm -rf /root/copies; mkdir /root/copies"])
        host.write("/root/copy.py", COPY)


class Copy(NamedTuple):
    """One copy of a unit, from its first breath to its last."""

    begin: float
    end: float
    token: int
    host: str


def copies(hosts: Iterable[Host], unit: str) -> list[Copy]:
    """All that there ever were, by their begin."""
    found = []
    for host in hosts:
        for line in host.run(["sh", "-c", f"cat /root/copies/{unit}-* 2>/dev/null || true"]).stdout.splitlines():
            begin, end, token = line.split()
            found.append(Copy(float(begin), float(end), int(token), host.name))
    return sorted(found)


class Standstill(NamedTuple):
    """Of a host as a whole. What ran there may breathe once more when it goes on (docs/leases.md, The promise)."""

    host: str
    begin: float
    end: float


LAST_BREATH_S = 1.0


def is_excused(copy: Copy, begin: float, standstills: Iterable[Standstill]) -> bool:
    """Whether the copy stood still when another one began, and ended as soon as it went on."""
    return any(copy.host == still.host and still.begin <= begin <= still.end + LAST_BREATH_S
               and copy.end <= still.end + LAST_BREATH_S for still in standstills)


def assert_alone(hosts: list[Host], units: Iterable[str], apart_s: float = 0,
                 standstills: Iterable[Standstill] = ()) -> None:
    """No copy began while another one lived, or until so long after that; and each new place has a greater token."""
    for unit in units:
        found = copies(hosts, unit)
        assert found, f"{unit} never ran"
        for earlier, later in zip(found, found[1:]):
            assert earlier.end + apart_s < later.begin or is_excused(earlier, later.begin, standstills), \
                f"two copies of {unit} at a time: {earlier} and {later}"
            assert later.token > earlier.token if earlier.host != later.host else later.token >= earlier.token, found
