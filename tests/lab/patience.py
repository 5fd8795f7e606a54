# SPDX-License-Identifier: Apache-2.0
"""A clock that stands still while the machine does.

Shared machines stop for seconds now and then: their disk answers no sync, or none of their processes runs. Whoever
promises seconds cannot be measured against that, so deadlines of the lab's tests are kept by this clock. Where nothing
is stalled, it is the ordinary one.

    with patience.watch(directory_on_the_disk):
        begin = patience.now()
        ...
        took_s = patience.now() - begin
"""

from __future__ import annotations

import os
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

INTERVAL_S = 0.05
USUAL_S = 0.5  # A nap of INTERVAL_S and the sync of one byte that take longer are a stall.
SMOOTH_S = 0.2  # What is between is a disturbance: others have the machine's disk, or its processors.


class _Watch:
    """Writes a byte to the disk, synced, again and again, and adds up what took too long."""

    def __init__(self, directory: Path) -> None:
        self._file = tempfile.TemporaryFile(dir=directory)
        self._lock = threading.Lock()
        self._stalled_s = 0.0
        self._disturbed_s = 0.0
        self._begin = time.monotonic()  # Of the round that is under way.
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._ended.wait(INTERVAL_S):
            os.pwrite(self._file.fileno(), b"x", 0)
            os.fsync(self._file.fileno())
            with self._lock:
                end = time.monotonic()
                self._stalled_s += self._excess(end)
                self._disturbed_s += max(0.0, end - self._begin - SMOOTH_S)
                self._begin = end

    def _excess(self, now: float) -> float:
        took = now - self._begin
        return took if took > USUAL_S else 0.0

    def stalled_s(self) -> float:
        with self._lock:
            return self._stalled_s + self._excess(time.monotonic())

    def disturbed_s(self) -> float:
        with self._lock:
            return self._disturbed_s + max(0.0, time.monotonic() - self._begin - SMOOTH_S)

    def end(self) -> None:
        self._ended.set()
        self._thread.join()
        self._file.close()


_watch: _Watch | None = None


@contextmanager
def watch(directory: Path) -> Iterator[None]:
    """From now on, now() leaves out the time in which the disk of 'directory', or the machine, stood still."""
    global _watch
    assert _watch is None, "there is one machine, and one watch"
    _watch = _Watch(directory)
    try:
        yield
    finally:
        _watch.end()
        _watch = None


def stalled_s() -> float:
    """How long the machine stood still since the watch began; 0 without one."""
    return _watch.stalled_s() if _watch else 0.0


def disturbed_s() -> float:
    """The same, with all that was slower than SMOOTH_S: what a failure in this time means is not certain."""
    return _watch.disturbed_s() if _watch else 0.0


def now() -> float:
    """Seconds, from an arbitrary origin; never goes back."""
    return time.monotonic() - stalled_s()
