# SPDX-License-Identifier: Apache-2.0
"""A pretend fleetd for testing fleetctl alone: the API on a Unix socket, units in a dict, and no machines but
those it says it has. It settles what is asked of it at once, unless a test scripts an answer:

    server.on("GET", "/units", status=503, message="no leader: ...", times=1)

It is a double at the API's edge, for what a real cluster does not do on demand; that the two programs
understand each other is tested with the real fleetd."""

import collections
import hashlib
import http.server
import json
import os
import socketserver
import threading
import time
import urllib.parse

PREFIX = "/fleet/v1"
MACHINES = [
    {"id": "aaaaaaaa0000000000000000000000aa", "primaryIP": "10.0.0.1", "hostname": "node1", "state": "ready",
     "units": 2, "version": "2.0.0", "address": "10.0.0.1:7390", "metadata": {"zone": "b", "disk": "ssd"}},
    {"id": "bbbbbbbb0000000000000000000000bb", "hostname": "node2", "state": "ready"},
]
LEVEL = {"level": 0, "newest": 1, "waits": [{"level": 1, "version": "2.1.0", "features": "this and that"}]}
SETTINGS = [
    {"name": "failure_limit_burst", "value": "0", "default": "0", "limits": "0 to 32", "meaning": "After so many failures"},
    {"name": "voters", "value": "5", "default": "5", "limits": "1, 3, 5 or 7", "meaning": "How many hosts vote"},
]


def text_of(options):
    sections = collections.OrderedDict()
    for o in options:
        sections.setdefault(o.get("section", ""), []).append(f"{o.get('name', '')}={o.get('value', '')}\n")
    return "\n".join(f"[{s}]\n" + "".join(lines) for s, lines in sections.items())


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def address_string(self):
        return "unix"

    def reply(self, status, obj=None, raw=None):
        data = raw if raw is not None else (b"" if obj is None else json.dumps(obj).encode())
        self.send_response(status)
        if data:
            self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def error(self, status, message):
        self.reply(status, {"error": {"code": status, "message": message}})

    def handle_any(self):
        size = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(size)
        url = urllib.parse.urlsplit(self.path)
        path = urllib.parse.unquote(url.path)
        query = dict(urllib.parse.parse_qsl(url.query))
        fake = self.server.fake
        obj = json.loads(body) if body else None
        path = path[len(PREFIX):] if path.startswith(PREFIX) else "?" + path
        with fake.lock:
            fake.log.append((self.command, path, query, obj, size))
            rule = fake.match(self.command, path, query)
            if rule is not None:
                rule["body"] = obj
        try:
            if rule is not None:
                self.scripted(rule)
            else:
                with fake.lock:
                    fake.answer(self, self.command, path, query, obj)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = handle_any

    def scripted(self, rule):
        if rule.get("sleep"):
            self.server.fake.stopping.wait(rule["sleep"])
        if rule.get("close"):
            if rule.get("raw"):
                self.wfile.write(rule["raw"])
            self.close_connection = True
        elif "call" in rule:  # With what is in the body.
            self.reply(200, rule["call"](rule["body"]))
        elif "raw" in rule:
            self.reply(rule.get("status", 200), raw=rule["raw"])
        elif "message" in rule:
            self.error(rule["status"], rule["message"])
        else:
            self.reply(rule.get("status", 200), rule.get("json"))


class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    request_queue_size = 16

    def handle_error(self, request, client_address):
        pass


class Fake:
    def __init__(self, path):
        self.path = path
        self.lock = threading.RLock()
        self.stopping = threading.Event()
        self.server = None
        self.reset()

    def reset(self):
        self.units = {}    # name -> entity
        self.fates = {}    # name -> entity of /wait, instead of what was asked for
        self.rules = []
        self.log = []
        self.version = 0
        self.page = 100
        self.machines = MACHINES
        self.states = []
        self.hosts = {}    # name -> what machines say in /status, by name
        self.settings = [dict(setting) for setting in SETTINGS]
        self.journals = {} # name -> answers of /journal, one after the other

    def start(self):
        self.server = Server(self.path, Handler)
        self.server.fake = self
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self):
        self.stopping.set()
        self.server.shutdown()
        self.server.server_close()
        os.unlink(self.path)

    def on(self, method, path, times=None, stale=None, **what):
        self.rules.append(dict(what, method=method, path=path, times=times, stale=stale))

    def match(self, method, path, query):
        for rule in self.rules:
            if rule["method"] != method or rule["path"] != path or rule["times"] == 0:
                continue
            if rule["stale"] is not None and rule["stale"] != ("stale" in query):
                continue
            if rule["times"] is not None:
                rule["times"] -= 1
            return rule
        return None

    def add(self, name, text, desired="inactive", current=None, machine=""):
        options, section = [], ""
        for line in text.splitlines():
            if line.startswith("["):
                section = line[1:-1]
            elif line:
                key, value = line.split("=", 1)
                options.append({"section": section, "name": key, "value": value})
        self.store(name, options, desired)
        self.units[name]["currentState"] = current or desired
        if machine:
            self.units[name]["machineID"] = machine

    def store(self, name, options, desired):
        self.version += 1
        self.units[name] = {"name": name, "options": options, "desiredState": desired, "currentState": desired,
                            "generation": self.version, "hash": hashlib.sha1(text_of(options).encode()).hexdigest()}

    def requests(self, method, path):
        return [entry for entry in self.log if entry[0] == method and entry[1] == path]

    # --- answers ---

    def answer(self, h, method, path, query, body):
        parts = path.strip("/").split("/", 1)
        if method == "GET" and path == "/units":
            return self.paged(h, query, "units", [self.units[n] for n in sorted(self.units)])
        if method == "GET" and path == "/machines":
            return self.paged(h, query, "machines", self.machines)
        if method == "GET" and path == "/state":
            return self.paged(h, query, "states", [s for s in self.states
                                                   if query.get("unitName", s["name"]) == s["name"]])
        if method == "GET" and parts[0] == "units":
            if parts[1] in self.units:
                return h.reply(200, self.units[parts[1]])
            return h.error(404, "unit does not exist")
        if method == "GET" and parts[0] in ("status", "journal") and len(parts) == 2:
            if parts[1] not in self.units:
                return h.error(404, "unit does not exist")
            return self.status(h, parts[1]) if parts[0] == "status" else self.journal(h, parts[1])
        if path == "/level":
            return h.reply(200, LEVEL)
        if path == "/settings":
            return self.set(h, body["settings"]) if method == "PATCH" else h.reply(200, {"settings": self.settings})
        if method == "POST" and path == "/units":
            return self.change(h, body)
        if method == "POST" and path == "/wait":
            return self.wait(h, body)
        return h.error(404, "")

    def set(self, h, values):
        known = {setting["name"]: setting for setting in self.settings}
        for name in values:
            if name not in known:
                return h.error(400, f'there is no setting "{name}"')
        for name, value in values.items():
            known[name]["value"] = known[name]["default"] if value is None else value
        h.reply(200, {"settings": self.settings})

    def status(self, h, name):
        unit = self.units[name]
        h.reply(200, {"name": name, "desiredState": unit["desiredState"], "global": False,
                      "machines": self.hosts.get(name, [])})

    def journal(self, h, name):
        answers = self.journals.get(name, [])
        h.reply(200, answers.pop(0) if answers else {"name": name})

    def paged(self, h, query, key, items):
        start = int(query.get("nextPageToken", "0").rstrip("=") or 0)
        obj = {key: items[start:start + self.page]}
        if start + self.page <= len(items):
            obj["nextPageToken"] = f"{start + self.page}="
        h.reply(200, obj)

    def refuse(self, change):
        name, unit = change["name"], self.units.get(change["name"])
        if change.get("destroy"):
            return None if unit else (404, f"unit {name} does not exist")
        if change.get("ifAbsent") and unit:
            return 409, f"unit {name} exists"
        if change.get("ifHash") and (not unit or unit["hash"] != change["ifHash"]):
            return 409, f"unit {name} has changed"
        if change.get("restart"):
            return None if unit and unit["desiredState"] != "inactive" else (400, f"unit {name}: it is inactive")
        if not unit and not change.get("options") and self.template(name) is None:
            return 409, f"unit {name} does not exist and options field empty"
        return None

    def template(self, name):
        if "@" not in name:
            return None
        return self.units.get(name.split("@", 1)[0] + "@." + name.rsplit(".", 1)[1])

    def change(self, h, body):
        assert len(body["units"]) <= 1000
        for change in body["units"]:
            refusal = self.refuse(change)
            if refusal:
                return h.error(*refusal)
        answer = []
        for change in body["units"]:
            if body.get("dryRun"):
                continue
            name, unit = change["name"], self.units.get(change["name"])
            if change.get("destroy"):
                del self.units[name]
                continue
            if change.get("restart"):
                self.version += 1
                unit.update(generation=self.version, desiredState="launched")
                answer.append({"name": name, "hash": unit["hash"], "generation": self.version})
                continue
            if change.get("options") or not unit:
                self.store(name, change.get("options") or self.template(name)["options"], "inactive")
            elif unit["desiredState"] != change.get("desiredState"):
                self.version += 1
                unit["generation"] = self.version
            self.units[name]["desiredState"] = change.get("desiredState", "inactive")
            answer.append({"name": name, "hash": self.units[name]["hash"], "created": not unit,
                           "generation": self.units[name]["generation"]})
        h.reply(200, {"version": self.version, "units": answer})

    def wait(self, h, body):
        states = {"launched": "active", "loaded": "loaded", "inactive": "inactive"}
        answer = []
        for name in body["units"]:
            unit = self.units.get(name)
            one = {"name": name, "settled": True,
                   "state": states[unit["desiredState"]] if unit else "gone"}
            if one["state"] in ("active", "loaded"):
                one.update(machineID=MACHINES[0]["id"], machineIP="10.0.0.1", hostname="node1")
            one.update(self.fates.get(name, {}))
            answer.append(one)
        settled = [one for one in answer if one["settled"]]
        if not settled:
            self.lock.release()
            try:
                self.stopping.wait(min(body["timeoutMs"], 60000) / 1000)
            finally:
                self.lock.acquire()
        h.reply(200, {"units": settled or answer})
