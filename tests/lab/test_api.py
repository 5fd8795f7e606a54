# SPDX-License-Identifier: Apache-2.0
"""The HTTP API on real hosts, as bytes on their sockets: the same from every host, without a leader, without a cluster.

What each rule of the API answers is in tests/unit/test-api-wire.c; here is what only a cluster can show.
"""

from __future__ import annotations

import json
import re
import socket
import time
from typing import Any, NamedTuple

import patience
from fleet import Cluster
from lab import Host, wait_until
from testing import Needs

SHARED = True
NEEDS = Needs(hosts=3)
ANSWER_DEADLINE_S = 15
AT_ONCE_S = 1  # For what needs nobody else.
FIRST_CLIENT = {"User-Agent": "google-api-go-client/0.5", "Accept-Encoding": "gzip"}
SLEEP = [{"section": "Service", "name": "ExecStart", "value": "/bin/sleep infinity"}]


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


def ask(host: Host, method: str, path: str, body: str | None = None, headers: dict[str, str] = {}) -> Answer:
    """Sends a request, byte for byte, and reads until the daemon closes the connection."""
    lines = [f"{method} {path} HTTP/1.1", "Host: domain-sock", "Connection: close",
             *(f"{name}: {value}" for name, value in headers.items())]
    if body is not None:
        lines.append(f"Content-Length: {len(body.encode())}")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(ANSWER_DEADLINE_S)
        connection.connect(str(host.root / "run/fleet.sock"))
        connection.sendall(("\r\n".join(lines) + "\r\n\r\n" + (body or "")).encode())
        received = b""
        while piece := connection.recv(65536):
            received += piece
    head, _, rest = received.partition(b"\r\n\r\n")
    first, *others = head.decode().split("\r\n")
    assert first.startswith("HTTP/1.1 "), received
    answered = dict(line.split(": ", 1) for line in others)
    assert len(answered) == len(others) and int(answered.get("Content-Length", len(rest))) == len(rest), received
    return Answer(int(first.split()[1]), answered, rest)


def put(host: Host, name: str, headers: dict[str, str] = {}, **members: Any) -> int:
    """PUT of a unit as the first fleet's client words it."""
    body = json.dumps({"name": name, **members}, separators=(",", ":"), sort_keys=True) + "\n"
    return ask(host, "PUT", f"/fleet/v1/units/{name}?alt=json", body,
               {"Content-Type": "application/json", **headers}).status


def current_state(host: Host, name: str, headers: dict[str, str] = {}) -> str:
    return ask(host, "GET", f"/fleet/v1/units/{name}?alt=json", headers=headers).json()["currentState"]


def destroy_all(cluster: Cluster) -> None:
    host = cluster.hosts[0]
    units = ask(host, "GET", "/fleet/v1/units").json().get("units", [])
    for unit in units:
        assert ask(host, "DELETE", f"/fleet/v1/units/{unit['name']}").status == 204
    wait_until(lambda: ask(host, "GET", "/fleet/v1/state").body, 10, "nothing to be left", accept=lambda b: b == b"{}")


def test_every_host_answers_alike(cluster: Cluster) -> None:
    error = '{{"error":{{"code":{},"message":"{}"}}}}'.format
    rows = [
        ("GET", "/fleet/v1/units", None, 200, "{}"),
        ("GET", "/v1-alpha/state?unitName=a.service&alt=json", None, 200, "{}"),
        ("GET", "/fleet/v1/state/a.service", None, 200, "{}"),
        ("GET", "/fleet/v1/units/a.service", None, 404, error(404, "unit does not exist")),
        ("DELETE", "/fleet/v1/units/a.service", None, 404, error(404, "unit does not exist")),
        ("GET", "/fleet/v1/units?nextPageToken=AgACAA==", None, 400, error(400, "token limit must be 100")),
        ("PUT", "/fleet/v1/units/a.service", "{}", 415, error(415, "expected 1 Content-Type, got 0")),
        ("PATCH", "/fleet/v1/machines", "[]", 204, ""),
        ("PATCH", "/fleet/v1/machines", '[{"op":"x"}]', 400, error(400, "invalid op: expect add, remove, or replace")),
        ("GET", "/fleet/v1", None, 405, error(405, "")),
        ("GET", "/fleet/v1/nothing", None, 404, error(404, "")),
        ("POST", "/fleet/v1/discovery", "", 400, error(400, "only HTTP GET supported against this resource")),
        ("GET", "/fleet//v1/units", None, 301, ""),
    ]
    for method, path, body, status, wanted in rows:
        for host in cluster.hosts:
            answer = ask(host, method, path, body)
            assert (answer.status, answer.body.decode()) == (status, wanted), (host, method, path, answer)
            assert answer.headers["Server"].startswith("fleetd/"), answer
            assert answer.headers.get("Content-Type") == (None if status == 301 else "application/json"), answer
    assert len({ask(host, "GET", "/fleet/v1/machines").body for host in cluster.hosts}) == 1


def test_discovery(cluster: Cluster) -> None:
    text, one_of = {"type": "string"}, {"type": "string", "enum": ["inactive", "loaded", "launched"]}
    schemas = {
        "Machine": {"id": text, "primaryIP": text,
                    "metadata": {"type": "object", "properties": {}, "additionalProperties": text}},
        "MachinePage": {"machines": "Machine", "nextPageToken": text},
        "UnitOption": {"section": text, "name": text, "value": text},
        "Unit": {"name": text, "options": "UnitOption", "desiredState": one_of, "currentState": one_of,
                 "machineID": text | {"required": True}},
        "UnitPage": {"units": "Unit", "nextPageToken": text},
        "UnitState": {name: text for name in ("name", "hash", "machineID", "systemdLoadState", "systemdActiveState",
                                              "systemdSubState")},
        "UnitStatePage": {"states": "UnitState", "nextPageToken": text},
    }
    page, name = ("nextPageToken",), ("unitName",)
    methods = [
        ("Machines", "List", "fleet.Machine.List", "GET", "machines", page, None, "MachinePage"),
        ("Units", "List", "fleet.Unit.List", "GET", "units", page, None, "UnitPage"),
        ("Units", "Get", "fleet.Unit.Get", "GET", "units/{unitName}", name, None, "Unit"),
        ("Units", "Delete", "fleet.Unit.Delete", "DELETE", "units/{unitName}", name, None, None),
        ("Units", "Set", "fleet.Unit.Set", "PUT", "units/{unitName}", name, "Unit", None),
        ("UnitState", "Get", "fleet.UnitState.Get", "GET", "state/{unitName}", name, None, "UnitState"),
        ("UnitState", "List", "fleet.UnitState.List", "GET", "state", ("nextPageToken", "unitName", "machineID"), None,
         "UnitStatePage"),
    ]
    wanted: dict[str, Any] = {
        "kind": "discovery#restDescription", "discoveryVersion": "v1", "id": "fleet:v1", "name": "schema",
        "version": "v1", "title": "fleet API", "description": "",
        "documentationLink": "http://github.com/coreos/fleet", "protocol": "rest", "icons": {"x16": "", "x32": ""},
        "labels": [], "baseUrl": "$ENDPOINT/fleet/v1/", "basePath": "/fleet/v1/", "rootUrl": "$ENDPOINT/",
        "servicePath": "fleet/v1/", "batchPath": "batch", "parameters": {}, "auth": {}, "schemas": {}, "resources": {},
    }
    for schema, properties in schemas.items():
        wanted["schemas"][schema] = {"id": schema, "type": "object", "properties": {
            key: value if isinstance(value, dict) else {"type": "array", "items": {"$ref": value}}
            for key, value in properties.items()}}
    for resource, method, id, verb, path, parameters, request, response in methods:
        entry: dict[str, Any] = {"id": id, "httpMethod": verb, "path": path}
        in_path = "{unitName}" in path
        entry["parameters"] = {key: {"type": "string", "location": "path", "required": True} if in_path
                               else {"type": "string", "location": "query"} for key in parameters}
        if in_path:
            entry["parameterOrder"] = ["unitName"]
        entry |= {key: {"$ref": ref} for key, ref in (("request", request), ("response", response)) if ref}
        wanted["resources"].setdefault(resource, {"methods": {}})["methods"][method] = entry
    for host in cluster.hosts:
        document = ask(host, "GET", "/fleet/v1/discovery").json()
        for resource in document["resources"].values():
            for method in resource["methods"].values():
                assert method.pop("description")  # Words for people.
        assert document == wanted


def test_first_clients_life_of_a_unit(cluster: Cluster) -> None:
    """What its fleetctl sends for submit, load, start, restart, stop, unload and destroy, through a host that follows."""
    leader = cluster.wait_leader()
    host = next(host for host in cluster.hosts if host is not leader)
    name = "t%401.service"

    def state(wanted: str) -> None:
        wait_until(lambda: current_state(host, name, FIRST_CLIENT), 10, f"currentState {wanted}",
                   accept=lambda seen: seen == wanted)

    def desire(wanted: str) -> None:
        body = f'{{"desiredState":"{wanted}","name":"t@1.service"}}\n'
        assert ask(host, "PUT", f"/fleet/v1/units/{name}?alt=json", body,
                   {"Content-Type": "application/json", **FIRST_CLIENT}).status == 204

    body = json.dumps({"name": "t@1.service", "options": SLEEP}, separators=(",", ":")) + "\n"
    assert ask(host, "PUT", f"/fleet/v1/units/{name}?alt=json", body,
               {"Content-Type": "application/json", **FIRST_CLIENT}).status == 201
    assert current_state(host, name, FIRST_CLIENT) == "inactive"
    desire("loaded")
    state("loaded")
    desire("launched")
    state("launched")
    # It gives up after two seconds.
    wait_until(lambda: ask(host, "GET", f"/fleet/v1/state/{name}?alt=json").json(), 2, "the unit to be active",
               accept=lambda seen: (seen.get("systemdActiveState"), seen.get("systemdLoadState")) == ("active", "loaded"))
    home = cluster.wait_active("t@1.service")[0]
    before = home.main_pid("t@1.service")
    # Its restart: however long it takes to look, and though the unit is long down by then.
    desire("loaded")
    wait_until(lambda: home.is_active("t@1.service"), 10, "the unit to stop", accept=lambda active: not active)
    assert current_state(host, name, FIRST_CLIENT) == "launched"
    desire("launched")
    wait_until(lambda: home.main_pid("t@1.service"), 10, "another main process",
               accept=lambda pid: pid not in (0, before))
    desire("loaded")
    state("loaded")
    desire("inactive")
    state("inactive")
    assert ask(host, "DELETE", f"/fleet/v1/units/{name}?alt=json", headers=FIRST_CLIENT).status == 204
    assert ask(host, "GET", f"/fleet/v1/units/{name}?alt=json", headers=FIRST_CLIENT).status == 404
    destroy_all(cluster)


def test_patched_metadata_places(cluster: Cluster) -> None:
    one, two, three = cluster.hosts
    for value, host in (('"b"', two), ('{"value":"c"}', three)):
        patch = f'[{{"op":"add","path":"/{host.machine_id}/metadata/spot","Value":{value}}}]'
        assert ask(one, "PATCH", "/fleet/v1/machines", patch).status == 204
    for letter, host in (("b", two), ("c", three)):
        options = [*SLEEP, {"section": "X-Fleet", "name": "MachineMetadata", "value": f"spot={letter}"}]
        assert put(one, f"{letter}.service", options=options, desiredState="launched") == 201
        assert cluster.wait_active(f"{letter}.service") == [host]
    # Moved by moving the label: both operations at once.
    patch = json.dumps([{"op": "remove", "path": f"/{two.machine_id}/metadata/spot"},
                        {"op": "replace", "path": f"/{one.machine_id}/metadata/spot", "value": "b"}])
    assert ask(three, "PATCH", "/v1-alpha/machines", patch).status == 204
    wait_until(lambda: cluster.where("b.service"), 15, "b.service to follow the label", accept=lambda h: h == [one])
    destroy_all(cluster)


def test_pages(cluster: Cluster) -> None:
    names = sorted(f"page-{number}.service" for number in range(200))
    changes = json.dumps({"units": [{"name": name, "options": SLEEP} for name in names]})
    assert ask(cluster.hosts[0], "POST", "/fleet/v1/units", changes).status == 200
    tokens, seen, token = [], [], ""
    for host in [*cluster.hosts, *cluster.hosts]:  # Each page from another host.
        page = ask(host, "GET", f"/fleet/v1/units?nextPageToken={token}" if token else "/fleet/v1/units").json()
        seen += [unit["name"] for unit in page.get("units", [])]
        token = page.get("nextPageToken", "")
        if not token:
            break
        tokens.append(token)
    # Limit 100, pages 2 and 3: a total of 200 has an empty page at its end.
    assert (seen, tokens) == (names, ["ZAACAA==", "ZAADAA=="])
    changes = json.dumps({"units": [{"name": name, "destroy": True} for name in names]})
    assert ask(cluster.hosts[1], "POST", "/fleet/v1/units", changes).status == 200


def read_metrics(text: str) -> dict[str, float]:
    """Prometheus' text format 0.0.4, strictly: each family once, helped and typed, each series once."""
    series: dict[str, float] = {}
    types: dict[str, str] = {}
    family = ""
    assert text.endswith("\n")
    for line in text[:-1].split("\n"):
        if match := re.fullmatch(r"# HELP ([a-z_]+) (\S.*)", line):
            family = match[1]
            assert family not in types, line
        elif match := re.fullmatch(r"# TYPE ([a-z_]+) (counter|gauge|histogram)", line):
            assert match[1] == family and family not in types, line
            types[family] = match[2]
        else:
            match = re.fullmatch(r'([a-z_]+)(\{[a-z]+="[^"\\]*"\})? (\d+(?:\.\d+)?)', line)
            assert match, line
            ends = ("_bucket", "_sum", "_count") if types[family] == "histogram" else ("",)
            assert match[1] in [family + end for end in ends] and match[1] + (match[2] or "") not in series, line
            series[match[1] + (match[2] or "")] = float(match[3])
    return series


def metrics(host: Host) -> dict[str, float]:
    answer = ask(host, "GET", "/metrics")
    assert answer.status == 200 and answer.headers["Content-Type"] == "text/plain; version=0.0.4", answer
    return read_metrics(answer.body.decode())


def has_its_units(now: dict[str, float]) -> bool:
    """Three in the cluster, one on each host."""
    return now['fleet_units{desired="launched"}'] == 3 and now['fleet_local_units{active="active"}'] == 1


def test_metrics(cluster: Cluster) -> None:
    leader = cluster.wait_leader()
    before = {host: metrics(host) for host in cluster.hosts}
    for number in range(3):
        assert put(cluster.hosts[0], f"m{number}.service", options=SLEEP, desiredState="launched") == 201
        cluster.wait_active(f"m{number}.service")
    # Followers learn a moment later.
    after = {host: wait_until(lambda: metrics(host), 5, f"{host.name} to count its units", accept=has_its_units)
             for host in cluster.hosts}
    placed = 'fleet_engine_task_count_total{type="attemptscheduleunit"}'
    for host in cluster.hosts:
        now, grown = after[host], {key: after[host][key] - before[host].get(key, 0) for key in after[host]}
        assert now["fleet_member"] == now["fleet_systemd_connected"] == now["fleet_session_open"] == 1
        assert now["fleet_leader"] == (host is leader)
        assert now["fleet_machines_registered"] == 3
        # Each is placed by one decision of the leader, and by nobody else.
        assert grown[placed] == grown["fleet_engine_reconcile_count_total"] == (3 if host is leader else 0)
        assert grown['fleet_engine_task_count_total{type="unscheduleunit"}'] == 0
        assert all(not value for key, value in grown.items() if "failure" in key)
        assert grown['fleet_api_requests_total{code="201"}'] == 3 if host is cluster.hosts[0] else True
        assert now["fleet_raft_commit_duration_seconds_count"] == now['fleet_raft_proposals_total{outcome="applied"}']
        assert 0 < time.time() - now["process_start_time_seconds"] < 3600
        assert ('fleet_machines{state="ready"}' in now) == (host is leader)
    assert abs(time.time() - after[leader]["fleet_engine_leader_start_time"]) < 3600
    nowhere = [*SLEEP, {"section": "X-Fleet", "name": "MachineMetadata", "value": "rack=nowhere"}]
    assert put(leader, "unplaced.service", options=nowhere, desiredState="launched") == 201
    for host in cluster.hosts:
        wait_until(lambda: metrics(host)["fleet_units_unplaced"], 5, f"{host.name} to count the unplaced unit",
                   accept=lambda count: count == 1)
    assert ask(leader, "POST", "/metrics", "").status == 200
    destroy_all(cluster)


def took(host: Host, method: str, path: str, body: str | None = None) -> tuple[Answer, float]:
    begin = patience.now()
    answer = ask(host, method, path, body, {"Content-Type": "application/json"})
    return answer, patience.now() - begin


def test_no_leader(cluster: Cluster) -> None:
    one, two, three = cluster.hosts
    cluster.wait_voters(3)
    assert put(one, "kept.service", options=SLEEP) == 201
    for host in (two, three):
        host.systemctl("stop", "fleetd")
    try:
        wait_until(lambda: ask(one, "GET", "/fleet/v1/units").status, 30, "reads to be refused",
                   accept=lambda status: status == 503)
        for method, path, body, status in (("GET", "/fleet/v1/units/kept.service?stale=yes", None, 200),
                                           ("GET", "/fleet/v1/discovery", None, 200),
                                           ("GET", "/fleet/v1/status", None, 200),
                                           ("GET", "/metrics", None, 200),
                                           ("GET", "/fleet/v1/nothing", None, 404),
                                           ("PATCH", "/fleet/v1/units", "", 405)):
            answer, took_s = took(one, method, path, body)
            assert answer.status == status and took_s < AT_ONCE_S, (path, answer, took_s)
        for method, path, body in (("GET", "/fleet/v1/machines", None),
                                   ("PUT", "/fleet/v1/units/kept.service", '{"desiredState":"launched"}')):
            answer, took_s = took(one, method, path, body)
            assert answer.status == 503 and answer.json()["error"]["message"], (path, answer)
            assert answer.headers["Server"] and took_s < 10, (path, took_s)
        assert metrics(one)["fleet_leader"] == 0
    finally:
        for host in (two, three):
            host.systemctl("start", "fleetd")
    cluster.wait_ready(3)
    unit = ask(one, "GET", "/fleet/v1/units/kept.service").json()
    assert (unit["desiredState"], unit["currentState"]) == ("inactive", "inactive")
    destroy_all(cluster)


def test_no_cluster(cluster: Cluster) -> None:
    three = cluster.hosts[2]
    three.systemctl("stop", "fleetd")
    three.run(["sh", "-c", "mv /var/lib/fleet/* /root/"])
    try:
        cluster.configure(three, {"join": None})
        three.systemctl("start", "fleetd")
        for method, path in (("GET", "/fleet/v1/units"), ("GET", "/"), ("GET", "/nothing"), ("PUT", "/v1-alpha/units/a"),
                             ("GET", "/fleet/v1/discovery"), ("GET", "/fleet/v1/units?stale=yes")):
            answer, took_s = took(three, method, path)
            assert answer.status == answer.json()["error"]["code"] == 503 and took_s < AT_ONCE_S, (path, answer)
            assert answer.headers["Content-Type"] == "application/json" and "Server" not in answer.headers, answer
            assert "no cluster" in answer.json()["error"]["message"]
        assert ask(three, "GET", "/fleet/v1/status").json()["cluster"] == ""
        assert metrics(three)["fleet_member"] == 0
    finally:
        three.systemctl("stop", "fleetd")
        three.run(["sh", "-c", "rm -rf /var/lib/fleet/*; mv /root/member /root/raft /root/tls /var/lib/fleet/"])
        cluster.configure(three)
        three.systemctl("start", "fleetd")
    cluster.wait_ready(3)
