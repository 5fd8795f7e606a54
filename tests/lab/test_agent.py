# SPDX-License-Identifier: Apache-2.0
"""The agent alone, on a host with a real systemd: driven by agent-probe, no cluster."""

from __future__ import annotations

import hashlib
import subprocess
import threading
import time
from typing import Any

from lab import Host, Lab, wait_until
from testing import lab_test

SLEEP = "[Service]\nExecStart=/bin/sleep 9999\n"
OTHER = "[Service]\nExecStart=/bin/sleep 8888\n"
BAD = "[Service]\nType=nonsense\n"
ONESHOT = "[Service]\nType=oneshot\nExecStart=/bin/sh -c 'echo x >>/run/ran.%n'\n"
FAILS = "[Service]\nType=oneshot\nExecStart=/bin/false\n"
STUBBORN = "[Service]\nTimeoutStopSec=3\nExecStart=/bin/sh -c 'trap : TERM; while :; do sleep 0.1; done'\n"
INSTALL = SLEEP + "[Install]\nWantedBy=multi-user.target\n"


class Probe:
    """An agent in a host, and the last report of every unit."""

    def __init__(self, lab: Lab) -> None:
        self.host: Host = lab.hosts[0]
        assert lab.build is not None
        self.host.install(lab.build / "tests/lab/agent-probe", "/tmp/agent-probe")
        self.start()

    def start(self) -> None:
        self.connected = False
        self.losses = 0
        self.reports: dict[str, dict[str, str]] = {}
        self.process = self.host.popen(["/tmp/agent-probe", "/run/fleet/units", "/run/fleet/agent.state"],
                                       stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        threading.Thread(target=self._read, daemon=True).start()
        wait_until(lambda: self.connected, 5, "the agent to reach systemd")

    def _read(self) -> None:
        for line in self.process.stdout or ():
            words = line.rstrip("\n").split(" ")
            if words[0] == "bus":
                self.connected = words[1] == "1"
                self.losses += not self.connected
            elif words[0] == "report":
                head, error = line.rstrip("\n").split(" error=", 1)
                self.reports[words[2]] = dict(w.split("=", 1) for w in head.split(" ")[3:]) | {"error": error}

    def share(self, wanted: dict[str, tuple[str, str, int]], removed: tuple[str, ...] = (),
              complete: bool = False) -> None:
        """'wanted': name to text, desired state, generation."""
        lines = [f"remove {name}" for name in removed]
        for name, (text, desired, generation) in wanted.items():
            path = f"/tmp/{hashlib.sha1(text.encode()).hexdigest()}.text"
            if not (self.host.root / path.lstrip("/")).exists():
                self.host.write(path, text)
            lines.append(f"want {name} {path} {desired} {generation}")
        assert self.process.stdin is not None
        self.process.stdin.write("\n".join([*lines, "complete" if complete else "go", ""]))
        self.process.stdin.flush()

    def wait(self, names: str | list[str], deadline_s: float = 20, **fields: Any) -> None:
        """Until the last report of each says so."""
        def missing() -> list[Any]:
            return [(name, self.reports.get(name)) for name in ([names] if isinstance(names, str) else names)
                    if any(self.reports.get(name, {}).get(key) != str(value) for key, value in fields.items())][:3]
        wait_until(missing, deadline_s, f"reports of {fields}", accept=lambda found: not found)

    def kill(self) -> None:
        self.host.run(["sh", "-c", "kill -9 $(pidof agent-probe)"])
        self.process.wait()

    def quit(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("quit\n")
        self.process.stdin.flush()
        assert self.process.wait(10) == 0  # Nothing was left on its loop.

    def pids(self, names: list[str]) -> list[int]:
        return [self.host.main_pid(name) for name in names]


def many(prefix: str, count: int) -> list[str]:
    return [f"{prefix}{number}.service" for number in range(count)]


@lab_test(hosts=1, deadline_s=60)
def test_a_batch_lives_and_a_bad_unit_hurts_nobody(lab: Lab) -> None:
    probe, names = Probe(lab), many("a", 20)
    odd = {"bad.service": (BAD, "launched", 1), "once.service": (ONESHOT, "launched", 1),
           "fails.service": (FAILS, "launched", 1), "idle.service": (SLEEP, "loaded", 1),
           "idlebad.service": (BAD, "loaded", 1), "wanted.service": (INSTALL, "launched", 1)}
    probe.share({name: (SLEEP, "launched", 1) for name in names} | odd)
    probe.wait(names + ["wanted.service"], active="active", generation=1, result="done", launched=1, gone=0)
    probe.wait("bad.service", generation=1, result="error", load="bad-setting")
    probe.wait("idlebad.service", generation=1, result="error", load="bad-setting")
    probe.wait("once.service", generation=1, result="done", active="inactive")
    probe.wait("fails.service", generation=1, result="failed", active="failed")
    probe.wait("idle.service", generation=1, result="done", active="inactive", load="loaded", launched=0)
    assert "bad unit file setting" in probe.reports["bad.service"]["error"]
    assert probe.host.systemctl("is-enabled", "a1.service", check=False).stdout == "linked-runtime\n"
    assert "wanted.service" in probe.host.show("multi-user.target", "Wants")

    probe.share({"bad.service": (SLEEP, "launched", 2)})
    probe.wait("bad.service", generation=2, result="done", active="active", error="")
    probe.host.run(["rm", "/run/systemd/system/a3.service"])
    probe.share({}, complete=True)
    probe.wait([*names, *odd], gone=1)
    assert probe.host.run(["ls", "/run/fleet/units"]).stdout == ""
    assert "/run/fleet" not in probe.host.run(["ls", "-lR", "/run/systemd/system"]).stdout
    probe.quit()


@lab_test(hosts=1, deadline_s=60)
def test_death_of_the_agent_and_its_bus_touches_no_unit(lab: Lab) -> None:
    probe, names = Probe(lab), many("a", 10)
    share = {name: (SLEEP, "launched", 1) for name in names} | {"once.service": (ONESHOT, "launched", 1)}
    probe.share(share, complete=True)
    probe.wait(names, active="active", result="done")
    probe.wait("once.service", result="done")
    probe.host.systemctl("stop", "a0.service")
    probe.wait("a0.service", active="inactive")
    pids = probe.pids(names)

    def nothing_changed() -> None:
        probe.wait([*names, "once.service"], generation=1, result="done", gone=0)
        assert probe.pids(names) == pids
        assert probe.host.read("/run/ran.once.service") == "x\n"

    probe.kill()
    probe.start()
    nothing_changed()
    probe.share(share, complete=True)
    nothing_changed()
    probe.host.systemctl("daemon-reload")
    probe.host.systemctl("restart", "dbus", check=False)
    nothing_changed()
    probe.host.systemctl("daemon-reexec")
    wait_until(lambda: probe.losses > 0 and probe.connected, 10, "the agent to connect again")
    nothing_changed()
    probe.quit()
    assert probe.pids(names) == pids

    # The memory lost too: what runs is adopted; what does not is started, because nobody knows that it was.
    probe.host.run(["rm", "/run/fleet/agent.state"])
    probe.start()
    probe.share(share, complete=True)
    probe.wait(names, active="active", generation=1, result="done")
    assert probe.pids(names)[1:] == pids[1:]
    probe.quit()


@lab_test(hosts=1, deadline_s=60)
def test_new_content_restarts_once_and_only_its_unit(lab: Lab) -> None:
    probe, names = Probe(lab), many("a", 5)
    probe.share({name: (SLEEP, "launched", 1) for name in names})
    probe.wait(names, active="active", result="done")
    pids = probe.pids(names)
    probe.share({"a0.service": (OTHER, "launched", 2), "a1.service": (SLEEP, "launched", 2)})
    probe.wait(["a0.service", "a1.service"], active="active", generation=2, result="done")
    now = probe.pids(names)
    assert now[0] != pids[0] and now[1:] == pids[1:]
    assert probe.host.read(f"/proc/{now[0]}/cmdline") == "/bin/sleep\0" "8888\0"
    assert probe.host.show("a0.service", "NRestarts") == "0"
    assert probe.host.show("a0.service", "NeedDaemonReload") == "no"
    probe.share({"a2.service": (OTHER, "loaded", 2)})
    probe.wait("a2.service", active="inactive", generation=2, result="done", launched=0)
    probe.share({"a2.service": (OTHER, "launched", 3)})
    probe.wait("a2.service", active="active", generation=3, result="done", launched=1)
    probe.quit()


@lab_test(hosts=1, deadline_s=60)
def test_a_unit_that_does_not_stop_holds_up_nobody(lab: Lab) -> None:
    probe = Probe(lab)
    probe.share({"slow.service": (STUBBORN, "launched", 1), "a.service": (SLEEP, "launched", 1)})
    probe.wait(["slow.service", "a.service"], active="active")
    probe.share({"b.service": (SLEEP, "launched", 1)}, removed=("slow.service", "a.service"))
    probe.wait("b.service", active="active", result="done")
    probe.wait("a.service", gone=1)
    assert probe.host.show("slow.service", "ActiveState") == "deactivating"
    probe.share({"slow.service": (STUBBORN, "launched", 2)})
    probe.wait("slow.service", active="active", generation=2, result="done")
    probe.share({}, removed=("slow.service",))
    probe.wait("slow.service", gone=1)
    probe.quit()


@lab_test(hosts=1, deadline_s=120)
def test_300_units_start_as_fast_as_systemd_starts_them(lab: Lab) -> None:
    probe, names, floor_names = Probe(lab), many("a", 300), many("floor", 300)
    probe.host.write("/run/floor.service", SLEEP)
    probe.host.run(["sh", "-c", "for i; do cp /run/floor.service /run/systemd/system/$i; done", "sh", *floor_names])
    began = time.monotonic()
    probe.host.systemctl("start", *floor_names, timeout=60)
    floor_s = time.monotonic() - began
    probe.host.systemctl("stop", *floor_names, timeout=60)
    began = time.monotonic()
    probe.share({name: (SLEEP, "launched", 1) for name in names})
    probe.wait(names, 60, active="active", result="done")
    took_s = time.monotonic() - began
    print(f"300 units: {took_s:.2f} s, floor {floor_s:.2f} s")
    assert took_s < 2 * floor_s + 0.5  # The aim is 1.5; a test must not fail for another's load.
    probe.quit()
