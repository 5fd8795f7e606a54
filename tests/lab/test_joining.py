# SPDX-License-Identifier: Apache-2.0
"""How hosts get into a cluster, and how they do not: by hand, with tokens; and that nothing else gets in."""

from __future__ import annotations

import base64
import subprocess
import time
from collections.abc import Sequence

from fleet import PORT, TOKEN_FILE, Cluster, write_service
from lab import Host, Lab, wait_until
from testing import lab_test

BY_HAND = {"bootstrap": None, "join": None, "join_token_file": None}

# Takes connections, answers nothing, and says at its end what it was told, in hex.
LISTENER = r"""
import socket, sys
server = socket.create_server(("", int(sys.argv[1])))
server.settimeout(0.2)
heard, open_ones = b"", []
print("listens", flush=True)
while True:
    try:
        connection, _ = server.accept()
        connection.settimeout(0.5)
        open_ones.append(connection)
        try:
            while True:
                piece = connection.recv(65536)
                if not piece:
                    break
                heard += piece
        except TimeoutError:
            pass
        print(heard.hex(), flush=True)
    except TimeoutError:
        pass
"""


def by_hand(lab: Lab, count: int | None = None) -> Cluster:
    cluster = Cluster(lab, conf=BY_HAND, hosts=lab.hosts[:count])
    cluster.start_waiting()
    return cluster


def token_of(cluster: Cluster, *arguments: str, member: Host | None = None) -> str:
    return cluster.ctl(member or cluster.hosts[0], "join-token", *arguments).stdout.strip()


def join(cluster: Cluster, host: Host, token: str, *addresses: str, check: bool = True,
         deadline: str = "20s") -> subprocess.CompletedProcess[str]:
    return cluster.ctl(host, "join", *(addresses or [cluster.hosts[0].ip]), "--token-file=-", f"--deadline={deadline}",
                       input=token, check=check)


def why_not(cluster: Cluster, host: Host, token: str, *addresses: str, deadline: str = "5s") -> str:
    """The one line that says why; the host waits as before."""
    result = join(cluster, host, token, *addresses, check=False, deadline=deadline)
    assert result.returncode == 1 and result.stdout == "" and result.stderr.count("\n") == 1, result
    assert cluster.status(host).startswith("waiting: this host belongs to no cluster"), cluster.status(host)
    return result.stderr


def count_machines(cluster: Cluster, asked: Host) -> int:
    return len([machine for machine in cluster.machines(asked) if machine.state == "ready"])


def raw_secret(token: str) -> bytes:
    return base64.urlsafe_b64decode(token.removeprefix("fleet1.") + "=")[:16]


def assert_kept_secret(hosts: Sequence[Host], token: str) -> None:
    """Neither the token nor its secret is in a journal, a process list, or a state that fleetd writes for a person."""
    secret = raw_secret(token)
    for host in hosts:
        host.systemctl("kill", "--kill-whom=main", "--signal=USR1", "fleetd")
        text = host.run(["journalctl", "--no-pager", "-q"]).stdout
        text += host.run(["sh", "-c", "cat /proc/*/cmdline | tr '\\0' ' '"]).stdout
        assert token not in text and secret.hex() not in text, host
        assert "PRIVATE KEY" not in text, host


# What is to work.

@lab_test(hosts=3, deadline_s=60)
def test_three_hosts_by_token(lab: Lab) -> None:
    cluster = by_hand(lab)
    one, two, three = cluster.hosts
    begin = time.monotonic()
    assert "is its first machine" in cluster.ctl(one, "init").stdout
    token = token_of(cluster)
    assert "it has 2 machines now" in join(cluster, two, token).stdout
    assert "it has 3 machines now" in join(cluster, three, token, two.ip).stdout  # Whoever does not lead shows the way.
    took_s = time.monotonic() - begin
    print(f"       three hosts joined by token in {took_s:.2f} s together")
    assert took_s < 10
    cluster.wait_ready(3)
    cluster.wait_voters(3)
    cluster.ctl(three, "start", write_service(three, "hello.service", {"MachineID": two.machine_id}))
    assert two.is_active("hello.service")
    # Said once more, it is refused, and changes nothing.
    again = join(cluster, two, token, check=False)
    assert again.returncode == 1 and "is a member of cluster" in again.stderr, again
    assert "is a member of cluster" in cluster.ctl(one, "init", check=False).stderr
    assert_kept_secret(cluster.hosts, token)
    for host in cluster.hosts:
        modes = host.run(["stat", "-c", "%a %n", "/var/lib/fleet", "/var/lib/fleet/tls", "/var/lib/fleet/tls/host.key",
                          "/var/lib/fleet/tls/host.crt", "/var/lib/fleet/tls/authority.crt"]).stdout.splitlines()
        assert [mode.split()[0] for mode in modes] == ["700", "700", "600", "600", "600"], modes
    # The founder's copy of the authority's key is gone: the registry has it.
    assert one.run(["ls", "/var/lib/fleet/tls"]).stdout.split() == ["authority.crt", "host.crt", "host.key"]


@lab_test(hosts=11, deadline_s=120)
def test_ten_hosts_at_once(lab: Lab) -> None:
    """With a token for exactly ten, and one host too many."""
    cluster = by_hand(lab)
    one, late, *ten = cluster.hosts[0], cluster.hosts[10], *cluster.hosts[1:10]
    cluster.ctl(one, "init")
    token = token_of(cluster, "--uses=9")
    begin = time.monotonic()
    processes = [host.popen(["fleetctl", "join", one.ip, "--token-file=-"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE) for host in ten]
    answers = [process.communicate(token, timeout=30) for process in processes]
    took_s = time.monotonic() - begin
    assert [process.returncode for process in processes] == [0] * 9, answers
    print(f"       nine hosts joined at once in {took_s:.2f} s")
    assert took_s < 10
    assert "is used up: it was for 9 machines" in why_not(cluster, late, token)
    join(cluster, late, token_of(cluster))
    cluster.wait_ready(11)
    cluster.wait_voters(5)


@lab_test(hosts=2, deadline_s=60)
def test_by_configuration_the_token_may_come_later(lab: Lab) -> None:
    cluster = Cluster(lab)
    one, two = cluster.hosts
    for host in cluster.hosts:
        cluster.configure(host)
        cluster.install(host)
        host.systemctl("start", "fleetd")
    wait_until(lambda: cluster.status(two), 10, "the host to say what it lacks",
               accept=lambda status: f"cannot read {TOKEN_FILE}: No such file" in status)
    two.write(TOKEN_FILE, "not a token\n")
    wait_until(lambda: cluster.status(two), 10, "the host to say what is wrong with it",
               accept=lambda status: f"join_token_file: {TOKEN_FILE}: " in status)
    cluster.give_token(two)
    cluster.wait_ready(2)


# What is not.

@lab_test(hosts=4, deadline_s=120)
def test_tokens_that_do_not_let_in(lab: Lab) -> None:
    cluster = by_hand(lab)
    one, two, three, four = cluster.hosts
    cluster.ctl(one, "init")

    assert "a join token is needed" in cluster.ctl(two, "join", one.ip, check=False).stderr
    assert "token" in why_not(cluster, two, "fleet1.nonsense")
    good = token_of(cluster)
    # The right cluster, a secret that nobody knows: another one's 16 bytes before the same fingerprint.
    pin = base64.urlsafe_b64decode(good.removeprefix("fleet1.") + "=")[16:]
    wrong = "fleet1." + base64.urlsafe_b64encode(b"x" * 16 + pin).decode().rstrip("=")
    assert "the join token is not known here" in why_not(cluster, two, wrong)
    assert "the join token is not known here" in one.journal("fleetd")

    short = token_of(cluster, "--ttl=1s")
    time.sleep(1.1)
    assert " expired " in why_not(cluster, two, short)

    revoked = token_of(cluster)
    listed = cluster.ctl(one, "join-token", "--list", "--no-legend", "--fields=id,state").stdout.splitlines()
    identity = listed[-1].split()[0]
    cluster.ctl(one, "join-token", f"--revoke={identity}")
    assert f"the join token {identity} was revoked" in why_not(cluster, two, revoked)

    once = token_of(cluster, "--uses=1")
    join(cluster, two, once)
    assert "is used up: it was for 1 machine\n" in why_not(cluster, three, once)

    # Another cluster's: it is not even shown.
    cluster.ctl(four, "init")
    foreign = token_of(cluster, member=four)
    line = why_not(cluster, three, foreign)
    assert f"{one.ip}:{PORT}: it does not prove to be of the cluster that the token is for (" in line, line
    assert count_machines(cluster, one) == 2


@lab_test(hosts=3, deadline_s=90)
def test_nobody_else_hears_the_secret(lab: Lab) -> None:
    """Somebody is where the host believes a member to be: with another authority, or with nothing at all."""
    cluster = by_hand(lab)
    one, two, impostor = cluster.hosts
    cluster.ctl(one, "init")
    token = token_of(cluster)

    listener = impostor.popen(["python3", "-c", LISTENER, "7777"], stdout=subprocess.PIPE)
    assert listener.stdout.readline() == "listens\n"
    why_not(cluster, two, token, f"{impostor.ip}:7777", deadline="4s")
    heard = bytes.fromhex(listener.stdout.readline().strip())
    assert heard[:1] == b"\x16"  # The beginning of a TLS handshake, and no more.
    for private in (raw_secret(token), token.encode(), two.machine_id.encode()):
        assert private not in heard
    listener.kill()
    listener.wait()

    cluster.ctl(impostor, "init")
    why_not(cluster, two, token, impostor.ip, deadline="4s")
    assert "joins" not in impostor.journal("fleetd") and "may not join" not in impostor.journal("fleetd")
    # It is no matter of who comes first in the list.
    assert "it has 2 machines now" in join(cluster, two, token, impostor.ip, one.ip, check=False).stdout or \
        "it has 2 machines now" in join(cluster, two, token, one.ip).stdout


@lab_test(hosts=3, deadline_s=90)
def test_secure_and_insecure_do_not_mix(lab: Lab) -> None:
    cluster = Cluster(lab, conf=BY_HAND, host_conf={3: {"insecure": "true"}})
    cluster.start_waiting()
    one, two, three = cluster.hosts
    cluster.ctl(one, "init")
    both = "insecure = true must be set on all hosts of a cluster or on none"
    refused = cluster.ctl(three, "join", one.ip, "--deadline=3s", check=False)
    assert refused.returncode == 1 and both in refused.stderr, refused
    cluster.ctl(three, "init")
    assert "hosts join it without a token" in cluster.ctl(three, "join-token", check=False).stderr
    line = why_not(cluster, two, token_of(cluster), three.ip)
    assert "insecure" in line, line

    # Neither opens what was made in the other mode, and says what to do.
    for host, conf, words in ((one, {"insecure": "true"}, "is of a secure cluster (it has a certificate)"),
                              (three, {"insecure": None}, 'was made with "insecure = true"')):
        host.systemctl("stop", "fleetd")
        cluster.configure(host, conf)
        host.systemctl("start", "fleetd", check=False)
        assert words in host.journal("fleetd"), host.journal("fleetd")
        host.systemctl("stop", "fleetd", check=False)
        host.systemctl("reset-failed", "fleetd", check=False)
        cluster.configure(host)
        host.systemctl("start", "fleetd")
        wait_until(lambda: count_machines(cluster, host), 20, "the host to be well", accept=lambda count: count == 1)


# Going.

@lab_test(hosts=4, deadline_s=120)
def test_a_removed_machine_stays_out(cluster: Cluster) -> None:
    one, two, three, four = cluster.hosts
    cluster.wait_voters(3)
    write_service(one, "job@.service")
    cluster.ctl(one, "start", *(f"/root/units/job@{i}.service" for i in range(8)))
    old = token_of(cluster, "--ttl=1d")
    has = [unit.name for unit in cluster.units(one) if unit.machine == four.machine_id]
    refused = cluster.ctl(one, "remove-machine", four.name, check=False)
    assert refused.returncode == 1 and f"has {len(has)} units: drain it first" in refused.stderr, refused
    cluster.configure(four, BY_HAND)
    cluster.ctl(one, "remove-machine", "--force", four.name)
    wait_until(lambda: cluster.status(four), 20, "the removed host to wait",
               accept=lambda status: status.startswith("waiting: this host belongs to no cluster"))
    assert "This host was removed from its cluster" in four.journal("fleetd")
    assert not [unit for unit in has if four.is_active(unit)]
    assert four.run(["ls", "/var/lib/fleet"]).stdout == ""
    wait_until(lambda: [unit.machine for unit in cluster.units(one) if unit.active == "active"], 20,
               "its units to run elsewhere", accept=lambda where: len(where) == 8 and four.machine_id not in where)
    # What has let it in, or could have, does not do so again; a new one does.
    assert f"machine {four.machine_id} was removed after the join token" in why_not(cluster, four, old)
    join(cluster, four, token_of(cluster))
    cluster.wait_ready(4)


@lab_test(hosts=4, deadline_s=150)
def test_what_a_removed_machine_stops_is_started_when_it_has_stopped(cluster: Cluster) -> None:
    """However long it takes, here some ttls, and whoever leads."""
    one, two, three, four = cluster.hosts
    cluster.wait_voters(3)
    slow = {"ExecStop": "/bin/sleep 15", "TimeoutStopSec": "60"}
    write_service(one, "slow@.service", service=slow)
    names = [f"slow@{i}.service" for i in range(8)]
    cluster.ctl(one, "start", *(f"/root/units/{name}" for name in names))
    unit = next(unit.name for unit in cluster.units(one) if unit.machine == four.machine_id)
    cluster.ctl(one, "remove-machine", "--force", four.name, timeout=90)
    removed = time.monotonic()
    wait_until(lambda: four.show(unit, "ActiveState"), 5, "it to be stopping", accept=lambda state: state == "deactivating")
    handed_over = False
    while four.show(unit, "ActiveState") == "deactivating":
        there = [host.name for host in (one, two, three) if host.is_active(unit)]
        # It may have ended in between.
        assert not there or four.show(unit, "ActiveState") != "deactivating", f"{unit} is on {there} and still on {four.name}"
        if not handed_over:
            why = cluster.ctl(one, "explain", unit).stdout
            assert f"{four.name}, which was removed, is still stopping it" in why, why
            refused = cluster.ctl(four, "list-units", check=False)
            assert refused.returncode != 0 and "this host was removed from the cluster" in refused.stderr, refused
        if not handed_over and time.monotonic() - removed > 5:
            cluster.ctl(one, "transfer-leadership")
            handed_over = True
        time.sleep(0.2)
    assert handed_over and time.monotonic() - removed > 12, "it did not take long to stop"
    began = time.monotonic()
    wait_until(lambda: [host for host in (one, two, three) if host.is_active(unit)], 10, "it to run elsewhere", accept=len)
    print(f"stopped after {began - removed:.1f} s, elsewhere {time.monotonic() - began:.1f} s later")
    wait_until(lambda: cluster.status(four), 20, "the removed host to hear it",
               accept=lambda status: "removed" in status or status.startswith("waiting: this host belongs to no cluster"))


@lab_test(hosts=4, deadline_s=120)
def test_a_machine_that_is_away_hears_it_when_it_is_back(cluster: Cluster) -> None:
    """And with its old certificate, put back by hand, it gets nowhere."""
    one, two, three, four = cluster.hosts
    cluster.wait_voters(3)
    cluster.ctl(one, "start", write_service(one, "kept.service", {"MachineID": four.machine_id}))
    four.run(["sh", "-c", "cp -a /var/lib/fleet /root/copy"])
    four.cut()
    wait_until(lambda: [m.state for m in cluster.machines(one) if m.id == four.machine_id], 20, "it to be lost",
               accept=lambda states: states in (["lost"], []))
    cluster.ctl(one, "remove-machine", four.name)
    assert four.is_active("kept.service")  # Nobody has told it.
    cluster.configure(four, BY_HAND)
    four.mend()
    wait_until(lambda: cluster.status(four), 30, "the removed host to wait",
               accept=lambda status: status.startswith("waiting: this host belongs to no cluster"))
    assert not four.is_active("kept.service")
    four.systemctl("stop", "fleetd")
    four.run(["sh", "-c", "rm -rf /var/lib/fleet; cp -a /root/copy /var/lib/fleet"])
    four.systemctl("start", "fleetd")
    wait_until(lambda: cluster.status(four), 30, "it to be told again",
               accept=lambda status: status.startswith("waiting: this host belongs to no cluster"))
    assert len(cluster.machines(one)) == 3


@lab_test(hosts=3, deadline_s=90)
def test_the_leader_is_removed(cluster: Cluster) -> None:
    cluster.wait_voters(3)
    leader = cluster.wait_leader()
    others = cluster.others_of(leader)
    cluster.ctl(others[0], "start", write_service(others[0], "kept.service", {"MachineID": others[0].machine_id}))
    cluster.configure(leader, BY_HAND)
    cluster.ctl(leader, "remove-machine", leader.name)
    wait_until(lambda: cluster.status(leader), 30, "the former leader to wait",
               accept=lambda status: status.startswith("waiting: this host belongs to no cluster"))
    assert {m.id for m in cluster.machines(others[0])} == {host.machine_id for host in others}
    cluster.ctl(others[1], "start", write_service(others[1], "more.service"))
    assert others[0].is_active("kept.service")


@lab_test(hosts=3, deadline_s=120)
def test_hosts_leave_until_one_is_left(cluster: Cluster) -> None:
    one, two, three = cluster.hosts
    cluster.wait_voters(3)
    write_service(one, "job@.service")
    cluster.ctl(one, "start", *(f"/root/units/job@{i}.service" for i in range(4)))
    for leaver, left in ((three, 2), (one, 1)):
        cluster.configure(leaver, BY_HAND)
        assert cluster.ctl(leaver, "leave", timeout=100).stdout.endswith("This host belongs to no cluster any more\n")
        assert cluster.status(leaver).startswith("waiting: this host belongs to no cluster")
        assert not leaver.run(["systemctl", "list-units", "--no-legend", "job@*"]).stdout
        assert len(cluster.machines(two)) == left
        wait_until(lambda: [unit.name for unit in cluster.units(two) if unit.active == "active"], 20, "all units to run",
                   accept=lambda names: len(names) == 4)
    last = cluster.ctl(two, "leave", check=False)
    assert last.returncode == 1 and "is the only machine of its cluster" in last.stderr, last
    join(cluster, three, token_of(cluster, member=two), two.ip)
    assert count_machines(cluster, three) == 2
