# SPDX-License-Identifier: Apache-2.0
"""A neighbour floods the cluster port and the API of every host (flood.py): with connections that say nothing, too little, or
nonsense; with certificates that are forged, expired, revoked, or somebody else's; with join tokens that let nobody in any
more. Nobody gets in, units start as fast as before, and when it is over nothing is left of it."""

from __future__ import annotations

import base64
import json
import statistics
import subprocess
import time
from pathlib import Path
from typing import Any

from fleet import PORT, Cluster, write_service
from lab import Host, wait_until
import sanitizers
from test_access import FORGE, issue
from testing import lab_test
from witness import fleetd_pid, lives, wait_once_each

ALONE = True
API_PORT = 49153
CONF = {"api_listen": f"0.0.0.0:{API_PORT}", "agent_ttl": "3s"}
FLOOD = Path(__file__).with_name("flood.py")
KEPT = [f"kept@{number}.service" for number in range(5)]
RATE = 190  # Connections a second, on all three hosts together: 10,000 in a minute, with something to spare.
SLOWER = 1.2  # That much longer a start may take, by the median.
# Three windows of a few seconds, where hosts and attackers share two processors, say less: from 0.91 to 1.48 was seen. The
# short form finds starts that hang or queue; the minute is the measurement.
SLOWER_BRIEFLY = 3.0
GROWTH_KIB = 512  # Of one fleetd, by an attack like those before it while nothing else happens.

# Starts a new unit, stops and destroys it, again and again; prints how long each start took.
STARTS = r"""
import json, subprocess, sys, time
end, number, took = time.monotonic() + float(sys.argv[2]), 0, []
while time.monotonic() < end:
    name = f"/root/units/{sys.argv[1]}-{number}.service"
    with open(name, "w") as file:
        file.write("[Service]\nExecStart=/bin/sleep infinity\n")
    begin = time.perf_counter()
    subprocess.run(["fleetctl", "start", name], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    took.append(time.perf_counter() - begin)
    subprocess.run(["fleetctl", "stop", name.split("/")[-1]], check=True, stdout=subprocess.DEVNULL)
    subprocess.run(["fleetctl", "destroy", name.split("/")[-1]], check=True, stdout=subprocess.DEVNULL)
    number += 1
print(json.dumps(took))
"""


def measure(host: Host, name: str, seconds: float) -> list[float]:
    host.write("/root/starts.py", STARTS)
    return json.loads(host.run(["python3", "/root/starts.py", name, str(seconds)], timeout=seconds + 60).stdout)


def size_kib(host: Host) -> int:
    status = host.read(f"/proc/{fleetd_pid(host)}/status")
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS:"))


def descriptors(host: Host) -> int:
    return len(host.run(["ls", f"/proc/{fleetd_pid(host)}/fd"]).stdout.split())


def secret_of(token: str) -> str:
    text = token.split(".", 1)[1]
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))[:16].hex()


def certificates(cluster: Cluster, mallory: Host) -> dict[str, Any]:
    """What Mallory has collected: 'certificates' (files on his host) and the 'identities' that he claims with them."""
    one, two = cluster.hosts[0], cluster.hosts[1]
    cluster_id = json.loads(one.run(["curl", "-s", "--unix-socket", "/run/fleet.sock",
                                     "http://fleet/fleet/v1/status"]).stdout)["cluster"]
    members = cluster.ctl(one, "list-members", "--no-legend", "--full", "--fields=machine,server").stdout
    servers = {row.split()[0].split("/")[0]: int(row.split()[1], 16) for row in members.splitlines()}
    of_one = [one.machine_id, servers[one.machine_id]]

    mallory.write("/root/forge.sh", FORGE.replace("URI:fleet://CLUSTER/client/admin/admin", f"URI:fleet://CLUSTER/machine/{one.machine_id}")
                  .replace("extendedKeyUsage=clientAuth", "extendedKeyUsage=clientAuth,serverAuth").replace("CLUSTER", cluster_id), 0o755)
    mallory.run(["sh", "/root/forge.sh"])
    brief, lost, good = (issue(cluster, one, name, "admin", *more)
                         for name, more in (("brief", ["--ttl=1s"]), ("lost", []), ("good", ["--ttl=1d"])))
    for path in (brief, lost, good):
        mallory.write(path, one.read(path), 0o600)
    cluster.ctl(one, "revoke-client-cert", "lost")
    # Expired ones are forgotten when others are issued.
    wait_until(lambda: [row.split() for row in cluster.ctl(one, "list-client-certs", "--no-legend", "--fields=name,state").stdout.splitlines()],
               10, "a certificate to end", accept=lambda rows: ["brief", "valid"] not in rows)
    for name in ("host.crt", "host.key"):
        mallory.write(f"/root/two-{name}", two.read(f"/var/lib/fleet/tls/{name}"), 0o600)
        mallory.write(f"/root/removed-{name}", mallory.read(f"/var/lib/fleet/tls/{name}"), 0o600)
    of_mallory = [mallory.machine_id, servers[mallory.machine_id]]
    cluster.hosts.remove(mallory)
    cluster.ctl(one, "remove-machine", "--force", mallory.machine_id)
    mallory.systemctl("disable", "--now", "fleetd")
    return {"cluster": cluster_id, "clients": ["client as machine"],  # Whom the API is right to serve.
            "certificates": {"forged": ["/root/forged.pem", "/root/forged.key"], "expired": [brief], "revoked client": [lost],
                             "client as machine": [good], "other machine": ["/root/two-host.crt", "/root/two-host.key"],
                             "removed machine": ["/root/removed-host.crt", "/root/removed-host.key"]},
            "identities": {"forged": of_one, "expired": of_one, "revoked client": of_one, "client as machine": of_one,
                           "other machine": of_one, "removed machine": of_mallory}}


def tokens(cluster: Cluster, mallory: Host) -> dict[str, str]:
    """Those that let nobody in; Mallory has used one up, and was a machine of the cluster with it."""
    one = cluster.hosts[0]
    made = {"expired": cluster.ctl(one, "join-token", "--ttl=1s").stdout.strip(),
            "revoked": cluster.ctl(one, "join-token", "--ttl=1d").stdout.strip(),
            "used up": cluster.ctl(one, "join-token", "--ttl=1d", "--uses=1").stdout.strip()}
    mallory.write("/etc/fleet/join-token", made["used up"] + "\n", 0o600)
    cluster.configure(mallory)
    cluster.install(mallory)
    mallory.systemctl("start", "fleetd")
    cluster.hosts.append(mallory)
    cluster.wait_ready()
    for row in cluster.ctl(one, "join-token", "--list", "--no-legend", "--fields=id,state").stdout.splitlines():
        identity, state = row.split(None, 1)
        if state.strip() == "valid":
            cluster.ctl(one, "join-token", f"--revoke={identity}")
    return {name: secret_of(token) for name, token in made.items()} | {"unknown": "00" * 16}


def attack(mallory: Host, plan: dict[str, Any], seconds: float) -> subprocess.Popen[str]:
    return mallory.popen(["python3", "/root/flood.py", json.dumps(plan), str(seconds)],
                         stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def flood(cluster: Cluster, windows: int, seconds: float, slower: float) -> None:
    one = cluster.hosts[0]
    mallory = next(host for host in cluster.lab.hosts if host not in cluster.hosts)
    cluster.wait_voters(3)
    write_service(one, "kept@.service")
    cluster.ctl(one, "start", *(f"/root/units/{name}" for name in KEPT))
    kept = wait_once_each(cluster.hosts, KEPT, 15)
    bad_tokens = tokens(cluster, mallory)
    plan = certificates(cluster, mallory) | {"tokens": bad_tokens, "rate": RATE / len(cluster.hosts)}
    mallory.install(FLOOD, "/root/flood.py")
    kept = wait_once_each(cluster.hosts, KEPT, 15)
    pids = {host: fleetd_pid(host) for host in cluster.hosts}

    def window(seconds: float, with_work: bool = True) -> list[dict[str, Any]]:
        attacks = [attack(mallory, plan | {"ports": {"cluster": [host.ip, PORT], "api": [host.ip, API_PORT]}}, seconds)
                   for host in cluster.hosts]
        if with_work:
            time.sleep(1.0)  # For Python to begin.
            attacked.append(measure(one, f"attacked-{len(attacked)}", seconds - 1.0))
        said = []
        for process in attacks:
            out, errors = process.communicate(timeout=60)
            assert process.returncode == 0, errors
            said.append(json.loads(out))
        return said

    # One after the other: what else this machine does differs from minute to minute, but less from a window to the next.
    quiet: list[list[float]] = []
    attacked: list[list[float]] = []
    window(3.0)  # What grows with the first ones stays.
    attacked.clear()
    wait_until(lambda: max(descriptors(host) for host in cluster.hosts), 20, "the first attack's connections to be gone",
               accept=lambda count: count < 120)
    open_before = {host: descriptors(host) for host in cluster.hosts}
    said: list[dict[str, Any]] = []
    for number in range(windows):
        quiet.append(measure(one, f"quiet-{number}", seconds - 1.0))
        said += window(seconds)
    counts: dict[str, int] = {}
    refused: dict[str, int] = {}
    for part in said:
        assert part["let_in"] == [], part["let_in"]
        for total, key in ((counts, "counts"), (refused, "refused")):
            for name, count in part[key].items():
                total[name] = total.get(name, 0) + count
    ratio = statistics.median(statistics.median(b) / statistics.median(a) for a, b in zip(quiet, attacked))
    print(f"       {sum(counts.values())} connections of {len(counts)} kinds in {windows * seconds:.0f} s; a start took "
          f"{statistics.median(sum(quiet, [])) * 1000:.0f} ms before ({sum(map(len, quiet))}), "
          f"{statistics.median(sum(attacked, [])) * 1000:.0f} ms meanwhile ({sum(map(len, attacked))}): {ratio:.2f} times as long, "
          "by the median of neighbouring windows")
    # The work itself is remembered: the last requests, the log. So what the attacks cost is seen without any.
    sizes = {host: size_kib(host) for host in cluster.hosts}
    assert [part["let_in"] for part in window(seconds, with_work=False)] == [[]] * len(cluster.hosts)
    grown = {host.name: size_kib(host) - sizes[host] for host in cluster.hosts}
    print(f"       another attack has made them grow by {grown} KiB from {min(sizes.values())} KiB")
    assert set(refused) == set(bad_tokens), refused  # It came so far with all of them.
    assert all(counts.get(f"cluster: {name} {purpose}", 0) > 0 for name in plan["certificates"] for purpose in ("raft", "session"))
    assert {host: fleetd_pid(host) for host in cluster.hosts} == pids
    measures = not sanitizers.is_sanitized(cluster.build)
    assert not measures or ratio < slower, (quiet, attacked)
    wait_until(lambda: {host: descriptors(host) for host in cluster.hosts}, 20, "its connections to be gone",
               accept=lambda now: all(now[host] <= open_before[host] + 2 for host in now))
    assert not measures or max(grown.values()) < GROWTH_KIB, grown
    assert lives(cluster.hosts, "kept@*") == kept
    assert {machine.id for machine in cluster.machines(one)} == {host.machine_id for host in cluster.hosts}
    wanted = 10_000 if windows * seconds >= 60 else windows * seconds * RATE / 2
    assert sum(counts.values()) >= wanted, f"only {sum(counts.values())} connections: the machine was too slow to attack"

    # Who has come since, or comes back, gets through such a crowd, too.
    back = cluster.hosts[2]
    process = attack(mallory, plan | {"ports": {"cluster": [one.ip, PORT], "api": [one.ip, API_PORT]}}, 6.0)
    time.sleep(1.0)
    begin = time.monotonic()
    back.systemctl("restart", "fleetd")
    wait_until(lambda: cluster.ctl(back, "list-machines", check=False).returncode, 5, "a restarted fleetd to be served",
               accept=lambda code: code == 0)
    print(f"       a restarted fleetd is back after {time.monotonic() - begin:.1f} s of it")
    process.communicate(timeout=60)
    assert lives(cluster.hosts, "kept@*") == kept


@lab_test(hosts=4, spare=1, conf=CONF, deadline_s=240)
def test_flood_for_ten_seconds(cluster: Cluster) -> None:
    flood(cluster, 3, 4.0, SLOWER_BRIEFLY)


@lab_test(hosts=4, spare=1, conf=CONF, deadline_s=600, long=True)
def test_flood_for_a_minute(cluster: Cluster) -> None:
    flood(cluster, 6, 10.0, SLOWER)
