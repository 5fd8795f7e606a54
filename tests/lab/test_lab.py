# SPDX-License-Identifier: Apache-2.0
"""The lab keeps what it promises to the other tests: hosts are hosts, a power cut is a power cut, a cut is a cut."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import lab as lab_module
import patience
from lab import Host, Lab, loop_devices_of, start_time, wait_until
from testing import lab_test

# Sends lines as an echo service does, so that a test can ask "do they reach each other" without any package.
ECHO = """[Service]
ExecStart=/usr/bin/python3 -c 'import socket; s = socket.create_server(("::", 7), family=socket.AF_INET6, \
dualstack_ipv6=True);\\nwhile True: c = s.accept()[0]; c.sendall(c.recv(9)); c.close()'
"""
ASK = "import socket,sys; c = socket.create_connection((sys.argv[1], 7), 0.3); c.sendall(b'x'); print(c.recv(9))"


def serve_echo(host: Host) -> None:
    host.write("/etc/systemd/system/echo.service", ECHO)
    host.systemctl("start", "echo")
    wait_until(lambda: reaches(host, "127.0.0.1"), 20, f"the echo service of {host.name}")


def reaches(host: Host, address: str) -> bool:
    return host.run(["python3", "-c", ASK, address], check=False).stdout == "b'x'\n"


@lab_test(hosts=3, deadline_s=30)
def test_hosts_are_hosts(lab: Lab) -> None:
    for host in lab.hosts:
        assert host.run(["hostname"]).stdout == f"{host.name}\n"
        assert host.read("/etc/machine-id") == f"{host.machine_id}\n"
        assert host.systemctl("is-system-running", check=False).stdout in ("running\n", "degraded\n")
        assert "org.freedesktop.systemd1" in host.run(["busctl", "list"]).stdout
        assert host.run(["ls", "/var/lib/fleet"]).stdout == ""
        # What the machine mounts, and where the lab is, is out of sight.
        assert lab.dir.name not in host.run(["ls", "-R", "/var/tmp"]).stdout
    assert len({host.machine_id for host in lab.hosts}) == 3


@lab_test(hosts=2, deadline_s=30)
def test_units_start_and_say_what_they_do(lab: Lab) -> None:
    lab.node1.write("/etc/systemd/system/hello.service",
                    "[Service]\nExecStart=/bin/sh -c 'echo hello; exec sleep 99'\n")
    lab.node1.systemctl("start", "hello")
    assert lab.node1.is_active("hello") and not lab.node2.is_active("hello")
    assert lab.node1.main_pid("hello") > 1
    wait_until(lambda: lab.node1.journal("hello"), 20, "the service's word in the journal",
               accept=lambda text: "]: hello\n" in text)


@lab_test(hosts=2, deadline_s=30)
def test_network_can_be_cut_and_blocked(lab: Lab) -> None:
    one, two = lab.hosts
    for host in lab.hosts:
        serve_echo(host)
    assert reaches(one, two.ip) and reaches(one, two.ip6) and reaches(two, one.ip)
    assert reaches(one, "node2")

    one.cut()
    assert not reaches(two, one.ip) and not reaches(one, two.ip6)
    one.mend()
    wait_until(lambda: reaches(two, one.ip) and reaches(one, two.ip6), 20, "the network after mend()")

    one.block(two, one_way=True)
    assert not reaches(two, one.ip) and not reaches(one, two.ip6)  # An answer has to get through, too.
    one.unblock(two)
    one.block(two)
    assert not reaches(two, one.ip6) and reaches(one, "127.0.0.1")
    one.unblock()
    assert reaches(two, one.ip6) and reaches(one, two.ip)

    one.lose(100)
    assert not reaches(one, two.ip)
    one.lose(0)
    assert reaches(one, two.ip)


@lab_test(hosts=2, deadline_s=30)
def test_one_way_block_is_one_way(lab: Lab) -> None:
    one, two = lab.hosts
    receive = "import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(('', 9)); " \
              "open('/run/ready', 'w'); s.settimeout(5); print(s.recv(9))"
    send = "import socket,sys; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', (sys.argv[1], 9))"
    one.block(two, one_way=True)
    listening = two.popen(["python3", "-c", receive], stdout=subprocess.PIPE)
    wait_until(lambda: (two.root / "run/ready").exists(), 20, "the listener")
    one.run(["python3", "-c", send, two.ip])
    assert listening.communicate(timeout=10)[0] == "b'x'\n"


@lab_test(hosts=2, deadline_s=30)
def test_power_cut_keeps_the_disk_only(lab: Lab) -> None:
    one, two = lab.hosts
    serve_echo(two)
    kept, lost = ("/etc/kept", "/var/lib/fleet/kept"), ("/run/lost", "/tmp/lost")
    for path in kept + lost:
        one.write(path, "x")
    # Would write a farewell if it got the chance.
    one.write("/etc/systemd/system/last.service", "[Service]\nExecStart=/bin/sleep infinity\n"
              "ExecStopPost=/bin/touch /var/lib/fleet/farewell\n")
    one.systemctl("start", "last")
    busy = one.popen(["sleep", "infinity"])
    begin = patience.now()

    one.power_cut()
    assert not one.is_up and not (lab.cgroup / one.name).exists()
    assert patience.now() - begin < 1  # Or it would be of little use for measuring how long a fail-over takes.
    assert busy.wait(5) != 0
    assert not reaches(two, one.ip)

    one.boot()
    for path in kept:
        assert one.read(path) == "x"
    for path in lost + ("/var/lib/fleet/farewell",):
        assert one.run(["test", "-e", path], check=False).returncode == 1, path
    assert one.read("/etc/machine-id") == f"{one.machine_id}\n"
    assert not one.is_active("last")
    assert "last.service" in one.journal("last")  # Of the boot before.
    serve_echo(one)
    wait_until(lambda: reaches(two, one.ip) and reaches(one, two.ip), 20, "the network after the power cut")


@lab_test(hosts=1, deadline_s=30)
def test_orderly_reboot(lab: Lab) -> None:
    lab.node1.write("/etc/systemd/system/last.service", "[Service]\nExecStart=/bin/sleep infinity\n"
                    "ExecStopPost=/bin/touch /var/lib/fleet/farewell\n")
    lab.node1.systemctl("start", "last")
    lab.node1.reboot()
    assert lab.node1.run(["ls", "/var/lib/fleet"]).stdout == "farewell\n"


@lab_test(hosts=2, deadline_s=30)
def test_a_cut_and_a_block_outlast_a_power_cut(lab: Lab) -> None:
    one, two = lab.hosts
    serve_echo(two)
    one.cut()
    two.block(one)
    one.power_cut()
    one.boot()
    assert not reaches(one, two.ip)
    one.mend()
    assert not reaches(one, two.ip)
    two.unblock()
    wait_until(lambda: reaches(one, two.ip), 20, "the network after mend() and unblock()")


@lab_test(hosts=1, deadline_s=30)
def test_freeze_stops_time(lab: Lab) -> None:
    host = lab.node1
    host.write("/etc/systemd/system/tick.service",
               "[Service]\nExecStart=/bin/sh -c 'while :; do echo >>/run/ticks; sleep 0.01; done'\n")
    host.systemctl("start", "tick")

    def ticks() -> int:
        return (host.root / "run/ticks").stat().st_size

    wait_until(lambda: (host.root / "run/ticks").exists() and ticks() > 3, 20, "the clock to tick")
    host.freeze()
    seen = ticks()
    try:
        wait_until(lambda: ticks() > seen, 0.3, "a tick of a frozen clock")
        raise AssertionError("a frozen host went on")
    except TimeoutError:
        pass
    host.thaw()
    wait_until(lambda: ticks() > seen, 20, "the clock to tick on")


@lab_test(hosts=2, disk_mb={1: 32}, deadline_s=30)
def test_disk_of_a_given_size(lab: Lab) -> None:
    small, normal = lab.hosts
    fill = ["dd", "if=/dev/zero", "of=/var/lib/fleet/fill", "bs=1M", "count=40"]
    result = small.run(fill, check=False)
    assert result.returncode != 0 and "No space left" in result.stderr, result.stderr
    normal.run(fill)
    small.power_cut()
    small.boot()
    assert small.run(["ls", "/var/lib/fleet"]).stdout.split() == ["fill", "lost+found"]
    small.run(["rm", "/var/lib/fleet/fill"])
    small.write("/var/lib/fleet/x", "x")


@lab_test(hosts=1, deadline_s=60)
def test_nothing_is_left_behind(lab: Lab) -> None:
    """Two labs at once; one ends in order, one is killed together with its test."""
    # Ctrl-C is ignored by what a shell starts in the background, so ask for it.
    script = (f"import signal, sys, time; sys.path.insert(0, {str(Path(lab_module.__file__).parent)!r})\n"
              "from lab import Lab\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
              "lab = Lab(hosts=1, disk_mb=16)\nprint(lab.dir, flush=True)\ntime.sleep(60)\n")
    for how in (signal.SIGKILL, signal.SIGTERM, signal.SIGINT):
        with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                              text=True) as other:
            directory = Path(other.stdout.readline().strip())
            state = lab_module.read_state(directory)
            pids = [state["keeper"]["pid"], state["hosts"][0]["process"]["pid"]]
            assert loop_devices_of(directory) and all(start_time(pid) for pid in pids)
            other.send_signal(how)
        wait_until(lambda: not directory.exists(), 10, f"the janitor to clean up after {how.name}")
        assert not loop_devices_of(directory) and not any(start_time(pid) for pid in pids)
        assert directory.name not in Path("/proc/self/mountinfo").read_text()
        assert not (lab.cgroup.parent / directory.name).exists()
    assert lab.node1.run(["true"]).returncode == 0
