# SPDX-License-Identifier: Apache-2.0
"""The supervisor of a running host, a program of its own: supervisor.py DIR NAME. It makes the host out of namespaces.

See lab.py for who is who.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

from host import HOST_ENVIRONMENT, Host
from kernel import (CLONE_NEWCGROUP, CLONE_NEWIPC, CLONE_NEWNET, CLONE_NEWNS, CLONE_NEWPID, CLONE_NEWUTS, MS_NODEV,
                    MS_NOEXEC, MS_NOSUID, MS_RDONLY, LabError, bind, mount, pivot_to, run_ip, setns, unshare)
from lab import Lab


def supervisor_main(directory: Path, name: str) -> int:
    """Makes a host; says "pid N" when its systemd is being executed, or else why not; stays until the host ends."""
    try:
        lab = Lab.attach(directory)
        (lab.cgroup / "keeper" / "cgroup.procs").write_text("0")
        pid = host_start(lab, name)
    except (OSError, LabError) as error:
        print(error, flush=True)
        return 1
    print(f"pid {pid}", flush=True)
    os.close(1)
    os.waitpid(pid, 0)
    return 0


def host_start(lab: Lab, name: str) -> int:
    host = getattr(lab, name)
    host.cgroup.mkdir(exist_ok=True)
    cgroup_fd = os.open(host.cgroup / "cgroup.procs", os.O_WRONLY | os.O_CLOEXEC)
    keeper = lab.keeper_pid
    # Nothing of an earlier boot: overlayfs refuses a work directory that was not unmounted in order.
    shutil.rmtree(host.dir / "work", ignore_errors=True)
    (host.dir / "work").mkdir()

    setns(f"/proc/{keeper}/ns/mnt", CLONE_NEWNS)
    unshare(CLONE_NEWNET | CLONE_NEWUTS | CLONE_NEWIPC)
    plug_in(host, keeper)
    unshare(CLONE_NEWNS | CLONE_NEWPID)

    ready_read, ready_write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            # The cgroup first: the namespace of cgroups is rooted where the process is when it unshares.
            os.write(cgroup_fd, b"0")
            unshare(CLONE_NEWCGROUP)
            os.setsid()
            socket.sethostname(name)
            host_mounts(host)
            null = os.open("/dev/null", os.O_RDWR)
            os.dup2(null, 0)
            os.dup2(2, 1)
            os.execve("/lib/systemd/systemd", ["/lib/systemd/systemd"], HOST_ENVIRONMENT | {"container": "fleet-lab"})
        except BaseException as error:
            os.write(ready_write, f"{type(error).__name__}: {error}".encode())
            os._exit(1)
    os.close(ready_write)
    with open(ready_read, "rb") as pipe:
        error = pipe.read().decode()  # Ends without a word when systemd is executed.
    if error:
        os.waitpid(pid, 0)
        raise LabError(error)
    return pid


def plug_in(host: Host, keeper: int) -> None:
    """Connects our network namespace with the switch."""
    subprocess.run(["nsenter", f"--net=/proc/{keeper}/ns/net", "--", "ip", "link", "delete", host.name],
                   capture_output=True)
    # The same address at every boot, or the others would go on talking to the one they remember.
    run_ip(f"link add {host.name} type veth peer name eth0 address 02:fd:77:00:00:{host.number:02x}"
           f" netns {os.getpid()}\n"
           f"link set {host.name} master br0\n"
           f"link set {host.name} {'down' if host.is_cut else 'up'}\n", keeper)
    run_ip(f"link set lo up\nlink set eth0 up\naddress add {host.ip}/24 dev eth0\n")
    if Path("/proc/sys/net/ipv6").exists():
        # Without duplicate address detection: an address is to be usable when the host boots, not a second later.
        run_ip(f"address add {host.ip6}/64 dev eth0 nodad\n")


def host_mounts(host: Host) -> None:
    """Builds the host's tree of mounts and makes it ours; nothing of the machine's own mounts stays within reach."""
    root = host.own_dir / "root"
    # Volatile: leaves out every sync of the root disk, which would take longer than all the rest of a boot.
    mount("overlay", root, "overlay", 0,
          f"lowerdir=/,upperdir={host.own_dir}/upper,workdir={host.own_dir}/work,volatile")
    if os.path.ismount("/usr"):  # An overlay over "/" does not show what is mounted below it.
        bind("/usr", root / "usr", read_only=True)

    mount("proc", root / "proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    # What is not namespaced is the machine's own: a host may look, not touch.
    for path, read_only in (("proc/sys", True), ("proc/sys/net", False), ("proc/sysrq-trigger", True)):
        if (root / path).exists():
            bind(root / path, root / path, read_only)
    mount("sysfs", root / "sys", "sysfs", MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_RDONLY)
    mount("cgroup2", root / "sys/fs/cgroup", "cgroup2", MS_NOSUID | MS_NODEV | MS_NOEXEC)

    dev = root / "dev"
    mount("tmpfs", dev, "tmpfs", MS_NOSUID, "mode=755,size=1m")
    for name in ("null", "zero", "full", "random", "urandom", "tty"):
        (dev / name).touch()
        bind(f"/dev/{name}", dev / name)
    (dev / "console").touch()
    bind("/dev/null", dev / "console")
    for name, target in {"fd": "/proc/self/fd", "stdin": "/proc/self/fd/0", "stdout": "/proc/self/fd/1",
                         "stderr": "/proc/self/fd/2", "ptmx": "pts/ptmx"}.items():
        (dev / name).symlink_to(target)
    for name in ("pts", "shm"):
        (dev / name).mkdir()
    mount("devpts", dev / "pts", "devpts", MS_NOSUID | MS_NOEXEC, "newinstance,ptmxmode=0666,mode=620,gid=5")
    mount("tmpfs", dev / "shm", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777")

    for path, mode in (("run", "755"), ("tmp", "1777"), ("var/tmp", "1777")):
        (root / path).mkdir(parents=True, exist_ok=True)
        mount("tmpfs", root / path, "tmpfs", MS_NOSUID | MS_NODEV, f"mode={mode}")
    # The journal is no part of what is tested, and after a power cut it is what one wants to read.
    for source, path in (("journal", "run/log/journal"), ("data", "var/lib/fleet")):
        (root / path).mkdir(parents=True, exist_ok=True)
        bind(host.own_dir / source, root / path)
    pivot_to(root)


if __name__ == "__main__":
    sys.exit(supervisor_main(Path(sys.argv[1]), sys.argv[2]))
