# SPDX-License-Identifier: Apache-2.0
"""What holds for the whole cluster ("fleetctl set"), and the limit of it after which a failing unit is tried elsewhere.

A unit here works on the hosts that have its file below /root/works, and on no other.
"""

from __future__ import annotations

from fleet import Cluster, write_service
from lab import Host, wait_until
from testing import Needs, lab_test
from witness import homes, lives

SHARED = True
NEEDS = Needs(hosts=3)
MOVE_S = 15


def settings(cluster: Cluster, host: Host) -> dict[str, str]:
    text = cluster.ctl(host, "list-settings", "--no-legend", "--fields=name,value").stdout
    return {line.split(None, 1)[0]: line.split(None, 1)[1] for line in text.splitlines()}


def write_fussy(cluster: Cluster, name: str, works_on: list[Host], xfleet: dict[str, str] = {},
                restart: str = "no") -> str:
    """A unit that fails where it does not work: at once, and again whenever it is restarted."""
    for host in cluster.hosts:
        host.run(["mkdir", "-p", "/root/works"])
        host.run(["touch", f"/root/works/{name}"] if host in works_on else ["rm", "-f", f"/root/works/{name}"])
    return write_service(cluster.hosts[0], f"{name}.service", xfleet, service={
        "ExecStartPre": f"/usr/bin/test -e /root/works/{name}", "Restart": restart, "RestartSec": "500ms"})


def target(cluster: Cluster, unit: str) -> Host:
    return cluster.host_of(unit_file(cluster, unit, "target").split("/")[0])


def unit_file(cluster: Cluster, unit: str, field: str) -> str:
    return cluster.ctl(cluster.hosts[0], "list-unit-files", "--no-legend", "--full", f"--fields={field}", unit).stdout.strip()


def break_on(host: Host, name: str) -> None:
    """It works there no more, and dies."""
    host.run(["rm", f"/root/works/{name}"])
    host.run(["systemctl", "kill", "--signal=KILL", f"{name}.service"])


def wait_state(host: Host, unit: str, state: str) -> None:
    wait_until(lambda: host.show(unit, "ActiveState"), MOVE_S, f"{unit} to be {state} on {host.name}",
               accept=lambda found: found == state)


def test_without_a_limit_nothing_moves_and_with_one_it_does(cluster: Cluster) -> None:
    one = cluster.hosts[0]
    cluster.ctl(one, "submit", write_service(one, "other@.service"))
    cluster.ctl(one, "start", "other@1.service", "other@2.service")
    cluster.ctl(one, "start", write_fussy(cluster, "fussy", cluster.hosts))
    cluster.ctl(one, "start", write_fussy(cluster, "stays", cluster.hosts, {"FailureLimitBurst": "0"}))
    fussy, stays = target(cluster, "fussy.service"), target(cluster, "stays.service")
    break_on(fussy, "fussy")
    break_on(stays, "stays")
    wait_state(fussy, "fussy.service", "failed")
    wait_state(stays, "stays.service", "failed")
    wait_until(lambda: [u.active for u in cluster.units(one) if u.name in ("fussy.service", "stays.service")], MOVE_S,
               "the leader to know that they have failed", accept=lambda states: states == ["failed", "failed"])
    # The leader has decided more since, and nothing of this.
    for count in range(3, 6):
        cluster.ctl(one, "start", f"other@{count}.service")
    assert homes(cluster.hosts, "fussy.service", "stays.service") == {}
    assert (target(cluster, "fussy.service"), target(cluster, "stays.service")) == (fussy, stays)
    others = lives(cluster.hosts, "other@*")

    # With a limit, what has failed already is tried elsewhere; what asks for none stays.
    assert cluster.ctl(one, "set", "failure_limit_burst=3", "failure_limit_interval=60").stdout == (
        "failure_limit_burst=3\nfailure_limit_interval=1min\n")
    [home] = cluster.wait_active("fussy.service", deadline_s=MOVE_S)
    assert home is not fussy
    said = unit_file(cluster, "fussy.service", "reason")
    assert said.startswith(f"has failed on {fussy.name}, where systemd does not start it again "
                           "(the cluster's failure_limit_burst=3); "), said
    assert target(cluster, "stays.service") is stays and not homes(cluster.hosts, "stays.service")
    assert lives(cluster.hosts, "other@*") == others


def test_a_unit_that_fails_on_one_host_only_is_moved(cluster: Cluster) -> None:
    one = cluster.hosts[0]
    cluster.ctl(one, "set", "failure_limit_burst=3", "failure_limit_interval=1min")
    cluster.ctl(one, "start", write_fussy(cluster, "often", cluster.hosts, restart="on-failure"))
    before = target(cluster, "often.service")
    break_on(before, "often")  # Of which systemd restarts it; that ends well nowhere but elsewhere.
    [home] = wait_until(lambda: cluster.where_truly("often.service"), MOVE_S, "often.service to run elsewhere",
                        accept=lambda hosts: len(hosts) == 1 and hosts[0] is not before)
    said = unit_file(cluster, "often.service", "reason")
    assert said.startswith(f"has failed 3 times within 1min on {before.name} (the cluster's failure_limit_burst=3); "), said
    explained = cluster.ctl(one, "explain", "often.service").stdout
    assert "(the cluster's failure_limit_burst=3)" in explained, explained
    leader = cluster.wait_leader()
    assert f"often.service has failed 3 times within 1min on {before.name}" in leader.journal("fleetd", 200)


def test_a_unit_that_fails_everywhere_comes_to_rest(cluster: Cluster) -> None:
    one = cluster.hosts[0]
    cluster.ctl(one, "set", "failure_limit_burst=1", "failure_limit_interval=10min")
    answer = cluster.ctl(one, "start", write_fussy(cluster, "never", []), check=False)
    assert answer.returncode == 1
    assert "no other machine fits on which it has not failed lately" in answer.stderr, answer.stderr
    ran = [host for host in cluster.hosts if "never.service" in host.run(
        ["journalctl", "-o", "cat", "UNIT=never.service", "_PID=1"], check=False).stdout]
    assert len(ran) == 3, [host.name for host in ran]
    cluster.ctl(one, "destroy", "never.service")


@lab_test(deadline_s=90)
def test_settings_are_the_clusters_whoever_leads(cluster: Cluster) -> None:
    one, two = cluster.hosts[:2]
    cluster.wait_voters(3)
    refused = cluster.ctl(one, "set", "failure_limit_burst=2", "voters=4", check=False)
    assert (refused.returncode, refused.stderr) == (
        1, "Error changing the cluster's settings: voters: 4 is none of 1, 3, 5 or 7\n")
    cluster.ctl(one, "set", "failure_limit_burst=7", "failure_limit_interval=")
    leader = cluster.wait_leader()
    leader.run(["systemctl", "kill", "--signal=KILL", "fleetd"])
    cluster.wait_leader()
    cluster.wait_ready()
    for host in cluster.hosts:
        found = settings(cluster, host)
        assert found["failure_limit_burst"] == "7" and found["failure_limit_interval"] == "10min", found
    cluster.ctl(two, "set", "voters=1")
    cluster.wait_voters(1)
    # Whoever comes last: a file that is changed and read again is one way among others.
    cluster.configure(one, {"voters": "3"})
    one.systemctl("reload", "fleetd")
    cluster.wait_voters(3)
    assert settings(cluster, two)["voters"] == "3"
    cluster.ctl(two, "set", "failure_limit_burst=")
    assert settings(cluster, one)["failure_limit_burst"] == "0"
