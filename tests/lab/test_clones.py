# SPDX-License-Identifier: Apache-2.0
"""Two hosts with one machine id: whoever was there first is not harmed, the other one is refused and told why."""

from __future__ import annotations

import shutil

from fleet import Cluster, write_service
from lab import Host, wait_until
from testing import Needs, lab_test
from witness import Life, assert_stays, homes, lives, start_jobs, wait_once_each

SHARED = True
AGENT_TTL_S = 4
NEEDS = Needs(hosts=4, spare=1, conf={"agent_ttl": f"{AGENT_TTL_S}s"})
NAMES = [f"job@{number}.service" for number in range(6)]


def boot_as(cluster: Cluster, clone: Host, original: Host, with_data: bool) -> None:
    """Boots the spare host with another one's machine id, and with a copy of its data if that is asked for."""
    if clone.is_up:
        clone.power_cut()
    clone.write("/etc/machine-id", f"{original.machine_id}\n")
    shutil.rmtree(clone.data_dir)
    if with_data:
        shutil.copytree(original.data_dir, clone.data_dir)
    else:
        clone.data_dir.mkdir()
    clone.boot()
    cluster.configure_joining(clone, original)
    cluster.install(clone)
    clone.systemctl("start", "fleetd")


def is_refused(cluster: Cluster, clone: Host, original: Host) -> None:
    before = start_jobs(cluster, NAMES)
    words = f"machine id {original.machine_id} is in use by {original.name}"
    boot_as(cluster, clone, original, with_data=True)
    wait_until(lambda: cluster.status(clone), 15, "the clone to say why it is refused", accept=lambda s: words in s)
    assert words in clone.journal("fleetd"), clone.journal("fleetd")
    assert words in cluster.wait_leader().journal("fleetd", 1000)
    assert_stays(lambda: (lives([*cluster.hosts, clone], "job@*"), [m.state for m in cluster.machines(original)]),
                 AGENT_TTL_S + 1, "who runs what, and who is ready")
    # Nor does it slip in while leaders change.
    cluster.wait_leader().systemctl("restart", "fleetd")
    assert_stays(lambda: lives([*cluster.hosts, clone], "job@*"), AGENT_TTL_S + 1, "who runs what")
    cluster.wait_ready(3)
    assert lives([*cluster.hosts, clone], "job@*") == before
    cluster.ctl(original, "start", write_service(original, "after.service", {"MachineID": original.machine_id}))
    assert original.is_active("after.service") and not clone.is_active("after.service")


@lab_test(deadline_s=90)
def test_a_copied_machine_id(cluster: Cluster) -> None:
    before = start_jobs(cluster, NAMES)
    original, clone = cluster.hosts[1], cluster.lab.hosts[3]
    words = f"machine id {original.machine_id} is in use by {original.name}"
    boot_as(cluster, clone, original, with_data=False)
    wait_until(lambda: clone.journal("fleetd"), 15, "the clone to say why it cannot join", accept=lambda s: words in s)
    assert words in cluster.wait_leader().journal("fleetd", 1000)
    assert_stays(lambda: lives([*cluster.hosts, clone], "job@*"), AGENT_TTL_S, "who runs what")
    assert lives([*cluster.hosts, clone], "job@*") == before


@lab_test(deadline_s=120)
def test_a_copied_disk_of_the_leader(cluster: Cluster) -> None:
    is_refused(cluster, cluster.lab.hosts[3], cluster.wait_leader())


@lab_test(deadline_s=120)
def test_a_copied_disk_of_a_follower(cluster: Cluster) -> None:
    leader = cluster.wait_leader()
    is_refused(cluster, cluster.lab.hosts[3], next(host for host in cluster.hosts if host is not leader))


@lab_test(deadline_s=120)
def test_a_copied_disk_has_no_vote(cluster: Cluster) -> None:
    """Of three voters two go on together, the third is left alone with a copy of one of those two. If the copy had a
    vote, or could ask for one, the two of them would be a majority as well."""
    before = start_jobs(cluster, NAMES)
    leader = cluster.wait_leader()
    original, third = cluster.others_of(leader)
    clone = cluster.lab.hosts[3]
    boot_as(cluster, clone, original, with_data=True)
    wait_until(lambda: cluster.status(clone), 15, "the clone to be refused", accept=lambda s: "is in use by" in s)
    try:
        for host in (leader, original):
            for other in (third, clone):
                host.block(other)
        wait_until(lambda: cluster.status(third), 20, "the third to miss its leader", accept=lambda s: "no leader" in s)
        assert_stays(lambda: [cluster.status(host).startswith("leader") for host in (leader, third, clone)], 12,
                     "who leads")
        assert cluster.status(leader).startswith("leader")
        cluster.ctl(leader, "start", write_service(leader, "one.service"))
        refused = cluster.ctl(third, "start", write_service(third, "two.service"), check=False)
        assert refused.returncode == 1 and "no leader" in refused.stderr, refused
    finally:
        for host in (leader, original):
            host.unblock()
    cluster.wait_ready(3)
    assert cluster.ctl(third, "cat", "two.service", check=False).returncode == 4
    cluster.ctl(third, "cat", "one.service")
    wait_once_each(cluster.hosts, NAMES, 20)
    kept = {unit: copies for unit, copies in before.items() if copies[0].host != third.name}
    now = lives(cluster.hosts, "job@*")
    assert {unit: now[unit] for unit in kept} == kept
    assert "another host answers as this server at" in third.journal("fleetd", 1000)


@lab_test(deadline_s=120)
def test_a_copy_takes_the_place_of_a_dead_original(cluster: Cluster) -> None:
    """A disk that was moved into another case is that host; the old case, if it is switched on, is not any more."""
    before = start_jobs(cluster, NAMES)
    leader = cluster.wait_leader()
    original = next(host for host in cluster.hosts if host is not leader)
    clone = cluster.lab.hosts[3]
    boot_as(cluster, clone, original, with_data=True)
    others = [host for host in cluster.hosts if host is not original]
    original.power_cut()
    wait_once_each([*others, clone], NAMES, AGENT_TTL_S + 10)
    kept = {unit: copies for unit, copies in before.items() if copies[0].host != original.name}
    now = lives([*others, clone], "job@*")
    assert {unit: now[unit] for unit in kept} == kept
    original.boot()
    wait_until(lambda: cluster.status(original), 20, "the original to be refused",
               accept=lambda s: f"machine id {original.machine_id} is in use" in s)
    assert_stays(lambda: homes([*cluster.hosts, clone], "job@*"), AGENT_TTL_S, "who runs what")
    assert not lives([original], "job@*")
