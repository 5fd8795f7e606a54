# SPDX-License-Identifier: Apache-2.0
"""A cluster of fleet on the hosts of a lab: installs, configures and starts what was built, and asks fleetctl.

    with Lab(hosts=3, build=Path("build")) as lab:
        cluster = Cluster(lab)
        cluster.start()
        unit = write_service(lab.node1, "web.service")
        cluster.ctl(lab.node1, "start", unit)
        cluster.where("web.service")[0].power_cut()
"""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import sanitizers
from lab import Host, Lab, LabError, wait_until

TOP = Path(__file__).resolve().parents[2]
SERVICE = TOP / "data" / "fleetd.service"
LEASE_SERVICE = TOP / "data" / "fleet-lease.service"
PORT = 7390
TOKEN_FILE = "/etc/fleet/join-token"
READY_DEADLINE_S = 30.0


@dataclass(frozen=True)
class Machine:
    """A line of "fleetctl list-machines"."""

    id: str
    ip: str
    state: str  # "ready" for one that is there.
    metadata: str


@dataclass(frozen=True)
class Unit:
    """A line of "fleetctl list-units"; 'machine' is the machine's id, "" for none."""

    name: str
    load: str
    active: str
    sub: str
    machine: str


class Cluster:
    """fleetd on the hosts of a lab.

    hosts       those that have it from the start, by default all; add() brings in another one
    conf        keys of fleet.conf for every host, over those of default_conf(); None leaves a key out
    host_conf   the same for one host, by its number
    service     the unit file of fleetd
    """

    def __init__(self, lab: Lab, conf: Mapping[str, str | None] = {},
                 host_conf: Mapping[int, Mapping[str, str | None]] = {}, service: Path = SERVICE,
                 hosts: Sequence[Host] | None = None) -> None:
        if lab.build is None:
            raise LabError("a cluster needs a lab that knows where fleet was built")
        self.lab = lab
        self.hosts = list(lab.hosts if hosts is None else hosts)
        self.build = lab.build
        self.service = service
        self.conf = dict(conf)
        self.host_conf = {number: dict(keys) for number, keys in host_conf.items()}

    # Installing.

    def default_conf(self, host: Host) -> dict[str, str | None]:
        """The first host starts the cluster, the others join it there, with the token of start() or add()."""
        first = self.hosts[0]
        if host is first:
            return {"public_ip": host.ip, "bootstrap": "true"}
        token_file = None if self.insecure else TOKEN_FILE
        return {"public_ip": host.ip, "join": f"{first.ip}:{PORT}", "join_token_file": token_file}

    @property
    def insecure(self) -> bool:
        """Whether the cluster does without TLS, and so without tokens."""
        return self.conf.get("insecure") == "true"

    def configure(self, host: Host, conf: Mapping[str, str | None] = {}) -> None:
        """Writes the host's fleet.conf; 'conf' has the last word. fleetd is not told."""
        keys = self.default_conf(host) | self.conf | self.host_conf.get(host.number, {}) | dict(conf)
        host.write("/etc/fleet/fleet.conf",
                   "".join(f"{key} = {value}\n" for key, value in keys.items() if value is not None))

    def install(self, host: Host, build: Path | None = None) -> None:
        """Copies the programs and the unit file; again with another build, it is an upgrade without a restart."""
        build = build or self.build
        for program, path in (("fleetd/fleetd", "/usr/sbin/fleetd"), ("fleetctl/fleetctl", "/usr/bin/fleetctl"),
                              ("fleetd/fleet-lease", "/usr/libexec/fleet-lease")):
            if not (build / program).exists():
                raise LabError(f"{build / program} does not exist: build first")
            host.install(build / program, path)
        if not self.service.exists():
            raise LabError(f"{self.service} does not exist: it is what starts fleetd on a host")
        host.install(self.service, "/etc/systemd/system/fleetd.service", 0o644)
        host.install(LEASE_SERVICE, "/etc/systemd/system/fleet-lease.service", 0o644)
        if sanitizers.is_sanitized(build):
            sanitizers.install(host)
        host.run(["systemctl", "daemon-reload"])
        # Enabled: after a power cut, the host is to find its way back by itself.
        host.run(["systemctl", "enable", "--quiet", "fleetd.service"])

    def start(self) -> None:
        """Installs and starts fleetd everywhere, and waits until all machines see each other."""
        self.start_waiting()
        if len(self.hosts) > 1 and not self.insecure:
            self.give_token(*self.hosts[1:])
        self.wait_ready()

    def start_waiting(self) -> None:
        """Installs and starts fleetd everywhere."""
        for host in self.hosts:
            self.configure(host)
            self.install(host)
        # All at once, as when the power comes back; whoever is too early to join, or has no token yet, tries again by
        # itself.
        starting = [host.popen(["systemctl", "start", "fleetd"], stderr=subprocess.PIPE) for host in self.hosts]
        for host, process in zip(self.hosts, starting):
            _, errors = process.communicate(timeout=READY_DEADLINE_S)
            if process.returncode != 0:
                raise LabError(f"fleetd does not start on {host.name}: {errors.strip()}\n{host.journal('fleetd')}")

    def give_token(self, *hosts: Host, member: Host | None = None) -> str:
        """Has a member (by default the first host) make a token for these hosts, and returns it."""
        member = member or self.hosts[0]
        token = wait_until(lambda: self.ctl(member, "join-token", "--ttl=1d", check=False).stdout.strip(),
                           READY_DEADLINE_S, f"{member.name} to make a join token")
        for host in hosts:
            host.write(TOKEN_FILE, token + "\n", 0o600)
        return token

    def configure_joining(self, host: Host, through: Host) -> None:
        """The host is to join by this member, with a token that it makes."""
        conf = {"bootstrap": None, "join": f"{through.ip}:{PORT}"}
        if not self.insecure:
            self.give_token(host, member=through)
            conf["join_token_file"] = TOKEN_FILE
        self.configure(host, conf)

    def add(self, host: Host) -> None:
        """Brings a host of the lab that has no fleet yet into the cluster, and waits until all machines see it."""
        self.configure_joining(host, next(member for member in self.hosts if member.is_up))
        self.hosts.append(host)
        self.install(host)
        host.systemctl("start", "fleetd")
        self.wait_ready()

    def wait_ready(self, count: int | None = None, deadline_s: float = READY_DEADLINE_S) -> None:
        """Waits until every running host lists 'count' machines as ready (by default: as many as hosts are running)."""
        running = [host for host in self.hosts if host.is_up]
        count = len(running) if count is None else count
        for host in running:
            wait_until(lambda: self.machines(host), deadline_s, f"{host.name} to list {count} machines as ready",
                       accept=lambda machines: sum(machine.state == "ready" for machine in machines) == count)

    def wait_voters(self, count: int, deadline_s: float = READY_DEADLINE_S) -> None:
        """Waits until so many hosts vote: before that, a young cluster may not outlive its founder."""
        asked = next(host for host in self.hosts if host.is_up)
        wait_until(lambda: [row[0] for row in self._table(asked, "list-members", ("role",))], deadline_s,
                   f"{count} voters", accept=lambda roles: roles.count("voter") == count)

    # Asking.

    def ctl(self, host: Host, *arguments: str, check: bool = True, timeout: float = 60,
            input: str | None = None) -> subprocess.CompletedProcess[str]:
        """fleetctl on a host."""
        return host.run(["fleetctl", *arguments], check=check, timeout=timeout, input=input)

    def _table(self, host: Host, verb: str, fields: Sequence[str]) -> list[list[str]]:
        text = self.ctl(host, verb, "--no-legend", "--full", "--fields", ",".join(fields)).stdout
        # Only the last column may have spaces in it.
        return [line.split(None, len(fields) - 1) for line in text.splitlines() if line.strip()]

    def machines(self, host: Host) -> list[Machine]:
        return [Machine(*row) for row in self._table(host, "list-machines", ("machine", "ip", "state", "metadata"))]

    def units(self, host: Host) -> list[Unit]:
        rows = self._table(host, "list-units", ("unit", "load", "active", "sub", "machine"))
        # The machine is shown as id/address, as the id alone when it is gone, or as "-".
        return [Unit(*row[:4], machine="" if row[4] == "-" else row[4].split("/")[0]) for row in rows]

    def host_of(self, machine: str) -> Host:
        """The host with this machine id, or with an id that begins so."""
        for host in self.hosts:
            if machine and host.machine_id.startswith(machine.rstrip(".")):
                return host
        raise LabError(f"no host is machine {machine!r}")

    def where(self, unit: str, asked: Host | None = None) -> list[Host]:
        """The hosts on which the unit is active, as fleetctl says on 'asked' or the first running host."""
        asked = asked or next(host for host in self.hosts if host.is_up)
        return [self.host_of(u.machine) for u in self.units(asked) if u.name == unit and u.active == "active"]

    def where_truly(self, unit: str) -> list[Host]:
        """The running hosts whose own systemd says that the unit is active: fleet is not asked."""
        return [host for host in self.hosts if host.is_up and host.is_active(unit)]

    def wait_active(self, unit: str, count: int = 1, deadline_s: float = 30) -> list[Host]:
        """Waits until the unit is active on so many hosts, and returns them."""
        return wait_until(lambda: self.where(unit), deadline_s, f"{unit} to be active on {count} host(s)",
                          accept=lambda hosts: len(hosts) == count)

    def status(self, host: Host) -> str:
        """The daemon's own line about itself, as in "systemctl status"."""
        return host.show("fleetd.service", "StatusText")

    def leader(self) -> Host | None:
        """The host that leads, by its own account; None while there is none (or, in a split, not just one)."""
        leaders = [host for host in self.hosts if host.is_up and self.status(host).startswith("leader")]
        return leaders[0] if len(leaders) == 1 else None

    def others_of(self, host: Host) -> list[Host]:
        return [other for other in self.hosts if other is not host]

    def wait_leader(self, other_than: Host | None = None, deadline_s: float = READY_DEADLINE_S) -> Host:
        """Waits until exactly one host leads, and it is not 'other_than'."""
        what = f"a leader other than {other_than.name}" if other_than else "a leader"
        return wait_until(self.leader, deadline_s, what,
                          accept=lambda host: host is not None and host is not other_than)

    def journals(self, lines: int = 100) -> str:
        """The last words of every host's fleetd, for the report of a failed test."""
        return "".join(f"--- fleetd on {host.name}\n{host.journal('fleetd.service', lines)}" for host in self.hosts)


def write_service(host: Host, name: str, xfleet: Mapping[str, str | Sequence[str]] = {},
                  execstart: str = "/bin/sleep infinity", service: Mapping[str, str] = {}) -> str:
    """Writes a service's unit file into a host and returns its path there; a list makes several lines of one option."""
    lines = ["[Unit]", f"Description={name}", "", "[Service]", f"ExecStart={execstart}",
             *(f"{key}={value}" for key, value in service.items())]
    if xfleet:
        lines += ["", "[X-Fleet]"]
    for key, values in xfleet.items():
        lines += [f"{key}={value}" for value in ([values] if isinstance(values, str) else values)]
    path = f"/root/units/{name}"
    host.write(path, "\n".join(lines) + "\n")
    return path
