# SPDX-License-Identifier: Apache-2.0
"""What is installed beside the programs: the service's sandbox, users, folders, polkit's rule. That everything works inside
of the sandbox is what all other tests show: they run fleetd by the packaged unit."""

from __future__ import annotations

import os

import sanitizers
from fleet import TOP, Cluster, write_service
from lab import Host, wait_until
from testing import Needs, NotHere, lab_test
from witness import lives, wait_once_each

SHARED = True
NEEDS = Needs(hosts=1)
DATA = TOP / "data"
POLKITD = "/usr/lib/polkit-1/polkitd"

# Ten times what systemd-analyze says. Who adds to it says why, in docs/SANDBOX.md.
EXPOSURE_MAX = {"fleetd.service": 22, "fleet-lease.service": 26}


def as_user(host: Host, user: str, *command: str) -> tuple[int, str]:
    result = host.run(["runuser", "-u", user, "--", *command], check=False)
    return result.returncode, result.stdout + result.stderr


def test_sandbox_does_not_get_weaker(cluster: Cluster) -> None:
    if sanitizers.is_sanitized(cluster.build):
        raise NotHere("the sandbox is open for the sanitizers")
    one = cluster.hosts[0]
    for unit, limit in EXPOSURE_MAX.items():
        judged = one.run(["systemd-analyze", "security", "--no-pager", f"--threshold={limit}", unit], check=False)
        assert judged.returncode == 0, judged.stdout
        assert "Overall exposure level" in judged.stdout, judged
    # What is not in the sandbox's way, and would only be missed when it is needed.
    pid = one.show("fleetd", "MainPID")
    status = dict(line.split(":\t", 1) for line in one.read(f"/proc/{pid}/status").splitlines() if ":\t" in line)
    assert status["Seccomp"] == "2" and status["NoNewPrivs"] == "1", status
    assert int(status["CapEff"], 16) == 1 << 0 | 1 << 10, status["CapEff"]  # CAP_CHOWN, CAP_NET_BIND_SERVICE.


def test_others_may_read_unit_files_but_no_state(cluster: Cluster) -> None:
    one = cluster.hosts[0]
    cluster.ctl(one, "start", write_service(one, "seen.service"))
    cluster.ctl(one, "start", write_service(one, "alone.service", {"OnDisconnect": "stop"}))
    wait_once_each(cluster.hosts, ["seen.service", "alone.service"], 10)
    for unit in ("seen.service", "alone.service"):
        code, text = as_user(one, "nobody", "systemctl", "cat", unit)
        assert code == 0 and "ExecStart=/bin/sleep infinity" in text, text
    assert "fleet-lease.service" in as_user(one, "nobody", "systemctl", "cat", "alone.service")[1]
    readable = one.run(["find", "/var/lib/fleet", "/run/fleet/agent.state", "-perm", "/077", "!", "-type", "l"]).stdout
    assert readable == "", readable


def test_users_and_folders(cluster: Cluster) -> None:
    one = cluster.hosts[0]
    one.install(DATA / "sysusers.d" / "fleet.conf", "/usr/lib/sysusers.d/fleet.conf", 0o644)
    one.install(DATA / "tmpfiles.d" / "fleet.conf", "/usr/lib/tmpfiles.d/fleet.conf", 0o644)
    one.run(["systemd-sysusers", "--dry-run", "/usr/lib/sysusers.d/fleet.conf"])
    one.run(["systemd-sysusers", "/usr/lib/sysusers.d/fleet.conf"])
    one.write("/etc/sysusers.d/people.conf", "u alice -\nm alice fleet\nu bob -\n")
    one.run(["systemd-sysusers", "/etc/sysusers.d/people.conf"])
    one.systemctl("reload", "fleetd")  # The group is there now.
    wait_until(lambda: one.run(["stat", "-c", "%U:%G %a", "/run/fleet.sock"]).stdout.strip(), 10, "the socket to be the group's",
               accept=lambda owner: owner == "root:fleet 660")
    assert as_user(one, "alice", "fleetctl", "list-units")[0] == 0
    code, text = as_user(one, "bob", "fleetctl", "list-units")
    assert code == 1 and "ermission" in text, text

    folders = ["/run/fleet", "/run/fleet/units", "/var/lib/fleet"]
    before = one.run(["stat", "-c", "%n %U:%G %a", *folders]).stdout
    one.run(["systemd-tmpfiles", "--create", "/usr/lib/tmpfiles.d/fleet.conf"])
    assert one.run(["stat", "-c", "%n %U:%G %a", *folders]).stdout == before  # Both say the same.
    assert before.split("\n")[2] == "/var/lib/fleet root:root 700", before


def test_members_may_restart_fleetd_and_no_more(cluster: Cluster) -> None:
    if not os.path.exists(POLKITD):
        raise NotHere(f"{POLKITD} is not installed")
    one = cluster.hosts[0]
    running = lives(cluster.hosts, "seen.service")
    one.install(DATA / "polkit-1" / "rules.d" / "50-fleet.rules", "/usr/share/polkit-1/rules.d/50-fleet.rules", 0o644)
    one.run(["systemd-run", "--unit=polkit-daemon", "--quiet", POLKITD, "--no-debug"])
    wait_until(lambda: one.run(["busctl", "status", "org.freedesktop.PolicyKit1"], check=False).returncode, 10, "polkit",
               accept=lambda code: code == 0)
    pid = one.show("fleetd", "MainPID")
    for verb in ("reload", "restart", "stop", "start"):
        code, text = as_user(one, "alice", "systemctl", "--no-ask-password", verb, "fleetd.service")
        assert code == 0, (verb, text)
    assert one.show("fleetd", "MainPID") != pid
    for user, verb, unit in (("bob", "restart", "fleetd.service"), ("alice", "stop", "seen.service"),
                             ("alice", "restart", "polkit-daemon.service"), ("alice", "kill", "fleetd.service")):
        code, text = as_user(one, user, "systemctl", "--no-ask-password", verb, unit)
        assert code != 0 and "authentication required" in text, (user, verb, unit, text)
    assert lives(cluster.hosts, "seen.service") == running
