# SPDX-License-Identifier: Apache-2.0
"""What a file of lab tests needs besides the lab itself.

A file tests/lab/test_*.py holds functions test_*(lab) or, with a cluster of fleet in it, test_*(cluster): the
parameter's name says which. Each gets hosts of its own; a module that says SHARED = True gets one lab for all its
functions, which then run in the order of the file. One that says ALONE = True measures: nothing runs beside it; with MEASURES = True,
it does nothing else, and is not run with sanitizers in what was built.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any


class NotHere(Exception):
    """Raised by a test that cannot be run here: what it needs is missing, and is nothing of fleet's. The text says what. It
    counts neither as passed nor as failed, and is told."""


@dataclass(frozen=True)
class Needs:
    """What a test asks for."""

    hosts: int = 3
    spare: int = 0  # So many of them, the last ones, are left without fleet: for Cluster.add().
    deadline_s: float = 120
    disk_mb: int | dict[int, int] | None = None
    conf: dict[str, str] = field(default_factory=dict)  # For fleet.conf on every host.
    long: bool = False  # Takes minutes: runs only with --long.


def lab_test(**needs: Any) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """@lab_test(hosts=5, deadline_s=60): what this test needs, where it is not the default of Needs."""
    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        function.needs = Needs(**needs)
        return function
    return decorate
