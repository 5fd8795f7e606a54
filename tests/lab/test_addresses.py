# SPDX-License-Identifier: Apache-2.0
"""Hosts get other addresses: the only voter, one of three, all of three at once. Units run on."""

from __future__ import annotations

import json
import shutil

from fleet import PORT, Cluster, write_service
from lab import Host, wait_until
from testing import lab_test
from witness import assert_stays, lives, start_jobs

CONF = {"agent_ttl": "4s"}
NAMES = [f"job@{number}.service" for number in range(6)]


def renumber(host: Host) -> str:
    """The host's network card gets another address, and loses its old one, which is returned."""
    old, host.ip = host.ip, f"10.77.0.{100 + host.number}"
    host.run(["ip", "address", "delete", f"{old}/24", "dev", "eth0"])  # The others of the network would go with it.
    host.run(["ip", "address", "add", f"{host.ip}/24", "dev", "eth0"])
    return old


def members(cluster: Cluster, asked: Host) -> tuple[dict[str, str], str]:
    """What part the machines have in the consensus, by their addresses, and what is under way there."""
    told = cluster.ctl(asked, "list-members", "--output=json")
    return {member["address"]: member["role"] for member in json.loads(told.stdout)}, told.stderr


def wait_at_rest(cluster: Cluster, roles: dict[str, str]) -> None:
    for host in cluster.hosts:
        wait_until(lambda: members(cluster, host), 60, f"{host.name} to see {roles}",
                   accept=lambda seen: seen == (roles, ""))


def all_vote(cluster: Cluster) -> dict[str, str]:
    return {f"{host.ip}:{PORT}": "voter" for host in cluster.hosts}


def check_log(cluster: Cluster, host: Host) -> None:
    """fleetd must be stopped there: what its log has, not what the machines say."""
    said = host.run(["fleetd", "--recover-quorum", "--show"]).stdout
    for other in cluster.hosts:
        assert f"{other.ip}:{PORT}" in said, said


def stop_each(cluster: Cluster) -> None:
    """With any one host gone the others go on: what the log says of them is true."""
    for host in list(cluster.hosts):
        host.systemctl("stop", "fleetd")
        check_log(cluster, host)
        leader = wait_until(cluster.leader, 30, f"a leader without {host.name}")
        cluster.ctl(leader, "submit", write_service(leader, f"without-{host.name}.service"))
        host.systemctl("start", "fleetd")
        cluster.wait_ready()


@lab_test(hosts=3, spare=2, conf=CONF, deadline_s=180)
def test_the_only_voter_has_moved(cluster: Cluster) -> None:
    """Founded at one address, and restarted with another one: then others join, and the founder may go."""
    founder, *others = cluster.lab.hosts
    cluster.ctl(founder, "start", write_service(founder, "job@1.service"))
    jobs = lives(cluster.hosts, "job@*")
    for number in range(6):  # The log comes in several messages, of which the first ones have the old address.
        names = [f"/root/filler-{number}-{i}.service" for i in range(12)]
        for name in names:
            founder.write(name, f"[Service]\nExecStart=/bin/echo {name}\n" + f"# {'x' * 2000}\n" * 30)
        cluster.ctl(founder, "submit", *names)
    old = renumber(founder)
    cluster.configure(founder)
    founder.systemctl("restart", "fleetd")
    said = wait_until(lambda: founder.journal("fleetd"), 30, "the founder to take its new address",
                      accept=lambda text: f"the only voter, has moved to {founder.ip}:{PORT}" in text)
    assert f"This host is at {founder.ip}:{PORT} now, and its log has it at {old}:{PORT}" in said, said
    for host in others:
        cluster.add(host)
    wait_at_rest(cluster, all_vote(cluster))
    assert lives(cluster.hosts, "job@*") == jobs
    stop_each(cluster)


@lab_test(hosts=2, conf=CONF, deadline_s=120, long=True)
def test_the_only_voter_has_moved_away_from_its_standby(cluster: Cluster) -> None:
    """The standby knows it only where it was, and is called by it."""
    voter, standby = cluster.hosts
    wait_at_rest(cluster, {f"{voter.ip}:{PORT}": "voter", f"{standby.ip}:{PORT}": "standby"})
    voter.systemctl("stop", "fleetd")
    renumber(voter)
    cluster.configure(voter)
    voter.systemctl("start", "fleetd")
    cluster.wait_ready(deadline_s=60)
    wait_at_rest(cluster, {f"{voter.ip}:{PORT}": "voter", f"{standby.ip}:{PORT}": "standby"})
    cluster.ctl(standby, "submit", write_service(standby, "after.service"))
    standby.systemctl("stop", "fleetd")
    check_log(cluster, standby)


@lab_test(hosts=2, spare=1, conf=CONF, deadline_s=120)
def test_a_copy_of_the_only_voter_is_told_so(cluster: Cluster) -> None:
    """While the original answers at its address, who has its disk at another one does not take its place."""
    original, copy = cluster.lab.hosts
    cluster.ctl(original, "submit", write_service(original, "kept.service"))
    copy.power_cut()
    copy.write("/etc/machine-id", f"{original.machine_id}\n")
    shutil.rmtree(copy.data_dir)
    shutil.copytree(original.data_dir, copy.data_dir)
    copy.boot()
    cluster.configure(copy, {"join": None, "join_token_file": None})
    cluster.install(copy)
    copy.systemctl("start", "fleetd")
    wait_until(lambda: copy.journal("fleetd"), 30, "the copy to say what is wrong",
               accept=lambda text: f"another host answers as the same server at {original.ip}:{PORT}" in text)
    assert_stays(lambda: "has moved to" in copy.journal("fleetd"), 12, "where the copy is")
    copy.systemctl("stop", "fleetd")
    assert f"Voters:         {original.ip}:{PORT}" in copy.run(["fleetd", "--recover-quorum", "--show"]).stdout


@lab_test(hosts=3, conf=CONF, deadline_s=180, long=True)
def test_voters_move_one_after_the_other(cluster: Cluster) -> None:
    jobs = start_jobs(cluster, NAMES)
    for host in cluster.hosts:
        renumber(host)
        cluster.configure(host)
        host.systemctl("restart", "fleetd")
        cluster.wait_ready()
        wait_at_rest(cluster, all_vote(cluster))
    assert lives(cluster.hosts, "job@*") == jobs
    stop_each(cluster)


def start_all(cluster: Cluster, conf: dict[str, str]) -> None:
    for host in cluster.hosts:
        cluster.configure(host, conf)
        host.systemctl("restart", "fleetd")


@lab_test(hosts=4, spare=1, conf=CONF, deadline_s=240)
def test_all_voters_have_moved(cluster: Cluster) -> None:
    """They say what is wrong, and what to do; and that does it, also for a host that joins later."""
    jobs = start_jobs(cluster, NAMES)
    for host in cluster.hosts:
        host.systemctl("stop", "fleetd")
    moved = [(f"{renumber(host)}:{PORT}", f"{host.ip}:{PORT}") for host in cluster.hosts]
    start_all(cluster, {})
    for host, (old, new) in zip(cluster.hosts, moved):
        text = wait_until(lambda: host.journal("fleetd"), 30, f"{host.name} to say what is to be done",
                          accept=lambda text: f"cluster_moved = {old}={new}" in text)
        assert "There is no leader" in text
        assert "not where the other voters look for it" in cluster.status(host)
    assert lives(cluster.hosts, "job@*") == jobs
    start_all(cluster, {"cluster_moved": ", ".join(f"{old}={new}" for old, new in moved)})
    cluster.wait_ready()
    wait_at_rest(cluster, all_vote(cluster))
    assert lives(cluster.hosts, "job@*") == jobs
    start_all(cluster, {})  # It is not needed any more.
    cluster.wait_ready()
    stop_each(cluster)
    cluster.add(cluster.lab.hosts[3])
    assert lives(cluster.hosts, "job@*") == jobs
