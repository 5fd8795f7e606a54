# SPDX-License-Identifier: Apache-2.0
"""What is wrong is said at once, in one line and with the right exit code, and changes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import patience
from fleet import Cluster, write_service
from lab import Host, Lab, wait_until
from testing import Needs, lab_test
from witness import lives

SHARED = True
NEEDS = Needs(hosts=3)
AT_ONCE_S = 2  # Well before fleetctl would begin to say what it waits for.
FAILED, USAGE, NO_SUCH_UNIT = 1, 2, 4


def refused(cluster: Cluster, host: Host, code: int, word: str, *arguments: str, reasons: int = 0) -> str:
    """Runs fleetctl; checks its exit code, and that it says one line with this word, and so many reasons below it."""
    begin = patience.now()
    result = cluster.ctl(host, *arguments, check=False)
    took_s = patience.now() - begin
    said = f"fleetctl {' '.join(arguments)}: exit {result.returncode}, {result.stdout!r}, {result.stderr!r}"
    lines = result.stderr.splitlines()
    assert result.returncode == code, said
    assert len(lines) == 1 + reasons and word in lines[0] and not result.stdout, said
    assert all(line.startswith("  ") for line in lines[1:]), said
    assert took_s < AT_ONCE_S, f"{said} after {took_s:.1f} s"
    return result.stderr


def state_of(cluster: Cluster) -> list[str]:
    """All that a cluster says of itself, and what truly runs."""
    asked = cluster.hosts[1]
    listed = [cluster.ctl(asked, verb, "-o", "json").stdout for verb in ("list-units", "list-unit-files")]
    files = [host.run(["ls", "/run/fleet/units"]).stdout for host in cluster.hosts]
    return [*listed, *files, repr(lives(cluster.hosts, "*-unit.service"))]


@contextmanager
def unchanged(cluster: Cluster) -> Iterator[None]:
    before = state_of(cluster)
    yield
    assert state_of(cluster) == before


def test_broken_unit_file(cluster: Cluster) -> None:
    one = cluster.hosts[0]
    good = write_service(one, "good-unit.service")
    cluster.ctl(one, "start", good)
    broken = {
        "section": ("[Service\nExecStart=/bin/true\n", "line 1"),
        "option": ("[Service]\nExecStart=/bin/true\nnonsense\n", "line 3"),
        "empty": ("", "empty"),
        "mixture": ("[Service]\nExecStart=/bin/true\n[X-Fleet]\nGlobal=true\nMachineID=x\n", "MachineID"),
    }
    with unchanged(cluster):
        for name, (text, word) in broken.items():
            one.write(f"/root/units/{name}-unit.service", text)
            for verb in ("submit", "load", "start"):
                said = refused(cluster, one, FAILED, word, verb, f"/root/units/{name}-unit.service")
                assert f"{name}-unit.service" in said
        # A good one in the same command is not half done.
        other = write_service(one, "other-unit.service")
        refused(cluster, one, FAILED, "line 1", "start", other, "/root/units/section-unit.service")


def test_unit_that_systemd_refuses(cluster: Cluster) -> None:
    """Well-formed, but not for systemd: an error of this unit, shown there; the others of the command run."""
    one = cluster.hosts[0]
    bad = write_service(one, "bad-unit.service", execstart="relative/path")
    other = write_service(one, "other-unit.service")
    result = cluster.ctl(one, "start", bad, other, check=False)
    assert result.returncode == FAILED
    assert result.stderr.startswith("Unit bad-unit.service failed on ") and len(result.stderr.splitlines()) == 1
    assert "Unit other-unit.service launched on " in result.stdout
    cluster.ctl(one, "destroy", "bad-unit", "other-unit")


def test_unknown_units_and_wrong_names(cluster: Cluster) -> None:
    one = cluster.hosts[0]
    with unchanged(cluster):
        for verb in ("submit", "load", "start", "stop", "unload", "destroy", "cat"):
            refused(cluster, one, NO_SUCH_UNIT, "nowhere-unit.service", verb, "nowhere-unit.service")
        for name in ("a b-unit.service", "ä-unit.service", "@-unit.service"):
            one.write(f"/root/units/{name}", "[Service]\nExecStart=/bin/true\n")
            refused(cluster, one, FAILED, "name", "submit", f"/root/units/{name}")
        write_service(one, "template-unit@.service")
        refused(cluster, one, FAILED, "template", "start", "/root/units/template-unit@.service")


def test_wrong_usage(cluster: Cluster) -> None:
    one = cluster.hosts[0]
    with unchanged(cluster):
        refused(cluster, one, USAGE, "frobnicate", "frobnicate")
        refused(cluster, one, USAGE, "--frobnicate", "start", "--frobnicate", "good-unit")
        refused(cluster, one, USAGE, "nofield", "list-units", "--fields=nofield")
        for verb in ("submit", "load", "start", "stop", "unload", "destroy", "cat"):
            refused(cluster, one, USAGE, "No units given" if verb != "cat" else "One unit", verb)


def test_constraints_that_no_host_meets(cluster: Cluster) -> None:
    one = cluster.hosts[0]
    running = lives(cluster.hosts, "*-unit.service")
    impossible = {
        "metadata": ({"MachineMetadata": "rack=nowhere"}, "rack=nowhere"),
        "machine": ({"MachineID": "f" * 32}, "MachineID"),
        "peer": ({"MachineOf": "stranger.service"}, "stranger.service"),
    }
    for name, (xfleet, word) in impossible.items():
        path = write_service(one, f"{name}-unit.service", xfleet)
        said = refused(cluster, one, FAILED, "fits on no machine", "start", path, reasons=3).splitlines()[1:]
        # One line for each host, with its own reason.
        assert sorted(line.split()[0] for line in said) == [host.name for host in cluster.hosts]
        assert all(word in line for line in said), said
        assert lives(cluster.hosts, "*-unit.service") == running
    for host in cluster.hosts:
        assert host.run(["ls", "/run/fleet/units"]).stdout in ("", "good-unit.service\n")
    cluster.ctl(one, "destroy", *(f"{name}-unit" for name in impossible))


@lab_test(deadline_s=30)
def test_no_daemon(cluster: Cluster) -> None:
    two = cluster.hosts[1]
    path = write_service(two, "late-unit.service")
    two.systemctl("stop", "fleetd")
    for arguments in (["list-units"], ["list-machines"], ["start", path], ["destroy", "good-unit"]):
        assert "fleetd" in refused(cluster, two, FAILED, "Is fleetd running?", *arguments)
    two.systemctl("start", "fleetd")
    cluster.wait_ready(3)
    assert [unit.name for unit in cluster.units(two)] == ["good-unit.service"]


def test_no_cluster(lab: Lab) -> None:
    """A daemon that is told neither to begin a cluster nor to join one starts, waits, and says so."""
    cluster = Cluster(lab)
    three = lab.node3
    three.systemctl("stop", "fleetd")
    three.run(["sh", "-c", "mv /var/lib/fleet/* /root/"])
    try:
        cluster.configure(three, {"join": None})
        three.systemctl("start", "fleetd")
        assert "no cluster" in cluster.status(three)
        path = write_service(three, "alone-unit.service")
        for arguments in (["list-units"], ["list-unit-files"], ["start", path], ["destroy", "good-unit"]):
            refused(cluster, three, FAILED, "no cluster", *arguments)
    finally:
        three.systemctl("stop", "fleetd")
        three.run(["sh", "-c", "rm -rf /var/lib/fleet/*; mv /root/member /root/raft /root/tls /var/lib/fleet/"])
        cluster.configure(three)
        three.systemctl("start", "fleetd")
    cluster.wait_ready(3)
    wait_until(lambda: [unit.name for unit in cluster.units(three)], 20, "the old cluster's units",
               accept=lambda names: names == ["good-unit.service"])
