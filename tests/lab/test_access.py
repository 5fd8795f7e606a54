# SPDX-License-Identifier: Apache-2.0
"""Who may do what: clients with certificates over the remote API, hosts with their own, users on the Unix socket."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fleet import Cluster, write_service
from lab import Host, wait_until
from testing import lab_test

# Three hosts, one vote: the first votes, another stands by, and the third has none of the cluster's data.
CONF = {"api_listen": "0.0.0.0:49153", "voters": "1"}
PEER = Path(__file__).with_name("fleet_peer.py")


def endpoint(host: Host) -> str:
    return f"--endpoint=https://{host.ip}:49153"


def issue(cluster: Cluster, on: Host, name: str, role: str, *more: str) -> str:
    """A client's certificate, by fleetctl on this host; the path of its file there."""
    path = f"/root/{name}.pem"
    made = cluster.ctl(on, "client-cert", name, f"--role={role}", f"--file={path}", *more)
    assert made.stdout == "" and f"Client {name} is {role} until" in made.stderr, made
    return path


def give(one: Host, other: Host, path: str) -> None:
    other.write(path, one.read(path), 0o600)


def remote(cluster: Cluster, on: Host, to: Host, certificate: str, *arguments: str) -> Any:
    return cluster.ctl(on, endpoint(to), f"--cert-file={certificate}", *arguments, check=False)


def assert_done(result: Any) -> None:
    assert result.returncode == 0, result


def assert_refused(result: Any, *pieces: str) -> None:
    assert result.returncode == 1 and all(piece in result.stderr for piece in pieces), result


def members(cluster: Cluster) -> list[dict[str, Any]]:
    return json.loads(cluster.ctl(cluster.hosts[0], "list-members", "--output=json").stdout)


def worker(cluster: Cluster) -> Host:
    """The host without the cluster's data."""
    found = wait_until(lambda: members(cluster), 30, "two hosts to have the data", accept=lambda all: sorted(
        member["role"] for member in all) == ["host", "standby", "voter"])
    return cluster.host_of(next(member["machine"] for member in found if member["role"] == "host"))


def entries(host: Host, *matches: str) -> list[dict[str, str]]:
    text = host.run(["journalctl", "-u", "fleetd", "-o", "json", *matches]).stdout
    return [json.loads(line) for line in text.splitlines()]


@lab_test(hosts=3, conf=CONF, deadline_s=120)
def test_roles_of_clients(cluster: Cluster) -> None:
    """Every role, with every kind of verb, at each host."""
    one, two, three = cluster.hosts
    admin, operator, viewer = (issue(cluster, one, name, name) for name in ("admin", "operator", "viewer"))
    assert one.run(["stat", "-c", "%a %U", admin]).stdout == "600 root\n"
    for path in (admin, operator, viewer):
        give(one, two, path)
    unit = write_service(two, "web.service")

    for to in cluster.hosts:
        for path in (admin, operator, viewer):
            listed = remote(cluster, two, to, path, "list-machines", "--no-legend")
            assert listed.returncode == 0 and listed.stdout.count("\n") == 3, listed
        assert_refused(remote(cluster, two, to, viewer, "start", unit), "this needs the role operator, and client viewer is viewer")
        assert_done(remote(cluster, two, to, operator, "start", unit))
        assert_refused(remote(cluster, two, to, viewer, "cordon", one.name), "needs the role operator")
        assert_done(remote(cluster, two, to, operator, "cordon", one.name))
        assert_done(remote(cluster, two, to, operator, "uncordon", one.name))
        for verb in (["set", "failure_limit_burst=3"], ["join-token"], ["client-cert", "evil", "--role=admin"],
                     ["revoke-client-cert", "admin"]):
            assert_refused(remote(cluster, two, to, operator, *verb),
                           "this needs the role admin, and client operator is operator")
        assert_done(remote(cluster, two, to, admin, "set", "failure_limit_burst=3"))
        token = remote(cluster, two, to, admin, "join-token", "--ttl=1min")
        assert token.stdout.startswith("fleet1."), token
        assert_done(remote(cluster, two, to, operator, "destroy", "web.service"))
    # What nobody was issued is nobody's: the file was not made in vain, nor left behind.
    assert two.run(["test", "-e", "/evil.pem"], check=False).returncode == 1

    leader = cluster.wait_leader()
    changes = entries(leader, "FLEET_CALLER=client operator", "FLEET_PATH=/fleet/v1/units")
    assert changes and all(entry["FLEET_ROLE"] == "operator" and entry["FLEET_REASON"] == "done" and
                           entry["FLEET_PEER"].startswith(two.ip + ":") for entry in changes), changes
    refused = entries(leader, "MESSAGE_ID=c9b6fdfacc3648fbbcdf8ba0f583f3a4", "FLEET_CALLER=client viewer")
    assert len(refused) == 6 and {entry["FLEET_STATUS"] for entry in refused} == {"403"}, refused
    # No secret in any of it.
    for host in cluster.hosts:
        journal = host.journal("fleetd", 100000)
        assert token.stdout.strip() not in journal and "PRIVATE KEY" not in journal


@lab_test(hosts=3, conf=CONF, deadline_s=120)
def test_certificates_that_are_not_taken(cluster: Cluster) -> None:
    """Expired, revoked, another cluster's, forged, and none at all."""
    one, two, three = cluster.hosts
    admin = issue(cluster, one, "admin", "admin")
    brief = issue(cluster, one, "brief", "admin", "--ttl=3s")
    lost = issue(cluster, one, "lost", "admin")
    assert_done(remote(cluster, one, two, lost, "list-machines"))
    cluster.ctl(one, "revoke-client-cert", "lost")
    listed = cluster.ctl(one, "list-client-certs", "--no-legend", "--fields=name,role,state").stdout
    assert "lost admin revoked" in " ".join(listed.split()), listed
    for to in cluster.hosts:
        assert_refused(remote(cluster, one, to, lost, "list-machines"), "of client lost was revoked")

    wait_until(lambda: remote(cluster, one, two, brief, "list-machines").stderr, 20, "the certificate to end",
               accept=lambda text: "has ended at" in text)
    pem = ["-s", "--max-time", "10", "--cacert", "/var/lib/fleet/tls/authority.crt"]
    url = f"https://{two.ip}:49153/fleet/v1/machines"
    curl = one.run(["curl", *pem, "--cert", brief, "--key", brief, url], check=False)
    assert curl.returncode != 0 and curl.stdout == "", curl
    none = one.run(["curl", *pem, url], check=False)
    assert none.returncode != 0 and none.stdout == "", none
    plain = one.run(["curl", "-s", "--max-time", "10", url.replace("https", "http")], check=False)
    assert "use https" in plain.stdout, plain

    # Somebody makes an authority of the same name, and from it a client's certificate of this cluster.
    cluster_id = json.loads(one.run(["curl", "-s", "--unix-socket", "/run/fleet.sock",
                                     "http://fleet/fleet/v1/status"]).stdout)["cluster"]
    one.write("/root/forge.sh", FORGE.replace("CLUSTER", cluster_id), 0o755)
    one.run(["sh", "/root/forge.sh"])
    forged = one.run(["curl", *pem, "--cert", "/root/forged.pem", "--key", "/root/forged.key", url], check=False)
    assert forged.returncode != 0 and forged.stdout == "", forged
    assert_refused(cluster.ctl(one, endpoint(two), "--cert-file=/root/forged.pem", "--key-file=/root/forged.key",
                               "--ca-file=/var/lib/fleet/tls/authority.crt", "list-machines", check=False),
                   "does not take the certificate in /root/forged.pem")
    # A client does not take a host of another cluster for its own, either.
    assert_refused(cluster.ctl(one, endpoint(two), "--cert-file=/root/forged.pem", "--key-file=/root/forged.key",
                               "--ca-file=/root/forged-ca.pem", "list-machines", check=False), "is not to be trusted")
    away = [entry["MESSAGE"] for entry in entries(two, "MESSAGE_ID=dfba668e3ffd4a76b7a66c4e8b1f8271")]
    assert len(away) >= 4 and all(f"A client at {one.ip}:" in line for line in away), away
    assert_done(remote(cluster, one, two, admin, "list-machines"))


FORGE = """set -e
cd /root
id_of() { openssl req -in $1.csr -noout -pubkey | openssl pkey -pubin -outform DER | sha256sum | cut -d' ' -f1; }
for who in ca leaf; do
    openssl genpkey -quiet -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out $who.key
    openssl req -new -key $who.key -subj "/CN=fleet cluster CLUSTER" -out $who.csr
done
printf 'basicConstraints=critical,CA:TRUE,pathlen:0\\nkeyUsage=critical,keyCertSign,cRLSign\\nsubjectKeyIdentifier=%s\\nauthorityKeyIdentifier=keyid:always\\nsubjectAltName=URI:fleet://CLUSTER/authority\\n' $(id_of ca) > ca.ext
printf 'basicConstraints=critical,CA:FALSE\\nkeyUsage=critical,digitalSignature\\nextendedKeyUsage=clientAuth\\nsubjectKeyIdentifier=%s\\nauthorityKeyIdentifier=keyid\\nsubjectAltName=URI:fleet://CLUSTER/client/admin/admin\\n' $(id_of leaf) > leaf.ext
openssl x509 -req -in ca.csr -signkey ca.key -sha256 -days 30 -extfile ca.ext -out forged-ca.pem
openssl x509 -req -in leaf.csr -CA forged-ca.pem -CAkey ca.key -CAcreateserial -sha256 -days 30 -extfile leaf.ext -out forged.pem
mv leaf.key forged.key
"""


@lab_test(hosts=3, conf=CONF, deadline_s=120)
def test_a_host_reads_only_its_own_share(cluster: Cluster) -> None:
    """What somebody can do who has taken a host's key and certificate, and makes up whatever he likes."""
    outsider = worker(cluster)
    one = next(host for host in cluster.hosts if host is not outsider)
    secret = write_service(one, "secret.service", {"MachineID": one.machine_id}, service={"Environment": "PASSWORD=hunter2"})
    cluster.ctl(one, "start", secret)
    cluster.ctl(one, "start", write_service(one, "own.service", {"MachineID": outsider.machine_id}))
    admin = issue(cluster, one, "admin", "admin")
    cluster.ctl(one, "set", "host_role=none")

    # As a client of the API.
    tls = "/var/lib/fleet/tls"
    for to in cluster.hosts:
        for path in ("units", "units/secret.service", "status", "machines?stale=yes", "members"):
            answer = outsider.run(["curl", "-s", "--max-time", "10", "--cacert", f"{tls}/authority.crt", "--cert",
                                   f"{tls}/host.crt", "--key", f"{tls}/host.key", "-w", " %{http_code}",
                                   f"https://{to.ip}:49153/fleet/v1/{path}"]).stdout
            assert answer.endswith(" 403") and "has no say in the API" in answer, answer
    assert entries(one, "MESSAGE_ID=c9b6fdfacc3648fbbcdf8ba0f583f3a4", f"FLEET_CALLER=machine {outsider.machine_id}")

    # As root there, by its own fleetd.
    assert_refused(cluster.ctl(outsider, "list-units", check=False), f"through host {outsider.name}", "host_role")
    assert_done(remote(cluster, one, one, admin, "list-units"))
    give(one, outsider, admin)
    assert_refused(remote(cluster, one, outsider, admin, "list-units"), "host_role")
    assert_done(remote(cluster, outsider, one, admin, "list-units"))

    # As a daemon that says what it likes to the leader.
    leader = cluster.wait_leader()
    server = next(member["server"] for member in members(cluster) if member["machine"] == outsider.machine_id)
    serial = cluster.ctl(leader, "list-client-certs", "--no-legend", "--fields=serial").stdout.strip()
    status = json.loads(outsider.run(["curl", "-s", "--unix-socket", "/run/fleet.sock", "http://fleet/fleet/v1/status"]).stdout)
    outsider.systemctl("stop", "fleetd")
    outsider.install(PEER, "/root/fleet_peer.py")
    ask = {"leader": leader.ip, "cluster": status["cluster"], "machine": outsider.machine_id, "server": server,
           "serial": serial, "other": leader.machine_id}
    outsider.write("/root/ask.json", json.dumps(ask))
    said = json.loads(outsider.run(["python3", "/root/fleet_peer.py", "/root/ask.json"], timeout=60).stdout)
    assert said["as_other"] != "accepted" and "secret" not in json.dumps(said["as_other"]), said
    assert said["shares"] == ["own.service"], said
    assert said["answers"] == {"nobody": 403, "root": 403, "client": 403}, said
    assert "hunter2" not in said["heard"], said
    outsider.systemctl("start", "fleetd")
    cluster.ctl(one, "set", "host_role=viewer")
    wait_until(lambda: cluster.ctl(outsider, "list-units", check=False).returncode, 20, "the host to be back", accept=lambda r: r == 0)
    assert_refused(cluster.ctl(outsider, "destroy", "secret.service", check=False), "this needs the role operator")


def as_user(host: Host, groups: Sequence[str], *arguments: str) -> Any:
    return host.run(["setpriv", "--reuid=65534", "--regid=65534", f"--groups={','.join(groups) or '65534'}",
                     "fleetctl", *arguments], check=False)


@lab_test(hosts=1, deadline_s=60)
def test_users_of_the_unix_socket(cluster: Cluster) -> None:
    [one] = cluster.hosts
    one.run(["groupadd", "--gid=4711", "fleet"])
    cluster.configure(one)
    one.systemctl("restart", "fleetd")
    unit = "/tmp/web.service"  # Where others can read it.
    one.write(unit, one.read(write_service(one, "web.service")))
    wait_until(lambda: one.run(["stat", "-c", "%G %a", "/run/fleet.sock"]).stdout, 20, "the socket", accept=lambda s: s == "fleet 660\n")

    assert_refused(as_user(one, [], "list-machines"), "Only root and the group of the socket may use it")
    assert_done(as_user(one, ["4711"], "start", unit))
    cluster.configure(one, {"api_socket_others": "read"})
    one.systemctl("reload", "fleetd")
    wait_until(lambda: one.run(["stat", "-c", "%G %a", "/run/fleet.sock"]).stdout, 20, "the socket to be open",
               accept=lambda s: s == "fleet 666\n")
    assert_done(as_user(one, [], "list-units"))
    assert_refused(as_user(one, [], "destroy", "web.service"), "this needs the role operator, and uid 65534 is viewer")
    assert_done(as_user(one, ["4711"], "destroy", "web.service"))
    [refusal] = entries(one, "MESSAGE_ID=c9b6fdfacc3648fbbcdf8ba0f583f3a4")
    assert refusal["FLEET_CALLER"] == "uid 65534" and refusal["FLEET_METHOD"] == "POST", refusal
    cluster.configure(one)
    one.systemctl("reload", "fleetd")
    wait_until(lambda: as_user(one, [], "list-units").returncode, 20, "the socket to be closed", accept=lambda r: r == 1)
    # Nothing of it is anybody else's to read.
    assert one.run(["stat", "-c", "%a", "/var/lib/fleet/tls"]).stdout == "700\n"
    assert set(one.run(["find", "/var/lib/fleet/tls", "-type", "f", "-printf", "%m\n"]).stdout.split()) == {"600"}


@lab_test(hosts=2, conf=CONF, deadline_s=120)
def test_new_certificates_without_a_restart(cluster: Cluster) -> None:
    """Hosts renew theirs, and the authority is rotated; the remote API shows the new ones, and the same daemon serves."""
    one, two = cluster.hosts
    admin = issue(cluster, one, "admin", "admin")
    pid = two.main_pid("fleetd.service")

    def serial() -> str:
        text = one.run(["sh", "-c", f"openssl s_client -connect {two.ip}:49153 -cert {admin} -key {admin} </dev/null 2>/dev/null"
                        " | openssl x509 -noout -serial"]).stdout
        return text.strip()
    before = serial()
    assert before.startswith("serial="), before
    cluster.ctl(one, "set", "certificate_lifetime=1min")
    wait_until(serial, 60, "the new certificate to be shown", accept=lambda now: now not in ("", before))
    assert_done(remote(cluster, one, two, admin, "list-machines"))
    cluster.ctl(one, "set", "certificate_lifetime=")
    cluster.ctl(one, "rotate-authority", timeout=90)
    # One of the authority that is gone is nobody's any more; a new one works at once.
    wait_until(lambda: remote(cluster, one, two, admin, "list-machines").returncode, 30, "the old authority to be gone",
               accept=lambda r: r == 1)
    fresh = issue(cluster, one, "fresh", "admin")
    assert_done(remote(cluster, one, two, fresh, "list-machines"))
    assert two.main_pid("fleetd.service") == pid
