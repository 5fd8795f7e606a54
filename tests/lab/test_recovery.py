# SPDX-License-Identifier: Apache-2.0
"""Disasters: a backup under load and what comes of it, and majorities that are gone for good (docs/RECOVERY.md).

What runs, runs on all the while; and two clusters never make one unit run twice, unless a person has said so.
"""

from __future__ import annotations

import json
import re
import time

from faults import READS_FAIL, WRITES_FAIL, install, set_faults
from fleet import PORT, Cluster, Machine, write_service
from lab import Host, wait_until
from test_api import ask
from testing import Needs, lab_test
from witness import Life, assert_stays, homes, lives, of_host, wait_once_each

TTL_S = 3
CONF = {"agent_ttl": f"{TTL_S}s"}
UNITS = 10000
BATCH = 2000
JOBS = [f"job@{number}.service" for number in range(12)]
DATA = "/var/lib/fleet"


def start_jobs(cluster: Cluster, asked: Host) -> dict[str, list[Life]]:
    write_service(asked, "job@.service")
    cluster.ctl(asked, "start", *(f"/root/units/{name}" for name in JOBS))
    return wait_once_each(cluster.hosts, JOBS, 15)


def store_units(host: Host, count: int) -> None:
    """Stores so many units, each with a content of its own; every tenth is wanted on a machine that is not there."""
    for first in range(0, count, BATCH):
        units = [{"name": f"unit-{number}.service", "desiredState": "inactive" if number % 10 else "loaded",
                  "options": [{"section": "Service", "name": "ExecStart", "value": "/bin/sleep infinity"},
                              {"section": "Service", "name": "Environment", "value": f"NUMBER={number}"},
                              {"section": "X-Fleet", "name": "MachineID", "value": f"{number:032x}"}]}
                 for number in range(first, min(first + BATCH, count))]
        answer = ask(host, "POST", "/fleet/v1/units", json.dumps({"units": units}), {"Content-Type": "application/json"})
        assert answer.status == 200, answer.body[:500]


def all_units(cluster: Cluster, asked: Host, pattern: str = "unit-*") -> list[str]:
    """Of each unit its name, the hash of its content and its desired state."""
    return sorted(cluster.ctl(asked, "list-unit-files", "--no-legend", "--full", "--fields=unit,hash,dstate",
                              pattern).stdout.splitlines())


def voters(cluster: Cluster, asked: Host) -> list[Host]:
    rows = cluster._table(asked, "list-members", ("role", "machine"))
    return [cluster.host_of(row[1].split("/")[0]) for row in rows if row[0] == "voter"]


def members_of(cluster: Cluster, asked: Host, role: str) -> list[Host]:
    rows = cluster._table(asked, "list-members", ("role", "machine"))
    return [cluster.host_of(row[1].split("/")[0]) for row in rows if row[0] == role]


def states(cluster: Cluster, asked: Host) -> dict[str, str]:
    rows = cluster._table(asked, "list-machines", ("hostname", "state"))
    return {row[0]: row[1] for row in rows}


def restore(cluster: Cluster, host: Host, path: str) -> str:
    """A host that belongs to no cluster begins one with a backup."""
    cluster.install(host)
    cluster.configure(host, {"bootstrap": None, "join": None})
    said = host.run(["fleetd", "--restore", path], timeout=60).stdout
    host.systemctl("start", "fleetd")
    return said


def authority(host: Host) -> str:
    return host.read(f"{DATA}/tls/authority.crt")


def copy_file(source: Host, target: Host, path: str) -> None:
    (target.root / path.lstrip("/")).write_bytes((source.root / path.lstrip("/")).read_bytes())


@lab_test(hosts=4, spare=1, deadline_s=180, conf=CONF)
def test_backup_of_10000_units_under_load_and_restored_elsewhere(cluster: Cluster) -> None:
    cluster.wait_voters(3)
    leader = cluster.wait_leader()
    follower = cluster.others_of(leader)[0]
    before = start_jobs(cluster, follower)
    begin = time.monotonic()
    store_units(follower, UNITS)
    stored_s = time.monotonic() - begin
    expected = all_units(cluster, follower)
    assert len(expected) == UNITS

    # Somebody writes all the while; what was acknowledged before the backup began is in it.
    follower.write("/root/load.sh", "n=0; while [ ! -e /root/stop ]; do n=$((n + 1)); cp /root/units/job@.service "
                   "/root/units/load-$n.service; fleetctl submit /root/units/load-$n.service >/dev/null && "
                   "echo $n >/root/load; done")
    load = follower.popen(["sh", "/root/load.sh"])
    acknowledged = int(wait_until(lambda: follower.run(["cat", "/root/load"], check=False).stdout, 20, "some writes",
                                  accept=lambda text: text.strip().isdigit() and int(text) > 3))
    begin = time.monotonic()
    said = cluster.ctl(follower, "backup", "/root/fleet.backup", timeout=60).stdout
    backup_s = time.monotonic() - begin
    follower.write("/root/stop", "")
    load.wait(timeout=30)
    assert f"{UNITS} units" not in said and re.search(r"10\d\d\d units, 3 machines", said), said
    assert follower.run(["stat", "-c", "%a", "/root/fleet.backup"]).stdout.strip() == "600"
    assert "is whole" in cluster.ctl(follower, "backup", "--verify", "/root/fleet.backup").stdout
    size = (follower.root / "root/fleet.backup").stat().st_size

    # On a host of another cluster, which is there beside the old one.
    new = cluster.lab.hosts[3]
    copy_file(follower, new, "/root/fleet.backup")
    begin = time.monotonic()
    said = restore(cluster, new, "/root/fleet.backup")
    assert "is the only member of the new cluster" in said, said
    wait_until(lambda: cluster.status(new), 20, "the new cluster to have a leader", accept=lambda s: s.startswith("leader"))
    restored_s = time.monotonic() - begin
    assert all_units(cluster, new) == expected
    loaded = {row.split()[0] for row in all_units(cluster, new, "load-*")}
    assert {f"load-{number}.service" for number in range(1, acknowledged + 1)} <= loaded
    print(f"       {UNITS} units: stored in {stored_s:.1f} s, backup {backup_s:.1f} s ({size / 1e6:.1f} MB), "
          f"restored and led after {restored_s:.1f} s")

    # The old one lives, and nothing of what it runs is started a second time.
    wait_until(lambda: list(states(cluster, new).values()), 4 * TTL_S, "the old machines to be missing",
               accept=lambda seen: sorted(seen) == ["missing"] * 3 + ["ready"])
    assert_stays(lambda: lives([*cluster.hosts, new], "job@*"), TTL_S, "who runs what")
    assert lives([*cluster.hosts, new], "job@*") == before
    assert "has not joined it" in cluster.ctl(new, "explain", "job@0.service").stdout
    # Until a person says that it is gone.
    for host in cluster.hosts:
        host.power_cut()
    cluster.ctl(new, "confirm-lost", *(host.machine_id for host in cluster.hosts))
    wait_once_each([new], JOBS, 30)
    tokens = [new.run(["systemctl", "show", "-p", "Environment", name]).stdout for name in JOBS]
    assert not any("FLEET_TOKEN" in text for text in tokens)  # They have no lease.
    # And it grows like any other.
    again = new.run(["sh", "-c", "fleetctl backup - >/root/again && fleetctl backup --verify /root/again"], timeout=60)
    assert "/root/again is whole" in again.stdout and "backup written" in again.stderr, again


@lab_test(hosts=3, deadline_s=120, conf=CONF)
def test_restored_on_the_hosts_of_the_old_cluster(cluster: Cluster) -> None:
    cluster.wait_voters(3)
    first, second, third = cluster.hosts
    before = start_jobs(cluster, first)
    leased = write_service(first, "leased.service", {"OnDisconnect": "stop"})
    cluster.ctl(first, "start", leased)
    [home] = wait_until(lambda: cluster.where_truly("leased.service"), 10, "the leased unit to run",
                        accept=lambda hosts: len(hosts) == 1)
    old_token = int(re.search(r"FLEET_TOKEN=(\d+)", home.show("leased.service", "Environment")).group(1))
    cluster.ctl(second, "backup", "/root/fleet.backup")
    cluster.ctl(second, "submit", write_service(second, "later.service"))
    old_authority = authority(second)
    ids = {host.machine_id for host in cluster.hosts}

    # All that was stored is gone, on every host; what runs there does not know.
    for host in cluster.hosts:
        host.systemctl("stop", "fleetd", timeout=60)
        host.run(["sh", "-c", f"rm -rf {DATA}/*"])
    said = restore(cluster, second, "/root/fleet.backup")
    assert "is the only member" in said
    for host in (first, third):
        cluster.configure_joining(host, second)
        host.systemctl("start", "fleetd")
    cluster.wait_ready(3)
    # Another cluster with an authority of its own, but the same machines.
    assert authority(first) == authority(second) == authority(third) != old_authority
    assert {machine.id for machine in cluster.machines(second)} == ids
    cluster.wait_voters(3)
    assert_stays(lambda: lives(cluster.hosts, "job@*"), 2 * TTL_S, "who runs what")
    assert lives(cluster.hosts, "job@*") == before, "something bounced"
    assert cluster.ctl(first, "cat", "later.service", check=False).returncode == 4
    # It was stopped by its lease, and runs again, once; its token has grown.
    [home] = wait_until(lambda: cluster.where_truly("leased.service"), 20, "the leased unit to run again",
                        accept=lambda hosts: len(hosts) == 1)
    token = int(re.search(r"FLEET_TOKEN=(\d+)", home.show("leased.service", "Environment")).group(1))
    assert token >= old_token
    cluster.ctl(third, "start", write_service(third, "new.service"))
    # What has its own data is not overwritten.
    second.systemctl("stop", "fleetd")
    refused = second.run(["fleetd", "--restore", "/root/fleet.backup"], check=False)
    assert refused.returncode == 1 and "belongs to cluster" in refused.stderr and "move" in refused.stderr, refused
    running = first.run(["fleetd", "--recover-quorum", "--yes"], check=False)
    assert running.returncode == 1 and "is in use by another fleetd" in running.stderr, running
    second.systemctl("start", "fleetd")


@lab_test(hosts=3, deadline_s=120, conf={**CONF, "agent_ttl": "15s"})  # For a fleetd that is slow to start twice.
def test_a_disk_that_cannot_be_written_or_read(cluster: Cluster) -> None:
    """Input and output errors: said with the file, and nothing else happens to anybody."""
    install(cluster)
    for host in cluster.hosts:
        host.systemctl("restart", "fleetd")
    cluster.wait_ready(3)
    cluster.wait_voters(3)
    before = start_jobs(cluster, cluster.hosts[0])
    leader = cluster.wait_leader()
    bad, other = cluster.others_of(leader)
    for error, said in ((WRITES_FAIL, "error"), (READS_FAIL, "Input/output error")):
        restarts = int(bad.show("fleetd.service", "NRestarts"))
        set_faults(bad, io_error=error)
        if error == READS_FAIL:
            bad.systemctl("restart", "fleetd", check=False)
        cluster.ctl(other, "submit", write_service(other, f"while-{error}.service"))
        wait_until(lambda: int(bad.show("fleetd.service", "NRestarts")), 20, "fleetd to end and be started again",
                   accept=lambda count: count > restarts)
        lines = [line for line in bad.journal("fleetd", 50).splitlines() if f"{DATA}/raft" in line]
        assert any(said in line for line in lines), bad.journal("fleetd", 50)
        print(f"       {lines[-1].split(': ', 1)[1][:150]}")
        assert cluster.ctl(other, "cat", f"while-{error}.service").stdout
        set_faults(bad)
        cluster.wait_ready(3)
        assert cluster.ctl(bad, "cat", f"while-{error}.service").stdout
        assert lives(cluster.hosts, "job@*") == before, "something bounced"


def files(host: Host) -> str:
    """All that is in the data directory."""
    return host.run(["sh", "-c", f"cd {DATA} && find . -printf '%P %s %T@\\n' | sort; "
                     "find . -type f -exec sha256sum {} + | sort"]).stdout


def show(host: Host) -> tuple[int, int]:
    """Term and index of the last entry of a stopped host's log; looking changes nothing."""
    before = files(host)
    said = host.run(["fleetd", "--recover-quorum", "--show"]).stdout
    assert files(host) == before, said
    match = re.search(r"^Log: +term (\d+), index (\d+)$", said, re.M)
    assert match, said
    return int(match.group(1)), int(match.group(2))


def recover(cluster: Cluster, host: Host) -> None:
    host.systemctl("stop", "fleetd", timeout=60)
    asked = host.run(["fleetd", "--recover-quorum"], check=False)
    assert asked.returncode == 1 and "--yes" in asked.stderr and "LOST" in asked.stdout, asked
    said = host.run(["fleetd", "--recover-quorum", "--yes"]).stdout
    assert "Done: recovery number 1" in said, said
    host.systemctl("start", "fleetd")
    wait_until(lambda: cluster.status(host), 15, f"{host.name} to lead", accept=lambda s: s.startswith("leader"))


def join_again(cluster: Cluster, host: Host, through: Host) -> None:
    host.systemctl("stop", "fleetd", timeout=60)
    host.run(["sh", "-c", f"mv {DATA} {DATA}.old; mkdir {DATA}"], check=False)
    host.run(["sh", "-c", f"mkdir -p {DATA}.old; mv {DATA}/* {DATA}.old/"], check=False)
    cluster.configure_joining(host, through)
    host.systemctl("start", "fleetd")


@lab_test(hosts=5, deadline_s=240, conf=CONF | {"voters": "3"})
def test_two_of_three_voters_gone_for_good(cluster: Cluster) -> None:
    cluster.wait_voters(3)
    standby = wait_until(lambda: members_of(cluster, cluster.hosts[0], "standby"), 20, "a standby",
                         accept=lambda hosts: len(hosts) == 1)[0]
    leader = cluster.wait_leader()
    voting = voters(cluster, leader)
    survivor = next(host for host in voting if host is not leader)
    gone = [host for host in voting if host is not survivor]
    [plain] = [host for host in cluster.hosts if host not in voting and host is not standby]
    before = start_jobs(cluster, plain)
    store_units(plain, 50)
    expected = all_units(cluster, plain)
    old_authority, old_certificate = authority(plain), plain.read(f"{DATA}/tls/host.crt")

    for host in gone:
        host.power_cut()
    left = [survivor, standby, plain]
    wait_until(lambda: cluster.status(plain), 30, "the survivors to have no leader", accept=lambda s: "no leader" in s)
    nothing = plain.run(["sh", "-c", "systemctl stop fleetd; fleetd --recover-quorum --yes; systemctl start fleetd"], check=False)
    assert "this host keeps no copy of the cluster's data" in nothing.stderr, nothing
    recover(cluster, survivor)
    # Who kept no log follows by itself; who did is refused, and is told what to do.
    wait_until(lambda: states(cluster, survivor), 20, "the plain host to be there",
               accept=lambda seen: seen.get(plain.name) == "ready" and seen.get(survivor.name) == "ready")
    assert all_units(cluster, plain) == expected
    # It is the same cluster: whom its hosts trust, and the certificates that they have of it, stay.
    assert authority(survivor) == authority(plain) == old_authority
    assert plain.read(f"{DATA}/tls/host.crt") == old_certificate
    wait_until(lambda: standby.journal("fleetd"), 30, "the standby to say why it is refused",
               accept=lambda text: "Move /var/lib/fleet away" in text or "move your data directory away" in text)
    assert_stays(lambda: lives(left, "job@*"), 2 * TTL_S, "who runs what")
    assert lives(left, "job@*") == of_host(before, *left), "something bounced"
    join_again(cluster, standby, survivor)
    wait_until(lambda: states(cluster, survivor), 30, "the standby to be back",
               accept=lambda seen: [seen.get(host.name) for host in left] == ["ready"] * 3)
    wait_until(lambda: voters(cluster, survivor), 60, "three voters again", accept=lambda hosts: set(hosts) == set(left))
    assert lives(left, "job@*") == of_host(before, *left), "something bounced"

    # A person says that they are gone: only then do their units run elsewhere.
    assert [states(cluster, plain)[host.name] for host in gone] == ["missing", "missing"]
    cluster.ctl(plain, "confirm-lost", *(host.machine_id for host in gone))
    after = wait_once_each(left, JOBS, 30)
    assert of_host(before, *left).items() <= after.items()

    # They come back all the same, with their data: they find each other, and are a majority of what was.
    led = {host: host.journal("fleetd", 10000).count("This host leads now") for host in gone}
    for host in gone:
        host.boot_begin()
    for host in gone:
        host.boot_finish()
    for host in gone:
        wait_until(lambda: cluster.status(host), 30, f"{host.name} to take no part",
                   accept=lambda text: "takes no part in its cluster" in text)
        assert "was recovered" in host.journal("fleetd") and "Its units run on" in host.journal("fleetd")
        refused = cluster.ctl(host, "submit", write_service(host, "forked.service"), check=False)
        assert refused.returncode == 1, refused
    assert led == {host: host.journal("fleetd", 10000).count("This host leads now") for host in gone}
    assert_stays(lambda: homes(cluster.hosts, "job@*"), 2 * TTL_S, "who runs what")
    assert lives(cluster.hosts, "job@*") == after
    assert cluster.ctl(plain, "cat", "forked.service", check=False).returncode == 4
    gone[0].systemctl("stop", "fleetd", timeout=60)
    assert "SUPERSEDED" in gone[0].run(["fleetd", "--recover-quorum", "--show"]).stdout
    again = gone[0].run(["fleetd", "--recover-quorum", "--yes"], check=False)
    assert again.returncode == 1 and "are not to be used" in again.stderr, again
    # As new hosts they are welcome.
    for host in gone:
        join_again(cluster, host, survivor)
    cluster.wait_ready(5)
    assert lives(cluster.hosts, "job@*") == after
    assert all_units(cluster, gone[0]) == expected


@lab_test(hosts=5, deadline_s=240, conf=CONF | {"voters": "5"})
def test_three_of_five_voters_gone_for_good(cluster: Cluster) -> None:
    cluster.wait_voters(5)
    leader = cluster.wait_leader()
    left = [host for host in cluster.hosts if host is not leader][:2]
    gone = [host for host in cluster.hosts if host not in left]
    before = start_jobs(cluster, left[0])
    store_units(left[0], 50)
    expected = all_units(cluster, left[0])
    for host in gone:
        host.power_cut()
    for host in left:
        wait_until(lambda: cluster.status(host), 30, "the survivors to have no leader", accept=lambda s: "no leader" in s)
        host.systemctl("stop", "fleetd", timeout=60)
    # Whoever has the greater term, then index, knows more.
    shown = {host: show(host) for host in left}
    best, other = sorted(left, key=lambda host: shown[host], reverse=True)
    other.systemctl("start", "fleetd")
    recover(cluster, best)
    assert all_units(cluster, best) == expected
    wait_until(lambda: other.journal("fleetd"), 30, "the other to be refused",
               accept=lambda text: "was recovered (number 1) out of another host's data" in text)
    assert lives(left, "job@*") == of_host(before, *left), "something bounced"
    join_again(cluster, other, best)
    wait_until(lambda: states(cluster, best), 30, "the other to be back", accept=lambda seen: seen.get(other.name) == "ready")
    assert lives(left, "job@*") == of_host(before, *left), "something bounced"
    # New hosts in the place of the lost ones: three voters, by themselves.
    fresh = gone[0]
    fresh.boot()
    join_again(cluster, fresh, best)
    wait_until(lambda: voters(cluster, best), 60, "three voters", accept=lambda hosts: set(hosts) == {best, other, fresh})
    assert all_units(cluster, fresh) == expected
    cluster.ctl(fresh, "start", write_service(fresh, "new.service"))
    assert lives(left, "job@*") == of_host(before, *left), "something bounced"
