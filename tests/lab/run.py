#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Runs the lab's tests: every function test_* of every tests/lab/test_*.py, on hosts of its own (see testing.py).

    run.py [--build DIR] [--jobs N] [--keep-going] [--long] [--list] [PATTERN...]

A pattern is a part of "file:function". One line per test; at the end exactly one line "N passed, N failed".
With --long also those that are marked so (testing.py): they take minutes each. With --jobs N so many files at a time;
those whose figures need the machine for themselves (ALONE = True) come last, one by one.
"""

from __future__ import annotations

import argparse
import fnmatch
import importlib.util
import inspect
import re
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
sys.dont_write_bytecode = True  # The checkout may belong to somebody else than root.

import patience  # noqa: E402  (the path comes first)
import sanitizers  # noqa: E402
from fleet import TOP, Cluster  # noqa: E402
from lab import BASE_DIR, Lab, LabError, exit_on_signals  # noqa: E402
from testing import Needs, NotHere  # noqa: E402

JOURNAL_LINES = 150
DISTURBED_S = 1.0  # Of a test's time: then its failure is not taken for the product's.


class TestDeadline(BaseException):
    """Not an Exception: no "except" of a test is to swallow it."""


@contextmanager
def deadline(seconds: float) -> Iterator[None]:
    end = patience.now() + seconds

    def on_alarm(number: int, frame: object) -> None:
        left_s = end - patience.now()
        if left_s <= 0:
            raise TestDeadline(f"the test took longer than its {seconds:g} s")
        signal.setitimer(signal.ITIMER_REAL, left_s)  # The machine stood still meanwhile.

    signal.signal(signal.SIGALRM, on_alarm)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def tests_of(module: ModuleType) -> list[tuple[str, Callable[..., None]]]:
    return [(name, value) for name, value in vars(module).items()
            if name.startswith("test_") and inspect.isfunction(value) and value.__module__ == module.__name__]


def is_wanted(name: str, patterns: list[str]) -> bool:
    return not patterns or any(fnmatch.fnmatch(name, f"*{pattern}*") for pattern in patterns)


def is_due(function: Callable[..., None], long: bool) -> bool:
    return long or not getattr(function, "needs", Needs()).long


class Stage:
    """A lab, and a cluster in it when a test asks for one; for one test, or in turn for those of a SHARED module."""

    def __init__(self, needs: Needs, build: Path) -> None:
        self.lab = Lab(needs.hosts, build=build, disk_mb=needs.disk_mb)
        self.needs = needs
        self.cluster: Cluster | None = None
        self.reported = ""

    def play(self, function: Callable[..., None]) -> None:
        wanted = list(inspect.signature(function).parameters)
        if "cluster" in wanted and self.cluster is None:
            self.cluster = Cluster(self.lab, conf=self.needs.conf,
                                   hosts=self.lab.hosts[:self.needs.hosts - self.needs.spare])
            self.cluster.start()
        function(**{name: getattr(self, name) for name in wanted})

    def reports(self) -> str:
        """What sanitizers have found since the last call."""
        found = "".join(sanitizers.reports(host) for host in self.lab.hosts)
        fresh, self.reported = found.removeprefix(self.reported), found
        return f"A sanitizer has found something:\n{fresh}" if fresh else ""

    def tell(self) -> str:
        """What the hosts have to say, for a person who looks for the reason of a failure."""
        unit = "fleetd.service" if self.cluster else None
        return "".join(f"--- {host!r} {host.ip} {host.machine_id}\n{host.journal(unit, JOURNAL_LINES)}"
                       for host in self.lab.hosts)


class Runner:
    def __init__(self, build: Path, keep_going: bool) -> None:
        self.build = build
        self.keep_going = keep_going
        self.shared: Stage | None = None
        self.passed = 0
        self.failed = 0

    def run_module(self, module: ModuleType, tests: list[tuple[str, Callable[..., None]]]) -> None:
        """Runs a module's tests, up to the first failure if that is to be the end.

        What fails while the machine itself is disturbed (measured: patience.py) shows nothing: it is run once more, on
        fresh hosts; with the tests before it, where they share these. It must pass then.
        """
        before, first = self.passed, 0
        for may_repeat in (True, False):
            failed = self.run_from(module, tests, first, may_repeat and not self.keep_going)
            if failed is None:
                return
            first = 0 if getattr(module, "SHARED", False) else failed
            self.passed = before + first

    def run_from(self, module: ModuleType, tests: list[tuple[str, Callable[..., None]]], first: int,
                 may_repeat: bool) -> int | None:
        """Returns the index of a test that is to be repeated, or None."""
        self.shared = None
        try:
            for index, (name, function) in enumerate(tests[first:], first):
                if getattr(module, "MEASURES", False) and sanitizers.is_sanitized(self.build):
                    print(f"NOT RUN {module.__name__}:{name}: its figures would be those of the sanitizers", flush=True)
                    continue
                begin, disturbed_s = time.monotonic(), patience.disturbed_s()
                try:
                    failure = self.run_test(module, function)
                except NotHere as missing:
                    print(f"NOT RUN {module.__name__}:{name}: {missing}", flush=True)
                    continue
                disturbed_s = patience.disturbed_s() - disturbed_s
                print(f"{'FAILED' if failure else 'ok':6} {module.__name__}:{name} ({time.monotonic() - begin:.1f} s)")
                if failure:
                    print("".join(f"    {line}\n" for line in failure.splitlines()), end="")
                    if may_repeat and disturbed_s > DISTURBED_S:
                        print(f"    the machine itself was disturbed for {disturbed_s:.1f} s meanwhile: once more", flush=True)
                        return index
                    self.failed += 1
                    if not self.keep_going:
                        return None
                else:
                    self.passed += 1
                sys.stdout.flush()
        finally:
            if self.shared is not None:
                self.shared.lab.close()
        return None

    def run_test(self, module: ModuleType, function: Callable[..., None]) -> str:
        """Runs one test; returns what a person needs to know about its failure, "" for none."""
        is_shared = getattr(module, "SHARED", False)
        module_needs = getattr(module, "NEEDS", Needs())
        needs = getattr(function, "needs", module_needs)
        stage = self.shared
        failure = ""
        try:
            with deadline(needs.deadline_s):
                if stage is None:
                    stage = Stage(module_needs if is_shared else needs, self.build)
                stage.play(function)
        except NotHere:
            if stage is not None and not is_shared:
                stage.lab.close()
            raise
        except (Exception, TestDeadline):
            failure = traceback.format_exc()
        if stage is not None:
            failure += stage.reports()
            if failure:
                failure += stage.tell()
            if is_shared:
                self.shared = stage
            else:
                try:
                    stage.lab.close()
                except LabError as error:  # A lab that cannot be removed is a failure too.
                    failure += str(error)
        return failure


class Jobs:
    """Runs files side by side, each in a run.py of its own, and prints what one said when it has ended."""

    def __init__(self, options: list[str], keep_going: bool) -> None:
        self.options = options
        self.keep_going = keep_going
        self.passed = 0
        self.failed = 0
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen[str]] = set()

    def run(self, files: list[tuple[str, list[str]]], width: int) -> None:
        with ThreadPoolExecutor(width) as pool:
            try:
                list(pool.map(self._run_file, files))
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                for process in self._running:
                    process.terminate()  # It removes its hosts.
                raise

    def _run_file(self, file: tuple[str, list[str]]) -> None:
        name, tests = file
        with self._lock:
            if self.failed and not self.keep_going:
                return
            process = subprocess.Popen([sys.executable, "-B", __file__, *self.options, *tests], text=True,
                                       stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
            self._running.add(process)
        said, _ = process.communicate()
        with self._lock:
            self._running.remove(process)
            result = re.search(r"^(\d+) passed, (\d+) failed\n\Z", said, re.MULTILINE)
            if result:
                said = said[:result.start()]
                self.passed += int(result[1])
                self.failed += int(result[2])
            elif self.failed == 0:
                said += f"FAILED {name}: run.py ended with {process.returncode}\n"
                self.failed += 1
            print(said, end="", flush=True)


def run_jobs(arguments: argparse.Namespace, plan: list[tuple[ModuleType, list[str]]]) -> tuple[int, int]:
    options = ["--build", str(arguments.build)]
    options += ["--long"] if arguments.long else []
    options += ["--keep-going"] if arguments.keep_going else []
    jobs = Jobs(options, arguments.keep_going)
    for alone in (False, True):
        files = [(module.__name__, tests) for module, tests in plan if getattr(module, "ALONE", False) == alone]
        jobs.run(files, 1 if alone else arguments.jobs)
    return jobs.passed, jobs.failed


def run_here(arguments: argparse.Namespace,
             plan: list[tuple[ModuleType, list[tuple[str, Callable[..., None]]]]]) -> tuple[int, int]:
    runner = Runner(arguments.build.absolute(), arguments.keep_going)
    with patience.watch(BASE_DIR):
        for module, tests in plan:
            runner.run_module(module, tests)
            if runner.failed and not runner.keep_going:
                break
        if patience.stalled_s() > 0:
            print(f"the machine stood still for {patience.stalled_s():.1f} s in all")
    return runner.passed, runner.failed


def main() -> int:
    parser = argparse.ArgumentParser(description="Runs the tests on real hosts.")
    parser.add_argument("--build", type=Path, default=TOP, metavar="DIR", help="where fleet was built")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="so many files at a time (1)")
    parser.add_argument("--keep-going", action="store_true", help="do not stop at the first failure")
    parser.add_argument("--long", action="store_true", help="also the tests that take minutes")
    parser.add_argument("--list", action="store_true", help="only list the tests")
    parser.add_argument("patterns", nargs="*", metavar="PATTERN", help='part of "file:function"')
    arguments = parser.parse_args()
    exit_on_signals()

    plan = []
    for path in sorted(HERE.glob("test_*.py")):
        module = load(path)
        tests = [(name, function) for name, function in tests_of(module)
                 if is_wanted(f"{path.stem}:{name}", arguments.patterns) and is_due(function, arguments.long)]
        if tests:
            plan.append((module, tests))
    if arguments.list:
        print("".join(f"{module.__name__}:{name}\n" for module, tests in plan for name, _ in tests), end="")
        return 0
    try:
        if arguments.jobs > 1:
            passed, failed = run_jobs(arguments, [(module, [f"{module.__name__}:{name}" for name, _ in tests])
                                                  for module, tests in plan])
        else:
            passed, failed = run_here(arguments, plan)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    print(f"{passed} passed, {failed} failed")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
