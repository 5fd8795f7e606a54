# SPDX-License-Identifier: Apache-2.0
"""init, join, join-token, remove-machine against the pretend fleetd. Run by test_ctl.py."""

import json

CLUSTER = "0123456789abcdef0123456789abcdef"
MACHINE = "aaaaaaaa0000000000000000000000aa"
TOKEN = "fleet1." + "A" * 43
TOKENS = [
    {"id": "1111111111111111", "state": "valid", "created": 1_700_000_000_000, "expires": 1_700_003_600_000, "used": 2},
    {"id": "2222222222222222", "state": "used up", "created": 1_700_000_000_000, "expires": 1_700_003_600_000, "uses": 3,
     "used": 3},
]


def bodies(b, method, path):
    return [entry[3] for entry in b.fake.requests(method, path)]


# --- init ---

def test_init(b):
    b.fake.on("POST", "/init", json={"cluster": CLUSTER, "machineID": MACHINE, "machines": 1})
    b.expect(["init"], 0, f"Started cluster 01234567...; this host ({MACHINE}) is its first machine\n", "")
    b.expect(["init", "--voters=3", "--full"], 0, [f"Started cluster {CLUSTER}; "], "")
    assert bodies(b, "POST", "/init") == [{}, {"voters": 3}]


def test_init_refused(b):
    b.fake.on("POST", "/init", status=409, message=f"this host is a member of cluster {CLUSTER} already")
    b.expect(["init"], 1, "", f"Error starting a cluster: this host is a member of cluster {CLUSTER} already\n")
    b.expect(["init", "x"], 2, "", None)
    b.expect(["init", "--voters=many"], 2, "", ['--voters: "many" is not a number'])
    b.expect(["start", "--voters=3", "x"], 2, "", "fleetctl start: there is no option --voters\n")


# --- join ---

def test_join(b):
    b.file("token", TOKEN + "\n")
    b.fake.on("POST", "/join", json={"cluster": CLUSTER, "machineID": MACHINE, "machines": 3})
    said = f"Joined cluster 01234567... as machine {MACHINE}; it has 3 machines now\n"
    b.expect(["join", "10.0.0.1", "10.0.0.2:7000", "[fd77::1]", "[fd77::1]:7001", "node1", "--token-file", "token"], 0, said, "")
    b.expect(["join", "10.0.0.1", "--token-file=-", "--deadline=5s"], 0, said, "", stdin=f"{TOKEN}\r\n")
    b.expect(["join", "10.0.0.1"], 0, said, "")
    assert bodies(b, "POST", "/join") == [
        {"addresses": ["10.0.0.1:7390", "10.0.0.2:7000", "[fd77::1]:7390", "[fd77::1]:7001", "node1:7390"],
         "token": TOKEN, "timeoutMS": 30000},
        {"addresses": ["10.0.0.1:7390"], "token": TOKEN, "timeoutMS": 5000},
        {"addresses": ["10.0.0.1:7390"], "timeoutMS": 30000}], b.fake.log


def test_join_with_a_token_that_is_none(b):
    b.file("empty", "\n" + TOKEN)
    b.file("binary", b"\xff\xfe\n")
    cannot = "Error joining: "
    b.expect(["join", "h", "--token-file=empty"], 1, "", cannot + "there is no token in empty\n")
    b.expect(["join", "h", "--token-file=-"], 1, "", cannot + "there is no token in standard input\n")
    b.expect(["join", "h", "--token-file=nowhere"], 1, "", cannot + "cannot read the token from nowhere: No such file or directory\n")
    b.expect(["join", "h", "--token-file=."], 1, "", cannot + "cannot read the token from .: Is a directory\n")
    b.expect(["join", "h", "--token-file=binary"], 1, "", cannot + "the token is not even text\n")
    b.expect(["join", "--token-file=empty"], 2, "", ["No addresses of members given"])
    code, out, err = b.run("join", "h", "--token-file", TOKEN)  # The whole computer could see it, and now the log, too.
    assert (code, out) == (2, "") and "wants a file, not the token" in err and TOKEN not in err, err
    assert not b.fake.log


def test_join_says_why_not(b):
    b.file("token", TOKEN)
    for status, why in ((403, "10.0.0.1:7390: the join token 1111111111111111 expired 5 s ago"),
                        (504, "no answer that could be used in time; the last trouble: 10.0.0.9:7390: host is unreachable"),
                        (409, f"this host is a member of cluster {CLUSTER} already")):
        b.fake.rules = []
        b.fake.on("POST", "/join", status=status, message=why)
        b.expect(["join", "10.0.0.1", "--token-file=token"], 1, "", f"Error joining: {why}\n")


def test_join_is_patient(b):
    b.fake.on("POST", "/join", sleep=1.5, json={"cluster": CLUSTER, "machineID": MACHINE, "machines": 1})
    b.expect(["--request-timeout=1", "join", "h"], 0, ["it has 1 machine now\n"], "")


# --- join-token ---

def test_join_token_is_printed_alone(b):
    b.fake.on("POST", "/join-tokens", json=dict(TOKENS[0], token=TOKEN))
    b.expect(["join-token"], 0, TOKEN + "\n", "")
    b.expect(["join-token", "--ttl=2h", "--uses=3"], 0, TOKEN + "\n", "")
    assert bodies(b, "POST", "/join-tokens") == [{}, {"ttl": "2h", "uses": 3}]
    # Also with --debug nobody reads it on the side.
    assert TOKEN not in b.run("--debug", "join-token")[2]


def test_join_token_refused(b):
    b.fake.on("POST", "/join-tokens", status=400, message='ttl: "soon" is no duration')
    b.expect(["join-token", "--ttl=soon"], 1, "", 'Error making a join token: ttl: "soon" is no duration\n')
    b.fake.rules = []
    b.fake.on("POST", "/join-tokens", json={"id": "1111111111111111"})
    b.expect(["join-token"], 1, "", "Error making a join token: fleetd's answer holds none\n")
    for args in (["--uses=-1"], ["--list", "--revoke=1"], ["--list", "--ttl=1h"], ["--revoke=1", "--uses=2"], ["x"]):
        b.expect(["join-token", *args], 2, "", None)


def test_join_tokens_are_listed(b):
    b.fake.on("GET", "/join-tokens", json={"tokens": TOKENS})
    b.expect(["join-token", "--list"], 0, "ID\t\t\tSTATE\tEXPIRES\t\t\tUSED\n"
             "1111111111111111\tvalid\t2023-11-14 23:13:20\t2\n2222222222222222\tused up\t2023-11-14 23:13:20\t3 of 3\n", "")
    b.expect(["join-token", "--list", "--no-legend", "--fields=created"], 0, "2023-11-14 22:13:20\n" * 2, "")
    assert json.loads(b.run("join-token", "--list", "-o", "json")[1])[0] == dict(TOKENS[0], uses=0)
    b.fake.rules = []
    b.fake.on("GET", "/join-tokens", json={})
    b.expect(["join-token", "--list", "--no-legend"], 0, "", "")


def test_join_token_is_revoked(b):
    b.fake.on("DELETE", "/join-tokens/1111111111111111", status=204)
    b.expect(["join-token", "--revoke=1111111111111111"], 0, "Join token 1111111111111111 revoked\n", "")
    b.fake.on("DELETE", "/join-tokens/x/y", status=404, message="join token x/y does not exist")
    b.expect(["join-token", "--revoke=x/y"], 1, "", "Error revoking the join token: join token x/y does not exist\n")


# --- remove-machine ---

def test_remove_machine(b):
    b.fake.on("DELETE", f"/machines/{MACHINE}", status=204)
    other = "bbbbbbbb0000000000000000000000bb"
    b.fake.on("DELETE", f"/machines/{other}", status=409, message="machine node2 has 1 unit: drain it first")
    b.expect(["remove-machine", "node1"], 0, "Machine aaaaaaaa.../10.0.0.1 removed\n", "")
    # One that stays is no reason for the others to stay.
    b.expect(["remove-machine", "node2", "aaaa"], 1, "Machine aaaaaaaa.../10.0.0.1 removed\n",
             "Error removing machine bbbbbbbb...: machine node2 has 1 unit: drain it first\n")
    b.expect(["remove-machine", "--force", MACHINE], 0, [" removed\n"], "")
    assert [entry[1:3] for entry in b.fake.log if entry[0] == "DELETE"] == [
        (f"/machines/{MACHINE}", {}), (f"/machines/{other}", {}), (f"/machines/{MACHINE}", {}),
        (f"/machines/{MACHINE}", {"force": "yes"})]


def test_remove_machine_that_is_none(b):
    b.expect(["remove-machine", "node1", "node9"], 4, "", 'there is no machine "node9" (fleetctl list-machines)\n')
    b.expect(["remove-machine"], 2, "", ["No machines given"])
    assert not [entry for entry in b.fake.log if entry[0] == "DELETE"]


# --- rotate-authority ---

AUTHORITY = {"fingerprint": "12" * 32, "expires": 1_700_000_000_000, "stage": "steady"}
SPREADING = dict(AUTHORITY, stage="spreading", since=1_700_000_000_000,
                 waiting=[{"machineID": MACHINE, "hostname": "node1", "state": "lost"}])


def test_rotation_is_followed_to_its_end(b):
    b.fake.on("POST", "/authority", json=SPREADING)
    b.fake.on("GET", "/authority", json=dict(SPREADING, stage="reissuing", waiting=[]), times=1)
    b.fake.on("GET", "/authority", status=503, message="no leader: x", times=1)
    b.fake.on("GET", "/authority", json=AUTHORITY)
    b.expect(["rotate-authority"], 0, "The authority is 1212121212121212 now\n", "WARNING: no leader: x\n")
    assert bodies(b, "POST", "/authority") == [{"action": "rotate"}]


def test_rotation_says_for_whom_it_waits(b):
    b.fake.on("POST", "/authority", json=SPREADING)
    b.fake.on("GET", "/authority", json=SPREADING)
    b.expect(["rotate-authority", "--deadline=4s"], 1, "",
             "Waiting until all machines trust the new authority: aaaaaaaa.../10.0.0.1 (node1, lost)\n"
             "The rotation goes on by itself; fleetctl rotate-authority --status shows how far it is\n")
    b.expect(["rotate-authority", "--no-block"], 0, ["Rotation: waits until all machines trust the new authority, since "], "")


def test_rotation_status(b):
    b.fake.on("GET", "/authority", json=SPREADING, times=1)
    b.expect(["rotate-authority", "--status"], 0, "Authority: 1212121212121212, until 2023-11-14 22:13:20\n"
             "Rotation: waits until all machines trust the new authority, since 2023-11-14 22:13:20\n"
             "Waits for: aaaaaaaa.../10.0.0.1 (node1, lost)\n", "")
    b.fake.on("GET", "/authority", json=AUTHORITY)
    b.expect(["rotate-authority", "--status", "--full"], 0, [f"Authority: {'12' * 32}, until ", "Rotation: none under way\n"], "")
    assert json.loads(b.run("rotate-authority", "--status", "-o", "json")[1]) == AUTHORITY
    b.fake.rules = []
    b.fake.on("GET", "/authority", status=404, message="the cluster is insecure: it has no authority")
    b.expect(["rotate-authority", "--status"], 1, "",
             "Error retrieving the cluster's authority: the cluster is insecure: it has no authority\n")


def test_rotation_is_cancelled_or_forced(b):
    b.fake.on("POST", "/authority", json=AUTHORITY)
    b.expect(["rotate-authority", "--cancel"], 0, "The authority stays as it is\n", "")
    b.expect(["rotate-authority", "--force"], 0, "The authority is 1212121212121212 now\n", "")
    assert bodies(b, "POST", "/authority") == [{"action": "cancel"}, {"action": "force"}]
    for args in (["--cancel", "--force"], ["--status", "--cancel"], ["x"]):
        b.expect(["rotate-authority", *args], 2, "", None)
    b.fake.rules = []
    b.fake.on("POST", "/authority", status=409, message="the authority is being rotated already")
    b.expect(["rotate-authority"], 1, "", "Error rotating the authority: the authority is being rotated already\n")


# --- leave ---

def leaving(b, roles=("voter", "host")):
    """It is in a cluster until it is removed; what GET /members says, one after the other."""
    b.fake.on("GET", "/status", json={"cluster": CLUSTER, "machineID": MACHINE}, times=1)
    b.fake.on("GET", "/status", json={"cluster": "", "machineID": MACHINE})
    b.fake.on("POST", "/availability", json={"units": []})
    b.fake.on("POST", "/members", status=204)
    for i, role in enumerate(roles):
        b.fake.on("GET", "/members", json={"members": [{"machineID": MACHINE, "role": role}], "doing": ""},
                  times=None if i == len(roles) - 1 else 1)


def test_leave(b):
    leaving(b)
    b.fake.on("DELETE", f"/machines/{MACHINE}", status=204)
    b.expect(["leave"], 0, "This host belongs to no cluster any more\n", "")
    assert bodies(b, "POST", "/availability") == [{"machines": [MACHINE], "availability": "draining"}]
    assert bodies(b, "POST", "/members") == [{"machines": [MACHINE], "leaving": True}]
    assert [entry[2] for entry in b.fake.requests("DELETE", f"/machines/{MACHINE}")] == [{"force": "yes"}]
    assert [entry[1] for entry in b.fake.log if entry[0] != "GET"] == ["/availability", "/members", f"/machines/{MACHINE}"]


def test_leave_waits_for_fleetd(b):
    b.fake.on("GET", "/status", json={"cluster": CLUSTER, "machineID": MACHINE}, times=3)
    b.fake.on("GET", "/status", close=True, times=2)
    leaving(b)
    b.fake.on("DELETE", f"/machines/{MACHINE}", status=204)
    b.expect(["leave", "--deadline=300ms"], 1, "", "The host was removed, but is not done with it yet: see systemctl status "
             "fleetd\n")


def test_leave_refused(b):
    b.fake.on("GET", "/status", json={"cluster": "", "machineID": MACHINE}, times=1)
    b.expect(["leave"], 1, "", "This host belongs to no cluster\n")
    leaving(b)
    b.fake.on("DELETE", f"/machines/{MACHINE}", status=409, message="it is the only one that keeps the cluster's data")
    b.expect(["leave"], 1, "", "Error leaving the cluster: it is the only one that keeps the cluster's data\n")
    b.expect(["leave", "now"], 2, "", None)


def test_leave_of_the_only_machine(b):
    leaving(b)
    b.fake.machines = b.fake.machines[:1]
    b.expect(["leave"], 1, "", ["This host is the only machine of its cluster"])
    assert not [entry for entry in b.fake.log if entry[0] != "GET"]


def test_leave_that_cannot_give_up_its_vote(b):
    leaving(b)
    b.fake.rules = [rule for rule in b.fake.rules if (rule["method"], rule["path"]) != ("POST", "/members")]
    b.fake.on("POST", "/members", status=409, message="there would be too few voters", times=1)
    b.fake.on("POST", "/members", status=204)
    b.expect(["leave"], 1, "", "Error taking the machine out of the consensus: there would be too few voters\n")
    assert bodies(b, "POST", "/members")[-1] == {"machines": [MACHINE], "leaving": False}
    assert not [entry for entry in b.fake.log if entry[0] == "DELETE"]
