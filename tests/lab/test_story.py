# SPDX-License-Identifier: Apache-2.0
"""The demo's story on three hosts: units are submitted, started, listed, spread; a host crashes and returns."""

from __future__ import annotations

import patience
from fleet import Cluster, write_service
from lab import Host, wait_until
from testing import Needs, lab_test
from witness import assert_stays, homes, lives, of_host, wait_once_each

SHARED = True
NEEDS = Needs(hosts=3)  # With the default configuration, agent_ttl = 10s included.
AGENT_TTL_S = 10

WEB = """[Unit]
Description=A web server, more or less

[Service]
ExecStartPre=/bin/true
ExecStart=/usr/bin/python3 -m http.server 8080
Restart=on-failure
"""


def unit_file(cluster: Cluster, unit: str) -> dict[str, str]:
    """What list-unit-files says about a unit, by field; {} if it does not know it."""
    fields = ("unit", "dstate", "state", "target", "desc")
    text = cluster.ctl(cluster.hosts[0], "list-unit-files", "--full", "--no-legend", "--fields", ",".join(fields),
                       unit).stdout
    return dict(zip(fields, text.rstrip("\n").split(None, len(fields) - 1))) if text else {}


def traces(host: Host, unit: str) -> list[str]:
    """What a host still has of a unit: loaded in systemd, or in a file."""
    found = []
    if host.show(unit, "LoadState") != "not-found":
        found.append(f"{host.name}: systemd has {unit} {host.show(unit, 'ActiveState')}")
    script = 'ls -d "/run/fleet/units/$1" "/run/systemd/system/$1" /run/systemd/system/*.wants/"$1" 2>/dev/null'
    return found + host.run(["sh", "-c", script, "sh", unit], check=False).stdout.split()


def test_every_host_lists_three_machines(cluster: Cluster) -> None:
    for host in cluster.hosts:
        listed = {(machine.id, machine.ip) for machine in cluster.machines(host)}
        assert listed == {(other.machine_id, other.ip) for other in cluster.hosts}
    text = cluster.ctl(cluster.hosts[0], "list-machines", "--no-legend").stdout
    assert sorted(line.split()[0] for line in text.splitlines()) == sorted(
        f"{host.machine_id[:8]}..." for host in cluster.hosts)


def test_a_unit_from_submit_to_destroy(cluster: Cluster) -> None:
    one, two, three = cluster.hosts
    one.write("/root/units/web.service", WEB)

    submitted = cluster.ctl(one, "submit", "/root/units/web.service")
    assert submitted.stdout == "Unit web.service inactive\n" and not submitted.stderr
    for host in cluster.hosts:
        assert cluster.ctl(host, "cat", "web.service").stdout == WEB
    assert unit_file(cluster, "web.service") == {"unit": "web.service", "dstate": "inactive", "state": "inactive",
                                                 "target": "-", "desc": "A web server, more or less"}
    assert cluster.units(two) == [] and not any(traces(host, "web.service") for host in cluster.hosts)

    loaded = cluster.ctl(two, "load", "web")
    [unit] = cluster.units(three)
    assert (unit.name, unit.load, unit.active, unit.sub) == ("web.service", "loaded", "inactive", "dead")
    home = cluster.host_of(unit.machine)
    assert loaded.stdout == f"Unit web.service loaded on {home.machine_id[:8]}.../{home.ip}\n"
    assert home.show("web.service", "LoadState") == "loaded" and not home.is_active("web.service")
    assert home.systemctl("is-enabled", "web.service", check=False).stdout == "linked-runtime\n"
    assert home.read("/run/fleet/units/web.service") == WEB

    started = cluster.ctl(three, "start", "web.service")
    assert started.stdout == f"Unit web.service launched on {home.machine_id[:8]}.../{home.ip}\n"
    # At once: start returns when it is so.
    assert cluster.where_truly("web.service") == [home] and cluster.where("web.service") == [home]
    assert unit_file(cluster, "web.service")["state"] == "launched"
    assert home.read("/proc/%d/cmdline" % home.main_pid("web")) == "/usr/bin/python3\0-m\0http.server\08080\0"

    cluster.ctl(one, "stop", "web.service")
    assert cluster.where_truly("web.service") == [] and home.show("web.service", "LoadState") == "loaded"
    assert [(unit.active, unit.machine) for unit in cluster.units(one)] == [("inactive", home.machine_id)]

    cluster.ctl(one, "start", "web.service")
    assert cluster.where_truly("web.service") == [home]

    cluster.ctl(one, "unload", "web.service")
    assert not any(traces(host, "web.service") for host in cluster.hosts)
    assert cluster.units(one) == [] and unit_file(cluster, "web.service")["target"] == "-"

    cluster.ctl(one, "start", "web.service")
    destroyed = cluster.ctl(two, "destroy", "web.service")
    assert destroyed.stdout == "Destroyed web.service\n"
    assert not any(traces(host, "web.service") for host in cluster.hosts)
    for host in cluster.hosts:
        assert host.run(["ls", "/run/fleet/units"]).stdout == ""
        assert cluster.units(host) == []
    assert unit_file(cluster, "web.service") == {}
    assert cluster.ctl(one, "cat", "web.service", check=False).returncode == 4


def test_exit_code_says_what_became_of_a_unit(cluster: Cluster) -> None:
    one = cluster.hosts[0]
    done = write_service(one, "done.service", execstart="/bin/true", service={"Type": "oneshot"})
    fails = write_service(one, "fails.service", execstart="/bin/false", service={"Type": "oneshot"})
    runs = write_service(one, "runs.service")

    assert "Unit done.service finished on " in cluster.ctl(one, "start", done).stdout
    both = cluster.ctl(one, "start", fails, runs, check=False)
    assert both.returncode == 1
    assert both.stderr.startswith("Unit fails.service failed on ") and "Unit runs.service launched on " in both.stdout
    assert {unit.name: (unit.active, unit.sub) for unit in cluster.units(one)} == {
        "done.service": ("inactive", "dead"), "fails.service": ("failed", "failed"),
        "runs.service": ("active", "running")}
    cluster.ctl(one, "destroy", "done", "fails", "runs")
    for host in cluster.hosts:
        assert not any(traces(host, unit) for unit in ("done.service", "fails.service", "runs.service"))


def test_instances_of_a_template_spread_over_the_hosts(cluster: Cluster) -> None:
    one = cluster.hosts[0]
    write_service(one, "hello@.service", {"Conflicts": "hello@*"}, execstart="/bin/sh -c 'echo hello %i; sleep 9d'")
    names = [f"hello@{number}.service" for number in (1, 2, 3)]

    cluster.ctl(one, "start", *(f"/root/units/{name}" for name in names))
    assert sorted(homes(cluster.hosts, "hello@*").items()) == sorted(
        (name, [cluster.where(name)[0].name]) for name in names)
    assert {host for [host] in homes(cluster.hosts, "hello@*").values()} == {host.name for host in cluster.hosts}
    for name, [home] in homes(cluster.hosts, "hello@*").items():
        said = wait_until(lambda: cluster.lab.host(home).journal(name), 20, f"the word of {name}")
        assert f"]: hello {name[6]}\n" in said

    cluster.ctl(one, "destroy", "hello@*")
    assert homes(cluster.hosts, "hello@*") == {}


@lab_test(deadline_s=60)
def test_units_of_a_crashed_host_run_elsewhere(cluster: Cluster) -> None:
    one = cluster.hosts[0]
    write_service(one, "job@.service")
    names = [f"job@{number}.service" for number in range(1, 13)]
    cluster.ctl(one, "start", *(f"/root/units/{name}" for name in names))
    before = wait_once_each(cluster.hosts, names, 5)
    leader = cluster.wait_leader()
    crashed = next(host for host in cluster.hosts if host is not leader)
    others = [host for host in cluster.hosts if host is not crashed]
    lost = of_host(before, crashed)
    assert len(lost) == 4, f"12 equal units on three hosts, but {len(lost)} of them on {crashed.name}"

    begin = patience.now()
    crashed.power_cut()
    after = wait_once_each(others, names, AGENT_TTL_S + 2)
    print(f"       the units of a crashed follower ran elsewhere after {patience.now() - begin:.1f} s")
    assert of_host(before, *others) == {unit: after[unit] for unit in of_host(before, *others)}
    states = {machine.id: machine.state for machine in cluster.machines(leader)}
    assert states == {host.machine_id: "lost" if host is crashed else "ready" for host in cluster.hosts}

    crashed.boot()
    cluster.wait_ready(3)
    # Nothing moves back, and nothing is left over.
    assert_stays(lambda: lives(cluster.hosts, "job@*"), 1, "who runs what")
    assert lives(cluster.hosts, "job@*") == after
    assert crashed.run(["ls", "/run/fleet/units"]).stdout == ""
    assert not any(traces(crashed, name) for name in lost)

    cluster.ctl(crashed, "destroy", "job@*")
    assert lives(cluster.hosts, "job@*") == {}
