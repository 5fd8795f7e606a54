# SPDX-License-Identifier: Apache-2.0
"""One host of a lab: to run things in, to switch off and on, to freeze, to cut from the others. See lab.py."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kernel import (REMOVE_DEADLINE_S, LabError, cgroup_end, cgroup_event, is_running, process_record, run_ip,
                    wait_until)

if TYPE_CHECKING:
    from lab import Lab

SUPERVISOR = Path(__file__).resolve().with_name("supervisor.py")
BOOT_DEADLINE_S = 60.0
HOST_ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root",
                    "LANG": "C.UTF-8", "TERM": os.environ.get("TERM", "dumb"), "SYSTEMD_PAGER": "",
                    "SYSTEMD_COLORS": "0"}


class Host:
    """One host of a lab. Made by Lab, and running while the lab is, unless a test cuts its power."""

    def __init__(self, lab: Lab, number: int, machine_id: str) -> None:
        self.lab = lab
        self.number = number
        self.name = f"node{number}"
        self.machine_id = machine_id
        self.ip = f"10.77.0.{number}"
        self.ip6 = f"fd77::{number:x}"
        self.process: dict[str, int | None] | None = None  # Of PID 1.
        self.is_cut = False
        self.deaf_to: set[int] = set()  # Numbers of hosts whose packets are dropped here.
        self.mute_to: set[int] = set()  # Numbers of hosts to which packets are dropped here.
        self.loss_percent = 0
        self.environment: dict[str, str] = {}  # Of programs that are run here, besides HOST_ENVIRONMENT.
        self._supervisors: list[subprocess.Popen[bytes]] = []  # The last one is that of the running host.

    def __repr__(self) -> str:
        return f"<{self.name} {'up' if self.is_up else 'down'}>"

    # What it is.

    @property
    def is_up(self) -> bool:
        # By the cgroup, too: after its end, a PID 1 may linger until somebody outside has reaped the last of its own.
        return is_running(self.lab.keeper) and is_running(self.process) and cgroup_event(self.cgroup, "populated")

    @property
    def pid1(self) -> int:
        """The id of the host's PID 1 on this machine."""
        if not self.is_up:
            raise LabError(f"{self.name} is not running")
        return self.process["pid"]

    @property
    def cgroup(self) -> Path:
        return self.lab.cgroup / self.name

    @property
    def own_dir(self) -> Path:
        """Where the host's disks are, as the keeper sees it: for mounting."""
        return self.lab.dir / "hosts" / self.name

    @property
    def dir(self) -> Path:
        """Where the host's disks are, as we see it: for reading and writing."""
        return Path(f"/proc/{self.lab.keeper_pid}/root{self.own_dir}")

    @property
    def data_dir(self) -> Path:
        """The host's /var/lib/fleet, seen from outside; there also while the host is down."""
        return self.dir / "data"

    @property
    def root(self) -> Path:
        """The running host's root, seen from outside. Mind absolute symbolic links: they lead out again."""
        return Path(f"/proc/{self.pid1}/root")

    # Running things in it.

    def command(self, argv: Sequence[str | Path]) -> list[str]:
        """What to execute on this machine so that 'argv' is executed in the host, in the host's cgroup."""
        # Its cgroup, so that a freeze or a power cut reaches it too; one that systemd does not manage.
        group = self.cgroup / "lab.enter"
        script = 'mkdir "$0" 2>/dev/null; echo $$ > "$0/cgroup.procs" && exec "$@"'
        return ["sh", "-c", script, str(group), "nsenter", "-t", str(self.pid1), "-m", "-p", "-C", "-u", "-i", "-n",
                "--", *map(str, argv)]

    def popen(self, argv: Sequence[str | Path], **options: Any) -> subprocess.Popen[str]:
        """Starts a program in the host; options as of subprocess.Popen."""
        environment = HOST_ENVIRONMENT | self.environment | options.pop("env", {})
        return subprocess.Popen(self.command(argv), text=True, env=environment, start_new_session=True, **options)

    def run(self, argv: Sequence[str | Path], check: bool = True, timeout: float = 30,
            input: str | None = None) -> subprocess.CompletedProcess[str]:
        """Runs a program in the host to its end; with 'check', one that fails raises CalledProcessError."""
        stdin = subprocess.PIPE if input is not None else subprocess.DEVNULL
        process = self.popen(argv, stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        command = [self.name + ":", *map(str, argv)]
        try:
            stdout, stderr = process.communicate(input, timeout)
        except BaseException as error:
            # The whole session: nsenter forks to enter a PID namespace, and the child would stay behind.
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            if isinstance(error, subprocess.TimeoutExpired):
                raise subprocess.TimeoutExpired(command, timeout) from None
            raise
        if check and process.returncode != 0:
            raise CommandFailed(process.returncode, command, stdout, stderr)
        return subprocess.CompletedProcess(command, process.returncode, stdout, stderr)

    def systemctl(self, *arguments: str, check: bool = True, timeout: float = 30) -> subprocess.CompletedProcess[str]:
        return self.run(["systemctl", "--no-pager", *arguments], check=check, timeout=timeout)

    def show(self, unit: str, property: str) -> str:
        """One property of a unit, as systemd says it."""
        return self.systemctl("show", "--value", "-p", property, "--", unit).stdout.rstrip("\n")

    def is_active(self, unit: str) -> bool:
        return self.show(unit, "ActiveState") == "active"

    def main_pid(self, unit: str) -> int:
        """The main process of a unit, as the host counts; 0 for none."""
        return int(self.show(unit, "MainPID") or 0)

    def journal(self, unit: str | None = None, lines: int = 200) -> str:
        """The last lines of the journal, of all boots of this host; works while it is down, too."""
        command = ["journalctl", "--no-pager", "-q", "-o", "short-precise", "-n", str(lines),
                   "-D", str(self.dir / "journal")] + (["-u", unit] if unit else [])
        # Read from outside: a frozen or broken host should still tell what happened.
        return subprocess.run(command, text=True, capture_output=True, timeout=30,
                              env=HOST_ENVIRONMENT).stdout

    # Its files.

    def write(self, path: str, text: str, mode: int = 0o644) -> None:
        """Writes a file, atomically and with the folders above it; on a host that is down, on its root disk."""
        if not self.is_up:
            target = self.dir / "upper" / path.lstrip("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text)
            target.chmod(mode)
            return
        script = 'mkdir -p "${1%/*}" && cat >"$1.new~" && chmod "$2" "$1.new~" && mv "$1.new~" "$1"'
        self.run(["sh", "-c", script, "sh", path, f"{mode:o}"], input=text)

    def read(self, path: str) -> str:
        return self.run(["cat", path]).stdout

    def install(self, source: Path, path: str, mode: int = 0o755) -> None:
        """Copies a file of this machine into the host; one that is being executed may be replaced."""
        target = (self.root if self.is_up else self.dir / "upper") / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        fresh = target.with_name(target.name + ".new~")
        shutil.copyfile(source, fresh)
        fresh.chmod(mode)
        fresh.rename(target)

    # Power.

    def boot(self) -> None:
        """Switches the host on and waits until systemd has finished starting."""
        self.boot_begin()
        self.boot_finish()

    def boot_begin(self) -> None:
        if self.is_up:
            raise LabError(f"{self.name} is running already")
        if self.process is not None:
            self._gone()  # It went off by itself.
        with open(self.dir / "console.log", "ab") as console:
            self._supervisors.append(subprocess.Popen(
                [sys.executable, "-B", SUPERVISOR, self.lab.dir, self.name],
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=console, start_new_session=True))

    def boot_finish(self) -> None:
        pipe = self._supervisors[-1].stdout
        assert pipe is not None
        with pipe:
            answer = pipe.readline().decode().strip()
        if not answer.startswith("pid "):
            raise LabError(f"{self.name} does not boot: {answer or self._console()}")
        self.process = process_record(int(answer.split()[1]))
        self.lab.save()
        self._apply_filter()  # A blocked line stays blocked: the host comes back, the network has not changed.
        self._wait_booted()

    def _wait_booted(self) -> None:
        wait_until(lambda: not self.is_up or (self.root / "run/systemd/private").exists(), BOOT_DEADLINE_S,
                   f"{self.name}: systemd to answer")
        if not self.is_up:
            raise LabError(f"{self.name} died while booting: {self._console()}")
        state = self.systemctl("is-system-running", "--wait", check=False, timeout=BOOT_DEADLINE_S)
        if state.stdout.strip() not in ("running", "degraded"):
            raise LabError(f"{self.name} is {state.stdout.strip()!r} after booting: {state.stderr.strip()}")

    def _console(self) -> str:
        try:
            return (self.dir / "console.log").read_text(errors="replace")[-2000:]
        except FileNotFoundError:
            return "(nothing was said)"

    def power_cut(self) -> None:
        """The plug is pulled: no process gets to do anything any more, no packet leaves, /run and /tmp are lost.

        What was written to a disk stays there, also what was not yet synced: the machine's own kernel lives on.
        """
        if not self.is_up:
            raise LabError(f"{self.name} is not running")
        # First the line: the kernel says goodbye to the peers of a killed process, a host without power does not.
        self._set_port("down")
        self.freeze()
        cgroup_end(self.cgroup, REMOVE_DEADLINE_S)
        self._gone()

    def shut_down(self) -> None:
        """An orderly end: systemd stops everything, then the host is off. boot() brings it back."""
        self.run(["systemctl", "--no-block", "poweroff"], check=False)
        wait_until(lambda: not self.is_up, BOOT_DEADLINE_S, f"{self.name} to be off")
        self._gone()

    def reboot(self) -> None:
        """An orderly restart."""
        self.shut_down()
        self.boot()

    def _gone(self) -> None:
        # Not waiting for the supervisor: it waits for PID 1, and that may linger (see is_up).
        self._supervisors = [process for process in self._supervisors if process.poll() is None]
        # The network namespace goes too, with every connection in it; not waiting for the kernel to get round to it.
        subprocess.run(["nsenter", f"--net=/proc/{self.lab.keeper_pid}/ns/net", "--", "ip", "link", "delete",
                        self.name], capture_output=True)
        cgroup_end(self.cgroup, REMOVE_DEADLINE_S)
        self.process = None
        self.lab.save()

    # Time stands still.

    def freeze(self) -> None:
        """Stops every process of the host without it noticing; the network stack still answers pings."""
        (self.cgroup / "cgroup.freeze").write_text("1")
        wait_until(lambda: cgroup_event(self.cgroup, "frozen"), 10, f"{self.name} to freeze")

    def thaw(self) -> None:
        (self.cgroup / "cgroup.freeze").write_text("0")
        wait_until(lambda: not cgroup_event(self.cgroup, "frozen"), 10, f"{self.name} to thaw")

    # Network.

    def _set_port(self, state: str) -> None:
        run_ip(f"link set {self.name} {state}\n", self.lab.keeper_pid)

    def cut(self) -> None:
        """Pulls the network cable, at the switch's end, until mend(); also over a power cut."""
        self.is_cut = True
        self.lab.save()
        if self.is_up:
            self._set_port("down")

    def mend(self) -> None:
        self.is_cut = False
        self.lab.save()
        if self.is_up:
            self._set_port("up")

    def block(self, other: Host, one_way: bool = False) -> None:
        """Drops every packet between the two; with 'one_way', only those from 'other' to this host."""
        self.deaf_to.add(other.number)
        if not one_way:
            self.mute_to.add(other.number)
        self._apply_filter()

    def unblock(self, other: Host | None = None) -> None:
        """Takes block() back, for one other host or for all."""
        for numbers in (self.deaf_to, self.mute_to):
            numbers.clear() if other is None else numbers.discard(other.number)
        self._apply_filter()

    def lose(self, percent: int) -> None:
        """Drops this part of all packets to this host, by chance; 0 ends it."""
        self.loss_percent = percent
        self._apply_filter()

    def _apply_filter(self) -> None:
        self.lab.save()
        if not self.is_up or (not self.deaf_to and not self.mute_to and not self.loss_percent and not self._filtered):
            return
        hosts = {host.number: host for host in self.lab.hosts}

        def rules(numbers: set[int], side: str) -> str:
            return "".join(f"ip {side} {hosts[n].ip} drop\nip6 {side} {hosts[n].ip6} drop\n" for n in sorted(numbers))

        chance = f"numgen random mod 100 < {self.loss_percent} " if self.loss_percent < 100 else ""
        loss = f"{chance}drop\n" if self.loss_percent else ""
        # Replaced as a whole, in one transaction: there is no moment with half of the rules.
        text = ("table inet lab {}\nflush table inet lab\ntable inet lab {\n"
                "chain in {\ntype filter hook input priority 0\niifname lo accept\n"
                f"{rules(self.deaf_to, 'saddr')}{loss}}}\n"
                "chain out {\ntype filter hook output priority 0\noifname lo accept\n"
                f"{rules(self.mute_to, 'daddr')}}}\n}}\n")
        result = subprocess.run(["nsenter", f"--net=/proc/{self.pid1}/ns/net", "--", "nft", "-f", "-"], input=text,
                                text=True, capture_output=True)
        if result.returncode != 0:
            raise LabError(f"nft: {result.stderr.strip()}")
        self._filtered = True

    _filtered = False


class CommandFailed(subprocess.CalledProcessError):
    """A command in a host failed; says what it said, so that a test's report needs no more."""

    def __str__(self) -> str:
        said = "".join(f"\n    {line}" for line in ((self.stdout or "") + (self.stderr or "")).splitlines()[-30:])
        return f"{super().__str__()}{said}"
