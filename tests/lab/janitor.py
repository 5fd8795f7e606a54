# SPDX-License-Identifier: Apache-2.0
"""The janitor of a lab, a program of its own: janitor.py DIR. It makes the keeper, and in the end removes everything.

See lab.py for who is who.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

from kernel import (CLONE_NEWNET, CLONE_NEWNS, MNT_DETACH, REMOVE_DEADLINE_S, LabError, cgroup_end, check,
                    file_system_of, libc, loop_devices_of, make_file_system, mount, own_mounts, own_root, run_ip,
                    unshare, wait_until)

DISK_SIZE = 16 << 30  # Sparse. Of the disk that all hosts share where this machine has no suitable one.


def janitor_main(directory: Path) -> int:
    """Makes the keeper when told "keeper"; removes the lab when standard input ends; leaves it when told "stay"."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    own_mounts()
    for line in iter(sys.stdin.readline, ""):
        if line == "stay\n":
            return 0
        try:
            pid = keeper_start(directory)
            print(f"pid {pid}", flush=True)
        except (OSError, LabError) as error:
            print(error, flush=True)
    try:
        remove(directory)
    except (OSError, LabError, TimeoutError) as error:
        print(error, flush=True)
        return 1
    return 0


def mount_cgroups(directory: Path) -> Path:
    """Mounts this machine's cgroup v2 tree for us alone, and returns the lab's cgroup in it."""
    mount_point = directory / "cgroup"
    mount_point.mkdir(exist_ok=True)
    if not (mount_point / "cgroup.procs").exists():
        # Where, and beside what, the machine itself mounts it is different everywhere; this works everywhere.
        mount("cgroup2", mount_point, "cgroup2")
    return mount_point / directory.name


def keeper_start(directory: Path) -> int:
    """Forks the keeper and returns its process id when the switch and the disks are ready."""
    group = mount_cgroups(directory)
    (group / "keeper").mkdir(parents=True)
    for controller in ("cpu", "memory", "io", "pids"):
        try:  # Hosts may use what this machine hands down; a lab does not depend on it.
            (group / "cgroup.subtree_control").write_text(f"+{controller}")
        except OSError:
            pass
    ready_read, ready_write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            (group / "keeper" / "cgroup.procs").write_text("0")
            keeper_become(directory)
            with open(os.devnull, "r+") as null:
                for fd in (0, 1, 2):
                    os.dup2(null.fileno(), fd)
            os.execvp("sleep", ["sleep", "infinity"])  # Closes the pipe: that is the word that all is well.
        except BaseException as error:
            os.write(ready_write, str(error).encode())
            os._exit(1)
    os.close(ready_write)
    with open(ready_read, "rb") as pipe:
        error = pipe.read().decode()
    if error:
        os.waitpid(pid, 0)
        raise LabError(error)
    return pid


def keeper_become(directory: Path) -> None:
    unshare(CLONE_NEWNS | CLONE_NEWNET)
    (directory / "base").mkdir(exist_ok=True)
    own_root(directory / "base")
    # No learning of multicast groups: neighbours are to find each other at once.
    run_ip("link set lo up\nlink add br0 type bridge forward_delay 0 mcast_snooping 0\nlink set br0 up\n")
    (directory / "hosts").mkdir()
    if file_system_of(directory) in ("overlay", "tmpfs"):
        # As in a container: neither of them can be what a disk is to a host, so make a true file system in a file.
        image = directory / "disk.img"
        with open(image, "wb") as file:
            file.truncate(DISK_SIZE)
        make_file_system(image)
        result = subprocess.run(["mount", "-o", "loop", image, directory / "hosts"], text=True, capture_output=True)
        if result.returncode != 0:
            raise LabError(f"{directory} is on no real disk, and {result.stderr.strip()}; "
                           "let FLEET_LAB_BASE name a folder that is")


def remove(directory: Path) -> None:
    """Ends every process of a lab and removes what is left of it. Runs in a mount namespace of its own."""
    try:
        lock = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError:
        return
    fcntl.flock(lock, fcntl.LOCK_EX)  # "clean" may come while the janitor is at it, or the other way round.
    if not directory.exists():
        return
    group = mount_cgroups(directory)
    cgroup_end(group, REMOVE_DEADLINE_S)
    check(libc.umount2(os.fsencode(directory / "cgroup"), MNT_DETACH), "umount of the cgroups")
    wait_until(lambda: loop_devices_of(directory), REMOVE_DEADLINE_S, "loop devices to be let go",
               accept=lambda devices: not devices)
    # Deleting goes through a mount as through any folder, so be sure that there is none.
    mounts = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    inside = [path for path in mounts if path.startswith(f"{directory}/")]
    if inside:
        raise LabError(f"something is mounted in {directory}, not removing it: {inside}")
    shutil.rmtree(directory)


if __name__ == "__main__":
    sys.exit(janitor_main(Path(sys.argv[1])))
