# SPDX-License-Identifier: Apache-2.0
"""fleetctl from elsewhere: https, --tunnel, fd-forward, ssh (fleet-behaviour.md §1.3, §1.7). ssh is a pretend one
(fake_ssh.py); with a real one it is tested on the lab's hosts. Run by test_ctl.py."""

import ast
import http.server
import json
import os
import shutil
import signal
import socket
import socketserver
import ssl
import subprocess
import threading
import time

import fake_fleetd

HERE = os.path.dirname(os.path.abspath(__file__))
SERVICE = "[Service]\nExecStart=/bin/sleep inf\n"
DEADLINE_S = 20


class Ssh:
    """Puts a pretend ssh, and the fleetctl that the far side is to find, into PATH."""

    def __init__(self, b, **env):
        folder, self.log = os.path.join(b.folder, "bin"), os.path.join(b.folder, "ssh.log")
        os.mkdir(folder)
        shutil.copy(os.path.join(HERE, "fake_ssh.py"), os.path.join(folder, "ssh"))
        os.symlink(b.program, os.path.join(folder, "fleetctl"))
        self.env = dict(env, PATH=folder + ":" + os.environ["PATH"], SSH_LOG=self.log)

    def calls(self):
        if not os.path.exists(self.log):
            return []
        with open(self.log) as f:
            return [ast.literal_eval(line) for line in f]


class TcpServer(socketserver.ThreadingMixIn, http.server.HTTPServer):
    daemon_threads = True

    def handle_error(self, request, client_address):
        pass


class OverTcp:
    """The bench's pretend fleetd on a TCP port as well, with TLS if there is a context for it."""

    def __init__(self, b, tls=None):
        self.server = TcpServer(("127.0.0.1", 0), fake_fleetd.Handler)
        self.server.fake = b.fake
        if tls:
            self.server.socket = tls.wrap_socket(self.server.socket, server_side=True)
        self.port = self.server.server_address[1]

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *exception):
        self.server.shutdown()
        self.server.server_close()


# --- http and https ---

def test_http_with_a_base_path(b):
    with OverTcp(b) as over:
        b.fake.add("a.service", SERVICE)
        b.expect(["--endpoint", f"http://127.0.0.1:{over.port}", "cat", "a"], 0, SERVICE, "")
        b.expect(["--endpoint", f"http://127.0.0.1:{over.port},http://nowhere", "cat", "a"], 0, SERVICE,
                 f"WARNING: multiple endpoints provided but only the first (http://127.0.0.1:{over.port}) is used\n")
        b.expect(["--endpoint", f"http://127.0.0.1:{over.port}/proxied/fleet/", "cat", "a"], 4, "", None)
        assert b.fake.log[-1][1] == "?/proxied/fleet/fleet/v1/units/a.service", b.fake.log[-1]
        # No proxy is asked, whatever the environment says.
        b.expect(["--endpoint", f"http://127.0.0.1:{over.port}", "cat", "a"], 0, SERVICE, "",
                 env={"http_proxy": "http://127.0.0.1:1", "ALL_PROXY": "http://127.0.0.1:1"})


def openssl(b, *words):
    subprocess.run(["openssl", *words], cwd=b.folder, check=True, capture_output=True, timeout=60)


def certificates(b):
    openssl(b, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "ca.key", "-out", "ca.pem", "-subj",
            "/CN=test authority", "-days", "2")
    for name, who in (("server", "127.0.0.1"), ("client", "fleetctl")):
        openssl(b, "req", "-newkey", "rsa:2048", "-nodes", "-keyout", name + ".key", "-out", name + ".csr", "-subj",
                "/CN=" + who)
        b.file("ext", "subjectAltName=IP:127.0.0.1\n")
        openssl(b, "x509", "-req", "-in", name + ".csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial",
                "-out", name + ".pem", "-days", "2", "-extfile", "ext")


def test_https(b):
    if shutil.which("openssl") is None:
        raise b.skip("there is no openssl to make certificates with")
    certificates(b)
    path = lambda name: os.path.join(b.folder, name)  # noqa: E731
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path("server.pem"), path("server.key"))
    context.load_verify_locations(path("ca.pem"))
    b.fake.add("a.service", SERVICE)
    with OverTcp(b, context) as over:
        url = f"--endpoint=https://127.0.0.1:{over.port}"
        b.expect([url, "cat", "a"], 1, "", [f"the certificate of https://127.0.0.1:{over.port} is not to be trusted",
                                            "--ca-file"])
        assert b.fake.log == []
        b.expect([url, "--ca-file=ca.pem", "cat", "a"], 0, SERVICE, "")
        b.expect([url, "cat", "a"], 0, SERVICE, "", env={"FLEETCTL_CA_FILE": "ca.pem"})
        b.expect([url, "--etcd-cafile=ca.pem", "cat", "a"], 0, SERVICE,
                 "WARNING: --etcd-cafile is deprecated, write --ca-file\n")
        b.expect([url.replace("127.0.0.1", "localhost"), "--ca-file=ca.pem", "cat", "a"], 1, "",
                 ["is not to be trusted"])
    context.verify_mode = ssl.CERT_REQUIRED
    with OverTcp(b, context) as over:
        url = f"--endpoint=https://127.0.0.1:{over.port}"
        code, out, _ = b.run(url, "--ca-file=ca.pem", "cat", "a")
        assert code == 1 and out == ""
        b.expect([url, "--ca-file=ca.pem", "--cert-file=client.pem", "--key-file=client.key", "cat", "a"], 0, SERVICE,
                 "")
    b.expect([url, "--ca-file=nosuch", "cat", "a"], 1, "",
             "Unable to initialize client: --ca-file: nosuch: No such file or directory\n")
    b.expect([url, "--cert-file=client.pem", "cat", "a"], 1, "",
             "Unable to initialize client: client.pem holds no private key: --key-file must be given too\n")


# --- fd-forward ---

class Peer:
    """A Unix socket, and what happens to the first connection to it."""

    def __init__(self, b, behaviour):
        self.path = os.path.join(b.folder, "peer.sock")
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(self.path)
        self.listener.listen(1)
        self.behaviour = behaviour
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        connection = self.listener.accept()[0]
        with connection:
            self.behaviour(connection)

    def close(self):
        self.thread.join(DEADLINE_S)
        self.listener.close()
        os.unlink(self.path)
        assert not self.thread.is_alive()


def read_all(connection):
    parts = []
    while data := connection.recv(65536):
        parts.append(data)
    return b"".join(parts)


def forward(b, path, **pipes):
    return subprocess.Popen([b.program, "fd-forward", path], **{
        "stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **pipes})


def test_fd_forward_passes_the_end_of_input_on(b):
    """The first fleet lost the answer to a half-closed stdin."""
    def answer(connection):
        question = read_all(connection)
        connection.sendall(b"answer to " + question)

    peer = Peer(b, answer)
    p = forward(b, peer.path)
    assert p.communicate(b"question", DEADLINE_S) == (b"answer to question", b"") and p.returncode == 0
    peer.close()


def test_fd_forward_passes_the_end_of_output_on(b):
    got = []

    def speak_first(connection):
        connection.sendall(b"hello")
        connection.shutdown(socket.SHUT_WR)
        got.append(read_all(connection))

    peer = Peer(b, speak_first)
    p = forward(b, peer.path)
    assert p.stdout.read() == b"hello"  # To its end, while stdin is still open.
    p.stdin.write(b"and more")
    p.stdin.close()
    assert p.wait(DEADLINE_S) == 0 and p.stderr.read() == b""
    peer.close()
    assert got == [b"and more"]


def test_fd_forward_of_much_both_ways(b):
    data = os.urandom(8 * 1024 * 1024)

    def echo(connection):
        while part := connection.recv(65536):
            connection.sendall(part)

    for pair in (False, True):  # Pipes, and one socket for both, as sshd has it.
        peer = Peer(b, echo)
        if pair:
            ours, theirs = socket.socketpair()
            p = forward(b, peer.path, stdin=theirs, stdout=theirs)
            theirs.close()
            sender = threading.Thread(target=lambda s=ours: (s.sendall(data), s.shutdown(socket.SHUT_WR)), daemon=True)
            sender.start()
            out = read_all(ours)
            ours.close()
            assert p.wait(DEADLINE_S) == 0
        else:
            p = forward(b, peer.path)
            out = p.communicate(data, DEADLINE_S)[0]
        assert out == data and p.returncode == 0
        peer.close()


def test_fd_forward_ends_with_either_side(b):
    peer = Peer(b, lambda connection: connection.close())
    p = forward(b, peer.path)
    assert p.wait(DEADLINE_S) == 0  # The server is gone; nobody waits for more input.
    peer.close()
    gone = threading.Event()
    peer = Peer(b, lambda connection: gone.set() if read_all(connection) == b"" else None)
    p = forward(b, peer.path)
    p.stdout.close()  # Nobody reads any more.
    assert p.wait(DEADLINE_S) == 0 and gone.wait(DEADLINE_S)
    peer.close()


def test_fd_forward_that_cannot_dial(b):
    """The first fleet exited 0."""
    b.expect(["fd-forward", "/nonexistent/sock"], 1, "",
             "Failed dialing remote address: /nonexistent/sock: No such file or directory\n")
    b.expect(["fd-forward", "/" + "x" * 200], 1, "", ["Failed dialing remote address: /xxx", "File name too long"])
    b.expect(["fd-forward"], 2, "", ["Provide a single argument"])
    b.expect(["fd-forward", "a", "b"], 2, "", ["Provide a single argument"])


# --- --tunnel ---

def test_tunnel_to_a_socket(b):
    ssh = Ssh(b)
    b.file("a.service", SERVICE)
    b.expect(["--tunnel", "gate:2222", "start", "a"], 0, ["Unit a.service launched"], "", env=ssh.env)
    assert ssh.calls() == [["-p", "2222", "-T", "-o", "ClearAllForwardings=yes", "-o", "RemoteCommand=none", "gate",
                            "--", "fleetctl fd-forward " + b.socket]], ssh.calls()
    assert len(b.fake.log) >= 3  # Several requests, one connection.
    b.expect(["cat", "a"], 0, SERVICE, "", env=dict(ssh.env, FLEETCTL_TUNNEL="gate", FLEETCTL_SSH_USERNAME="core",
                                                    FLEETCTL_SSH_TIMEOUT="5", FLEETCTL_KNOWN_HOSTS_FILE="~/k"))
    assert ssh.calls()[1][:7] == ["-o", "ConnectTimeout=5", "-o", 'UserKnownHostsFile="~/k"', "-l", "core", "-T"]


def test_tunnel_to_http(b):
    ssh = Ssh(b)
    b.fake.add("a.service", SERVICE)
    with OverTcp(b) as over:
        # The name means something to the other side only; here it is what the pretend ssh can reach.
        b.expect(["--tunnel=gate", f"--endpoint=http://127.0.0.1:{over.port}", "cat", "a"], 0, SERVICE, "", env=ssh.env)
        assert ssh.calls()[0][-3:] == ["-W", f"127.0.0.1:{over.port}", "gate"], ssh.calls()
    b.expect(["--tunnel=gate", "--endpoint=http://no-such-host.invalid:81", "cat", "a"], 1, "",
             ["cannot reach fleetd at http://no-such-host.invalid:81 through gate"], env=ssh.env)
    assert ssh.calls()[1][-3:] == ["-W", "no-such-host.invalid:81", "gate"], ssh.calls()


def test_tunnel_with_a_connection_that_ends(b):
    """A server may close a connection after any answer; the next request gets a new one."""
    ssh = Ssh(b)
    for name in "abc":
        b.fake.add(name + ".service", SERVICE)
        body = json.dumps(b.fake.units[name + ".service"]).encode()
        b.fake.on("GET", f"/units/{name}.service", close=True, raw=b"HTTP/1.1 200 OK\r\nConnection: close\r\n"
                  b"Content-Length: %d\r\n\r\n%s" % (len(body), body))
    b.expect(["--tunnel=gate", "destroy", "a", "b", "c"], 0, "".join(f"Destroyed {n}.service\n" for n in "abc"), "",
             env=ssh.env)
    assert len(ssh.calls()) == 4, ssh.calls()


def test_tunnel_that_fails(b):
    ssh = Ssh(b, SSH_FAILS="1")
    b.fake.add("a.service", SERVICE)
    where = f"Error retrieving Unit a.service: cannot reach fleetd at {b.socket} through gate: "
    b.expect(["--tunnel=gate", "cat", "a"], 1, "", "ssh: connect to host gate port 22: No route to host\n"
             f"{where}ssh to gate failed\n", env=ssh.env)
    del ssh.env["SSH_FAILS"]
    b.expect(["--tunnel=gate", "--endpoint=unix:///nonexistent", "cat", "a"], 1, "",
             "Failed dialing remote address: /nonexistent: No such file or directory\n"
             + where.replace(b.socket, "/nonexistent") + "fleetctl fd-forward on gate failed\n", env=ssh.env)
    os.unlink(os.path.join(b.folder, "bin", "fleetctl"))
    b.expect(["--tunnel=gate", "cat", "a"], 1, "", [where + "there is no fleetctl on gate\n"],
             env=ssh.env)
    os.unlink(os.path.join(b.folder, "bin", "ssh"))
    b.expect(["--tunnel=gate", "cat", "a"], 1, "",
             "Error retrieving Unit a.service: cannot run ssh: No such file or directory\n",
             env=dict(ssh.env, PATH="/nonexistent"))


def test_tunnel_leaves_no_process_behind(b):
    ssh = Ssh(b)
    b.fake.add("a.service", SERVICE)
    b.fake.on("GET", "/units/a.service", sleep=20, status=500)
    p = b.start("--tunnel=gate", "--request-timeout=1", "cat", "a", env=ssh.env)
    begin = time.monotonic()
    while not b.fake.log:
        assert time.monotonic() - begin < DEADLINE_S
        time.sleep(0.01)
    with open(f"/proc/{p.pid}/task/{p.pid}/children") as f:
        children = f.read().split()
    assert len(children) == 1, children
    p.send_signal(signal.SIGTERM)  # Even then: its end of the connection is gone.
    p.communicate(timeout=DEADLINE_S)
    while os.path.exists(f"/proc/{children[0]}"):
        assert time.monotonic() - begin < DEADLINE_S
        time.sleep(0.01)


def test_tunnel_refuses_what_ssh_or_a_shell_could_misread(b):
    ssh = Ssh(b)
    for words in (["--tunnel=-oProxyCommand=touch x"], ["--tunnel=a;b"], ["--tunnel=a b"], ["--tunnel=$(x)"],
                  ["--tunnel=gate:22;x"], ["--tunnel=gate", "--ssh-username=-oProxyCommand=x"],
                  ["--tunnel=gate", "--known-hosts-file=a\" -oProxyCommand=x"], ["--tunnel=-oX@gate"]):
        _, _, err = b.expect([*words, "cat", "a"], 1, "", ["Unable to initialize client: "], env=ssh.env)
        assert err.count("\n") == 1, err
    assert ssh.calls() == []
    # A path may be odd; it is one word for the shell there.
    mark = os.path.join(b.folder, "mark")
    b.run("--tunnel=gate", f"--endpoint=unix:///x;touch {mark};'", "cat", "a", env=ssh.env)
    assert len(ssh.calls()) == 1 and not os.path.exists(mark)
    assert ssh.calls()[0][-1] == f"fleetctl fd-forward '/x;touch {mark};'\\'''", ssh.calls()


# --- ssh ---

A, B = "a" * 8 + "0" * 22 + "aa", "b" * 8 + "0" * 22 + "bb"


def prepare_ssh(b):
    b.fake.add("web.service", SERVICE, "launched", machine=A)
    b.fake.add("nowhere.service", SERVICE, "launched")
    b.fake.units["nowhere.service"]["reason"] = "none of 2 machines will do"
    b.fake.add("g.service", SERVICE + "[X-Fleet]\nGlobal=true\n", "launched")
    b.fake.add("node1.service", SERVICE, "launched", machine=A)
    return Ssh(b)


def test_ssh_says_what_it_cannot(b):
    ssh = prepare_ssh(b)
    for words, code, text in (
            (["ssh", "--machine=a", "--unit=web"], 2,
             "Both machine and unit flags provided, please specify only one.\n"),
            (["ssh"], 2, "Unable to proceed: one machine or unit must be provided\n"),
            (["ssh", "nosuch"], 4, "Unable to proceed: could not find matching unit or machine\n"),
            (["ssh", "node1"], 1, "Unable to proceed: node1 is both a machine and a unit; say --machine=node1 or "
                                  "--unit=node1\n"),
            (["ssh", "--machine=nosuch"], 1, "Unable to proceed: machine does not exist\n"),
            (["ssh", "--machine="], 1, "Unable to proceed: machine does not exist\n"),
            (["ssh", "--unit=nosuch"], 4, "Unable to proceed: unit does not exist\n"),
            (["ssh", "--unit=g"], 1, "Unable to proceed: global units unsupported (--machine says which of its "
                                     "machines)\n"),
            (["ssh", "nowhere"], 1, "Unable to proceed: unit nowhere.service is on no machine: none of 2 machines will "
                                    "do\n"),
            (["ssh", "--machine=node2"], 1, "Could not determine address of machine.\n"),
            (["ssh", "--ssh-username=-x", "web", "true"], 1, "Failed building SSH client: \"-x\" is no user name for "
                                                             "ssh\n")):
        b.expect(words, code, "", text, env=ssh.env)
    b.fake.machines = [dict(b.fake.machines[0], id=A[:8] + str(i) * 24) for i in range(2)]
    b.expect(["ssh", "aaaaaaaa", "true"], 1, "", "Unable to proceed: found more than one machine\n", env=ssh.env)
    assert ssh.calls() == []


def test_ssh_runs_a_command_or_a_shell(b):
    ssh = prepare_ssh(b)
    for words, call in (
            (["ssh", "web", "echo", "hi"], ["10.0.0.1", "--", "echo hi"]),
            (["ssh", "web.service", "echo hi"], ["10.0.0.1", "--", "echo hi"]),
            (["ssh", "--unit=web", "echo", "hi"], ["10.0.0.1", "--", "echo hi"]),
            (["ssh", A[:4], "echo", "hi"], ["10.0.0.1", "--", "echo hi"]),
            (["ssh", "--machine", "node1", "echo", "hi"], ["10.0.0.1", "--", "echo hi"]),
            (["ssh", A, "--", "echo", "hi"], ["10.0.0.1", "--", "echo hi"]),
            (["ssh", "--", "web", "this", "is", "cut", "--", "echo", "hi"], ["10.0.0.1", "--", "echo hi"]),
            (["ssh", "-A", "--ssh-port=2222", "web", "echo", "hi"],
             ["-p", "2222", "-A", "10.0.0.1", "--", "echo hi"]),
            (["ssh", "--A", "--ssh-username=core", "web", "echo", "hi"],
             ["-l", "core", "-A", "10.0.0.1", "--", "echo hi"])):
        b.expect(words, 0, "hi\n", "", env=ssh.env)
        assert ssh.calls()[-1] == call, ssh.calls()[-1]
    b.expect(["ssh", "web"], 0, "a shell\n", "", env=ssh.env)
    assert ssh.calls()[-1] == ["10.0.0.1"]
    b.fake.machines = [dict(b.fake.machines[0], primaryIP="fd77::1")]
    b.expect(["ssh", "--ssh-port=99", "web", "--", "echo", "-n"], 0, "", "", env=ssh.env)
    assert ssh.calls()[-1] == ["-p", "99", "fd77::1", "--", "echo -n"]


def test_ssh_exits_as_the_command_did(b):
    ssh = prepare_ssh(b)
    b.expect(["ssh", "web", "exit", "7"], 7, "", "", env=ssh.env)
    b.expect(["ssh", "web", "true"], 255, "", "ssh: connect to host gate port 22: No route to host\n",
             env=dict(ssh.env, SSH_FAILS="1"))
    b.expect(["ssh", "web", "true"], 1, "", "Failed building SSH client: No such file or directory\n",
             env=dict(ssh.env, PATH="/nonexistent"))


def test_ssh_options_never_come_from_the_command(b):
    """ssh looks for options behind the host, too; a "--" ends that."""
    ssh = prepare_ssh(b)
    mark = os.path.join(b.folder, "mark")
    b.run("ssh", "web", "--", "-oProxyCommand=touch " + mark, env=ssh.env)
    assert ssh.calls()[-1] == ["10.0.0.1", "--", "-oProxyCommand=touch " + mark]
    b.fake.machines = [dict(b.fake.machines[0], primaryIP="-oProxyCommand=touch " + mark)]
    b.expect(["ssh", "web", "true"], 1, "", ["Failed building SSH client: ", "is no host"], env=ssh.env)
    assert len(ssh.calls()) == 1 and not os.path.exists(mark)


def test_ssh_through_a_tunnel(b):
    ssh = prepare_ssh(b)
    b.expect(["--tunnel=gate:2222", "ssh", "web", "echo", "hi"], 0, "hi\n", "", env=ssh.env)
    asked, run = ssh.calls()
    assert asked[-1].startswith("fleetctl fd-forward ")
    assert run == ["-o", "ProxyCommand=ssh -p 2222 -W '[%h]:%p' gate", "10.0.0.1", "--", "echo hi"], run


def test_ssh_to_this_very_machine(b):
    """It needs no ssh, unless as another user."""
    with open("/etc/machine-id") as f:
        own = f.read().strip()
    b.fake.machines = [dict(b.fake.machines[0], id=own)]
    ssh = Ssh(b)
    b.expect(["ssh", own[:8], "echo", "here;", "exit", "3"], 3, "here\n", "", env=ssh.env)
    b.expect(["ssh", own[:8]], 5, "", "", env=dict(ssh.env, SHELL=shell(b)))
    assert ssh.calls() == []
    b.expect(["ssh", "--ssh-username=core", own[:8], "echo", "there"], 0, "there\n", "", env=ssh.env)
    assert len(ssh.calls()) == 1
    b.expect(["ssh", own[:8]], 255, "", "Error running local command: No such file or directory\n",
             env=dict(ssh.env, SHELL="/nonexistent"))


def shell(b):
    path = os.path.join(b.folder, "shell")
    b.file("shell", "#!/bin/sh\nexit 5\n")
    os.chmod(path, 0o755)
    return path
