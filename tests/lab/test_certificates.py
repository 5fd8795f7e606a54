# SPDX-License-Identifier: Apache-2.0
"""Certificates that renew themselves, and the authority that is rotated: under load, without a connection that ends."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager

from fleet import PORT, TOKEN_FILE, Cluster, write_service
from lab import Host, wait_until
from testing import lab_test
from witness import assert_stays, fleetd_pid, lives, start_jobs

NAMES = [f"job@{i}.service" for i in range(6)]
STRANGER = "deadbeef" * 4  # A machine id, and a server id, of nobody.
NO_MORE = "its certificate is of an authority that is not trusted any more"

# Starts and stops units until a file appears; says how often, and what went wrong.
LOAD = r"""
import os, subprocess, sys
count, wrong = 0, []
while not os.path.exists("/run/load-end"):
    for verb in ("start", "stop"):
        result = subprocess.run(["fleetctl", verb, "/root/units/busy.service" if verb == "start" else "busy.service"],
                                capture_output=True, text=True)
        if result.returncode != 0:
            wrong.append(result.stderr.strip())
    count += 1
print(count, *wrong, sep="\n")
"""


@contextmanager
def load(host: Host) -> Iterator[None]:
    """Meanwhile a unit is started and stopped without a break, and no command fails."""
    write_service(host, "busy.service")
    host.run(["rm", "-f", "/run/load-end"])
    client = host.popen(["python3", "-c", LOAD], stdout=subprocess.PIPE)
    try:
        yield
    finally:
        host.write("/run/load-end", "")
        count, *wrong = client.communicate(timeout=60)[0].splitlines()
    assert int(count) > 0 and not wrong, (count, wrong)
    print(f"       meanwhile a unit was started and stopped {count} times")


def ends_of(host: Host) -> str:
    return host.run(["openssl", "x509", "-in", "/var/lib/fleet/tls/host.crt", "-noout", "-enddate"]).stdout


def issuer_of(host: Host) -> str:
    return host.run(["openssl", "x509", "-in", "/var/lib/fleet/tls/host.crt", "-noout", "-ext", "authorityKeyIdentifier"]).stdout


def roots_of(host: Host) -> int:
    return host.read("/var/lib/fleet/tls/authority.crt").count("BEGIN CERTIFICATE")


def sessions_ended(cluster: Cluster) -> list[int]:
    return [host.journal("fleetd", 10000).count("The session to the leader has ended") for host in cluster.hosts]


@contextmanager
def undisturbed(cluster: Cluster) -> Iterator[None]:
    """No unit starts anew, no fleetd, and no session ends."""
    before = (lives(cluster.hosts, "job@*"), [fleetd_pid(host) for host in cluster.hosts], sessions_ended(cluster))
    yield
    assert (lives(cluster.hosts, "job@*"), [fleetd_pid(host) for host in cluster.hosts], sessions_ended(cluster)) == before


@lab_test(deadline_s=120, long=True)
def test_certificates_renew_themselves_under_load(cluster: Cluster) -> None:
    start_jobs(cluster, NAMES)
    with undisturbed(cluster), load(cluster.hosts[0]):
        cluster.ctl(cluster.hosts[1], "set", "certificate_lifetime=1min")
        seen = []
        for _ in range(3):  # At once, for they would hold too long; then whenever a third of the minute is over.
            now = [ends_of(host) for host in cluster.hosts]
            wait_until(lambda: [ends_of(host) for host in cluster.hosts], 40, "all to have other certificates",
                       accept=lambda ends: all(new != old for new, old in zip(ends, now)))
            seen.append(time.monotonic())
    print(f"       renewed {seen[-1] - seen[-2]:.0f} s after the one before, of a minute's lifetime")
    assert 15 < seen[-1] - seen[-2] < 30
    # What is new is what new connections show: also after all of them begin anew.
    for host in cluster.hosts:
        host.systemctl("restart", "fleetd")
    cluster.wait_ready(3)


@lab_test(deadline_s=120)
def test_the_authority_is_rotated_under_load(cluster: Cluster) -> None:
    one, two, three = cluster.hosts
    start_jobs(cluster, NAMES)
    before = [issuer_of(host) for host in cluster.hosts]
    token = cluster.ctl(one, "join-token").stdout.strip()
    with undisturbed(cluster), load(two):
        begin = time.monotonic()
        assert cluster.ctl(three, "rotate-authority").stdout.startswith("The authority is ")
        print(f"       the authority was rotated in {time.monotonic() - begin:.2f} s")
        wait_until(lambda: [roots_of(host) for host in cluster.hosts], 10, "the old one to be forgotten",
                   accept=lambda roots: roots == [1, 1, 1])
    assert all(new != old for new, old in zip([issuer_of(host) for host in cluster.hosts], before))
    # Once more, and everything begins anew: nobody needs what is gone.
    cluster.ctl(one, "rotate-authority")
    for host in cluster.hosts:
        host.systemctl("restart", "fleetd")
    cluster.wait_ready(3)
    assert "none under way" in cluster.ctl(two, "rotate-authority", "--status").stdout
    del token


@lab_test(hosts=4, spare=1, deadline_s=120)
def test_a_token_from_before_a_rotation(cluster: Cluster) -> None:
    """What members show proves the old authority, too, for as long as there was only one rotation."""
    one, late = cluster.hosts[0], cluster.lab.hosts[3]
    old = cluster.ctl(one, "join-token", "--ttl=1d").stdout
    cluster.ctl(one, "rotate-authority")
    cluster.hosts.append(late)
    late.write(TOKEN_FILE, old, 0o600)
    cluster.configure(late)
    cluster.install(late)
    late.systemctl("start", "fleetd")
    cluster.wait_ready(4)
    cluster.ctl(one, "rotate-authority")
    states = cluster.ctl(one, "join-token", "--list", "--no-legend", "--fields=state").stdout.split()
    assert "valid" not in states, states
    # One from after it lets in as ever.
    cluster.ctl(late, "leave")
    new = cluster.ctl(one, "join-token").stdout
    joined = cluster.ctl(late, "join", one.ip, "--token-file=-", input=new)
    assert f"as machine {late.machine_id}" in joined.stdout, joined
    cluster.wait_ready(4)


def calls(thief: Host, name: str, *arguments: str) -> list[str]:
    """Somebody who has the authority's key calls with a certificate that he has made; what came of it is in a file."""
    thief.popen(["sh", "-c", f"exec /root/forger call /root/authority.crt /root/stolen.key {' '.join(arguments)} >/root/{name} 2>&1"])
    return wait_until(lambda: thief.run(["cat", f"/root/{name}"], check=False).stdout.splitlines(), 10, "the calls to be answered",
                      accept=lambda lines: len(lines) == len(arguments) - 3)


@lab_test(hosts=4, spare=1, deadline_s=120, conf={"voters": "1"})
def test_a_stolen_authority_is_rotated_away(cluster: Cluster) -> None:
    """Who has signed himself a certificate with it is out with the rotation, also where he was in; and nobody else is."""
    one, two, three = cluster.hosts  # One votes, one stands by, one has none of the cluster's data.
    thief = cluster.lab.hosts[3]
    members = wait_until(lambda: json.loads(cluster.ctl(one, "list-members", "--output=json").stdout), 20, "a standby",
                         accept=lambda all: sorted(member["role"] for member in all) == ["host", "standby", "voter"])
    for name in NAMES:
        cluster.ctl(one, "start", write_service(one, name))
    for host in (one, thief):
        host.install(cluster.build / "tests/lab/forger", "/root/forger")
    thief.write("/root/stolen.key", one.run(["/root/forger", "steal", "/var/lib/fleet"]).stdout)
    thief.write("/root/authority.crt", one.read("/var/lib/fleet/tls/authority.crt"))
    everybody = [f"{host.ip}:{PORT}" for host in cluster.hosts]

    # In consensus, as one that may have joined since, he is heard; in a member's name he is not, for he has no member's key.
    taken = calls(thief, "raft", "raft", STRANGER, STRANGER[:16], *everybody)
    assert sorted(line.split()[0] for line in taken) == ["open"] * 3, taken
    server = next(member["server"] for member in members if member["machine"] == one.machine_id)
    refused = calls(thief, "session", "session", one.machine_id, server, everybody[0])
    assert refused[0].startswith("ended") and "with another key" in refused[0], refused
    # The servers of other machines are not his.
    refused = calls(thief, "server", "raft", STRANGER, server, everybody[0])
    assert f"is that of machine {one.machine_id}" in refused[0], refused
    assert_stays(lambda: thief.read("/root/raft"), 3, "what is heard of him")

    with undisturbed(cluster), load(three):
        cluster.ctl(three, "rotate-authority")
        ended = wait_until(lambda: thief.read("/root/raft").splitlines()[3:], 10, "his connections to be ended",
                           accept=lambda lines: len(lines) == 3)
    assert all(line.startswith("ended") for line in ended), ended
    for host in cluster.hosts:
        lines = [line for line in host.journal("fleetd", 10000).splitlines() if "is ended: " in line]
        assert len(lines) == 1 and NO_MORE in lines[0] and STRANGER in lines[0], lines
    refused = calls(thief, "again", "raft", STRANGER, STRANGER[:16], *everybody)
    assert all(line.startswith("ended") for line in refused), refused


@lab_test(hosts=4, deadline_s=120)
def test_a_rotation_waits_for_who_is_away(cluster: Cluster) -> None:
    one, two, three, four = cluster.hosts
    cluster.wait_voters(3)
    four.systemctl("stop", "fleetd")
    waiting = cluster.ctl(one, "rotate-authority", "--deadline=4s", check=False)
    assert waiting.returncode == 1 and "until all machines trust the new authority" in waiting.stderr, waiting
    assert f"({four.name}, stopped)" in waiting.stderr, waiting
    assert "is being rotated already" in cluster.ctl(two, "rotate-authority", check=False).stderr
    assert [roots_of(host) for host in (one, two, three)] == [2, 2, 2]
    four.systemctl("start", "fleetd")
    wait_until(lambda: cluster.ctl(one, "rotate-authority", "--status").stdout, 20, "the rotation to end",
               accept=lambda text: "none under way" in text)
    wait_until(lambda: [roots_of(host) for host in cluster.hosts], 10, "the old one to be forgotten everywhere",
               accept=lambda roots: roots == [1] * 4)

    # Cancelled before it issues, nothing is left of it.
    four.systemctl("stop", "fleetd")
    cluster.ctl(one, "rotate-authority", "--no-block")
    assert "stays as it is" in cluster.ctl(two, "rotate-authority", "--cancel").stdout
    wait_until(lambda: [roots_of(host) for host in (one, two, three)], 10, "the new one to be forgotten",
               accept=lambda roots: roots == [1] * 3)

    # Forced, whoever is away is left behind; with a new token it is who it was.
    cluster.ctl(one, "rotate-authority", "--no-block")
    wait_until(lambda: cluster.ctl(one, "rotate-authority", "--force", "--no-block", check=False).stderr, 10,
               "the rotation to be over", accept=lambda text: "not being rotated" in text)
    # And once more: not even the cross certificate helps it.
    cluster.ctl(one, "rotate-authority", "--no-block")
    wait_until(lambda: cluster.ctl(one, "rotate-authority", "--force", "--no-block", check=False).stderr, 10,
               "that rotation to be over", accept=lambda text: "not being rotated" in text)
    four.systemctl("start", "fleetd")
    wait_until(lambda: cluster.status(four), 20, "it to find no leader", accept=lambda status: status.startswith("no leader ("))
    joined = cluster.ctl(four, "join", one.ip, "--token-file=-", input=cluster.ctl(one, "join-token").stdout)
    assert f"as machine {four.machine_id}" in joined.stdout, joined
    cluster.wait_ready(4)
    assert len(cluster.machines(one)) == 4


@lab_test(deadline_s=200, long=True)  # A lifetime is a minute at least.
def test_a_host_whose_certificate_has_ended(cluster: Cluster) -> None:
    """Its units run on, it says what is wrong, and with a token it goes on as who it was."""
    one, two, three = cluster.hosts
    start_jobs(cluster, NAMES)
    cluster.ctl(one, "set", "certificate_lifetime=1min")
    wait_until(lambda: "1min" in cluster.ctl(one, "list-settings").stdout, 5, "the setting")
    time.sleep(3)  # It is renewed once, to hold for a minute.
    mine = lives([three], "job@*")
    cluster.configure(three, {"join": None})
    three.systemctl("stop", "fleetd")
    time.sleep(62)
    three.systemctl("start", "fleetd")
    wait_until(lambda: cluster.status(three), 20, "it to say what is wrong",
               accept=lambda status: status.startswith("this host's certificate has ended"))
    assert lives([three], "job@*") == mine
    token = cluster.ctl(one, "join-token").stdout
    cluster.ctl(three, "join", one.ip, "--token-file=-", input=token)
    cluster.wait_ready(3)
    assert lives([three], "job@*") == mine
    assert len(cluster.machines(one)) == 3

    # The same once more, by itself: its configuration has a token.
    cluster.configure(three)
    cluster.give_token(three)
    three.systemctl("stop", "fleetd")
    time.sleep(62)
    three.systemctl("start", "fleetd")
    cluster.wait_ready(3)
    assert lives([three], "job@*") == mine
