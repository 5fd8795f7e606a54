# SPDX-License-Identifier: Apache-2.0
"""status, journal and restart: what is asked of hosts, and done on them, without SSH."""

from __future__ import annotations

import json
import random
import re
import subprocess
import threading
import time

import patience
from fleet import Cluster, write_service
from lab import Host, wait_until
from testing import Needs, lab_test
from witness import assert_stays, fleetd_pid

SHARED = True
TTL_S = 4
NEEDS = Needs(hosts=3, conf={"agent_ttl": f"{TTL_S}s"})
SPEAKS = "/bin/sh -c 'echo %n speaks; exec sleep infinity'"
GLOBAL = {"Global": "true"}


def on(host: Host) -> dict[str, str]:
    return {"MachineID": host.machine_id}


def invocations(hosts: list[Host], unit: str) -> list[str]:
    return [host.show(unit, "InvocationID") for host in hosts]


def starts(host: Host, unit: str) -> int:
    """How often a service written by write_counting() was started there."""
    return len(host.read(f"/var/starts-{unit}").splitlines())


def write_counting(host: Host, name: str, xfleet: dict[str, str]) -> str:
    return write_service(host, name, xfleet, execstart="/bin/sleep infinity",
                         service={"ExecStartPre": f"/bin/sh -c 'echo x >>/var/starts-{name}'",
                                  "StartLimitInterval": "0"})  # It is started often.


def test_status_of_a_unit_elsewhere(cluster: Cluster) -> None:
    one, two, three = cluster.hosts
    cluster.ctl(one, "start", write_service(one, "web.service", on(two), execstart=SPEAKS))
    for asked in cluster.hosts:
        text = cluster.ctl(asked, "status", "web").stdout
        assert text.startswith("● web.service - web.service\n"), text
        assert f"    Machine: {two.machine_id[:8]}.../{two.ip} ({two.name})\n" in text, text
        assert "     Loaded: loaded (/run/systemd/system/web.service; linked-runtime)\n" in text, text
        assert "     Active: active (running) since " in text, text
        assert f"   Main PID: {two.main_pid('web')}\n" in text, text
        assert re.search(rf"└─{two.main_pid('web')} sleep infinity\n", text), text
        assert re.search(rf" {two.name} sh\[\d+\]: web.service speaks\n", text), text

    [answer] = json.loads(cluster.ctl(three, "status", "-o", "json", "web").stdout)
    [machine] = answer["machines"]
    assert machine["machineID"] == two.machine_id and machine["unit"]["activeState"] == "active"
    assert machine["unit"]["invocationID"] == two.show("web", "InvocationID")

    two.systemctl("stop", "web")  # By hand: fleet wants it to run.
    stopped = wait_until(lambda: cluster.ctl(one, "status", "web", check=False), 20, "status to say that it is dead",
                         accept=lambda done: "Active: inactive (dead)" in done.stdout)
    assert stopped.returncode == 3
    missing = cluster.ctl(one, "status", "nosuch", "web", check=False)
    assert missing.returncode == 4 and missing.stderr == "Unit nosuch.service does not exist.\n"
    assert "web.service" in missing.stdout
    cluster.ctl(one, "unload", "web")
    unloaded = cluster.ctl(one, "status", "web", check=False)
    assert unloaded.returncode == 3 and unloaded.stderr == "Unit web.service does not appear to be loaded.\n"
    cluster.ctl(one, "destroy", "web")


def test_journal_of_a_unit_elsewhere(cluster: Cluster) -> None:
    one, two, three = cluster.hosts
    one.write("/root/log.sh", "for i in $(seq 3000); do echo line $i; done\nprintf '\\033[31mred\\033[0m\\n'\n"
              "printf 'odd \\001\\377\\n'\nexec sleep infinity\n")
    two.write("/root/log.sh", one.read("/root/log.sh"))
    cluster.ctl(one, "start", write_service(one, "log.service", on(two), execstart="/bin/sh /root/log.sh"))
    wait_until(lambda: two.journal("log.service", 5), 20, "the last line to be in the journal",
               accept=lambda text: "blob data" in text)
    text = cluster.ctl(three, "journal", "--lines=3", "-o", "cat", "log").stdout
    assert text == "line 3000\nred\n[6B blob data]\n", text
    # More than fits one answer comes in several.
    lines = cluster.ctl(one, "journal", "-n", "3002", "--output", "cat", "log").stdout.splitlines()
    assert lines == [f"line {number}" for number in range(1, 3001)] + ["red", "[6B blob data]"]
    entry = json.loads(cluster.ctl(one, "journal", "-n1", "-o", "json", "log").stdout)
    assert bytes(entry["MESSAGE"]) == b"odd \001\377" and entry["_SYSTEMD_UNIT"] == "log.service"
    assert entry["_MACHINE_ID"] == two.machine_id and entry["_TRANSPORT"] == "stdout"
    same = two.run(["journalctl", "-u", "log.service", "-n", "20", "--no-pager", "-q"]).stdout
    assert cluster.ctl(one, "journal", "-n", "20", "--sudo", "--ssh-port=2222", "log").stdout == same
    unknown = cluster.ctl(one, "journal", "nosuch", check=False)
    assert (unknown.returncode, unknown.stderr) == (4, "Unit nosuch.service does not exist.\n")
    cluster.ctl(one, "unload", "log")
    idle = cluster.ctl(one, "journal", "log", check=False)
    assert (idle.returncode, idle.stderr) == (1, "Unit log.service does not appear to be running.\n")
    cluster.ctl(one, "destroy", "log")


def test_a_global_unit_on_three_hosts(cluster: Cluster) -> None:
    one, two, three = cluster.hosts
    cluster.ctl(one, "start", write_service(one, "all.service", GLOBAL, execstart=SPEAKS))
    text = cluster.ctl(two, "status", "all").stdout
    assert [f"Main PID: {host.main_pid('all')}\n" in text for host in cluster.hosts] == [True] * 3, text
    assert text.count("● all.service") == 3 and text.count("\n\n● all.service") == 2, text
    said = cluster.ctl(three, "journal", "-n", "50", "all").stdout
    assert sorted(re.findall(r" (\S+) sh\[\d+\]: all.service speaks", said)) == ["node1", "node2", "node3"], said
    # By time, whatever the machine.
    entries = [json.loads(line) for line in cluster.ctl(one, "journal", "-n", "50", "-o", "json", "all").stdout.splitlines()]
    times = [int(entry["__REALTIME_TIMESTAMP"]) for entry in entries]
    assert times == sorted(times) and {entry["_MACHINE_ID"] for entry in entries} == {
        host.machine_id for host in cluster.hosts}
    three.systemctl("stop", "all")
    assert wait_until(lambda: cluster.ctl(one, "status", "all", check=False).returncode, 20, "one of three to be dead",
                      accept=lambda code: code != 0) == 3
    cluster.ctl(one, "destroy", "all")


class Follower:
    """fleetctl journal -f, and what it has printed."""

    def __init__(self, host: Host, *arguments: str) -> None:
        self.lines: list[str] = []
        self.process = host.popen(["fleetctl", "journal", "-f", *arguments], stdout=subprocess.PIPE,
                                  stderr=subprocess.PIPE)
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        for line in self.process.stdout or ():
            self.lines.append(line.rstrip("\n"))

    def wait(self, line: str, deadline_s: float = 10) -> None:
        wait_until(lambda: list(self.lines), deadline_s, f"{line!r} to be printed", accept=lambda seen: line in seen)

    def end(self) -> None:
        self.process.terminate()
        self.process.wait(10)


@lab_test(deadline_s=60)
def test_a_followed_journal_shows_what_comes(cluster: Cluster) -> None:
    one, two, three = cluster.hosts
    reader = "/bin/sh -c 'mkfifo /run/%n; while :; do cat /run/%n; done'"
    cluster.ctl(one, "start", write_service(one, "said.service", GLOBAL, execstart=reader))
    follower = Follower(one, "-o", "cat", "-n", "1", "said")
    for host in cluster.hosts:  # What is written before would make a file of it, which is read again and again.
        wait_until(lambda: host.run(["test", "-p", "/run/said.service"], check=False).returncode, 10,
                   f"{host.name}'s reader to have made its pipe", accept=lambda code: code == 0)
    for number, host in enumerate((two, three, one, two)):
        host.run(["sh", "-c", f"echo hello {number} >/run/said.service"])
        follower.wait(f"hello {number}")
    # A daemon that is asked stops at once nevertheless, and well.
    began = patience.now()
    two.systemctl("stop", "fleetd")
    assert patience.now() - began < 5 and two.show("fleetd", "Result") == "success"
    two.systemctl("start", "fleetd")
    cluster.wait_ready()
    two.run(["sh", "-c", "echo back again >/run/said.service"])
    follower.wait("back again")
    # A new leader meanwhile loses nothing, and nothing comes twice.
    leader = cluster.wait_leader()
    leader.systemctl("kill", "--signal=KILL", "fleetd")
    follower_host = next(host for host in cluster.hosts if host is not leader)
    follower_host.run(["sh", "-c", "echo after the change >/run/said.service"])
    if leader is not one:  # Otherwise its own daemon was killed, and comes back.
        cluster.wait_leader(other_than=leader)
    follower.wait("after the change", 25)
    cluster.wait_ready()
    for number in range(4):
        assert follower.lines.count(f"hello {number}") == 1, follower.lines
    assert follower.lines.count("after the change") == 1, follower.lines
    follower.end()
    # Whoever went away is not waited for any more: no thread is left with any host.
    for host in cluster.hosts:
        wait_until(lambda: host.run(["sh", "-c", f"ls /proc/{fleetd_pid(host)}/task | wc -l"]).stdout.strip(), 10,
                   f"{host.name} to end the threads of its answers", accept=lambda count: int(count) < 12)
    cluster.ctl(one, "destroy", "said")


@lab_test(deadline_s=60)
def test_restart_restarts_exactly_once(cluster: Cluster) -> None:
    one, two, three = cluster.hosts
    cluster.ctl(one, "start", write_counting(one, "here.service", on(two)), write_counting(one, "all.service", GLOBAL))
    before = invocations([two], "here"), invocations(cluster.hosts, "all")
    done = cluster.ctl(three, "restart", "here", "all")
    after = invocations([two], "here"), invocations(cluster.hosts, "all")
    assert f"Unit here.service launched on {two.machine_id[:8]}.../{two.ip}\n" in done.stdout
    assert "Triggered global unit all.service restart\n" in done.stdout
    assert "Unit all.service launched on 3/3 machines\n" in done.stdout
    assert sorted(done.stderr.splitlines()) == ["Unit(all.service) was restarted.", "Unit(here.service) was restarted."]
    # At once: restart returns when it is so.
    assert all(old != new for old, new in zip(before[0] + before[1], after[0] + after[1]))
    assert_stays(lambda: (invocations([two], "here"), invocations(cluster.hosts, "all")), 1, "what runs")
    assert [starts(two, "here.service")] + [starts(host, "all.service") for host in cluster.hosts] == [2, 2, 2, 2]
    assert {host.show("all", "NRestarts") for host in cluster.hosts} == {"0"}

    # A daemon that starts anew does not do it again, nor does a new leader.
    cluster.wait_leader().systemctl("restart", "fleetd")
    two.systemctl("restart", "fleetd")
    cluster.wait_ready()
    cluster.ctl(one, "start", "here", "all")
    assert (invocations([two], "here"), invocations(cluster.hosts, "all")) == after

    # What is only loaded, or was stopped by hand, is started; what is inactive is not.
    cluster.ctl(one, "stop", "here")
    three.systemctl("stop", "all")
    started = cluster.ctl(one, "restart", "here", "all")
    assert "Unit(here.service) already loaded, starting.\n" in started.stderr
    assert two.is_active("here") and three.is_active("all")
    assert [starts(two, "here.service")] + [starts(host, "all.service") for host in cluster.hosts] == [3, 3, 3, 3]
    cluster.ctl(one, "unload", "here")
    idle = cluster.ctl(one, "restart", "here", check=False)
    assert (idle.returncode, idle.stdout) == (0, "")
    assert idle.stderr == "Unable to restart unit here.service in state inactive\n"
    assert cluster.ctl(one, "restart", "nosuch", check=False).returncode == 4
    cluster.ctl(one, "destroy", "here", "all")


@lab_test(deadline_s=150, long=True)
def test_a_restart_outlives_killed_daemons(cluster: Cluster) -> None:
    one, two, three = cluster.hosts
    cluster.ctl(one, "start", write_counting(one, "each.service", GLOBAL))
    chance = random.Random(3)
    for turn in range(1, 7):
        before = invocations(cluster.hosts, "each")
        asked = next(host for host in cluster.hosts if host is not cluster.wait_leader())
        cluster.ctl(asked, "restart", "--no-block", "each")  # Acknowledged.
        time.sleep(chance.uniform(0, 0.06))  # When they are killed is left to chance: no condition to wait for.
        victims = cluster.hosts if turn % 3 == 0 else [cluster.leader() or one, chance.choice(cluster.hosts)]
        for host in victims:
            host.systemctl("kill", "--signal=KILL", "fleetd", check=False)
        cluster.wait_leader()
        cluster.wait_ready()
        wait_until(lambda: invocations(cluster.hosts, "each"), 20, "the restart everywhere",
                   accept=lambda now: all(a != b and b for a, b in zip(before, now)))
        # Nothing of it is still under way when a start of what is wanted already returns.
        cluster.ctl(asked, "start", "each")
        assert [starts(host, "each.service") for host in cluster.hosts] == [turn + 1] * 3, f"turn {turn}"
    assert {host.show("each", "NRestarts") for host in cluster.hosts} == {"0"}
    cluster.ctl(one, "destroy", "each")


@lab_test(deadline_s=90)
def test_a_lost_host_is_named(cluster: Cluster) -> None:
    one = cluster.hosts[0]
    cluster.wait_voters(3)
    cluster.ctl(one, "start", write_service(one, "all.service", GLOBAL, execstart=SPEAKS))
    leader = cluster.wait_leader()
    lost = next(host for host in cluster.hosts if host is not leader)
    other = next(host for host in cluster.hosts if host not in (leader, lost))
    lost.power_cut()
    began = patience.now()
    done = wait_until(lambda: cluster.ctl(other, "status", "all", check=False), 2 * TTL_S + 10,
                      "status to say that a host is lost", accept=lambda done: "it does not answer: lost" in done.stdout)
    print(f"       named as lost after {patience.now() - began:.1f} s")
    assert re.search(rf"Machine: {lost.machine_id[:8]}\.\.\./{lost.ip} \({lost.name}\): it does not answer: lost, "
                     r"nothing heard of it for \d+ s\n", done.stdout), done.stdout
    assert done.stdout.count("Active: active (running)") == 2 and done.returncode != 0
    said = cluster.ctl(other, "journal", "all", check=False)
    assert f"Machine {lost.name} ({lost.machine_id[:8]}): it does not answer" in said.stderr
    assert f" {other.name} sh[" in said.stdout and said.returncode == 1
    lost.boot()
    cluster.wait_ready()
    assert cluster.ctl(other, "status", "all").stdout.count("Active: active (running)") == 3
    cluster.ctl(one, "destroy", "all")
