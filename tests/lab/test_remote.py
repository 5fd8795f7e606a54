# SPDX-License-Identifier: Apache-2.0
"""fleetctl from elsewhere, by the real OpenSSH: --tunnel, ssh, fd-forward."""

from __future__ import annotations

from fleet import Cluster, write_service
from lab import Host, wait_until
from testing import Needs

SHARED = True
NEEDS = Needs(hosts=3)
FOLDER = "/root/remote"  # On every host: keys and configuration of ssh and sshd.
SSH_FAILED = 255


def start_sshd(host: Host) -> None:
    host.run(["systemd-run", "--quiet", "--unit=remote-sshd", "/usr/sbin/sshd", "-D", "-e", "-f", f"{FOLDER}/sshd_config"])
    wait_until(lambda: host.run(["ss", "-Hltn", "sport = :22"]).stdout, 20, f"sshd on {host.name}")


def serve_ssh(host: Host) -> str:
    """Starts sshd on the host, with a key of its own. Returns its public key."""
    host.run(["mkdir", "-p", FOLDER, "/run/sshd"])
    host.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", f"{FOLDER}/host"])
    host.write(f"{FOLDER}/sshd_config", f"HostKey {FOLDER}/host\nAuthorizedKeysFile {FOLDER}/authorized\nStrictModes no\n"
               "PermitRootLogin prohibit-password\nUsePAM no\n")
    start_sshd(host)
    return host.read(f"{FOLDER}/host.pub").strip()


def prepare(cluster: Cluster) -> None:
    """Each host may log in to each other as root; node3 knows no host's key by itself."""
    if cluster.hosts[0].run(["test", "-e", FOLDER], check=False).returncode == 0:
        return  # The tests share their hosts.
    keys = {host: serve_ssh(host) for host in cluster.hosts}
    known = "".join(f"{host.ip} {key}\n" for host, key in keys.items())
    authorized = ""
    for host in cluster.hosts:
        host.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", f"{FOLDER}/user"])
        authorized += host.read(f"{FOLDER}/user.pub")
    for host in cluster.hosts:
        host.write(f"{FOLDER}/authorized", authorized)
        host.write(f"{FOLDER}/known", known)
        # The user's own configuration is what ssh goes by; "node1" is a name that only it knows.
        host.write("/root/.ssh/config", f"Host node1\n HostName {cluster.hosts[0].ip}\n"
                   f"Host *\n IdentityFile {FOLDER}/user\n IdentitiesOnly yes\n StrictHostKeyChecking yes\n"
                   f" UserKnownHostsFile {FOLDER}/{'unknown' if host is cluster.hosts[2] else 'known'}\n", 0o600)


def without_fleetd(cluster: Cluster) -> Host:
    host = cluster.hosts[2]
    host.run(["systemctl", "disable", "--quiet", "--now", "fleetd"])
    return host


def test_ssh_to_a_units_machine(cluster: Cluster) -> None:
    prepare(cluster)
    unit = write_service(cluster.hosts[0], "web.service")
    cluster.ctl(cluster.hosts[0], "start", unit)
    [home] = cluster.wait_active("web.service")
    asker = next(host for host in cluster.hosts[:2] if host is not home)

    result = cluster.ctl(asker, "ssh", "web", "--", "cat", "/etc/machine-id;", "echo", "why >&2;", "exit", "7",
                         check=False)
    assert (result.returncode, result.stdout, result.stderr) == (7, home.machine_id + "\n", "why\n"), result
    for word in (home.machine_id, home.machine_id[:8], home.name):
        assert cluster.ctl(asker, "ssh", word, "hostname").stdout == home.name + "\n"
    # The command's standard input is ours.
    assert cluster.ctl(asker, "ssh", "web", "wc -c", input="12345").stdout.strip() == "5"

    # On its own machine, no sshd is needed.
    home.run(["systemctl", "stop", "remote-sshd"])
    result = cluster.ctl(home, "ssh", "web", "echo", "$$;", "exit", "3", check=False)
    assert result.returncode == 3 and result.stdout.strip().isdigit(), result
    result = cluster.ctl(asker, "ssh", "web", "true", check=False)
    assert result.returncode == SSH_FAILED and "Connection refused" in result.stderr, result
    start_sshd(home)


def test_fd_forward_by_hand(cluster: Cluster) -> None:
    """Half of the connection is closed before the answer comes; the first fleet lost it then."""
    asked = cluster.hosts[0]
    request = "GET /fleet/v1/machines HTTP/1.1\r\nHost: domain-sock\r\nConnection: close\r\n\r\n"
    answer = cluster.ctl(asked, "fd-forward", "/run/fleet.sock", input=request).stdout
    assert answer.startswith("HTTP/1.1 200 ") and all(host.machine_id in answer for host in cluster.hosts), answer
    result = cluster.ctl(asked, "fd-forward", "/run/nosuch.sock", check=False, input="")
    assert result.returncode == 1, result
    assert result.stderr == "Failed dialing remote address: /run/nosuch.sock: No such file or directory\n", result


def test_tunnel_from_a_host_without_fleetd(cluster: Cluster) -> None:
    prepare(cluster)
    outside, gate = without_fleetd(cluster), cluster.hosts[0]
    through = [f"--tunnel={gate.ip}", f"--known-hosts-file={FOLDER}/known"]

    # A key that nobody knows: ssh says so, and so do we.
    result = cluster.ctl(outside, f"--tunnel={gate.ip}", "list-machines", check=False)
    lines = result.stderr.splitlines()
    assert result.returncode == 1 and "Host key verification failed." in lines, result
    assert lines[-1].startswith("Error retrieving list of active machines from fleet API (cannot reach fleetd at "
                                f"/run/fleet.sock through {gate.ip}: ssh to {gate.ip} failed)"), result

    # Several requests, waiting among them; the unit file is here, the unit there.
    unit = write_service(outside, "far.service")
    result = cluster.ctl(outside, *through, "start", unit)
    assert result.stdout.startswith("Unit far.service launched on ") and result.stderr == "", result
    [home] = cluster.wait_active("far.service")
    assert cluster.ctl(outside, *through, "is-active", "far").stdout == "active\n"

    # By the name that only ssh's configuration knows, from the environment; a wrong socket over there.
    result = outside.run(["env", "FLEETCTL_TUNNEL=node1", f"FLEETCTL_KNOWN_HOSTS_FILE={FOLDER}/known", "fleetctl",
                          "cat", "far"])
    assert "ExecStart=/bin/sleep infinity" in result.stdout, result
    result = cluster.ctl(outside, *through, "--endpoint=unix:///run/nosuch.sock", "cat", "far", check=False)
    assert result.returncode == 1 and "Failed dialing remote address: /run/nosuch.sock" in result.stderr, result

    # On from there, to the machine of a unit: the gate reaches it, whether we do or not.
    other = cluster.hosts[1]
    for host in (gate, other):
        if host is not gate:
            outside.block(host)
        result = cluster.ctl(outside, *through, "ssh", host.name, "--", "hostname;", "exit", "9", check=False)
        assert (result.returncode, result.stdout) == (9, host.name + "\n"), result
    outside.unblock()
    cluster.ctl(outside, *through, "destroy", "far")
    # Nothing of it stays behind.
    wait_until(lambda: outside.run(["pgrep", "-x", "ssh"], check=False).returncode == 1, 10, "no ssh to be left here")
    wait_until(lambda: gate.run(["pgrep", "-f", "fleetctl fd-forward"], check=False).returncode == 1, 10,
               "no fd-forward to be left there")


def test_tunnel_to_http(cluster: Cluster) -> None:
    """ssh -W: an address that means something to the gate only."""
    prepare(cluster)
    outside, gate = cluster.hosts[2], cluster.hosts[0]
    relay = ["systemd-run", "--quiet", "--unit=relay", "--socket-property=ListenStream=127.0.0.1:49153",
             "--socket-property=Accept=no", "/lib/systemd/systemd-socket-proxyd", "/run/fleet.sock"]
    gate.run(relay)
    through = [f"--tunnel={gate.ip}", f"--known-hosts-file={FOLDER}/known", "--endpoint=http://localhost:49153"]
    names = cluster.ctl(outside, *through, "list-machines", "--no-legend", "--fields=hostname,state").stdout
    assert gate.name in names, names
    refused = cluster.ctl(outside, *through[:2], "--endpoint=http://localhost:49154", "list-machines", check=False)
    assert refused.returncode == 1 and "cannot reach fleetd at http://localhost:49154 through" in refused.stderr, refused
