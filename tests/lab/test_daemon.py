# SPDX-License-Identifier: Apache-2.0
"""fleetd as a daemon: SIGHUP, SIGUSR1, SIGTERM, sockets from systemd; and the first fleet's faults in all of that."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import patience
from fleet import TOP, Cluster, write_service
from lab import Host, wait_until
from testing import Needs, lab_test
from witness import fleetd_pid, lives, wait_once_each

SHARED = True
# Insecure, for there the API is served over the network in plain text.
NEEDS = Needs(hosts=3, conf={"agent_ttl": "60s", "insecure": "true"})
UNITS = ["kept@1.service", "kept@2.service", "kept@3.service"]

# Asks over one connection, once for each line on stdin, and says the status, or what went wrong.
HELD = r"""
import http.client, socket, sys
connection = http.client.HTTPConnection("fleet", timeout=20)
connection.sock = socket.socket(socket.AF_UNIX)
connection.sock.connect(sys.argv[1])
mine = connection.sock
for line in sys.stdin:
    try:
        connection.request("GET", "/fleet/v1/machines")
        answer = connection.getresponse()
        answer.read()
        print(answer.status if connection.sock is mine else "another connection", flush=True)
    except Exception as error:
        print(repr(error), flush=True)
"""

# Asks over a new connection each time, until a file appears; then says how often, and what went wrong.
LOAD = r"""
import http.client, os, socket, sys
count, wrong = 0, []
while not os.path.exists(sys.argv[2]):
    connection = http.client.HTTPConnection("fleet", timeout=20)
    try:
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.settimeout(20)
        connection.sock.connect(sys.argv[1])
        connection.request("GET", sys.argv[3])
        answer = connection.getresponse()
        answer.read()
        if answer.status != 200:
            wrong.append(str(answer.status))
    except Exception as error:
        wrong.append(repr(error))
    count += 1
    connection.close()
print(count, *wrong, sep="\n")
"""


class Held:
    """A connection to a host's API that is kept open."""

    def __init__(self, host: Host, path: str = "/run/fleet.sock") -> None:
        self.process = host.popen(["python3", "-c", HELD, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def ask(self) -> str:
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().strip()

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait(10)


@contextmanager
def load(host: Host, count: int = 2, path: str = "/fleet/v1/units") -> Iterator[list[str]]:
    """Clients that ask again and again meanwhile; afterwards the list says what went wrong."""
    wrong: list[str] = []
    end = "/run/load-end"
    host.run(["rm", "-f", end])
    clients = [host.popen(["python3", "-c", LOAD, "/run/fleet.sock", end, path], stdout=subprocess.PIPE)
               for _ in range(count)]
    try:
        yield wrong
    finally:
        host.write(end, "")
        for client in clients:
            asked, *bad = client.communicate(timeout=60)[0].splitlines()
            assert int(asked) > 0
            wrong += bad


def said(host: Host, *parts: str, since: str) -> list[str]:
    """The lines of fleetd's journal that contain one of these, after a cursor of now_in_journal()."""
    text = host.run(["journalctl", "--no-pager", "-q", "-o", "cat", "-u", "fleetd", f"--after-cursor={since}"]).stdout
    return [line for line in text.splitlines() if any(part in line for part in parts)]


def now_in_journal(host: Host) -> str:
    text = host.run(["journalctl", "--no-pager", "-q", "-n1", "--show-cursor", "-o", "cat"]).stdout
    return text.splitlines()[-1].removeprefix("-- cursor: ")


def reload(cluster: Cluster, host: Host, conf: Mapping[str, str | None] = {}) -> list[str]:
    """Configures, reloads, waits for the outcome, and returns what fleetd said about it."""
    since = now_in_journal(host)
    cluster.configure(host, conf)
    host.systemctl("reload", "fleetd")
    outcome = ("The configuration was read again", "The configuration stays as it was")
    wait_until(lambda: said(host, *outcome, since=since), 10, "the reload to be over")
    return said(host, "", since=since)


def http_status(host: Host, *arguments: str) -> str:
    """The status of a request by curl; "000" where nobody answers."""
    return host.run(["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", *arguments], check=False).stdout


def listed(cluster: Cluster, asked: Host, host: Host) -> tuple[str, str]:
    """Address and metadata of a host, as another one lists it."""
    return next((m.ip, m.metadata) for m in cluster.machines(asked) if m.id == host.machine_id)


def start_units(cluster: Cluster) -> None:
    one = cluster.hosts[0]
    write_service(one, "kept@.service", {"Conflicts": "kept@*"})
    cluster.ctl(one, "start", *(f"/root/units/{unit}" for unit in UNITS))
    wait_once_each(cluster.hosts, UNITS, 10)


# The command line.

def test_command_line(cluster: Cluster) -> None:
    one = cluster.hosts[0]
    none = "takes no arguments. Did you mean to invoke fleetctl instead?\n"
    cases = [  # Arguments, exit status, the beginning of stdout, a part of stderr.
        (["--version"], 0, "fleetd version ", ""),
        (["-version"], 0, "fleetd version ", ""),
        (["version"], 0, "fleetd version ", ""),
        (["--help"], 0, "Usage: fleetd ", ""),
        (["-h"], 0, "Usage: fleetd ", ""),
        (["start"], 2, "", f"fleetd {none}Usage: fleetd "),
        (["--config", "/etc/fleet/fleet.conf", "start"], 2, "", f"fleetd {none}"),
        (["--bogus"], 2, "", "unknown option --bogus\nUsage: fleetd "),
        (["--config"], 2, "", "--config needs a file\n"),
        (["--config", "/nonexistent"], 1, "", "cannot read /nonexistent: No such file or directory"),
        (["-config=/etc"], 1, "", "/etc is a directory, not a file"),
    ]
    for arguments, status, stdout, stderr in cases:
        result = one.run(["fleetd", *arguments], check=False)
        assert result.returncode == status, (arguments, result)
        assert result.stdout.startswith(stdout) and bool(result.stdout) == bool(stdout), (arguments, result)
        assert stderr in result.stderr and bool(result.stderr) == bool(stderr), (arguments, result)


# SIGHUP.

@lab_test(deadline_s=90)
def test_sighup_applies_what_changed_and_touches_nothing_else(cluster: Cluster) -> None:
    """The first fleet: "SIGHUP dead and blocks SIGTERM"."""
    start_units(cluster)
    one, two, _ = cluster.hosts
    before, pids = lives(cluster.hosts, "kept@*"), [fleetd_pid(host) for host in cluster.hosts]
    held = Held(two)
    assert held.ask() == "200"
    tcp = f"http://{two.ip}:49153/fleet/v1/units"
    assert http_status(one, tcp) == "000"

    lines = reload(cluster, two, {"metadata": "disk=ssd,region=eu", "public_ip": "10.77.0.222", "token_limit": "1",
                                  "verbosity": "1", "api_listen": two.ip})
    assert "The configuration was read again; changed: verbosity, public_ip, metadata, token_limit, api_listen" in lines
    wait_until(lambda: listed(cluster, one, two), 20, "the others to see it",
               accept=lambda seen: seen == ("10.77.0.222", "disk=ssd,region=eu"))
    assert http_status(one, tcp) == "200"
    # What this host itself answers: the list of the leader has the leader's pages.
    wait_until(lambda: json.loads(two.run(["curl", "-s", "--unix-socket", "/run/fleet.sock",
                                           "http://x/fleet/v1/units?stale=yes"]).stdout), 10, "a page of one unit",
               accept=lambda page: len(page.get("units", [])) == 1 and page["nextPageToken"])
    assert held.ask() == "200"

    # The socket moves; who is connected stays connected, and a key that is gone has its default again.
    lines = reload(cluster, two, {"api_socket": "/run/fleet/other.sock"})
    assert ("The configuration was read again; changed: verbosity, public_ip, metadata, token_limit, api_listen, "
            "api_socket") in lines
    assert held.ask() == "200"
    assert http_status(two, "--unix-socket", "/run/fleet/other.sock", "http://x/fleet/v1/units") == "200"
    assert two.run(["test", "-e", "/run/fleet.sock"], check=False).returncode == 1
    assert http_status(one, tcp) == "000"
    wait_until(lambda: listed(cluster, one, two), 20, "the others to see the defaults",
               accept=lambda seen: seen == (two.ip, "-"))
    reload(cluster, two)
    assert held.ask() == "200"
    held.close()
    assert cluster.ctl(two, "list-units", "--no-legend").stdout.count("\n") == 3

    assert lives(cluster.hosts, "kept@*") == before
    assert [fleetd_pid(host) for host in cluster.hosts] == pids
    assert two.show("fleetd", "ActiveState") == "active"


@lab_test(deadline_s=60)
def test_group_of_the_socket(cluster: Cluster) -> None:
    one = cluster.hosts[0]
    one.run(["groupadd", "operators"])
    inode = one.run(["stat", "-c", "%i", "/run/fleet.sock"]).stdout
    reload(cluster, one, {"api_socket_group": "operators"})
    assert one.run(["stat", "-c", "%G %a", "/run/fleet.sock"]).stdout == "operators 660\n"
    reload(cluster, one, {"api_socket_group": "nobody-has-this"})
    assert one.run(["stat", "-c", "%G %a", "/run/fleet.sock"]).stdout == "root 660\n"
    reload(cluster, one)
    assert one.run(["stat", "-c", "%i", "/run/fleet.sock"]).stdout == inode


@lab_test(deadline_s=60)
def test_broken_configuration_changes_nothing(cluster: Cluster) -> None:
    one = cluster.hosts[0]
    seen = listed(cluster, one, one)
    lines = reload(cluster, one, {"metadata": "a=b", "agent_ttl": "soon"})
    refusal = [line for line in lines if line.startswith("The configuration stays as it was")]
    assert len(refusal) == 1 and "/etc/fleet/fleet.conf:" in refusal[0] and "agent_ttl" in refusal[0], lines
    since = now_in_journal(one)
    one.write("/etc/fleet/fleet.conf", "insecure = true\n\nthis is no line\n")
    one.systemctl("reload", "fleetd")
    wait_until(lambda: said(one, "fleet.conf:3: neither", since=since), 20, "the mistake to be named")
    wait_until(lambda: one.show("fleetd", "ActiveState"), 20, "the reload to be over", accept=lambda s: s == "active")
    assert listed(cluster, one, one) == seen
    reload(cluster, one)


@lab_test(deadline_s=60)
def test_a_removed_socket_comes_back_with_a_reload(cluster: Cluster) -> None:
    one = cluster.hosts[0]
    one.run(["rm", "/run/fleet.sock"])
    assert "The configuration was read again; nothing to change" in reload(cluster, one)
    assert len(cluster.machines(one)) == 3


@lab_test(deadline_s=60)
def test_a_changed_machine_id_is_reported_and_not_taken_over(cluster: Cluster) -> None:
    one = cluster.hosts[0]
    try:
        one.write("/etc/machine-id", "")
        assert any(line.startswith("Unable to refresh machine state: ") for line in reload(cluster, one))
        one.write("/etc/machine-id", "0123456789abcdef0123456789abcdef\n")
        reported = f"/etc/machine-id says 0123456789abcdef0123456789abcdef now, but this host is {one.machine_id}"
        assert sum(line.startswith(reported) for line in reload(cluster, one)) == 1
        assert not [line for line in reload(cluster, one) if line.startswith(reported)]  # Once is enough.
        cluster.wait_ready(3)
        assert {m.id for m in cluster.machines(one)} == {host.machine_id for host in cluster.hosts}
    finally:
        one.write("/etc/machine-id", one.machine_id + "\n")
    reload(cluster, one)


@lab_test(deadline_s=120, long=True)  # It takes that minute.
def test_public_ip_is_looked_for_every_minute(cluster: Cluster) -> None:
    one, _, three = cluster.hosts
    reload(cluster, three, {"public_ip": None})
    wait_until(lambda: listed(cluster, one, three)[0], 20, "no address without a default route", accept=lambda ip: ip == "-")
    three.run(["ip", "route", "add", "default", "via", one.ip])
    wait_until(lambda: listed(cluster, one, three)[0], 70, "the address of its interface", accept=lambda ip: ip == three.ip)
    three.run(["ip", "route", "delete", "default"])
    reload(cluster, three)


@lab_test(deadline_s=60)
def test_what_needs_a_restart_says_so(cluster: Cluster) -> None:
    one = cluster.hosts[0]
    lines = reload(cluster, one, {"data_dir": "/var/lib/other", "units_directory": "/run/other", "systemd_user": "yes",
                                  "cluster_listen": "0.0.0.0:7391", "metadata": "still=applied"})
    for key in ("data_dir", "units_directory", "systemd_user", "cluster_listen"):
        assert sum(line.startswith(f"{key} = ") and "takes effect when fleetd is restarted" in line for line in lines) == 1
    wait_until(lambda: listed(cluster, one, one)[1], 20, "the rest to be applied", accept=lambda m: m == "still=applied")
    assert one.run(["ls", "-d", "/var/lib/other", "/run/other"], check=False).stdout == ""
    reload(cluster, one)


@lab_test(deadline_s=120)
def test_a_hundred_reloads_under_load(cluster: Cluster) -> None:
    one = cluster.hosts[0]
    before, pid = lives(cluster.hosts, "kept@*"), fleetd_pid(one)
    held = Held(one)
    with load(one, 3) as wrong:
        for round in range(100):
            cluster.configure(one, {"metadata": f"round={round}", "token_limit": str(1 + round), "verbosity": str(round % 2),
                                    "api_listen": one.ip if round % 3 == 0 else None})
            one.run(["kill", "-HUP", str(pid)])
            if round % 20 == 0:
                assert held.ask() == "200"
    assert wrong == []
    wait_until(lambda: listed(cluster, one, one)[1], 20, "the last one to be in effect", accept=lambda m: m == "round=99")
    assert held.ask() == "200"
    held.close()
    assert fleetd_pid(one) == pid and lives(cluster.hosts, "kept@*") == before
    reload(cluster, one)


@lab_test(deadline_s=120)
def test_a_shorter_ttl_counts_at_once_and_loses_nobody(cluster: Cluster) -> None:
    leader = cluster.wait_leader()
    cluster.wait_voters(3)
    before = lives(cluster.hosts, "kept@*")
    for host in cluster.hosts:
        reload(cluster, host, {"agent_ttl": "4s"})
    cluster.wait_ready(3)
    assert lives(cluster.hosts, "kept@*") == before
    cut = next(host for host in cluster.hosts if host is not leader)
    try:
        cut.cut()
        wait_until(lambda: [m.state for m in cluster.machines(leader) if m.id == cut.machine_id], 15,
                   f"{cut.name} to be lost within the new ttl", accept=lambda states: states == ["lost"])
    finally:
        cut.mend()
    cluster.wait_ready(3)
    for host in cluster.hosts:
        reload(cluster, host)
    wait_once_each(cluster.hosts, UNITS, 15)


@lab_test(deadline_s=90)
def test_voters_are_changed_by_a_reload_on_any_host(cluster: Cluster) -> None:
    cluster.wait_voters(3)
    two = next(host for host in cluster.hosts if host is not cluster.wait_leader())
    reload(cluster, two, {"voters": "1"})
    cluster.wait_voters(1)
    reload(cluster, two)  # Five again, which three hosts make three of.
    cluster.wait_voters(3)


@lab_test(deadline_s=120)
def test_disable_engine(cluster: Cluster) -> None:
    before = wait_once_each(cluster.hosts, UNITS, 10)
    barred: list[Host] = []
    for _ in range(2):
        leader = cluster.wait_leader()
        assert leader not in barred
        barred.append(leader)
        reload(cluster, leader, {"disable_engine": "true"})
        wait_until(cluster.leader, 15, "another host to lead", accept=lambda host: host is not None and host not in barred)
    last = cluster.wait_leader()
    # The only one that may lead is away: others keep the store, and give leadership back when it returns.
    last.systemctl("stop", "fleetd")
    wait_until(cluster.leader, 20, "one of the others to lead meanwhile", accept=lambda host: host in barred)
    last.systemctl("start", "fleetd")
    wait_until(cluster.leader, 30, f"{last.name} to lead again", accept=lambda host: host is last)
    cluster.wait_ready(3)

    # All of them: whoever leads stores, and places nothing.
    reload(cluster, last, {"disable_engine": "true"})
    leader = cluster.wait_leader()
    assert "places nothing (disable_engine)" in cluster.status(leader)
    unit = write_service(leader, "late.service")
    cluster.ctl(leader, "start", "--no-block", unit)
    started = leader.popen(["fleetctl", "start", "late.service"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    row = cluster.ctl(leader, "list-unit-files", "--no-legend", "--fields=unit,dstate,target", "late.service").stdout
    assert row.split() == ["late.service", "launched", "-"]
    assert cluster.where_truly("late.service") == [] and lives(cluster.hosts, "kept@*") == before
    for host in cluster.hosts:
        reload(cluster, host)
    assert started.communicate(timeout=30)[0].startswith("Unit late.service launched on") and started.returncode == 0
    cluster.ctl(leader, "destroy", "late.service")
    assert lives(cluster.hosts, "kept@*") == before
    cluster.wait_voters(3)


# SIGUSR1, SIGTERM.

@lab_test(deadline_s=60)
def test_sigusr1_dumps_the_state(cluster: Cluster) -> None:
    for host in cluster.hosts:
        mine = sorted(unit for unit, [life] in lives(cluster.hosts, "kept@*").items() if life.host == host.name)
        since = now_in_journal(host)
        host.systemctl("kill", "--signal=USR1", "--kill-who=main", "fleetd")
        [line] = wait_until(lambda: said(host, '{"Agent":', since=since), 20, "the dump")
        dump = json.loads(line)
        assert dump["Agent"]["Cache"]["TargetStates"] == {unit: "launched" for unit in mine}
        cache = dump["UnitStatePublisher"]["Cache"]
        assert sorted(cache) == mine == sorted(dump["UnitStateGenerator"]["Subscribed"])
        for unit in mine:
            assert {**cache[unit], "UnitHash": ""} == {
                "LoadState": "loaded", "ActiveState": "active", "SubState": "running", "MachineID": host.machine_id,
                "UnitHash": "", "UnitName": unit} and len(cache[unit]["UnitHash"]) == 40
        assert dump["UnitStatePublisher"]["ToPublish"] == {}
        assert dump["Fleet"]["Config"]["agent_ttl"] == "60s" and dump["Fleet"]["Listening"] == ["/run/fleet.sock"]
        assert said(host, "Dumping server state", since=since)
        assert fleetd_pid(host) != 0


@lab_test(deadline_s=120)
def test_sigterm_during_a_reload(cluster: Cluster) -> None:
    one = cluster.hosts[0]
    before = lives(cluster.hosts, "kept@*")
    for reloads in (1, 2, 10):
        pid = fleetd_pid(one)
        began = patience.now()
        # In one breath, so that the reload is under way.
        one.run(["sh", "-c", f"i=0; while [ $i -lt {reloads} ]; do kill -HUP {pid}; i=$((i+1)); done; kill -TERM {pid}"])
        wait_until(lambda: fleetd_pid(one), 20, "another fleetd", accept=lambda now: now not in (0, pid))
        assert patience.now() - began < 15
        assert one.show("fleetd", "NRestarts") and one.show("fleetd", "Result") == "success"
        cluster.wait_ready(3)
    assert lives(cluster.hosts, "kept@*") == before


@lab_test(deadline_s=60)
def test_stopping_waits_for_no_unit(cluster: Cluster) -> None:
    """The first fleet: "endless purge" of a unit that does not stop. Ours leaves units alone."""
    one = cluster.hosts[0]
    unit = write_service(one, "stubborn.service", {"MachineID": one.machine_id},
                         execstart="/bin/sh -c 'trap \"\" TERM; while :; do sleep 1; done'",
                         service={"TimeoutStopSec": "infinity"})
    cluster.ctl(one, "start", unit)
    before = lives([one], "stubborn.service")
    began = patience.now()
    one.systemctl("stop", "fleetd")
    assert patience.now() - began < 10 and one.show("fleetd", "Result") == "success"
    assert lives([one], "stubborn.service") == before
    one.systemctl("start", "fleetd")
    cluster.wait_ready(3)
    assert lives([one], "stubborn.service") == before
    one.systemctl("kill", "--signal=KILL", "stubborn.service")
    cluster.ctl(one, "destroy", "stubborn.service")


@lab_test(deadline_s=60)
def test_a_crashed_daemon_is_not_kept_out_by_itself(cluster: Cluster) -> None:
    """The first fleet: "self-block and unit bounce after a crash", for up to a ttl (here: 60 s) plus its back-off."""
    before = lives(cluster.hosts, "kept@*")
    for host in cluster.hosts:
        pid = fleetd_pid(host)
        host.systemctl("kill", "--signal=KILL", "--kill-who=main", "fleetd")
        wait_until(lambda: fleetd_pid(host), 15, "a new fleetd", accept=lambda now: now not in (0, pid))
        wait_until(lambda: http_status(host, "--unix-socket", "/run/fleet.sock", "http://x/fleet/v1/units"), 20,
                   f"{host.name} to answer", accept=lambda status: status == "200")
        cluster.wait_ready(3, 20)
    assert lives(cluster.hosts, "kept@*") == before


@lab_test(deadline_s=120)
def test_no_deadlock_after_an_outage(cluster: Cluster) -> None:
    """The first fleet: "deadlock then abort after outage", when states changed while the store was away."""
    one, two, three = cluster.hosts
    cluster.wait_voters(3)
    pids = [fleetd_pid(host) for host in cluster.hosts]
    one.cut()
    two.cut()
    try:
        # Nobody has a majority; meanwhile units die, are started by systemd, and clients ask.
        wait_until(lambda: [cluster.status(host) for host in cluster.hosts], 30, "all to be without a leader",
                   accept=lambda all: all and not any(status.startswith(("leader", "follows")) for status in all))
        for _ in range(10):
            for host in cluster.hosts:
                host.run(["sh", "-c", "cd /run/fleet/units && systemctl kill --signal=KILL * && systemctl reset-failed * && "
                          "systemctl restart *"])
        assert http_status(three, "--unix-socket", "/run/fleet.sock", "http://x/fleet/v1/units?stale=yes") == "200"
    finally:
        one.mend()
        two.mend()
    cluster.wait_ready(3)
    wait_once_each(cluster.hosts, UNITS, 15)
    assert [fleetd_pid(host) for host in cluster.hosts] == pids
    for host in cluster.hosts:
        reload(cluster, host)
        began = patience.now()
        host.systemctl("restart", "fleetd")
        assert patience.now() - began < 15 and host.show("fleetd", "Result") == "success"
        cluster.wait_ready(3)


# The journal.

PLACED = "b1c757d58bd113f19f43a9aa57c40420"
RELOAD_REFUSED = "8371f72e2b47af4aa2452ba3c4ce624b"


@lab_test(deadline_s=60)
def test_decisions_are_in_the_journal_with_fields_and_a_catalog(cluster: Cluster) -> None:
    leader = cluster.wait_leader()
    leader.install(TOP / "data" / "catalog" / "fleet.catalog", "/usr/lib/systemd/catalog/fleet.catalog", 0o644)
    leader.run(["journalctl", "--update-catalog"])
    cluster.ctl(leader, "start", write_service(leader, "noted.service", {"MachineID": leader.machine_id}))
    text = leader.run(["journalctl", "-u", "fleetd", "-o", "json", f"MESSAGE_ID={PLACED}", "UNIT=noted.service"]).stdout
    [entry] = [json.loads(line) for line in text.splitlines()]
    assert entry["FLEET_MACHINE"] == leader.machine_id and entry["FLEET_REASON"] and int(entry["FLEET_TERM"]) > 0
    assert entry["MESSAGE"] == f"noted.service goes to {leader.name}: {entry['FLEET_REASON']}"
    explained = leader.run(["journalctl", "-x", "-u", "fleetd", f"MESSAGE_ID={PLACED}", "UNIT=noted.service"]).stdout
    assert "noted.service was given to a machine" in explained and f"machine {leader.machine_id}:" in explained
    reload(cluster, leader, {"voters": "2"})
    explained = leader.run(["journalctl", "-x", "-u", "fleetd", "-n1", f"MESSAGE_ID={RELOAD_REFUSED}"]).stdout
    assert "fleetd keeps its old configuration" in explained and "voters: 2 is none of" in explained
    reload(cluster, leader)
    cluster.ctl(leader, "destroy", "noted.service")


# Sockets from systemd.

REMOTE = """[Socket]
ListenStream=49155
Service=fleetd.service
FileDescriptorName=remote
[Install]
WantedBy=sockets.target
"""


def activate(cluster: Cluster, host: Host) -> None:
    """Gives the host fleetd.socket instead of fleetd's own, and one over TCP."""
    host.run(["sh", "-c", "getent group fleet >/dev/null || groupadd fleet"])
    host.install(TOP / "data" / "fleetd.socket", "/etc/systemd/system/fleetd.socket", 0o644)
    host.write("/etc/systemd/system/fleetd-remote.socket", REMOTE)
    host.systemctl("daemon-reload")
    host.systemctl("stop", "fleetd")
    host.systemctl("start", "fleetd.socket", "fleetd-remote.socket")
    host.systemctl("start", "fleetd")
    cluster.wait_ready(3)


@lab_test(deadline_s=120)
def test_socket_activation(cluster: Cluster) -> None:
    one, two, _ = cluster.hosts
    before = wait_once_each(cluster.hosts, UNITS, 10)
    since = now_in_journal(two)
    activate(cluster, two)
    assert said(two, "The API is at /run/fleet.sock, by systemd's socket \"fleetd.socket\"", since=since)
    inode = two.run(["stat", "-c", "%i %G %a", "/run/fleet.sock"]).stdout
    assert inode.endswith(" fleet 660\n")
    assert len(cluster.machines(two)) == 3
    assert http_status(two, "--unix-socket", "/var/run/fleet.sock", "http://x/fleet/v1/units") == "200"
    assert http_status(one, f"http://{two.ip}:49155/fleet/v1/units") == "200"

    # Stopped: a client waits, and is answered by the next fleetd. It is the client that starts it.
    two.systemctl("stop", "fleetd")
    client = two.popen(["fleetctl", "list-units", "--no-legend"], stdout=subprocess.PIPE)
    assert client.communicate(timeout=30)[0].count("\n") == 3 and client.returncode == 0
    assert fleetd_pid(two) != 0
    cluster.wait_ready(3)

    # Restarted under load: nobody is refused. Who is cut short in the middle is told to try again.
    with load(two, 2, "/fleet/v1/units?stale=yes") as wrong:
        for _ in range(3):
            two.systemctl("restart", "fleetd")
    assert not [error for error in wrong if "refused" in error.lower() or "No such file" in error], wrong

    # A reload keeps them, whatever api_socket says.
    held = Held(two)
    assert held.ask() == "200"
    reload(cluster, two, {"api_socket": "", "metadata": "by=socket"})
    assert held.ask() == "200" and len(cluster.machines(two)) == 3
    reload(cluster, two)
    held.close()
    assert two.run(["stat", "-c", "%i %G %a", "/run/fleet.sock"]).stdout == inode
    assert lives(cluster.hosts, "kept@*") == before


@lab_test(deadline_s=60)
def test_a_socket_that_is_none_of_ours(cluster: Cluster) -> None:
    two = cluster.hosts[1]
    two.write("/etc/systemd/system/fleetd-remote.socket", REMOTE.replace("ListenStream=49155", "ListenDatagram=/run/odd"))
    two.systemctl("daemon-reload")
    two.systemctl("stop", "fleetd", "fleetd.socket", "fleetd-remote.socket")
    since = now_in_journal(two)
    two.systemctl("start", "fleetd.socket", "fleetd-remote.socket")
    two.systemctl("start", "fleetd")
    assert said(two, 'The socket "remote" that systemd passed cannot serve the API and is left out', since=since)
    cluster.wait_ready(3)
    assert len(cluster.machines(two)) == 3


@lab_test(deadline_s=90)
def test_a_waiting_host_joins_by_a_reload(cluster: Cluster) -> None:
    """One that lost its disk, and was started without a word about its cluster."""
    one, _, three = cluster.hosts
    three.systemctl("stop", "fleetd")
    three.run(["sh", "-c", "rm -rf /var/lib/fleet/*"])
    cluster.configure(three, {"join": None})
    three.systemctl("start", "fleetd")
    assert cluster.status(three).startswith("waiting: this host belongs to no cluster")
    pid = fleetd_pid(three)
    reload(cluster, three, {"join": "10.77.0.99:7390"})
    wait_until(lambda: cluster.status(three), 20, "it to try", accept=lambda status: status.startswith("joining a cluster"))
    reload(cluster, three, {"join": f"{one.ip}:7390"})
    cluster.wait_ready(3)
    assert fleetd_pid(three) == pid
