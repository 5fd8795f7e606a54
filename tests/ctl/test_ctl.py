# SPDX-License-Identifier: Apache-2.0
"""Runs the real fleetctl against a pretend fleetd (fake_fleetd.py), mostly along its paths of error.

    test_ctl.py FLEETCTL [NAME...]      NAME: only the tests with this in their name

Ends with the line "N passed, N failed"; exit 1 if one failed."""

import base64
import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback

import fake_fleetd
import test_access
import test_completions
import test_membership
import test_remote
import test_rules

SERVICE = "[Service]\nExecStart=/bin/sleep inf\n"
OTHER = "[Service]\nExecStart=/bin/true\n"
LEGEND = "aaaaaaaa.../10.0.0.1"
# Nothing takes so long on a machine that is merely busy. What is tested not to wait would wait longer.
STUCK_S = 15


class Skip(Exception):
    """What a test raises where something is missing that it needs."""


class Bench:
    """A folder with unit files, a fake fleetd, and a way to run fleetctl with both."""

    def __init__(self, program):
        self.program = os.path.abspath(program)
        self.folder = tempfile.mkdtemp(prefix="ctl")
        self.socket = os.path.join(self.folder, "sock")
        self.fake = fake_fleetd.Fake(self.socket)
        self.fake.start()

    skip = Skip

    def file(self, name, text):
        path = os.path.join(self.folder, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as f:
            f.write(text.encode() if isinstance(text, str) else text)

    def start(self, *args, env=None, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL):
        full = {k: v for k, v in os.environ.items() if not k.startswith("FLEETCTL_")}
        full.update({"FLEETCTL_ENDPOINT": "unix://" + self.socket, "LC_ALL": "C", "TZ": "UTC"}, **(env or {}))
        return subprocess.Popen([self.program, *args], cwd=self.folder, env=full, stdin=stdin,
                                stdout=stdout, stderr=subprocess.PIPE, text=True)

    def run(self, *args, stdin=None, **kwargs):
        p = self.start(*args, stdin=subprocess.PIPE if stdin is not None else subprocess.DEVNULL, **kwargs)
        try:
            out, err = p.communicate(stdin, timeout=60)
        except subprocess.TimeoutExpired:
            p.kill()
            p.communicate()
            raise
        assert "Sanitizer" not in err and "runtime error" not in err, err
        return p.returncode, out or "", err

    def expect(self, args, code, out, err, **kwargs):
        """out, err: the exact text, or a list of what must be in it, or None for anything."""
        got = self.run(*args, **kwargs)
        assert got[0] == code, f"{args}: exit {got[0]}, not {code}: {got}"
        for name, text, want in (("stdout", got[1], out), ("stderr", got[2], err)):
            if isinstance(want, str):
                assert text == want, f"{args}: {name} is {text!r}, not {want!r}"
            for part in want if isinstance(want, list) else []:
                assert part in text, f"{args}: {name} lacks {part!r}: {text!r}"
        return got

    def clean(self):
        self.fake.reset()
        for entry in os.listdir(self.folder):
            path = os.path.join(self.folder, entry)
            if os.path.isdir(path):
                shutil.rmtree(path)
            elif path != self.socket:
                os.unlink(path)

    def posted(self):
        return [entry[3] for entry in self.fake.requests("POST", "/units")]


# --- submit, load, start ---

def test_submit_then_again(b):
    b.file("a.service", SERVICE)
    b.expect(["submit", "a"], 0, "Unit a.service inactive\n", "")
    b.expect(["submit", "a.service"], 0, "", "")
    assert len(b.posted()) == 1
    b.expect(["cat", "a"], 0, SERVICE, "")


def test_all_units_are_one_transaction(b):
    for n in "abc":
        b.file(f"{n}.service", SERVICE)
    b.expect(["start", "a", "b", "c", "a"], 0, [f"Unit {n}.service launched on {LEGEND}\n" for n in "abc"], "")
    assert [[u["name"] for u in body["units"]] for body in b.posted()] == [["a.service", "b.service", "c.service"]]
    assert all(u["desiredState"] == "launched" and u["ifAbsent"] for u in b.posted()[0]["units"])
    assert b.fake.requests("POST", "/wait")[0][3]["generations"]["a.service"] == 1


def test_a_broken_file_stops_all(b):
    b.file("a.service", SERVICE)
    b.file("broken.service", "[Service]\n\nExecStart\n")
    b.file("torn.service", "[X-Fleet]\nMachineID=1\nGlobal=true\n")
    b.file("empty.service", "")
    b.expect(["start", "a", "broken", "torn", "empty"], 1, "", "".join([
        "Error creating units: failed getting Unit(broken.service) from file: line 3: unexpected newline encountered while parsing option name\n",
        "Error creating units: torn.service: MachineID cannot be used with Global\n",
        "Error creating units: empty.service: there is no option in it: this is no unit file\n"]))
    assert b.fake.log == []


def test_bad_files(b):
    os.mkdir(os.path.join(b.folder, "dir.service"))
    b.file("latin.service", b"[Unit]\nDescription=\xe4\n")
    b.file("huge.service", "[Service]\n" + "Environment=A=" + "x" * 1000 + "\n" * 300000)
    b.file("sub/a.service", SERVICE)
    b.file("a.service", SERVICE)
    b.expect(["submit", "dir"], 1, "", "Error creating units: failed getting Unit(dir.service) from file: Is a directory\n")
    b.expect(["submit", "latin"], 1, "", ["latin.service: the option \"Description\"", "not valid UTF-8"])
    b.expect(["submit", "huge"], 1, "", ["Unit(huge.service) from file: "])
    b.expect(["submit", "a", "sub/a"], 1, "",
             "Error creating units: a.service and sub/a.service are both unit a.service\n")
    b.expect(["submit", "a b"], 1, "", ["invalid character ' ' in unit name"])
    assert b.fake.log == []


def test_a_fifo_does_not_hang(b):
    os.mkfifo(os.path.join(b.folder, "fifo.service"))
    b.expect(["submit", "fifo"], 1, "", ["fifo.service"])


def test_unknown_unit(b):
    b.expect(["start", "nosuch"], 4, "",
             "Error creating units: unable to find Unit(nosuch.service) in Registry or on filesystem\n")
    b.expect(["start", "t@1"], 4, "", ["unable to find template Unit(t@.service) in Registry or on filesystem"])


def test_unknown_requirement_warns(b):
    b.file("a.service", SERVICE + "[X-Fleet]\nBogus=1\n")
    b.expect(["submit", "a"], 0, "Unit a.service inactive\n",
             'WARNING: Unit a.service: unrecognized requirement in [X-Fleet] section: "Bogus"\n')


def test_instances(b):
    b.file("sub/t@.service", SERVICE)
    b.file("sub/t@own.service", OTHER)
    b.expect(["submit", "sub/t@1", "sub/t@own"], 0, "Unit t@1.service inactive\nUnit t@own.service inactive\n", "")
    assert b.posted()[0]["units"][0]["options"][0]["value"] == "/bin/sleep inf"
    assert b.posted()[0]["units"][1]["options"][0]["value"] == "/bin/true"
    b.fake.add("t@.service", OTHER)
    b.expect(["submit", "t@2"], 0, "Unit t@2.service inactive\n", "")
    assert "options" not in b.posted()[1]["units"][0]
    b.expect(["submit", "sub/t@3"], 0, "Unit t@3.service inactive\n",
             "WARNING: Unit t@.service in registry differs from local template unit file sub/t@.service. "
             "Add --replace to override.\n")
    b.expect(["start", "t@"], 1, "", 'Error creating units: cannot activate template "t@.service"\n')


def test_differs(b):
    b.fake.add("a.service", OTHER)
    b.file("a.service", SERVICE)
    b.expect(["submit", "a"], 0, "", "WARNING: Unit a.service in registry differs from local unit file a.service. "
             "Add --replace to override.\n")
    assert b.posted() == []


def test_replace(b):
    b.fake.add("a.service", OTHER, "launched")
    b.file("a.service", SERVICE)
    b.expect(["submit", "--replace", "a"], 0, "",
             "Warning: can not replace Unit(a.service) in state 'launched', use the appropriate command\n")
    assert b.posted() == []
    b.expect(["start", "--replace", "a"], 0, f"Unit a.service launched on {LEGEND}\n", "")
    assert b.posted()[0]["units"][0]["ifHash"]
    b.expect(["start", "--replace", "a"], 0, "Found same Unit(a.service) in Registry, nothing to do\n"
             f"Unit a.service launched on {LEGEND}\n", "")
    b.expect(["cat", "a"], 0, SERVICE, "")
    b.fake.add("b.service", OTHER)
    b.expect(["start", "--replace", "b"], 1, "", ["nothing to replace Unit(b.service) with"])


def test_replace_instance_from_new_template(b):
    b.fake.add("t@.service", OTHER)
    b.fake.add("t@1.service", OTHER)
    b.file("t@.service", SERVICE)
    b.expect(["submit", "--replace", "t@1"], 0, "Unit t@1.service inactive\n", "")
    b.expect(["cat", "t@1"], 0, SERVICE, "")


def test_others_changed_it_meanwhile(b):
    b.file("a.service", SERVICE)
    b.fake.on("POST", "/units", status=409, message="unit a.service exists", times=2)
    b.expect(["start", "a"], 0, f"Unit a.service launched on {LEGEND}\n", "")
    b.fake.on("POST", "/units", status=504, message="outcome unknown: the leader was lost", times=9)
    b.expect(["stop", "a"], 1, "", "Error stopping units: outcome unknown: the leader was lost\n")


def test_destroy_with_unknown_outcome_that_was_done(b):
    b.fake.add("a.service", SERVICE)
    b.fake.on("POST", "/units", status=504, message="outcome unknown", times=1)
    b.fake.on("GET", "/units/a.service", status=200, json=dict(b.fake.units["a.service"]), times=1)
    del b.fake.units["a.service"]
    b.expect(["destroy", "a", "never"], 4, "Destroyed a.service\n", "Unit never.service not found\n")


def test_many_units_go_in_chunks(b):
    names = [f"u{i:04}.service" for i in range(1500)]
    for name in names:
        b.file(name, OTHER)
    b.expect(["submit", *names], 0, ["Unit u0000.service inactive\n", "Unit u1499.service inactive\n"], "")
    sizes = [(len(body["units"]), body.get("dryRun", False)) for body in b.posted()]
    assert sizes == [(1000, True), (500, True), (1000, False), (500, False)], sizes
    assert b.fake.requests("GET", "/units/u0000.service") == []
    code, out, _ = b.run("start", *names)
    assert code == 0 and out.count(" launched on ") == 1500


def test_big_units_go_in_chunks(b):
    text = "[Service]\n" + "".join(f"Environment=A{i}={'x' * 1000}\n" for i in range(200))
    for i in range(9):
        b.file(f"b{i}.service", text)
    b.expect(["submit", *[f"b{i}" for i in range(9)]], 0, None, "")
    assert all(entry[4] < 1024 * 1024 for entry in b.fake.log)
    assert len(b.fake.units) == 9


def test_dry_run_refusal_changes_nothing(b):
    for i in range(1001):
        b.file(f"u{i:04}.service", OTHER)
    b.fake.on("POST", "/units", status=400, message="unit u1000.service: no", times=1)
    b.expect(["submit", *[f"u{i:04}" for i in range(1001)]], 1, "", "Error creating units: unit u1000.service: no\n")
    assert b.fake.units == {}


# --- restart ---

def test_restart(b):
    b.fake.add("a.service", SERVICE, "launched")
    b.fake.add("b.service", SERVICE, "loaded")
    b.fake.add("idle.service", SERVICE)
    b.fake.add("g.service", "[X-Fleet]\nGlobal=true\n", "launched")
    b.fake.fates["g.service"] = {"machineID": "", "machineIP": "", "done": 2, "wanted": 2}
    b.expect(["restart", "a", "b.service", "nosuch", "idle", "g", "a"], 4,
             "Triggered global unit g.service restart\n"
             f"Unit a.service launched on {LEGEND}\nUnit b.service launched on {LEGEND}\n"
             "Unit g.service launched on 2/2 machines\n",
             "Unit(b.service) already loaded, starting.\nUnit nosuch.service not found\n"
             "Unable to restart unit idle.service in state inactive\n"
             "Unit(a.service) was restarted.\nUnit(g.service) was restarted.\n")
    assert b.posted() == [{"units": [{"name": f"{n}.service", "restart": True} for n in "abg"]}], b.posted()
    # It waits for this restart, not for what was before.
    [wait] = b.fake.requests("POST", "/wait")
    assert wait[3]["until"] == "settled" and wait[3]["generations"]["a.service"] == 5, wait
    assert b.fake.units["b.service"]["desiredState"] == "launched"


def test_restart_of_what_is_inactive_is_no_failure(b):
    b.fake.add("idle.service", SERVICE)
    b.expect(["restart", "idle"], 0, "", "Unable to restart unit idle.service in state inactive\n")
    b.expect(["restart", "idl*", "x*"], 0, "", "No unit matches x*\n")
    assert b.posted() == [] and b.fake.requests("POST", "/wait") == []


def test_restart_by_pattern_without_waiting(b):
    for n in "ab":
        b.fake.add(f"{n}.service", SERVICE, "launched")
    b.expect(["restart", "--no-block", "*.service"], 0,
             "Triggered unit a.service restart\nTriggered unit b.service restart\n", "")
    assert b.fake.requests("POST", "/wait") == []


def test_restart_that_fails(b):
    b.fake.add("a.service", SERVICE, "launched")
    b.fake.fates["a.service"] = {"state": "failed", "reason": "exit-code", "hostname": "node1"}
    b.expect(["restart", "a"], 1, "", [f"Unit a.service failed on {LEGEND}: exit-code"])
    b.fake.on("POST", "/units", status=400, message="unit a.service: it is inactive", times=1)
    b.expect(["restart", "a"], 1, "", "Error restarting units: unit a.service: it is inactive\n")


def test_restart_is_not_asked_for_twice(b):
    b.fake.add("a.service", SERVICE, "launched")
    b.fake.on("POST", "/units", status=504, message="outcome unknown: the leader was lost")
    b.expect(["restart", "a"], 1, "", "Error restarting units: outcome unknown: the leader was lost\n")
    assert len(b.posted()) == 1
    b.fake.rules.clear()
    b.fake.on("POST", "/units", status=404, message="unit a.service: it does not exist", times=1)  # Refused: nothing was done.
    b.expect(["restart", "a"], 0, [f"Unit a.service launched on {LEGEND}\n"], None)


def test_restart_by_a_leader_that_cannot(b):
    b.fake.add("a.service", SERVICE, "launched")
    b.fake.on("POST", "/units", json={"version": 9, "units": [{"name": "a.service", "generation": 1}]})
    b.expect(["restart", "a"], 1, "", "Error restarting units: unit a.service was not restarted: the fleetd that leads is "
             "too old for that, upgrade it\n")


# --- status, journal ---

def machine(n, active="active", **more):
    m = fake_fleetd.MACHINES[n]
    unit = {"loadState": "loaded", "activeState": active,
            "subState": {"active": "running", "failed": "failed"}.get(active, "dead"),
            "fragmentPath": "/run/systemd/system/a.service", "unitFileState": "linked-runtime",
            "description": "A thing"}
    return {"machineID": m["id"], "hostname": m["hostname"], "machineIP": m.get("primaryIP", ""),
            "machineState": "ready", "unit": unit, **more}


def entry(usec, message, **more):
    return {"__REALTIME_TIMESTAMP": str(usec), "_HOSTNAME": "node1", "SYSLOG_IDENTIFIER": "sh", "_PID": "7",
            "MESSAGE": message, **more}


def test_status(b):
    b.fake.add("a.service", SERVICE, "launched")
    b.fake.hosts["a.service"] = [machine(
        0, processes=[{"path": "/a", "pid": 7, "command": "/bin/sleep inf"}, {"path": "/a", "pid": 8, "command": "x\033[1m"}],
        journal=[entry(0, "hello")])]
    b.fake.hosts["a.service"][0]["unit"].update(mainPID=7, tasks=2, tasksMax=100, memory=1536, cpuNSec=5000000,
                                                controlGroup="/system.slice/a.service", statusText="fine",
                                                documentation=["man:a(1)"], execMainPID=7)
    _, out, _ = b.expect(["status", "a"], 0, None, "")
    assert out == f"""● a.service - A thing
    Machine: {LEGEND} (node1)
     Loaded: loaded (/run/systemd/system/a.service; linked-runtime)
     Active: active (running)
       Docs: man:a(1)
      Fleet: launched
   Main PID: 7
     Status: "fine"
      Tasks: 2 (limit: 100)
     Memory: 1.5K
        CPU: 5ms
     CGroup: /system.slice/a.service
             ├─7 /bin/sleep inf
             └─8 x [1m

Jan 01 00:00:00 node1 sh[7]: hello
""", out


def test_status_exit_codes(b):
    for n, hosts in {"dead": [machine(0, "inactive")], "half": [machine(0), machine(1, "failed")],
                     "mute": [machine(0), machine(1, error="it does not answer: lost, nothing heard of it for 9 s")],
                     "nowhere": [], "good": [machine(0), machine(1, "reloading")]}.items():
        b.fake.add(f"{n}.service", SERVICE, "launched")
        b.fake.hosts[f"{n}.service"] = hosts
    b.expect(["status"], 0, "", "")
    b.expect(["status", "good"], 0, ["● good.service - A thing\n", "\n\n↻ good.service - A thing\n    Machine: bbbbbbbb... (node2)\n"], "")
    b.expect(["status", "dead"], 3, ["○ dead.service", "Active: inactive (dead)\n"], "")
    b.expect(["status", "half"], 3, ["● half.service", "Active: active (running)\n", "× half.service", "Active: failed\n"], "")
    b.expect(["status", "mute"], 1, ["(node2): it does not answer: lost, nothing heard of it for 9 s\n"], "")
    b.expect(["status", "nowhere"], 3, "", "Unit nowhere.service does not appear to be loaded.\n")
    b.expect(["status", "nosuch"], 4, "", "Unit nosuch.service does not exist.\n")
    b.expect(["status", "nosuch", "dead", "good"], 4, ["\n○ dead.service", "\n\n● good.service"], None)
    b.expect(["status", "g*", "x*"], 0, ["good.service"], "No unit matches x*\n")
    b.expect(["status", "--lines=-1", "good"], 2, "", ["--lines must not be negative"])
    b.expect(["status", "-o", "cat", "good"], 2, "", "fleetctl status: --output is text, json or json-pretty here\n")
    _, out, _ = b.expect(["status", "-o", "json", "good", "dead"], 3, None, "")
    assert [(u["name"], len(u["machines"])) for u in json.loads(out)] == [("good.service", 2), ("dead.service", 1)]
    b.fake.on("GET", "/status/good.service", status=404, message="", times=1)  # A leader that does not know the path.
    b.expect(["status", "good"], 1, "", ["Error retrieving unit: ", "/status/good.service?lines=10 with status 404"])


def test_status_without_a_leader(b):
    b.fake.add("a.service", SERVICE, "launched")
    b.fake.hosts["a.service"] = [machine(0)]
    b.fake.on("GET", "/status/a.service", stale=False, status=503, message="no leader: none")
    b.expect(["status", "a"], 0, ["Active: active"], ["WARNING: no leader: none; what follows"])


def test_journal(b):
    b.fake.add("a.service", SERVICE, "launched")
    lines = [entry(1000000, "one"), entry(2500000, "two\nlines"), entry(3000000, [27, 91, 51, 109, 114, 0xff]),
             entry(4000000, [27, 91, 51, 109, 114, 101, 100]), entry(5000000, None), entry(6000000, "a\x07b")]
    answer = {"entries": lines, "machines": [machine(0)], "cursor": "c", "more": False}

    def journal(*args):
        b.fake.journals["a.service"] = [answer]
        return b.expect(["journal", *args, "a"], 0, None, "")[1]

    blob = "[6B blob data]\n"
    head = "Jan 01 00:00:0{} node1 sh[7]: "
    assert journal() == (head.format(1) + "one\n" + head.format(2) + "two\n    lines\n" + head.format(3) + blob +
                         head.format(4) + "red\n" + head.format(5) + "[too large]\n" + head.format(6) + "[3B blob data]\n")
    assert journal("-o", "cat") == "one\ntwo\nlines\n" + blob + "red\n[too large]\n[3B blob data]\n"
    assert journal("-o", "short-iso", "-n", "1").startswith("1970-01-01T00:00:06+0000 node1 sh[7]: ")
    assert journal("-o", "short-unix", "-n5").startswith("2.500000 node1 sh[7]: two\n")
    assert journal("-o", "short-precise", "--sudo", "--ssh-port=9").startswith("Jan 01 00:00:01.000000 node1")
    assert [json.loads(line) for line in journal("-o", "json").splitlines()] == lines
    queries = [entry[2] for entry in b.fake.requests("GET", "/journal/a.service")]
    assert queries[0] == {"lines": "10", "waitMs": "0"} and queries[-1]["fields"] == "all", queries


def test_journal_in_several_answers(b):
    b.fake.add("several.service", SERVICE, "launched")
    both = [machine(0), machine(1, error="it does not answer: suspected, nothing heard of it for 3 s")]
    b.fake.journals["several.service"] = [
        {"entries": [entry(1, "1"), entry(3, "3")], "machines": both, "cursor": "x:y=;z", "more": True},
        {"entries": [entry(2, "2"), entry(4, "4")], "machines": both, "cursor": "end", "more": False}]
    b.expect(["journal", "-n", "4", "-o", "cat", "several"], 1, "1\n2\n3\n4\n",
             "Machine node2 (bbbbbbbb): it does not answer: suspected, nothing heard of it for 3 s\n")
    assert [e[2].get("cursor") for e in b.fake.requests("GET", "/journal/several.service")] == [None, "x:y=;z"]


def test_journal_of_nothing(b):
    b.fake.add("a.service", SERVICE, "launched")
    b.expect(["journal"], 2, "", ["One unit file must be provided."])
    b.expect(["journal", "a", "b"], 2, "", ["One unit file must be provided."])
    b.expect(["journal", "nosuch"], 4, "", "Unit nosuch.service does not exist.\n")
    b.expect(["journal", "a"], 1, "", "Unit a.service does not appear to be running.\n")
    b.expect(["journal", "-n", "-1", "a"], 2, "", "--lines must not be negative\n")
    b.fake.on("GET", "/journal/a.service", status=503, message="no leader: none", times=1)
    b.expect(["journal", "a"], 1, "", "Error reading the journal of unit a.service: no leader: none\n")


def test_journal_follows(b):
    b.fake.add("a.service", SERVICE, "launched")
    one = {"machines": [machine(0)], "more": False}
    b.fake.journals["a.service"] = [{**one, "entries": [entry(1, "old")], "cursor": "c1"},
                                    {**one, "entries": [], "cursor": "c1"},
                                    {**one, "entries": [entry(2, "new")], "cursor": "c2"}]
    p = b.start("journal", "-f", "-o", "cat", "a")
    assert [p.stdout.readline(), p.stdout.readline()] == ["old\n", "new\n"]
    # It goes on: through a server that is away for a moment...
    b.fake.on("GET", "/journal/a.service", status=503, message="no leader: none", times=1)
    with b.fake.lock:
        b.fake.journals["a.service"] = [{**one, "entries": [entry(3, "again")], "cursor": "c3"}]
    assert p.stdout.readline() == "again\n"
    # ...and until it is told to stop.
    assert p.poll() is None
    p.send_signal(signal.SIGINT)
    _, err = p.communicate(timeout=20)
    assert p.returncode == -signal.SIGINT and "no leader: none (trying again for 30 s)" in err, (p.returncode, err)
    queries = [e[2] for e in b.fake.requests("GET", "/journal/a.service")]
    assert queries[0]["waitMs"] == "0" and int(queries[1]["waitMs"]) > 1000 and queries[1]["cursor"] == "c1", queries
    assert len(queries) < 12, "it asks again and again"


# --- waiting ---

def test_failed(b):
    b.file("x.service", SERVICE)
    b.file("y.service", SERVICE)
    b.fake.fates["x.service"] = {"state": "failed", "reason": "start job failed: exit-code", "hostname": "node2"}
    b.expect(["start", "x", "y"], 1, f"Unit y.service launched on {LEGEND}\n",
             f"Unit x.service failed on {LEGEND}: start job failed: exit-code (see: journalctl -u x.service on node2)\n")


def test_finished_and_no_block(b):
    b.file("x.service", SERVICE)
    b.fake.fates["x.service"] = {"state": "finished"}
    b.expect(["start", "--full", "x"], 0, "Unit x.service finished on aaaaaaaa0000000000000000000000aa/10.0.0.1\n", "")
    b.expect(["start", "x", "--no-block"], 0, "Triggered unit x.service start\n", "")
    assert len(b.fake.requests("POST", "/wait")) == 1


def test_unplaced(b):
    b.file("x.service", SERVICE)
    b.fake.fates["x.service"] = {"state": "unplaced", "reason": "none of 2 machines will do", "machines": [
        {"machineID": "1234abcd" * 4, "hostname": "node1", "reason": "MachineMetadata region=eu not met"},
        {"machineID": "5678abcd" * 4, "hostname": "node2", "reason": "is drained"}]}
    b.expect(["start", "x"], 1, "", "Unit x.service fits on no machine: none of 2 machines will do\n"
             "  node1 (1234abcd): MachineMetadata region=eu not met\n  node2 (5678abcd): is drained\n")


def test_global(b):
    b.file("g.service", SERVICE + "[X-Fleet]\nGlobal=true\n")
    b.fake.fates["g.service"] = {"machineID": "", "done": 2, "wanted": 2}
    b.expect(["start", "g"], 0,
             "Triggered global unit g.service start\nUnit g.service launched on 2/2 machines\n", "")
    b.expect(["stop", "g"], 0, "Triggered global unit g.service stop\nUnit g.service loaded on 2/2 machines\n",
             "Successfully stopped units [g.service].\n")
    b.fake.fates["g.service"] = {"machineID": "", "state": "failed", "done": 1, "wanted": 2, "reason": "1 of 2 failed",
                                 "hostname": "", "machinesLeftOut": 7,
                                 "machines": [{"machineID": "1234abcd", "hostname": "n1", "reason": "exit-code"}]}
    b.expect(["start", "g"], 1, "Triggered global unit g.service start\n",
             "Unit g.service failed: 1 of 2 failed (see: journalctl -u g.service)\n  n1 (1234abcd): exit-code\n"
             "  and 7 more machines (fleetctl explain g.service)\n")


def test_somebody_else_destroyed_it(b):
    b.file("x.service", SERVICE)
    b.fake.fates["x.service"] = {"state": "gone", "machineID": ""}
    b.expect(["start", "x"], 1, "", "Unit x.service is gone, not launched: somebody changed it meanwhile\n")


def test_deadline_says_why(b):
    b.file("x.service", SERVICE)
    b.fake.fates["x.service"] = {"settled": False, "state": "waiting", "reason": "node1 is starting it"}
    begin = time.monotonic()
    b.expect(["start", "--block-attempts=2", "x"], 1, "", "".join([
        "Waiting for x.service to be launched: node1 is starting it\n",
        "timed out waiting for unit x.service to report state launched: node1 is starting it\n",
        "The change itself goes on: fleetctl list-units and list-unit-files show how far it is.\n"]))
    assert 3.5 < time.monotonic() - begin < STUCK_S


def test_interrupt_stops_waiting_only(b):
    b.file("x.service", SERVICE)
    b.fake.fates["x.service"] = {"settled": False, "state": "waiting"}
    p = b.start("start", "x")
    while not b.fake.requests("POST", "/wait"):
        assert p.poll() is None
        time.sleep(0.01)
    p.send_signal(signal.SIGINT)
    out, err = p.communicate(timeout=STUCK_S)
    assert p.returncode == 130 and out == "", (p.returncode, out, err)
    assert err.startswith("Interrupted: no longer waiting for 1 unit (x.service).\nThe change itself goes on"), err


def test_leader_lost_while_waiting(b):
    b.file("x.service", SERVICE)
    b.fake.on("POST", "/wait", status=503, message="no leader: 1 of 3 voters", times=2)
    b.fake.on("POST", "/wait", close=True, times=1)
    b.expect(["start", "x"], 0, f"Unit x.service launched on {LEGEND}\n",
             "no leader: 1 of 3 voters (the change itself is made; trying again for 30 s to see what becomes of it)\n")


def test_wait_refused(b):
    b.file("x.service", SERVICE)
    b.fake.on("POST", "/wait", status=400, message="no such until")
    b.expect(["start", "x"], 1, "", ["Error waiting for units: no such until\n"])


# --- stop, unload, destroy ---

def test_stop_unknown_and_known(b):
    for n in "abc":
        b.fake.add(f"{n}.service", SERVICE, "launched")
    b.expect(["stop", "a", "nope", "b"], 4, f"Unit a.service loaded on {LEGEND}\nUnit b.service loaded on {LEGEND}\n",
             "Unit nope.service not found\nSuccessfully stopped units [a.service b.service].\n")
    assert b.fake.units["c.service"]["desiredState"] == "launched"
    b.expect(["unload", "a", "b"], 0, "Unit a.service inactive\nUnit b.service inactive\n",
             "Successfully unloaded units [a.service b.service].\n")
    b.expect(["stop", "a"], 1, "", "Unable to stop unit a.service in state inactive\n")
    b.expect(["stop", "nope"], 4, "", "Units not found in registry: nope.service\n")
    b.expect(["destroy", "a", "b"], 0, "Destroyed a.service\nDestroyed b.service\n", "")
    b.expect(["destroy", "--no-block", "c"], 0, "Destroyed c.service\n", "")
    assert b.fake.units == {}


def test_patterns(b):
    b.fake.add("web@.service", SERVICE)
    for n in ("web@1", "web@2", "db"):
        b.fake.add(f"{n}.service", SERVICE, "launched")
    b.expect(["stop", "web@*", "zz*"], 0, None,
             "No unit matches zz*\nSuccessfully stopped units [web@1.service web@2.service].\n")
    b.expect(["destroy", "web@[12]*"], 0, "Destroyed web@1.service\nDestroyed web@2.service\n", "")
    assert sorted(b.fake.units) == ["db.service", "web@.service"]
    b.expect(["list-unit-files", "--no-legend", "--fields=unit", "d?.service", "web*"], 0,
             "db.service\nweb@.service\n", "")


def test_stop_of_a_failed_unit_is_done(b):
    b.fake.add("x.service", SERVICE, "launched")
    b.fake.fates["x.service"] = {"state": "failed", "activeState": "failed"}
    b.expect(["stop", "x"], 0, f"Unit x.service loaded on {LEGEND}\n", "Successfully stopped units [x.service].\n")


# --- lists ---

def test_a_lost_machine_is_told_to_the_person(b):
    b.fake.machines = [dict(machine) for machine in b.fake.machines]
    b.fake.machines[1]["state"] = "lost"
    b.expect(["list-machines", "--no-legend", "--fields=ip"], 0, "10.0.0.1\n",
             "Machine bbbbbbbb... (node2) is lost and not listed; --fields=machine,hostname,state shows all\n")
    b.expect(["list-machines", "--no-legend", "--fields=hostname,state"], 0, "node1\tready\nnode2\tlost\n", "")
    assert '"state":"lost"' in b.run("list-machines", "--output=json")[1]


def test_what_waits_for_an_upgrade_is_told(b):
    b.fake.machines = [dict(machine, featureLevel=level) for machine, level in zip(b.fake.machines, (0, 1))]
    told = "What came with fleet 2.1.0 waits until node1 (2.0.0) is upgraded: this and that\n"
    b.expect(["list-machines", "--no-legend", "--fields=hostname,version,level"], 0, "node1\t2.0.0\t0\nnode2\t-\t1\n", told)
    assert [row["level"] for row in json.loads(b.run("list-machines", "--output=json")[1])] == [0, 1]
    b.fake.machines = [dict(machine, featureLevel=1) for machine in b.fake.machines]
    b.expect(["list-machines", "--no-legend", "--fields=hostname"], 0, "node1\nnode2\n", "")


def test_missing_machines_are_told_in_any_form(b):
    b.fake.machines = [dict(machine, state="missing") for machine in b.fake.machines]
    warning = ("WARNING: 2 of 2 machines are missing, all at once: their units are not started elsewhere until enough of "
               "them are back, or you say that they will not be (fleetctl confirm-lost MACHINE...)\n")
    b.expect(["list-machines", "--no-legend", "--fields=hostname,state"], 0, "node1\tmissing\nnode2\tmissing\n", warning)
    b.expect(["list-machines", "--output=json"], 0, ['"state":"missing"'], warning)
    b.expect(["list-machines", "--no-legend"], 0, "", [warning, "Machine bbbbbbbb... (node2) is missing and not listed"])


# --- machines ---


def test_machines_are_named_by_id_prefix_and_host_name(b):
    ids = [machine["id"] for machine in b.fake.machines]
    for path, verb, availability in (("/availability", "cordon", "cordoned"), ("/availability", "uncordon", "active"),
                                     ("/availability", "undrain", "active")):
        b.fake.on("POST", path, json={})
        b.expect([verb, "node1", "bbbb", ids[1]], 0, [f"Machine {LEGEND} ", "Machine bbbbbbbb... "], "")
        assert b.fake.requests("POST", path)[-1][3] == {"machines": ids, "availability": availability}
    b.fake.on("POST", "/confirm-lost", status=204)
    b.expect(["confirm-lost", "--full", "node2"], 0, f"Machine {ids[1]} is lost: its units are placed on others\n", "")
    assert b.fake.requests("POST", "/confirm-lost")[-1][3] == {"machines": [ids[1]]}


def test_a_machine_that_is_not_there_changes_nothing(b):
    for verb in ("cordon", "uncordon", "drain", "undrain", "confirm-lost"):
        b.expect([verb, "node1", "node7"], 4, "", 'there is no machine "node7" (fleetctl list-machines)\n')
        b.expect([verb, ""], 4, "", 'there is no machine "" (fleetctl list-machines)\n')
        b.expect([verb], 2, "", ["No machines given"])
    b.fake.machines = [dict(machine, hostname="same") for machine in b.fake.machines]
    b.expect(["drain", "same"], 1, "", '"same" is more than one machine\n')
    assert not b.fake.requests("POST", "/availability") and not b.fake.requests("POST", "/confirm-lost")


# --- backup ---

BACKUP = {"id": "0123456789abcdef", "cluster": "c" * 32, "made": "2026-07-29T12:00:03Z", "version": "2.0", "host": "node1",
          "changes": 77, "units": 3, "contents": 2, "machines": 1, "size": 10}


def backup_piece(offset, data):
    return {"offset": offset, "data": base64.b64encode(data).decode()}


def test_backup_is_fetched_in_pieces(b):
    path = os.path.join(b.folder, "cluster.backup")
    b.fake.on("GET", "/backup", json=BACKUP)
    b.fake.on("GET", "/backup/0123456789abcdef", json=backup_piece(0, b"01234"), times=1)
    b.fake.on("GET", "/backup/0123456789abcdef", json=backup_piece(5, b"56789"), times=1)
    says = (f"3 units, 1 machines, as of 2026-07-29T12:00:03Z (change 77), cluster {'c' * 32}, by node1 (fleet 2.0)\n")
    old = open(path, "w")  # Whatever has that name is replaced, whoever has it open.
    b.expect(["backup", path], 0, f"{path} written: {says}", "")
    assert os.fstat(old.fileno()).st_nlink == 0
    assert [request[2]["offset"] for request in b.fake.requests("GET", "/backup/0123456789abcdef")] == ["0", "5"]
    assert os.stat(path).st_mode & 0o777 == 0o600
    content = open(path, "rb").read()
    head, _, tail = content.partition(b"\n\n")
    assert head.startswith(b"fleet-backup 1\ncluster: cccc") and b"\nsize: 10" in head
    assert tail == b"0123456789sha256: " + hashlib.sha256(content[:-73]).hexdigest().encode() + b"\n"
    assert os.listdir(b.folder).count("cluster.backup") == len([n for n in os.listdir(b.folder) if n.startswith("cluster")]) == 1

    b.expect(["backup", "--verify", path], 0, f"{path} is whole: {says}", "")
    open(path, "wb").write(content[:-80] + b"X" + content[-79:])
    b.expect(["backup", "--verify", path], 1, "", f"{path} is damaged: its checksum does not match\n")
    open(path, "wb").write(content[:-1])
    b.expect(["backup", "--verify", path], 1, "", f"{path} is damaged: it ends too early\n")
    b.expect(["backup", "--verify", "/etc/hostname"], 1, "", "/etc/hostname is no backup of fleet's\n")
    open(path, "wb").write(content.replace(b"fleet-backup 1", b"fleet-backup 2").replace(b"version: 2.0", b"version: 9.9"))
    b.expect(["backup", "--verify", path], 1, "", ["was written by fleet 9.9", "use fleet 9.9 or later"])


def test_backup_to_standard_output(b):
    b.fake.on("GET", "/backup", json=BACKUP)
    b.fake.on("GET", "/backup/0123456789abcdef", json=backup_piece(0, b"abcdefghij"))
    b.expect(["backup", "-"], 0, ["fleet-backup 1\n", "\n\nabcdefghijsha256: "], ["backup written: 3 units"])


def test_backup_begins_anew_with_another_leader(b):
    path = os.path.join(b.folder, "cluster.backup")
    b.fake.on("GET", "/backup", json=BACKUP)
    b.fake.on("GET", "/backup/0123456789abcdef", json=backup_piece(0, b"01234"), times=1)
    b.fake.on("GET", "/backup/0123456789abcdef", status=404, message="there is no such backup (any more)", times=1)
    b.fake.on("GET", "/backup/0123456789abcdef", json=backup_piece(0, b"0123456789"))
    b.expect(["backup", path], 0, [" written: 3 units"], "")
    b.expect(["backup", "--verify", path], 0, [" is whole: "], "")


def test_backup_that_fails_leaves_the_old_one(b):
    path = os.path.join(b.folder, "cluster.backup")
    open(path, "w").write("the old one")
    for answer in (dict(status=503, message="no leader: nobody answers"), dict(status=429, message="4 backups"),
                   dict(json=dict(BACKUP, size=0)), dict(json=dict(BACKUP, host="two\nlines")), dict(json={}),
                   dict(json=dict(BACKUP, size=1 << 40))):
        b.fake.on("GET", "/backup", times=1, **answer)
        b.expect(["backup", path], 1, "", [f"Error making a backup in {path}: "])
    b.fake.on("GET", "/backup", status=404, message="", times=1)
    b.expect(["backup", path], 1, "", ["the leader's fleetd is too old to make a backup"])
    for piece in (backup_piece(1, b"01234"), backup_piece(0, b""), backup_piece(0, b"01234567890"), {},
                  {"offset": 0, "data": "???="}):
        b.fake.on("GET", "/backup", json=BACKUP, times=1)
        b.fake.on("GET", "/backup/0123456789abcdef", json=piece, times=1)
        b.expect(["backup", path], 1, "", [f"Error making a backup in {path}: "])
    b.expect(["backup", b.folder], 1, "", f"Error making a backup in {b.folder}: {b.folder} is no file; - is standard output\n")
    b.expect(["backup", "/nowhere/at/all"], 1, "", ["No such file or directory"])
    b.expect(["backup"], 2, "", ["One file must be provided"])
    assert open(path).read() == "the old one"
    assert [n for n in os.listdir(b.folder) if n.startswith("cluster")] == ["cluster.backup"]


def test_drain_waits_until_all_have_left(b):
    b.fake.add("a.service", SERVICE, "launched")
    b.fake.add("b.service", SERVICE, "launched")
    b.fake.on("POST", "/availability", json={"units": ["a.service", "b.service"]})
    b.expect(["drain", "node2"], 0, f"Unit a.service active on {LEGEND}\nUnit b.service active on {LEGEND}\n"
             "Machine bbbbbbbb... drained\n", "")
    b.fake.fates["b.service"] = {"machineID": b.fake.machines[1]["id"], "machineIP": "", "reason": "it fits nowhere else"}
    b.expect(["drain", "node2"], 1, f"Unit a.service active on {LEGEND}\n",
             "Unit b.service stays on bbbbbbbb...: it fits nowhere else\n")
    b.fake.fates["b.service"] = {"settled": False, "reason": "node2 still stops it"}
    b.expect(["drain", "--deadline=200ms", "node2"], 1, f"Unit a.service active on {LEGEND}\n",
             ["timed out waiting for unit b.service to report state elsewhere"])
    b.expect(["drain", "--no-block", "node2"], 0, "Machine bbbbbbbb... is being drained\n", "")


def members(leader, *roles, doing=""):
    ids = [machine["id"] for machine in fake_fleetd.MACHINES]
    return {"members": [{"machineID": id, "role": role, "leader": number == leader}
                        for number, (id, role) in enumerate(zip(ids, roles))], "doing": doing}


def test_votes_are_wished_and_waited_for(b):
    ids = [machine["id"] for machine in b.fake.machines]
    b.fake.on("POST", "/members", status=204)
    b.fake.on("GET", "/members", times=2, json=members(0, "voter", "standby"))
    b.fake.on("GET", "/members", times=1, status=503, message="no leader: x")
    b.fake.on("GET", "/members", json=members(0, "voter", "voter"))
    b.expect(["promote", "node2", "bbbb"], 0, "Machine bbbbbbbb... votes\n", "")
    assert b.fake.requests("POST", "/members")[-1][3] == {"machines": [ids[1]], "preference": "voter"}
    assert len(b.fake.requests("GET", "/members")) == 4
    b.fake.rules.pop()
    b.fake.on("GET", "/members", json=members(1, "host", "voter", doing="x keeps its vote for now"))
    b.expect(["demote", "node1"], 0, f"Machine {LEGEND} does not vote\n", "")
    assert b.fake.requests("POST", "/members")[-1][3] == {"machines": [ids[0]], "preference": "never"}
    b.expect(["demote", "--deadline=300ms", "node2"], 1, "",
             "timed out waiting for it: x keeps its vote for now (it goes on: fleetctl list-members)\n")
    asked = len(b.fake.requests("GET", "/members"))
    b.expect(["promote", "--no-block", "node1"], 0, f"Machine {LEGEND} is to vote\n", "")
    b.expect(["demote", "--automatic", "node1"], 0,
             f"Machine {LEGEND} votes or does not vote as the cluster needs it\n", "")
    assert b.fake.requests("POST", "/members")[-1][3] == {"machines": [ids[0]], "preference": "automatic"}
    assert len(b.fake.requests("GET", "/members")) == asked


def test_a_wish_that_is_refused(b):
    b.fake.on("POST", "/members", status=409, message="that would leave 1 voter of 3")
    b.expect(["demote", "node1"], 1, "", "Error changing who votes: that would leave 1 voter of 3\n")
    for verb in ("promote", "demote"):
        b.expect([verb, "node1", "node7"], 4, "", 'there is no machine "node7" (fleetctl list-machines)\n')
        b.expect([verb], 2, "", ["No machines given"])
    assert len(b.fake.requests("POST", "/members")) == 1


def test_leadership_is_transferred(b):
    ids = [machine["id"] for machine in b.fake.machines]
    b.fake.on("POST", "/leadership", json={"leader": ids[0]})
    b.fake.on("GET", "/members", times=2, json=members(0, "voter", "voter"))
    b.fake.on("GET", "/members", times=1, json=members(None, "voter", "voter"))
    b.fake.on("GET", "/members", json=members(1, "voter", "voter"))
    b.expect(["transfer-leadership", "node2"], 0, "Machine bbbbbbbb... leads now\n", "")
    assert b.fake.requests("POST", "/leadership")[-1][3] == {"from": ids[0], "to": ids[1]}
    b.expect(["transfer-leadership", "node2"], 0, "Machine bbbbbbbb... leads already\n", "")
    assert len(b.fake.requests("POST", "/leadership")) == 1
    b.expect(["transfer-leadership", "--deadline=300ms"], 1, "",
             "timed out waiting for it (it goes on: fleetctl list-members)\n")
    assert b.fake.requests("POST", "/leadership")[-1][3] == {"from": ids[1]}
    b.expect(["transfer-leadership", "node1", "--no-block"], 0, "Machine bbbbbbbb... hands leadership over\n", "")
    b.expect(["transfer-leadership", "node7"], 4, "", 'there is no machine "node7" (fleetctl list-machines)\n')
    b.expect(["transfer-leadership", "node1", "node2"], 2, "", None)
    b.fake.rules = [rule for rule in b.fake.rules if rule["path"] != "/leadership"]
    b.fake.on("POST", "/leadership", status=409, message="node1 cannot lead: it does not vote")
    b.expect(["transfer-leadership", "node1"], 1, "",
             "Error transferring leadership: node1 cannot lead: it does not vote\n")


def test_lists_to_the_byte(b):
    b.expect(["list-machines"], 0, "MACHINE\t\tIP\t\tMETADATA\n"
             "aaaaaaaa...\t10.0.0.1\tdisk=ssd,zone=b\nbbbbbbbb...\t-\t\t-\n", "")
    b.expect(["list-machines", "--no-legend", "--full", "--fields", "machine"], 0,
             "aaaaaaaa0000000000000000000000aa\nbbbbbbbb0000000000000000000000bb\n", "")
    b.fake.states = [{"name": "hello.service", "hash": "0123456789" * 4, "machineID": "aaaaaaaa0000000000000000000000aa",
                      "systemdLoadState": "loaded", "systemdActiveState": "active", "systemdSubState": "running"},
                     {"name": "z.service", "machineID": "c" * 32, "systemdActiveState": "failed"}]
    b.expect(["list-units"], 0, "UNIT\t\tMACHINE\t\t\tACTIVE\tSUB\n"
             "hello.service\taaaaaaaa.../10.0.0.1\tactive\trunning\nz.service\tcccccccc...\t\tfailed\t-\n", "")
    b.expect(["list-units", "--no-legend", "--fields", "unit,load,hash"], 0,
             "hello.service\tloaded\t0123456\nz.service\t-\t-\n", "")
    b.fake.add("g.service", "[X-Fleet]\nGlobal=true\n[Unit]\nDescription=About all\n", "launched")
    b.fake.add("p.service", SERVICE, "launched", machine="aaaaaaaa0000000000000000000000aa")
    b.expect(["list-unit-files", "--fields", "unit,dstate,state,target,global,desc"], 0,
             "UNIT\t\tDSTATE\t\tSTATE\t\tTARGET\t\t\tGLOBAL\tDESC\n"
             "g.service\tlaunched\t-\t\tglobal\t\t\ttrue\tAbout all\n"
             f"p.service\tlaunched\tlaunched\t{LEGEND}\tfalse\t-\n", "")
    b.expect(["list-unit-files", "--fields", "tmachine", "--no-legend"], 0, None,
             'WARNING: The "tmachine" field is deprecated. Use "target" instead\n')


def test_lists_json(b):
    b.fake.add("p.service", SERVICE, "launched", machine="aaaaaaaa0000000000000000000000aa")
    rows = json.loads(b.run("list-unit-files", "-o", "json")[1])
    assert rows[0]["unit"] == "p.service" and rows[0]["hostname"] == "node1" and rows[0]["global"] is False, rows
    rows = json.loads(b.run("list-machines", "--output=json-pretty")[1])
    assert [r["machine"][:1] for r in rows] == ["a", "b"] and rows[0]["metadata"] == {"zone": "b", "disk": "ssd"}
    assert json.loads(b.run("list-units", "-o", "json")[1]) == []


def test_list_fields_are_checked_first(b):
    b.expect(["list-units", "--fields", ""], 2, "", "Must define output format\n")
    b.expect(["list-units", "--fields", "unit,Machine"], 2, "", 'Invalid key in output format: "Machine"\n')
    b.expect(["list-units", "--fields", "unit,,sub"], 2, "", 'Invalid key in output format: ""\n')
    b.expect(["list-units", "--fields", "unit,"], 2, "", 'Invalid key in output format: ""\n')
    assert b.fake.log == []


def test_paging(b):
    for i in range(250):
        b.fake.add(f"u{i:03}.service", OTHER)
    for page, requests in ((100, 3), (50, 6), (1, 251)):
        b.fake.page, b.fake.log = page, []
        _, out, _ = b.run("list-unit-files", "--no-legend", "--fields=unit")
        assert out.split() == [f"u{i:03}.service" for i in range(250)]
        assert len(b.fake.log) == requests
    b.fake.on("GET", "/units", json={"units": [], "nextPageToken": "x"})
    b.expect(["list-unit-files"], 1, "", ["do not go on"])


def test_huge_answer(b):
    units = [{"name": f"u{i:05}.service", "desiredState": "inactive", "hash": "0" * 40, "options": [
        {"section": "Service", "name": "Environment", "value": "x" * 500}]} for i in range(20000)]
    b.fake.on("GET", "/units", json={"units": units})
    code, out, err = b.run("list-unit-files", "--no-legend", "--fields=unit")
    assert code == 0 and out.count("\n") == 20000, err
    b.fake.rules = []
    b.fake.on("GET", "/units", raw=b" " * (65 * 1024 * 1024))
    b.expect(["list-unit-files"], 1, "", ["is larger than 64 MiB"])


def test_stale_reads(b):
    b.fake.on("GET", "/machines", stale=False, status=503, message="no leader: 1 of 3 voters is here")
    b.expect(["list-machines", "--no-legend", "--fields=ip"], 0, "10.0.0.1\n-\n",
             "WARNING: no leader: 1 of 3 voters is here; what follows is what this host knows, and may be out of date\n")
    assert b.fake.log[1][2] == {"lost": "yes", "stale": "yes"}
    b.fake.add("a.service", SERVICE)
    b.fake.on("GET", "/units/a.service", stale=False, status=503, message="no leader: x")
    assert b.run("cat", "a")[:2] == (0, SERVICE)
    b.expect(["stop", "a"], 1, "", "Error stopping units: no leader: x\n")


def test_no_cluster(b):
    b.fake.on("GET", "/units", status=503, message="this host belongs to no cluster yet: fleetctl init or join")
    b.expect(["list-unit-files"], 1, "", "Error retrieving list of units from repository: "
             "this host belongs to no cluster yet: fleetctl init or join\n")


def test_members_and_explain(b):
    b.fake.on("GET", "/members", json={"members": [
        {"machineID": "a" * 32, "hostname": "n1", "serverID": "1f", "address": "n1:7390", "role": "voter", "leader": True,
         "state": "ready", "preference": "automatic", "value": "z"},
        {"machineID": "b" * 32, "hostname": "n2", "serverID": "2f", "address": "n2:7390", "role": "host", "leader": False,
         "state": "ready", "preference": "never", "leaving": True}], "doing": "from 1 to 3 voters"})
    b.expect(["list-members"], 0, "MACHINE\t\tHOSTNAME\tROLE\tLEADER\tSTATE\tPREFERENCE\tSPREAD\n"
             "aaaaaaaa...\tn1\t\tvoter\tyes\tready\tautomatic\tz\nbbbbbbbb...\tn2\t\t-\tno\tready\tleaves\t\t-\n",
             "Voters: from 1 to 3 voters\n")
    b.expect(["list-members", "--no-legend", "--fields=address,server"], 0, "n1:7390\t1f\nn2:7390\t2f\n",
             "Voters: from 1 to 3 voters\n")
    assert json.loads(b.run("list-members", "-o", "json")[1])[1]["role"] == "host"
    b.fake.on("GET", "/explain/x.service", json={"name": "x.service", "target": "b" * 32, "reason": "fewest units", "machines": [
        {"machineID": "a" * 32, "hostname": "n1", "units": 3, "reason": "conflicts with y.service"},
        {"machineID": "b" * 32, "hostname": "n2", "units": 0, "reason": ""}]})
    b.expect(["explain", "x"], 0, ["x.service is on bbbbbbbb...: fewest units\n",
                                   "aaaaaaaa...\tn1\t\t3\tconflicts with y.service\n", "bbbbbbbb...\tn2\t\t0\truns here\n"], "")
    assert json.loads(b.run("explain", "x", "-o", "json")[1])["target"] == "b" * 32
    b.expect(["explain", "y"], 4, "", "Unit y.service not found\n")


# --- settings ---


def test_settings_are_listed(b):
    b.expect(["list-settings"], 0, "NAME\t\t\tVALUE\tDEFAULT\tMEANING\n"
             "failure_limit_burst\t0\t0\tAfter so many failures\nvoters\t\t\t5\t5\tHow many hosts vote\n", "")
    b.expect(["list-settings", "--no-legend", "--fields=name,limits"], 0,
             "failure_limit_burst\t0 to 32\nvoters\t\t\t1, 3, 5 or 7\n", "")
    assert json.loads(b.run("list-settings", "-o", "json")[1])[1] == fake_fleetd.SETTINGS[1]
    b.expect(["list-settings", "--fields=unit"], 2, "", 'Invalid key in output format: "unit"\n')
    b.expect(["list-settings", "voters"], 2, "", None)
    b.fake.on("GET", "/settings", stale=False, status=503, message="no leader: x")
    b.expect(["list-settings", "--no-legend", "--fields=value"], 0, "0\n5\n", ["WARNING: no leader: x"])


def test_set(b):
    b.expect(["set", "voters=3", "failure_limit_burst=2"], 0, "failure_limit_burst=2\nvoters=3\n", "")
    b.expect(["set", "voters="], 0, "voters=5\n", "")
    bodies = [entry[3] for entry in b.fake.requests("PATCH", "/settings")]
    assert bodies == [{"settings": {"voters": "3", "failure_limit_burst": "2"}}, {"settings": {"voters": None}}], bodies
    # A value may have a "=" of its own.
    b.expect(["set", "voters=a=b"], 0, "voters=a=b\n", "")


def test_set_that_is_refused(b):
    for args, err in ((["set"], "No settings given"), (["set", "voters"], '"voters" is no NAME=VALUE\n'),
                      (["set", "voters=3", "=3"], '"=3" is no NAME=VALUE\n'), (["set", ""], '"" is no NAME=VALUE\n'),
                      (["set", "voters=3", "voters="], "voters is given twice\n")):
        b.expect(args, 2, "", [err])
    b.expect(["set", b"voters=\xff"], 2, "", "A setting that is not UTF-8 is given\n")
    assert not b.fake.log
    b.expect(["set", "votes=3"], 1, "", 'Error changing the cluster\'s settings: there is no setting "votes"\n')
    b.fake.on("PATCH", "/settings", status=503, message="no leader: x", times=1)
    b.expect(["set", "voters=3"], 1, "", "Error changing the cluster's settings: no leader: x\n")


def test_settings_of_an_old_cluster(b):
    b.fake.on("PATCH", "/settings", status=404, message="")
    b.fake.on("GET", "/settings", status=404, message="")
    said = "the fleetd that leads has no settings yet: upgrade it\n"
    b.expect(["set", "voters=3"], 1, "", "Error changing the cluster's settings: " + said)
    b.expect(["list-settings"], 1, "", "Error retrieving the cluster's settings: " + said)


# --- errors at the edge ---

def test_nobody_there(b):
    b.expect(["--endpoint", "unix:///nonexistent/sock", "cat", "a"], 1, "",
             "Error retrieving Unit a.service: cannot reach fleetd at /nonexistent/sock: No such file or directory. "
             "Is fleetd running? (systemctl status fleetd)\n")
    dead = os.path.join(b.folder, "dead")
    with socket.socket(socket.AF_UNIX) as s:
        s.bind(dead)
    b.expect(["--endpoint", "unix://" + dead, "cat", "a"], 1, "", ["Connection refused. Is fleetd running?"])
    b.expect(["--endpoint", "http://127.0.0.1:1", "cat", "a"], 1, "", ["Connection refused", "api_listen"])


def test_errors_of_the_server(b):
    for what, text in (
            (dict(status=400, message="bad\nthing\x1b[1m"), "bad thing [1m\n"),
            (dict(status=500, message=""), "answered GET /fleet/v1/units/a.service with status 500\n"),
            (dict(status=500, raw=b"<html>no"), "with status 500\n"),
            (dict(status=200, raw=b"{\"name\": "), "is not a JSON object\n"),
            (dict(status=200, raw=b"[1]"), "is not a JSON object\n"),
            (dict(status=200, raw=b"\xff\xfe"), "is not a JSON object\n"),
            (dict(status=200), "answered GET /fleet/v1/units/a.service with nothing\n"),
            (dict(status=301), "with status 301\n"),
            (dict(close=True), "broke before there was an answer"),
            (dict(close=True, raw=b"garbage\r\n\r\n"), "does not speak HTTP"),
            (dict(close=True, raw=b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"), "broke before")):
        b.fake.rules = []
        b.fake.on("GET", "/units/a.service", **what)
        _, _, err = b.expect(["cat", "a"], 1, "", ["Error retrieving Unit a.service: ", text])
        assert err.count("\n") == 1, err


def test_odd_answers_are_survived(b):
    for obj in ({"units": [1, None, {}, {"name": 5, "options": {"a": 1}}, {"name": "x", "options": [None, {"name": 1}]}]},
                {"units": None}, {"units": "x"}, {}):
        b.fake.rules = []
        b.fake.on("GET", "/units", json=obj)
        for args in (["list-unit-files"], ["list-unit-files", "-o", "json"], ["stop", "*"]):
            code, _, err = b.run(*args)
            assert code in (0, 1, 4), (obj, args, code, err)
    b.fake.rules = []
    b.file("a.service", SERVICE)
    b.fake.on("POST", "/units", json={"units": [{"name": "a.service", "generation": "7"}, 3]})
    b.fake.on("POST", "/wait", json={"units": [3, {"name": "b"}, {"name": "a.service", "settled": True, "state": 1}]})
    b.expect(["start", "a"], 1, "", None)


def test_slow_server(b):
    b.fake.on("GET", "/units/a.service", sleep=20, status=500)
    begin = time.monotonic()
    b.expect(["--request-timeout=0.5", "cat", "a"], 1, "", ["no answer from fleetd at", "within 0.5 s"])
    assert time.monotonic() - begin < STUCK_S
    b.file("n.service", SERVICE)
    b.fake.on("POST", "/units", sleep=20, status=500)
    b.expect(["--request-timeout=0.5", "submit", "n"], 1, "",
             ["within 0.5 s; the outcome is unknown, and it is safe to repeat the command\n"])


def test_usage(b):
    for args in (["stop"], ["cat"], ["cat", "a", "b"], ["nonsense"], ["list-"], ["--bogus"], ["cat", "-x", "a"],
                 ["list-units", "--replace"], ["help", "nonsense"], ["submit", "--no-block", "a"]):
        _, _, err = b.expect(args, 2, "", None)
        assert err.count("\n") == 1, err
    b.expect(["start"], 2, "", ["No units given"])
    b.expect(["version"], 0, ["fleetctl version "], "")
    for args in ([], ["help"], ["-h"], ["help", "start"], ["start", "--help"]):
        b.expect(args, 0, ["NAME:\n\tfleetctl", "OPTIONS:\n"], "")
    assert b.fake.log == []


def test_stdout_that_cannot_be_written(b):
    with open("/dev/full", "w") as full:
        code, _, err = b.run("list-machines", stdout=full)
    assert code == 1 and err == "cannot write to stdout: No space left on device\n", (code, err)
    p = subprocess.run(["sh", "-c", 'exec "$0" list-machines >&-', b.program], capture_output=True, text=True,
                       env=dict(os.environ, FLEETCTL_ENDPOINT="unix://" + b.socket, LC_ALL="C"), timeout=60)
    assert p.returncode == 1 and p.stderr == "cannot write to stdout: Bad file descriptor\n", p


def main():
    # A shell's background commands ignore it, and so would the fleetctl that a test interrupts.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    bench = Bench(sys.argv[1])
    passed, failed = 0, 0
    modules = (test_access, test_completions, test_membership, test_remote, test_rules)
    tests = {**globals(), **{name: value for module in modules for name, value in vars(module).items()}}
    for name, test in sorted(tests.items()):
        if not name.startswith("test_") or not callable(test) or (sys.argv[2:] and not any(part in name for part in sys.argv[2:])):
            continue
        try:
            test(bench)
            passed += 1
        except Skip as reason:
            print(f"skipped {name}: {reason}")
        except Exception:
            failed += 1
            print(f"FAILED {name}\n{traceback.format_exc()}")
        bench.clean()
    bench.fake.stop()
    shutil.rmtree(bench.folder)
    print(f"{passed} passed, {failed} failed")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
