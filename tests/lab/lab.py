#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Several hosts with real systemd on one machine, made of Linux namespaces.

A host is a set of namespaces whose PID 1 is the machine's own systemd. Its root is an overlay over "/", so whatever
is installed here is installed there; only what is enabled differs: nothing but dbus and journald.

    with Lab(hosts=3) as lab:
        lab.node1.run(["ping", "-c1", lab.node2.ip])
        lab.node2.power_cut()
        lab.node2.boot()

Three kinds of process serve a lab, each with one job:

    janitor     outlives whoever made the lab, and removes it: when its standard input ends, however that came about
     `- keeper  owns the mounts and the network namespace with the switch (a bridge); sleeps
    supervisor  one per running host: makes the host, then is the parent of its PID 1

Invariants:
- Nothing is mounted in the machine's mount namespace and nothing added to its network: all of it lives in the
  keeper's namespaces and goes when they go.
- Every process of a lab but the janitor is in the lab's own cgroup, and is ended through it: never by name or id.
  Where a process is recorded, it is with its start time, so that a later one of the same id is not taken for it.
- The lab's directory is the whole state of a lab on disk; its name is also the name of the cgroup.

This file knows nothing of fleet: see fleet.py for that.
"""

from __future__ import annotations

import argparse
import atexit
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import uuid
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn

from disks import make_disks
from host import HOST_ENVIRONMENT, CommandFailed, Host
from kernel import (REMOVE_DEADLINE_S, LabError, is_running, loop_devices_of, process_record, start_time,
                    wait_until)

# All that a test needs comes from here.
__all__ = ["CommandFailed", "Host", "Lab", "LabError", "loop_devices_of", "start_time", "wait_until"]

JANITOR = Path(__file__).resolve().with_name("janitor.py")
# Not /tmp: that is often a tmpfs, and the hosts' disks should be disks.
BASE_DIR = Path(os.environ.get("FLEET_LAB_BASE", "/var/tmp"))
PREFIX = "fleet-lab."
HOLD_DIR = BASE_DIR / "fleet-lab"  # Where "lab.py up" leaves a lab, unless told otherwise.
HOSTS_MAX = 250  # One octet of an address.

# --- The lab ---------------------------------------------------------------------------------------------------------


class Lab:
    """A number of hosts on one switch. As a context manager: made at the start, gone at the end, whatever happens.

    build       where the programs were built; the lab only remembers it, for fleet.py
    disk_mb     puts every host's /var/lib/fleet on an ext4 file system of this size; or a dict from host number to
                size, for some of them
    directory   where to keep it; must not exist. By default a new one in BASE_DIR
    """

    def __init__(self, hosts: int = 3, build: Path | None = None, disk_mb: int | dict[int, int] | None = None,
                 directory: Path | None = None) -> None:
        if not 1 <= hosts <= HOSTS_MAX:
            raise LabError(f"a lab has 1 to {HOSTS_MAX} hosts, not {hosts}")
        if os.geteuid() != 0:
            raise LabError("the lab needs root")
        self.build = build
        self.held = False
        self.keeper: dict[str, int | None] | None = None
        self._janitor: subprocess.Popen[bytes] | None = None
        if directory is not None:
            directory = directory.absolute()
            directory.mkdir(parents=True)
            self.dir = directory
        else:
            self.dir = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}.", dir=BASE_DIR))
        if re.search(r"[,:\\\s]", str(self.dir)):  # Overlayfs takes these characters for its own.
            os.rmdir(self.dir)
            raise LabError(f"cannot keep a lab in {self.dir}: no space, comma, colon or backslash please")
        self.owner = process_record(os.getpid())
        self.hosts = [Host(self, number, uuid.uuid4().hex) for number in range(1, hosts + 1)]
        self.disk_mb = disk_mb if isinstance(disk_mb, dict) else {h.number: disk_mb for h in self.hosts if disk_mb}
        self.save()
        with defer_signals():
            self._start_janitor()
        try:
            self._start_keeper()
            for host in self.hosts:
                make_disks(self, host)
            for host in self.hosts:
                host.boot_begin()
            for host in self.hosts:
                host.boot_finish()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Lab:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 traceback: TracebackType | None) -> None:
        self.close()

    def __getattr__(self, name: str) -> Host:
        """lab.node1 is the first host."""
        for host in self.__dict__.get("hosts", []):
            if host.name == name:
                return host
        raise AttributeError(f"the lab has no {name}")

    def host(self, name: str) -> Host:
        """The host of a name that somebody typed."""
        for host in self.hosts:
            if host.name == name:
                return host
        raise LabError(f"there is no {name} in {self.dir}, only {', '.join(host.name for host in self.hosts)}")

    @property
    def keeper_pid(self) -> int:
        if not is_running(self.keeper):
            raise LabError(f"the lab in {self.dir} is not running")
        return self.keeper["pid"]

    @property
    def cgroup(self) -> Path:
        """The lab's cgroup; seen through the keeper, so it matters not where this machine mounts its cgroups."""
        return Path(f"/proc/{self.keeper_pid}/root{self.dir}/cgroup/{self.dir.name}")

    # The file through which janitor, supervisors and later processes know the lab.

    def save(self) -> None:
        state = {"owner": self.owner, "keeper": self.keeper, "held": self.held,
                 "build": str(self.build) if self.build else None,
                 "hosts": [{"number": h.number, "name": h.name, "ip": h.ip, "ip6": h.ip6, "machine_id": h.machine_id,
                            "process": h.process, "is_cut": h.is_cut, "deaf_to": sorted(h.deaf_to),
                            "mute_to": sorted(h.mute_to), "loss_percent": h.loss_percent} for h in self.hosts]}
        fresh = self.dir / f"state.json.{threading.get_ident()}~"
        fresh.write_text(json.dumps(state, indent=1) + "\n")
        fresh.rename(self.dir / "state.json")

    @classmethod
    def attach(cls, directory: Path) -> Lab:
        """The lab that another process left running in this directory; close() is not called at the end of it."""
        state = read_state(directory)
        if state is None:
            raise LabError(f"there is no lab in {directory}")
        lab = cls.__new__(cls)
        lab.dir = directory.absolute()
        lab.build = Path(state["build"]) if state["build"] else None
        lab.held, lab.owner, lab.keeper, lab._janitor = state["held"], state["owner"], state["keeper"], None
        lab.hosts = []
        for known in state["hosts"]:
            host = Host(lab, known["number"], known["machine_id"])
            host.process, host.is_cut, host.loss_percent = known["process"], known["is_cut"], known["loss_percent"]
            host.deaf_to, host.mute_to = set(known["deaf_to"]), set(known["mute_to"])
            host._filtered = bool(host.deaf_to or host.mute_to or host.loss_percent)
            lab.hosts.append(host)
        return lab

    # Beginning and end.

    def _start_janitor(self) -> None:
        # A session of its own: Ctrl-C is for the test, and what comes after it is the janitor's.
        self._janitor = subprocess.Popen([sys.executable, "-B", JANITOR, self.dir], start_new_session=True,
                                         stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        # The janitor would do it anyway, but whoever waits for our end shall find all of it gone.
        atexit.register(self.close)

    def _start_keeper(self) -> None:
        assert self._janitor is not None and self._janitor.stdin is not None and self._janitor.stdout is not None
        self._janitor.stdin.write(b"keeper\n")
        self._janitor.stdin.flush()
        answer = self._janitor.stdout.readline().decode().strip()
        if not answer.startswith("pid "):
            raise LabError(f"cannot make the lab: {answer or 'its janitor died'}")
        self.keeper = process_record(int(answer.split()[1]))
        self.save()

    def hold(self) -> None:
        """Lets the lab outlive this process; from now on only remove_lab() ends it."""
        assert self._janitor is not None and self._janitor.stdin is not None
        self.held = True
        self.save()
        atexit.unregister(self.close)
        self._janitor.stdin.write(b"stay\n")
        self._janitor.stdin.close()
        self._janitor.wait(REMOVE_DEADLINE_S)
        self._janitor = None

    def close(self) -> None:
        """Removes the lab and everything that belongs to it. May be called again."""
        if self._janitor is None:
            return
        # The janitor does the work, so that this ends well also when we are killed in the middle of it.
        atexit.unregister(self.close)
        janitor, self._janitor = self._janitor, None
        with janitor:
            janitor.stdin.close()
            errors = janitor.stdout.read().decode().strip()
        for host in self.hosts:
            for supervisor in host._supervisors:
                supervisor.wait(REMOVE_DEADLINE_S)
                supervisor.stdout.close()
        if janitor.returncode != 0:
            raise LabError(f"the lab in {self.dir} could not be removed: {errors}")


def read_state(directory: Path) -> dict[str, Any] | None:
    try:
        return json.loads((directory / "state.json").read_text())
    except (FileNotFoundError, NotADirectoryError):
        return None


class defer_signals:
    """Holds Ctrl-C and SIGTERM back for a few lines that must not be left half done."""

    SIGNALS = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}

    def __enter__(self) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, self.SIGNALS)

    def __exit__(self, *_: object) -> None:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, self.SIGNALS)


def exit_on_signals() -> None:
    """Makes SIGTERM and SIGHUP end the program like Ctrl-C does: through every "with" and "finally"."""
    def on_signal(number: int, frame: object) -> NoReturn:
        raise SystemExit(128 + number)

    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, on_signal)


# --- Removing what has no owner --------------------------------------------------------------------------------------


def remove_lab(directory: Path) -> None:
    """Removes a lab that has no owner: held, or left behind."""
    # A janitor with nobody to listen to does just that.
    result = subprocess.run([sys.executable, "-B", JANITOR, directory.absolute()],
                            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    if result.returncode != 0:
        raise LabError(f"the lab in {directory} could not be removed: {result.stdout.strip()}")


def clean() -> None:
    """Removes every lab whose owner is gone, unless it is held on purpose."""
    for directory in sorted(BASE_DIR.glob(f"{PREFIX}*")):
        state = read_state(directory)
        if state is None:
            # Made a moment ago, or never finished; the name says by whom.
            pid = directory.name.split(".")[1]
            if pid.isdigit() and start_time(int(pid)) is not None:
                continue
        elif is_running(state["owner"]) or state["held"]:
            continue
        print(f"removing {directory}")
        remove_lab(directory)


# --- Command line ----------------------------------------------------------------------------------------------------


HOST_VERBS: dict[str, tuple[Callable[[Host], None], str]] = {
    "power-cut": (Host.power_cut, "pull a host's plug"),
    "boot": (Host.boot, "switch a host on"),
    "cut": (Host.cut, "pull a host's network cable"),
    "mend": (Host.mend, "plug it in again"),
    "freeze": (Host.freeze, "stop all processes of a host"),
    "thaw": (Host.thaw, "let them go on"),
}


def main() -> int:
    parser = argparse.ArgumentParser(description="Several hosts with real systemd on this machine.")
    parser.add_argument("--clean", action="store_true", help="remove what killed runs have left behind")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB")
    up = verbs.add_parser("up", help="bring up hosts and leave them running")
    up.add_argument("--hosts", type=int, default=3)
    up.add_argument("--disk-mb", type=int, help="size of every host's /var/lib/fleet")
    enter = verbs.add_parser("enter", help="run a command (default: a shell) in a host")
    enter.add_argument("name")
    enter.add_argument("argv", nargs=argparse.REMAINDER)
    status = verbs.add_parser("status", help="list the hosts")
    down = verbs.add_parser("down", help="remove the lab")
    plays = {}
    for verb, (method, help) in HOST_VERBS.items():
        plays[verb] = verbs.add_parser(verb, help=help)
        plays[verb].add_argument("name")
    for verb in (up, enter, status, down, *plays.values()):
        verb.add_argument("--state", type=Path, default=HOLD_DIR, metavar="DIR", help=f"default: {HOLD_DIR}")
    arguments = parser.parse_args()
    exit_on_signals()

    if arguments.clean:
        clean()
    elif arguments.verb == "up":
        if arguments.state.exists():
            raise LabError(f"{arguments.state} exists: a lab is there already; end it by \"down\"")
        with Lab(arguments.hosts, disk_mb=arguments.disk_mb, directory=arguments.state) as lab:
            lab.hold()
        print_hosts(lab)
    elif arguments.verb == "enter":
        host = Lab.attach(arguments.state).host(arguments.name)
        command = host.command(arguments.argv or ["/bin/bash", "-l"])
        os.execvpe(command[0], command, HOST_ENVIRONMENT)
    elif arguments.verb in HOST_VERBS:
        method, _ = HOST_VERBS[arguments.verb]
        method(Lab.attach(arguments.state).host(arguments.name))
    elif arguments.verb == "status":
        print_hosts(Lab.attach(arguments.state))
    elif arguments.verb == "down":
        if read_state(arguments.state) is None:
            raise LabError(f"there is no lab in {arguments.state}")
        remove_lab(arguments.state)
    else:
        parser.error("what shall it be?")
    return 0


def print_hosts(lab: Lab) -> None:
    for host in lab.hosts:
        print(f"{host.name}  {host.ip}  {host.ip6}  {'up' if host.is_up else 'down'}")


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (LabError, TimeoutError) as error:
        sys.exit(f"lab.py: {error}")
