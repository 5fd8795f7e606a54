# SPDX-License-Identifier: Apache-2.0
"""What the lab asks of Linux and Python does not offer: namespaces, mounts, cgroups, processes; and waiting.

Knows nothing of hosts and labs. Nothing here keeps a state.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import patience

T = TypeVar("T")

REMOVE_DEADLINE_S = 30.0  # For processes to end and devices to be let go.
POLL_INTERVAL_S = 0.02

# The programs of an administrator, also where they are not in an ordinary user's path.
os.environ["PATH"] = os.environ.get("PATH", "/usr/bin:/bin") + ":/usr/sbin:/sbin"


class LabError(Exception):
    """The laboratory itself failed, not what is tested in it."""


# --- Waiting ---------------------------------------------------------------------------------------------------------


def wait_until(probe: Callable[[], T], deadline_s: float, what: str, accept: Callable[[T], Any] = bool) -> T:
    """Calls 'probe' until 'accept' likes its value, and returns that value.

    A failing command or assertion counts as "not yet". Raises TimeoutError that says what was waited for and what was
    seen last, so let 'probe' return something worth reading and 'accept' judge it. Time in which the machine itself stood
    still does not count (patience.py).
    """
    end = patience.now() + deadline_s
    while True:
        try:
            value = probe()
            if accept(value):
                return value
            seen = repr(value)
        except subprocess.CalledProcessError as error:
            seen = f"{error}: {(error.stderr or '').strip()}"
        except (subprocess.TimeoutExpired, AssertionError, LabError) as error:
            seen = f"{type(error).__name__}: {error}"
        if patience.now() >= end:
            raise TimeoutError(f"waited {deadline_s:g} s for: {what}; last seen: {seen}")
        time.sleep(POLL_INTERVAL_S)


# --- System calls that Python 3.11 does not offer --------------------------------------------------------------------

libc = ctypes.CDLL(None, use_errno=True)

CLONE_NEWNS, CLONE_NEWCGROUP, CLONE_NEWUTS = 0x00020000, 0x02000000, 0x04000000
CLONE_NEWIPC, CLONE_NEWPID, CLONE_NEWNET = 0x08000000, 0x20000000, 0x40000000
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT = 1, 2, 4, 8, 32
MS_BIND, MS_REC, MS_PRIVATE = 4096, 16384, 1 << 18
MNT_DETACH = 2


def check(result: int, what: str) -> None:
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")


def unshare(flags: int) -> None:
    check(libc.unshare(flags), "unshare")


def setns(path: str, kind: int) -> None:
    """Enters the namespace at 'path'. Entering a mount namespace also moves to its root directory."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        check(libc.setns(fd, kind), f"setns {path}")
    finally:
        os.close(fd)


def mount(source: str | Path, target: str | Path, kind: str | None = None, flags: int = 0, options: str = "") -> None:
    check(libc.mount(os.fsencode(source), os.fsencode(target), kind.encode() if kind else None,
                     ctypes.c_ulong(flags), options.encode() or None), f"mount {kind or 'bind'} on {target}")


def bind(source: str | Path, target: str | Path, read_only: bool = False) -> None:
    mount(source, target, flags=MS_BIND | MS_REC)
    # In a second step, or the flag is ignored; also for "writable", for it is inherited from where 'source' lies.
    mount("none", target, flags=MS_BIND | MS_REMOUNT | (MS_RDONLY if read_only else 0))


def pivot_to(directory: str | Path) -> None:
    """Makes the mount at 'directory' the root, and lets go of the old one (see pivot_root(2), "pivot_root . .")."""
    os.chdir(directory)
    check(libc.pivot_root(b".", b"."), f"pivot_root to {directory}")
    check(libc.umount2(b".", MNT_DETACH), "umount of the old root")
    os.chdir("/")


def own_mounts() -> None:
    """Gives the process a mount namespace whose mounts are seen by nobody else.

    In a chroot "/" is no mount point, so its propagation cannot be changed there: step out to the namespace's true
    root (setns to where we are does that), make everything private, step back in.
    """
    unshare(CLONE_NEWNS)
    root = os.open("/", os.O_RDONLY | os.O_DIRECTORY)  # After unshare: before, it would be the other namespace's.
    setns("/proc/self/ns/mnt", CLONE_NEWNS)
    mount("none", "/", flags=MS_REC | MS_PRIVATE)
    os.fchdir(root)
    os.close(root)
    os.chroot(".")


def own_root(scratch: Path) -> None:
    """After own_mounts(): makes a copy of our "/", with all below it, the true root of our mount namespace.

    Without it, in a chroot, whoever enters the namespace would land in the root outside of the chroot, and
    pivot_root(2) would refuse to work.
    """
    here = os.open("/", os.O_RDONLY | os.O_DIRECTORY)
    setns("/proc/self/ns/mnt", CLONE_NEWNS)
    os.fchdir(here)
    os.close(here)
    relative = str(scratch).lstrip("/")
    mount(".", relative, flags=MS_BIND | MS_REC)
    pivot_to(relative)


# --- Processes and cgroups -------------------------------------------------------------------------------------------


def start_time(pid: int) -> int | None:
    """When a process was started, in clock ticks since boot; None if it is no more. A zombie is no more."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = stat[stat.rindex(")") + 2:].split()
    return None if fields[0] in "ZX" else int(fields[19])


def process_record(pid: int) -> dict[str, int | None]:
    return {"pid": pid, "start": start_time(pid)}


def is_running(record: dict[str, int | None] | None) -> bool:
    """Whether the very process of the record runs, not a later one of the same id."""
    return bool(record) and record["start"] is not None and start_time(record["pid"]) == record["start"]


def cgroup_event(group: Path, key: str) -> bool:
    """A value of cgroup.events; a cgroup that is gone is neither populated nor frozen."""
    try:
        return f"{key} 1" in (group / "cgroup.events").read_text().splitlines()
    except (FileNotFoundError, OSError):
        return False


def cgroup_end(group: Path, deadline_s: float) -> None:
    """Ends every process in the cgroup and below at once, waits until they are gone, and removes the cgroup."""
    def end() -> bool:
        try:
            # Every time: a process may just have been on its way in, and would wait in a frozen cgroup for ever.
            (group / "cgroup.kill").write_text("1")
            if not cgroup_event(group, "populated"):
                for path, _, _ in os.walk(group, topdown=False):
                    os.rmdir(path)
        except OSError:  # Gone, or not empty after all: the next look tells which.
            pass
        return not group.exists()

    wait_until(end, deadline_s, f"the processes of {group.name} to end")


def run_ip(commands: str, pid: int | None = None) -> None:
    """Runs lines of ip(8) in the network namespace of 'pid', or in ours."""
    enter = [] if pid is None else ["nsenter", f"--net=/proc/{pid}/ns/net", "--"]
    result = subprocess.run([*enter, "ip", "-batch", "-"], input=commands, text=True, capture_output=True)
    if result.returncode != 0:
        raise LabError(f"ip: {result.stderr.strip()}")


# --- Disks -----------------------------------------------------------------------------------------------------------


def make_file_system(image: Path) -> None:
    subprocess.run(["mkfs.ext4", "-q", "-m", "0", "-E", "lazy_itable_init=1,lazy_journal_init=1", str(image)],
                   check=True)


def file_system_of(path: Path) -> str:
    """The type of the file system that holds 'path', as mount(8) calls it."""
    device = os.stat(path).st_dev
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields, _, rest = line.partition(" - ")
        if fields.split()[2] == f"{os.major(device)}:{os.minor(device)}":
            return rest.split()[0]
    return "unknown"


def loop_devices_of(directory: Path) -> list[str]:
    found = []
    for path in Path("/sys/block").glob("loop*/loop/backing_file"):
        try:
            if path.read_text().strip().removesuffix(" (deleted)").startswith(f"{directory}/"):
                found.append(path.parts[3])
        except OSError:  # Let go between the listing and the reading.
            pass
    return found
