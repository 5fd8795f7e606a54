# SPDX-License-Identifier: Apache-2.0
"""A full disk: what cannot be kept is refused with the reason, what was acknowledged is never lost, room heals it."""

from __future__ import annotations

from fleet import Cluster, write_service
from lab import Host, wait_until
from testing import Needs, lab_test
from witness import Life, lives, wait_once_each

SHARED = True
DISK_MB = 256  # 57 MB of log and ballast; below 64 MB of room, fleetd begins to refuse.
NEEDS = Needs(hosts=3, disk_mb=DISK_MB, conf={"agent_ttl": "3s"})
NAMES = [f"job@{number}.service" for number in range(6)]
# Together more than the log has set aside before: 24 MB.
WRITES = 130
BIG = "[Service]\nExecStart=/bin/sleep infinity\n" + 110 * f"Environment=PADDING={1900 * 'x'}\n"


def start_jobs(cluster: Cluster) -> dict[str, list[Life]]:
    cluster.wait_ready(3)
    cluster.wait_voters(3)
    one = cluster.hosts[0]
    write_service(one, "job@.service")
    cluster.ctl(one, "start", *(f"/root/units/{name}" for name in NAMES))
    return wait_once_each(cluster.hosts, NAMES, 10)


def fill(host: Host) -> None:
    """Leaves no room: a little is always given back by a file that is just being replaced."""
    script = ("dd if=/dev/zero of=/var/lib/fleet/fill bs=4k oflag=append conv=notrunc 2>/dev/null; "
              "df --output=avail /var/lib/fleet | tail -1")
    wait_until(lambda: int(host.run(["sh", "-c", script]).stdout), 10, f"the disk of {host.name} to be full",
               accept=lambda kib: kib < 64)


def free(host: Host) -> None:
    host.run(["rm", "-f", "/var/lib/fleet/fill"])


def write_units(cluster: Cluster, asked: Host, prefix: str) -> tuple[list[str], list[str]]:
    """Stores units one by one, up to the third refusal; returns the acknowledged, and what was said to the others."""
    acknowledged, refusals = [], []
    for number in range(WRITES):
        name = f"{prefix}-{number}.service"
        asked.write(f"/root/units/{name}", BIG)
        result = cluster.ctl(asked, "submit", f"/root/units/{name}", check=False, timeout=45)
        if result.returncode == 0:
            acknowledged.append(name)
        else:
            refusals.append(result.stderr)
            if len(refusals) == 3:
                break
    return acknowledged, refusals


def stored(cluster: Cluster, asked: Host, prefix: str) -> set[str]:
    return set(cluster.ctl(asked, "list-unit-files", "--no-legend", "--fields=unit", f"{prefix}-*").stdout.split())


@lab_test(deadline_s=90)
def test_full_disk_of_a_follower(cluster: Cluster) -> None:
    before = start_jobs(cluster)
    leader = cluster.wait_leader()
    full = next(host for host in cluster.hosts if host is not leader)
    fill(full)
    try:
        # Two of three can write: nobody is refused, and nobody waits.
        acknowledged, refusals = write_units(cluster, leader, "follower")
        assert not refusals, refusals[0]
        assert lives(cluster.hosts, "job@*") == before
    finally:
        free(full)
    cluster.wait_ready(3)
    wait_until(lambda: stored(cluster, full, "follower"), 20, "all units", accept=lambda s: s >= set(acknowledged))
    # It keeps its own copy again: it is needed for the next write, and has all that was written before.
    other = next(host for host in cluster.hosts if host not in (leader, full))
    other.systemctl("stop", "fleetd")
    wait_until(lambda: cluster.ctl(full, "submit", write_service(full, "with-the-healed.service")).returncode == 0, 40,
               "a write with the healed follower's disk")
    other.systemctl("start", "fleetd")
    cluster.wait_ready(3)
    assert lives(cluster.hosts, "job@*") == before


@lab_test(deadline_s=120)
def test_full_disk_of_the_leader(cluster: Cluster) -> None:
    before = start_jobs(cluster)
    full = cluster.wait_leader()
    others = [host for host in cluster.hosts if host is not full]
    fill(full)
    try:
        acknowledged, refusals = write_units(cluster, others[0], "leader")
        print(f"       full disk of the leader: {len(acknowledged)} writes acknowledged, {len(refusals)} refused")
        for said in refusals:
            assert "disk" in said or "no leader" in said or "outcome" in said, said
        # Wherever it is led from now on, it can write again while that disk is still full.
        wait_until(lambda: cluster.ctl(others[0], "submit", write_service(others[0], "later.service"), timeout=45)
                   .returncode == 0, 45, "a write while the old leader's disk is full")
        assert lives(cluster.hosts, "job@*") == before
    finally:
        free(full)
    cluster.wait_ready(3)
    for host in cluster.hosts:
        wait_until(lambda: stored(cluster, host, "leader"), 20, f"all acknowledged units on {host.name}",
                   accept=lambda seen: seen >= set(acknowledged))
    assert lives(cluster.hosts, "job@*") == before
    cluster.wait_voters(3)
    wait_until(lambda: [cluster.status(host) for host in cluster.hosts], 30, "every host to be well again",
               accept=lambda said: all("disk" not in status for status in said))
