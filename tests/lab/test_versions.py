# SPDX-License-Identifier: Apache-2.0
"""Two versions in one cluster. Whatever is mixed, the hosts' registries stay alike, what was acknowledged is kept, and no
unit is stopped or moved by an upgrade; what is new waits, and then works.

The older version is the last commit before feature levels: it is built from the history of this checkout, or taken from
the build directory that FLEET_LAB_PREVIOUS names."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

from fleet import TOP, Cluster, write_service
from lab import Host, Lab, wait_until
from test_ledger import ledger, start_clients, stop_clients
from testing import NotHere, lab_test
from witness import Life, lives, wait_once_each

PREVIOUS = "8130dfb"
CONF = {"insecure": "true", "agent_ttl": "3s"}
NAMES = [f"job@{number}.service" for number in range(10)]


def previous_build() -> Path:
    """Where the older version is built; it is, if it is not yet."""
    named = os.environ.get("FLEET_LAB_PREVIOUS")
    if named:
        return Path(named).absolute()
    tree = TOP / f"build-previous-{PREVIOUS}"
    build = tree / "build"
    if (build / "done").exists():
        return build
    git = ["git", "-c", f"safe.directory={TOP}", "-C", str(TOP)]
    if subprocess.run([*git, "cat-file", "-e", f"{PREVIOUS}^{{commit}}"], capture_output=True).returncode != 0:
        raise NotHere(f"the older version is commit {PREVIOUS}, which is not in the history of this checkout")
    tree.mkdir(exist_ok=True)
    archive = subprocess.run([*git, "archive", PREVIOUS], check=True, capture_output=True).stdout
    subprocess.run(["tar", "-x", "-C", str(tree)], input=archive, check=True)
    build.mkdir(exist_ok=True)
    for where, command in ((tree, ["./bootstrap"]), (build, ["../configure", "--quiet"]),
                           (build, ["make", f"-j{os.cpu_count()}", "all"])):
        subprocess.run(command, cwd=where, check=True, capture_output=True)
    (build / "done").touch()
    return build


def switch(cluster: Cluster, host: Host, build: Path) -> None:
    """Gives a host another version, as an upgrade does; its units run on."""
    cluster.install(host, build)
    host.systemctl("restart", "fleetd")
    cluster.wait_ready()


def registry_of(cluster: Cluster, host: Host) -> list[tuple[str, ...]]:
    """What the host's own registry says of units: versions and places, which differ as soon as replicas have parted."""
    reply = json.loads(host.run(["curl", "-s", "--unix-socket", "/run/fleet.sock",
                                 "http://fleet/fleet/v1/units?stale=yes"]).stdout)
    return [tuple(str(unit.get(key, "")) for key in ("name", "desiredState", "machineID")) for unit in reply.get("units", [])]


def applied(host: Host) -> int:
    return int(json.loads(host.run(["curl", "-s", "--unix-socket", "/run/fleet.sock",
                                    "http://fleet/fleet/v1/status"]).stdout)["applied"])


def check_alike(cluster: Cluster) -> None:
    """The registry counts the commands that have changed it: alike on all who have applied the same log."""
    wait_until(lambda: {host.name: applied(host) for host in cluster.hosts}, 15, "all registries to be at one version",
               accept=lambda versions: len(set(versions.values())) == 1)
    first, *others = [registry_of(cluster, host) for host in cluster.hosts]
    assert all(other == first for other in others), (first, others)


def lead_from(cluster: Cluster, host: Host) -> None:
    """Has this host lead: the others' daemons are restarted until it does."""
    for _ in range(20):
        leader = cluster.wait_leader()
        if leader is host:
            return
        leader.systemctl("restart", "fleetd")
        cluster.wait_ready()
    raise AssertionError(f"{host.name} never comes to lead")


def waits_for(cluster: Cluster, host: Host) -> str:
    return cluster.ctl(host, "list-machines").stderr


def check_units(cluster: Cluster, running: dict[str, list[Life]]) -> None:
    assert lives(cluster.hosts, "job@*") == running


# --- With this version alone -----------------------------------------------------------------------------------------


@lab_test(hosts=3, spare=1, deadline_s=120, conf=CONF | {"feature_level": "0"})
def test_what_is_new_waits_for_the_last_host(cluster: Cluster) -> None:
    one, two = cluster.hosts
    refused = cluster.ctl(one, "set", "failure_limit_burst=3", check=False)
    assert refused.returncode == 1 and "waits until all hosts of the cluster run fleet 2.1.0 or newer" in refused.stderr
    cluster.ctl(one, "set", "voters=3")  # As ever.

    cluster.configure(one, {"feature_level": None})
    one.systemctl("reload", "fleetd")
    told = wait_until(lambda: waits_for(cluster, two), 10, "two to say what waits", accept=bool)
    assert f"What came with fleet 2.1.0 waits until {two.name} (2.1.0) is upgraded: settings" in told, told
    refused = cluster.ctl(two, "set", "failure_limit_burst=3", check=False)
    assert refused.returncode == 1, refused

    cluster.configure(two, {"feature_level": None})
    two.systemctl("reload", "fleetd")
    wait_until(lambda: cluster.ctl(one, "set", "failure_limit_burst=3", check=False).returncode, 10,
               "what is new to work", accept=lambda code: code == 0)
    assert waits_for(cluster, one) == ""

    # Who says that it is older is not let in, and hears why.
    three = next(host for host in cluster.lab.hosts if host not in cluster.hosts)
    cluster.configure(three)
    cluster.install(three)
    three.systemctl("start", "fleetd")
    wait_until(lambda: three.journal("fleetd.service", 50), 15, "three to say why it may not join",
               accept=lambda text: "Cannot join yet" in text and "fleet 2.1.0 or newer is needed there" in text)
    assert len(cluster.machines(one)) == 2
    cluster.configure(three, {"feature_level": None})
    three.systemctl("reload", "fleetd")
    cluster.hosts.append(three)
    cluster.wait_ready(3)


# --- With the version before -----------------------------------------------------------------------------------------


def start_old(lab: Lab) -> tuple[Cluster, dict[str, list[Life]]]:
    """A cluster of the older version, with units."""
    cluster = Cluster(lab, conf=CONF)
    new = cluster.build
    cluster.build = previous_build()
    cluster.start()
    cluster.build = new
    cluster.wait_voters(3)
    one = lab.hosts[0]
    write_service(one, "job@.service")
    cluster.ctl(one, "start", *(f"/root/units/{name}" for name in NAMES))
    return cluster, wait_once_each(cluster.hosts, NAMES, 10)


@lab_test(hosts=3, long=True, deadline_s=900)
def test_upgrade_under_load(lab: Lab) -> None:
    cluster, running = start_old(lab)
    old, new = previous_build(), cluster.build
    one, two, three = cluster.hosts
    start_clients(cluster)

    switch(cluster, one, new)
    lead_from(cluster, two)  # An old leader, with a new follower.
    check_units(cluster, running)
    lead_from(cluster, one)  # A new leader, with old followers.
    assert "waits until" in waits_for(cluster, one)
    refused = cluster.ctl(one, "set", "failure_limit_burst=3", check=False)
    assert refused.returncode == 1 and "fleet 2.1.0 or newer" in refused.stderr, refused
    switch(cluster, two, new)
    switch(cluster, one, old)  # Somebody thinks better of it.
    lead_from(cluster, one)
    check_units(cluster, running)
    lead_from(cluster, two)
    switch(cluster, one, new)
    assert "waits until" in waits_for(cluster, three)
    lead_from(cluster, three)
    switch(cluster, three, new)
    check_units(cluster, running)

    stop_clients(cluster)
    wait_until(lambda: cluster.ctl(two, "set", "failure_limit_burst=3", check=False).returncode, 20,
               "what is new to work", accept=lambda code: code == 0)
    check_alike(cluster)
    units = ledger(cluster.hosts)
    started = {unit for unit, tried in units.items() if tried == ("start", True)}
    destroyed = {unit for unit, tried in units.items() if tried == ("destroy", True)}
    print(f"       {len(units)} units of clients, {len(started)} left of them")
    for host in cluster.hosts:
        stored = cluster.ctl(host, "list-unit-files", "--no-legend", "--fields=unit", "entry-*").stdout.split()
        assert not started - set(stored) and not destroyed & set(stored), host.name
    wait_once_each(cluster.hosts, started, 20)
    check_units(cluster, running)

    # There is no way back now.
    cluster.install(three, old)
    three.systemctl("restart", "fleetd")
    leader = wait_until(cluster.leader, 20, "a leader", accept=lambda host: host not in (None, three))
    wait_until(lambda: leader.journal("fleetd.service", 200), 20, f"{leader.name} to say that {three.name} is too old",
               accept=lambda text: "feature level 0" in text and "the cluster is at 1" in text)
    check_units(cluster, running)
    switch(cluster, three, new)
    check_units(cluster, running)
    check_alike(cluster)
