# SPDX-License-Identifier: Apache-2.0
"""A host that is in the wrong hands, and has its own certificate only, takes the address of another one (docs/SECURITY.md)."""

from __future__ import annotations

from pathlib import Path

from fleet import PORT, TOKEN_FILE, Cluster
from lab import Host, wait_until
from test_recovery import members_of, start_jobs
from testing import lab_test
from witness import assert_stays, lives, of_host

PROGRAM = Path(__file__).with_name("impostor.py")
TTL_S = 3


def heard(host: Host) -> list[tuple[str, int]]:
    """Who has called the impostor, for what, and how many bytes it was told."""
    rows = [line.split() for line in host.read("/root/heard").splitlines()]
    return [(row[0], int(row[1])) for row in rows if len(row) == 2]


def impersonate(rogue: Host, ip: str) -> None:
    rogue.systemctl("stop", "fleetd")
    rogue.write("/root/impostor.py", PROGRAM.read_text())
    rogue.run(["sh", "-c", "cat /var/lib/fleet/tls/host.crt /var/lib/fleet/tls/authority.crt >/root/chain.crt"])
    rogue.run(["sh", "-c", f"ip address add {ip}/24 dev $(ip -o route get {ip} | sed 's/.* dev \\([^ ]*\\).*/\\1/')"])
    rogue.popen(["sh", "-c", f"exec python3 /root/impostor.py {ip} {PORT} /root/chain.crt /var/lib/fleet/tls/host.key "
                             f"{rogue.machine_id} >/root/heard"])
    wait_until(lambda: rogue.run(["cat", "/root/heard"], check=False).stdout, 10, "the impostor to listen",
               accept=lambda text: "listens" in text)


@lab_test(hosts=7, spare=1, deadline_s=180, conf={"agent_ttl": f"{TTL_S}s", "voters": "3"})
def test_impostor_at_the_leaders_address(cluster: Cluster) -> None:
    cluster.wait_voters(3)
    [standby] = wait_until(lambda: members_of(cluster, cluster.hosts[0], "standby"), 20, "a standby",
                           accept=lambda hosts: len(hosts) == 1)
    old = cluster.wait_leader()
    voters = members_of(cluster, old, "voter")
    rogue, plain = [host for host in cluster.hosts if host not in voters and host is not standby]
    rest = [host for host in cluster.hosts if host is not rogue and host is not old]
    spare = cluster.lab.hosts[6]
    others = [host for host in rest if host is not plain]
    before = of_host(start_jobs(cluster, standby), *others)
    cluster.give_token(spare, member=standby)
    for host in others:  # It is to find the impostor first.
        plain.block(host)
    old.power_cut()
    impersonate(rogue, old.ip)
    for host in rest:
        host.run(["ip", "neighbour", "flush", "to", old.ip])
    cluster.hosts = others

    # Who keeps no data asks around for the leader, voters dial a server of theirs there, and a new host knows nobody else.
    leader = cluster.wait_leader()
    wait_until(lambda: plain.journal("fleetd"), 30, "the impostor to be found",
               accept=lambda text: f"Machine {rogue.machine_id} at {old.ip}" in text)
    for host in others:
        plain.unblock(host)
    cluster.hosts = [*rest]
    cluster.install(spare)
    cluster.configure(spare, {"bootstrap": None, "join": f"{old.ip}:{PORT}", "join_token_file": TOKEN_FILE})
    spare.systemctl("start", "fleetd")
    for host in (standby, next(host for host in voters if host not in (leader, old))):
        host.systemctl("restart", "fleetd")
    cluster.wait_ready(4)
    no_proof = "does not prove that it has the cluster's data"
    wait_until(lambda: spare.journal("fleetd"), 20, "the new host to say why not", accept=lambda text: no_proof in text)
    wait_until(lambda: heard(rogue), 30, "the impostor to be called for everything",
               accept=lambda rows: {"fleet-session/1", "fleet-raft/1", "fleet-join/1"} <= {row[0] for row in rows})
    assert_stays(lambda: lives(others, "job@*").items() >= before.items(), TTL_S, "what runs")

    # It was greeted as the leader, and as a server of the consensus, and nobody said a word to it.
    rows = heard(rogue)
    assert rows and not [row for row in rows if row[1] > 0], rows
    cluster.configure(spare, {"bootstrap": None, "join": f"{old.ip}:{PORT},{leader.ip}:{PORT}", "join_token_file": TOKEN_FILE})
    spare.systemctl("restart", "fleetd")
    cluster.hosts = [*rest, spare]
    cluster.wait_ready(5)
    print(f"       the impostor was called {len(rows)} times, and told nothing")
