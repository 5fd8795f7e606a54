# SPDX-License-Identifier: Apache-2.0
"""Who votes: lost voters are replaced, numbers change under load, leadership and votes are moved by people."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

import patience
from fleet import PORT, Cluster, write_service
from lab import Host, wait_until
from testing import lab_test
from witness import assert_stays, lives, wait_once_each

AGENT_TTL_S = 3
GRACE_S = 3
CONF = {"agent_ttl": f"{AGENT_TTL_S}s"}
NAMES = [f"job@{number}.service" for number in range(6)]

# Stores one unit after the other, and destroys each some time later. What it tries is on the disk before it is tried,
# and what was acknowledged, or why not, right after.
WRITER = """#!/bin/sh
i=0
try() {
    echo "try $*" >>/root/ledger
    if [ "$1" = submit ]; then file="/root/units/$2"; else file="$2"; fi
    if said=$(fleetctl "$1" "$file" 2>&1 >/dev/null); then echo "did $*" >>/root/ledger; else
        echo "not $* $said" | tr '\\n' ' ' >>/root/ledger; echo >>/root/ledger
    fi
}
while ! [ -e /root/ledger-end ]; do
    i=$((i + 1))
    cp /root/units/entry.service "/root/units/entry-HOST-$i.service"
    try submit "entry-HOST-$i.service"
    [ $i -le 10 ] || try destroy "entry-HOST-$((i - 10)).service"
done
"""


class Writers:
    """A client on each of these hosts that writes as fast as it can."""

    def __init__(self, cluster: Cluster, hosts: Sequence[Host]) -> None:
        self.cluster = cluster
        self.hosts = list(hosts)
        for host in self.hosts:
            write_service(host, "entry.service")
            host.write("/root/ledger", "")
            host.write("/root/writer.sh", WRITER.replace("HOST", host.name))
            host.run(["rm", "-f", "/root/ledger-end"])
            host.run(["systemd-run", "--quiet", "--collect", "--unit=writer", "/bin/sh", "/root/writer.sh"])

    def end(self) -> tuple[int, list[str]]:
        """Checks that nothing was lost. Returns how much was acknowledged, and what was not."""
        last: dict[str, tuple[str, bool]] = {}
        acknowledged, refused = 0, []
        for host in self.hosts:
            host.write("/root/ledger-end", "")
        for host in self.hosts:
            wait_until(lambda: host.show("writer", "ActiveState"), 60, f"the writer on {host.name} to end",
                       accept=lambda state: state == "inactive")
            for line in host.read("/root/ledger").splitlines():
                how, what, unit, *said = line.split(None, 3)
                last[unit] = (what, how == "did")
                acknowledged += how == "did"
                refused += [f"{host.name}: {line}"] if how == "not" else []
        stored = {unit for unit, tried in last.items() if tried == ("submit", True)}
        destroyed = {unit for unit, tried in last.items() if tried == ("destroy", True)}
        for host in self.cluster.hosts:
            listed = set(self.cluster.ctl(host, "list-unit-files", "--no-legend", "--fields=unit",
                                          "entry-*").stdout.split())
            assert not stored - listed, f"lost, as {host.name} says"
            assert not destroyed & listed, f"risen from the dead, as {host.name} says"
        return acknowledged, refused


def members(cluster: Cluster, asked: Host) -> dict[str, dict[str, str]]:
    """The members of the cluster, by the names of their hosts."""
    listed = json.loads(cluster.ctl(asked, "list-members", "--output=json").stdout)
    return {cluster.host_of(member["machine"]).name: member for member in listed if member["machine"]}


def voters(cluster: Cluster, asked: Host) -> list[str]:
    return sorted(name for name, member in members(cluster, asked).items() if member["role"] == "voter")


def doing(cluster: Cluster, asked: Host) -> str:
    return cluster.ctl(asked, "list-members").stderr


def wait_voters(cluster: Cluster, asked: Host, accept: Callable[[list[str]], bool], what: str,
                deadline_s: float = 30) -> float:
    """Waits, and returns how long."""
    begin = patience.now()
    wait_until(lambda: voters(cluster, asked), deadline_s, what, accept=accept)
    return patience.now() - begin


def named(cluster: Cluster, name: str) -> Host:
    return next(host for host in cluster.hosts if host.name == name)


def connections(host: Host) -> int:
    """How many there are to a cluster port, from this host's or to this host's."""
    text = host.run(["ss", "-Htn", "state", "established", f"( sport = :{PORT} or dport = :{PORT} )"]).stdout
    # The leader's own session to itself is there from both ends.
    return len(text.splitlines())


def start_jobs(cluster: Cluster) -> dict:
    write_service(cluster.hosts[0], "job@.service")
    cluster.ctl(cluster.hosts[0], "start", *(f"/root/units/{name}" for name in NAMES))
    return wait_once_each(cluster.hosts, NAMES, 15)


@lab_test(hosts=5, conf={**CONF, "voters": "3"}, deadline_s=180)
def test_a_voter_that_is_lost_for_good_is_replaced(cluster: Cluster) -> None:
    cluster.wait_voters(3)
    cluster.ctl(cluster.hosts[0], "set", f"voters_grace={GRACE_S}s")
    for which in ("a follower", "the leader"):
        leader = cluster.wait_leader()
        before = voters(cluster, leader)
        lost = leader if which == "the leader" else named(cluster, next(v for v in before if v != leader.name))
        asked = next(host for host in cluster.hosts if host is not lost and host.is_up)
        lost.power_cut()
        took = wait_voters(cluster, asked, lambda now: len(now) == 3 and lost.name not in now,
                           f"three voters again without {lost.name}", 60)
        assert len(set(voters(cluster, asked)) - set(before)) == 1
        print(f"       {which} of three lost its power: three voters again after {took:.1f} s, with a grace of {GRACE_S} s")
        # Any one of the new three may go: a write is acknowledged without it.
        cluster.ctl(asked, "submit", write_service(asked, f"after-{lost.name}.service"), timeout=30)
        # It comes back, has no vote, and takes none from the others.
        lost.boot()
        cluster.wait_ready(5)
        now = voters(cluster, asked)
        assert_stays(lambda: voters(cluster, asked), 3, "who votes")
        assert lost.name not in now
        wait_until(lambda: cluster.status(lost), 20, f"{lost.name} to follow", accept=lambda s: s.startswith("follows"))


@lab_test(hosts=4, conf={**CONF, "voters": "3"}, deadline_s=90)
def test_a_voter_that_comes_back_in_time_keeps_its_vote(cluster: Cluster) -> None:
    cluster.wait_voters(3)
    leader = cluster.wait_leader()
    before = voters(cluster, leader)
    away = named(cluster, next(v for v in before if v != leader.name))
    away.power_cut()
    wanted = (f"{away.name} is away for", "after 5 min another host gets its vote",
              "2 of 3 voters answer: if one more is lost, nothing can be changed")
    wait_until(lambda: doing(cluster, leader), 20, "list-members to say what will be done",
               accept=lambda said: all(part in said for part in wanted))
    away.boot()
    cluster.wait_ready(4)
    assert voters(cluster, leader) == before
    wait_until(lambda: doing(cluster, leader), 20, "nothing to be under way", accept=lambda said: said == "")


@lab_test(hosts=5, spare=4, conf=CONF, deadline_s=240)
def test_growing_and_shrinking_under_load(cluster: Cluster) -> None:
    one = cluster.hosts[0]
    spare = [host for host in cluster.lab.hosts if host not in cluster.hosts]
    told = []

    def becomes(count: int, what: str) -> None:
        took = wait_voters(cluster, one, lambda now: len(now) == count, f"{count} voters")
        told.append(f"{what} {took:.1f} s")

    assert voters(cluster, one) == [one.name]
    writers = Writers(cluster, [one])
    cluster.add(spare[0])
    assert voters(cluster, one) == [one.name]  # Two voters would stand less than one.
    cluster.add(spare[1])
    becomes(3, "1 to 3 hosts: 3 voters after")
    running = start_jobs(cluster)
    cluster.add(spare[2])
    cluster.add(spare[3])
    becomes(5, "5 hosts: 5 voters after")
    for count in (3, 1, 3, 5, 1, 5):
        cluster.ctl(one, "set", f"voters={count}")
        becomes(count, f"to {count}:")
    acknowledged, refused = writers.end()
    assert lives(cluster.hosts, "job@*") == running
    print(f"       {'; '.join(told)}; meanwhile {acknowledged} writes acknowledged, none lost, {len(refused)} refused")
    # In the moment when leadership goes from one to another, on a busy machine, a write may be refused: then it says so, and
    # was not done.
    assert acknowledged > 100 and len(refused) * 50 < acknowledged, refused


@lab_test(hosts=3, conf=CONF, deadline_s=120)
def test_leadership_is_transferred_under_load(cluster: Cluster) -> None:
    cluster.wait_voters(3)
    running = start_jobs(cluster)
    leader = cluster.wait_leader()
    writers = Writers(cluster, cluster.hosts)
    took = []
    for turn in range(6):
        before = cluster.wait_leader()
        to = cluster.others_of(before)[turn % 2]
        asked = cluster.hosts[turn % 3]
        begin = patience.now()
        said = cluster.ctl(asked, "transfer-leadership", *([to.name] if turn < 4 else []))
        took.append(patience.now() - begin)
        leader = cluster.wait_leader(other_than=before)
        assert turn >= 4 or leader is to
        assert said.stdout == f"Machine {leader.machine_id[:8]}.../{leader.ip} leads now\n", said
    said = cluster.ctl(leader, "transfer-leadership", leader.name)
    assert said.stdout == f"Machine {leader.machine_id[:8]}.../{leader.ip} leads already\n", said
    acknowledged, refused = writers.end()
    assert lives(cluster.hosts, "job@*") == running
    print(f"       6 transfers of {max(took):.1f} s at most; meanwhile {acknowledged} writes acknowledged, none lost, "
          f"{len(refused)} refused")
    assert acknowledged > 50 and refused == []


@lab_test(hosts=6, conf={**CONF, "voters": "3"}, deadline_s=150, long=True)
def test_voters_are_spread_over_a_key(cluster: Cluster) -> None:
    one = cluster.hosts[0]
    zones = {}

    def set_zone(host: Host, zone: str) -> None:
        zones[host.name] = zone
        body = json.dumps([{"op": "add", "path": f"/{host.machine_id}/metadata/zone", "value": zone}])
        one.run(["curl", "-sf", "--unix-socket", "/run/fleet.sock", "-X", "PATCH", "-H", "Content-Type: application/json",
                 "-d", body, "http://fleet/fleet/v1/machines"])

    def spread() -> list[str]:
        return sorted(zones[name] for name in voters(cluster, one))

    for host, zone in zip(cluster.hosts, "aaaabc"):
        set_zone(host, zone)
    cluster.wait_voters(3)
    cluster.ctl(one, "set", "voters_spread_by=zone")
    wait_until(spread, 30, "voters in all three zones", accept=lambda now: now == ["a", "b", "c"])
    assert_stays(lambda: voters(cluster, one), 3, "who votes")
    listed = members(cluster, one)
    assert {name: member["spread"] for name, member in listed.items()} == zones
    # A voter's metadata change: another one has its zone now.
    moved = next(host for host in cluster.hosts if zones[host.name] == "a" and host.name in voters(cluster, one))
    set_zone(moved, "b")
    wait_until(spread, 30, "voters in all three zones again", accept=lambda now: now == ["a", "b", "c"])
    assert_stays(lambda: voters(cluster, one), 3, "who votes")


@lab_test(hosts=6, conf={**CONF, "voters": "3"}, deadline_s=150, long=True)
def test_hosts_that_only_run_units_cost_the_consensus_nothing(cluster: Cluster) -> None:
    one = cluster.hosts[0]
    cluster.wait_voters(3)
    cluster.ctl(one, "set", f"voters_grace={GRACE_S}s")
    leader = cluster.wait_leader()

    def roles() -> list[str]:
        return sorted(member["role"] for member in members(cluster, one).values())

    wait_until(roles, 20, "three voters and a standby", accept=lambda now: now == ["host"] * 2 + ["standby"] + ["voter"] * 3)
    # One that was a voter and a standby is one of them later: it was lost, and is back.
    gone = named(cluster, next(v for v in voters(cluster, one) if v not in (leader.name, one.name)))
    gone.cut()
    wait_voters(cluster, one, lambda now: len(now) == 3 and gone.name not in now, "three voters again", 60)
    gone.mend()
    cluster.wait_ready(6)
    wait_until(roles, 20, "three voters and a standby again",
               accept=lambda now: now == ["host"] * 2 + ["standby"] + ["voter"] * 3)
    outside = [named(cluster, name) for name, member in members(cluster, one).items() if member["role"] == "host"]
    start_jobs(cluster)
    assert gone in outside, members(cluster, one)
    for host in outside:
        wait_until(lambda: connections(host), 20, f"{host.name} to have its session and nothing else",
                   accept=lambda count: count == 1)
        assert_stays(lambda: connections(host), 2, f"the connections of {host.name}")
    acknowledged, _ = Writers(cluster, [outside[0]]).end()
    assert [connections(host) for host in outside] == [1] * len(outside)


@lab_test(hosts=5, conf={**CONF, "voters": "3"}, deadline_s=150)
def test_people_choose_who_votes(cluster: Cluster) -> None:
    one = cluster.hosts[0]
    cluster.wait_voters(3)
    leader = cluster.wait_leader()
    outside = [host for host in cluster.hosts if host.name not in voters(cluster, one)]
    said = cluster.ctl(one, "promote", *(host.name for host in outside))
    assert said.stdout == "".join(f"Machine {host.machine_id[:8]}.../{host.ip} votes\n" for host in outside), said
    wait_voters(cluster, one, lambda now: len(now) == 3 and all(host.name in now for host in outside),
                "those two and another one to vote")
    # The leader is demoted: leadership goes first.
    leader = cluster.wait_leader()
    said = cluster.ctl(one, "demote", leader.name)
    assert said.stdout == f"Machine {leader.machine_id[:8]}.../{leader.ip} does not vote\n", said
    listed = members(cluster, one)
    assert (listed[leader.name]["role"], listed[leader.name]["preference"]) == ("host", "never")
    assert not listed[leader.name]["leader"] and len(voters(cluster, one)) == 3
    # Too few would be left; too many are asked for; one must not lead.
    refused = cluster.ctl(one, "demote", *voters(cluster, one)[:2], check=False)
    assert refused.returncode == 1 and "that would leave 1 voter of 3" in refused.stderr, refused
    refused = cluster.ctl(one, "promote", *(host.name for host in cluster.hosts), check=False)
    assert refused.returncode == 1 and "the cluster is to have 3 voters" in refused.stderr, refused
    assert len(voters(cluster, one)) == 3
    cluster.ctl(one, "promote", "--automatic", *(host.name for host in cluster.hosts))
    assert {member["preference"] for member in members(cluster, one).values()} == {"automatic"}
    assert_stays(lambda: voters(cluster, one), 2, "who votes")


@lab_test(hosts=3, conf=CONF, deadline_s=120)
def test_a_machine_that_leaves_gives_up_leadership_and_vote(cluster: Cluster) -> None:
    cluster.wait_voters(3)
    running = start_jobs(cluster)

    def leave(host: Host, leaving: bool = True) -> None:
        body = json.dumps({"machines": [host.machine_id], "leaving": leaving})
        host.run(["curl", "-sf", "--unix-socket", "/run/fleet.sock", "-H", "Content-Type: application/json",
                  "-d", body, "http://fleet/fleet/v1/members"])

    def role(host: Host) -> str:
        return members(cluster, host)[host.name]["role"]

    for left in (2, 1):
        leader = cluster.wait_leader()
        begin = patience.now()
        leave(leader)
        wait_until(lambda: role(leader), 30, f"{leader.name} to have no part any more", accept=lambda now: now == "host")
        print(f"       the leader of {left + 1} hosts gave up leadership, vote and data after {patience.now() - begin:.1f} s")
        now = cluster.wait_leader(other_than=leader)
        assert voters(cluster, now) == [now.name]  # Two voters stand less than one.
        cluster.ctl(leader, "submit", write_service(leader, f"after-{leader.name}.service"))
    last = cluster.wait_leader()
    leave(last)
    wait_until(lambda: doing(cluster, last), 20, "list-members to say that the last one stays",
               accept=lambda said: "keeps its vote" in said and "no other host could have it" in said)
    assert role(last) == "voter"
    for host in cluster.hosts:
        leave(host, False)
    cluster.wait_voters(3)
    assert lives(cluster.hosts, "job@*") == running


@lab_test(hosts=3, conf=CONF, deadline_s=90)
def test_without_a_majority_list_members_says_what_to_do(cluster: Cluster) -> None:
    cluster.wait_voters(3)
    left = cluster.hosts[0]
    for host in cluster.others_of(left):
        host.power_cut()
    said = wait_until(lambda: doing(cluster, left), 30, "list-members to say what is the matter",
                      accept=lambda said: "there is no leader" in said)
    assert "2 of these 3 voters are up" in said and all(host.ip in said for host in cluster.hosts), said
    refused = cluster.ctl(left, "transfer-leadership", check=False, timeout=90)
    assert refused.returncode == 1
