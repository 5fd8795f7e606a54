# SPDX-License-Identifier: Apache-2.0
"""client-cert and its kin, and what fleetctl does with such certificates over https. The pretend fleetd has an authority
made by openssl. Run by test_ctl.py."""

import hashlib
import json
import os
import shutil
import ssl
import stat
import subprocess
import time

from test_remote import SERVICE, OverTcp

CLUSTER = "0123456789abcdef0123456789abcdef"
OTHER = "fedcba9876543210fedcba9876543210"
SERIAL = "0123456789abcdef0123456789abcdef01234567"
LISTED = [
    {"name": "laptop", "role": "operator", "state": "valid", "serial": SERIAL, "issued": 1_700_000_000_000,
     "expires": 1_700_003_600_000},
    {"name": "old", "role": "viewer", "state": "revoked", "serial": "77", "issued": 1_600_000_000_000,
     "expires": 1_600_003_600_000},
]
CA_EXT = """basicConstraints=critical,CA:TRUE,pathlen:0
keyUsage=critical,keyCertSign,cRLSign
subjectKeyIdentifier={key_id}
authorityKeyIdentifier=keyid:always
subjectAltName=URI:fleet://{cluster}/authority
"""
LEAF_EXT = """basicConstraints=critical,CA:FALSE
keyUsage=critical,digitalSignature
extendedKeyUsage={usage}
subjectKeyIdentifier={key_id}
authorityKeyIdentifier=keyid
subjectAltName=URI:fleet://{cluster}/{who}{hosts}
"""


class Authority:
    """A cluster's, in a folder of the bench."""

    def __init__(self, b, name, cluster):
        if shutil.which("openssl") is None:
            raise b.skip("there is no openssl to make certificates with")
        self.b, self.name, self.cluster = b, name, cluster
        self.folder = os.path.join(b.folder, name)
        os.mkdir(self.folder)
        self.key("ca")
        self.openssl("req", "-new", "-key", "ca.key", "-subj", "/CN=fleet cluster " + cluster, "-out", "ca.csr")
        self.write("ca.ext", CA_EXT.format(cluster=cluster, key_id=self.key_id("ca.csr")))
        self.openssl("x509", "-req", "-in", "ca.csr", "-signkey", "ca.key", "-sha256", "-days", "2", "-extfile", "ca.ext",
                     "-out", "ca.pem")

    def path(self, name):
        return os.path.join(self.folder, name)

    def write(self, name, text, mode=0o644):
        with open(self.path(name), "w") as f:
            f.write(text)
        os.chmod(self.path(name), mode)
        return self.path(name)

    def read(self, name):
        with open(self.path(name)) as f:
            return f.read()

    def openssl(self, *words):
        subprocess.run(["openssl", *words], cwd=self.folder, check=True, capture_output=True, timeout=60)

    def key(self, name):
        self.openssl("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", name + ".key")

    def key_id(self, csr):
        self.openssl("req", "-in", csr, "-noout", "-pubkey", "-out", "key.pem")
        self.openssl("pkey", "-pubin", "-in", "key.pem", "-outform", "DER", "-out", "key.der")
        with open(self.path("key.der"), "rb") as f:
            return hashlib.sha256(f.read()).hexdigest()

    def sign(self, name, who, usage="clientAuth", hosts="", days="2"):
        """A certificate for NAME.csr; its text."""
        self.write(name + ".ext", LEAF_EXT.format(cluster=self.cluster, who=who, usage=usage, hosts=hosts,
                                                     key_id=self.key_id(name + ".csr")))
        self.openssl("x509", "-req", "-in", name + ".csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-sha256",
                     "-days", days, "-extfile", name + ".ext", "-out", name + ".pem")
        return self.read(name + ".pem")

    def make(self, name, who, **more):
        """Key, certificate and authority in one file; its path."""
        self.key(name)
        self.openssl("req", "-new", "-key", name + ".key", "-subj", "/CN=localhost", "-out", name + ".csr")
        return self.write(name + ".all", self.read(name + ".key") + self.sign(name, who, **more) + self.read("ca.pem"), 0o600)

    def server(self, *clients_of, usage="serverAuth,clientAuth", who="machine/" + "a" * 32, hosts=",IP:127.0.0.1"):
        """A TLS context as a host of this cluster; it takes clients of these authorities."""
        self.make("server", who, usage=usage, hosts=hosts)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.load_cert_chain(self.path("server.pem"), self.path("server.key"))
        for authority in clients_of:
            context.load_verify_locations(authority.path("ca.pem"))
            context.verify_mode = ssl.CERT_REQUIRED
        return context


def answer_issuing(b, ca, role="operator", **more):
    """The pretend fleetd issues what is asked for."""
    def sign(body):
        ca.write("asked.csr", body["request"])
        return dict(LISTED[0], role=role, certificate=ca.sign("asked", f"client/{body['name']}/{role}", **more),
                    authorities=ca.read("ca.pem"))
    b.fake.on("POST", "/client-certificates", call=sign)


# --- making one ---

def test_a_certificate_is_made(b):
    ca = Authority(b, "ca", CLUSTER)
    answer_issuing(b, ca)
    said = "Client laptop is operator until 2023-11-14 23:13:20. On its computer: fleetctl --endpoint " \
           "https://HOST:49153 --cert-file {}\n"
    old = os.umask(0)
    try:
        b.expect(["client-cert", "laptop", "--role=operator"], 0, "", said.format("laptop.pem"))
    finally:
        os.umask(old)
    path = os.path.join(b.folder, "laptop.pem")
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    with open(path) as f:
        text = f.read()
    assert [text.count(what) for what in ("PRIVATE KEY-----\n", "BEGIN CERTIFICATE-----")] == [2, 2], text
    b.expect(["client-cert", "laptop", "--role=operator", "--ttl=1d", "--file=sub.pem"], 0, "", said.format("sub.pem"))
    out = b.expect(["client-cert", "laptop", "--role=operator", "--file=-"], 0, ["PRIVATE KEY", "CERTIFICATE"], said.format("FILE"))[1]
    assert out != text
    sent = [entry[3] for entry in b.fake.requests("POST", "/client-certificates")]
    assert [sorted(body) for body in sent] == [["name", "request", "role"], ["name", "request", "role", "ttl"], ["name", "request", "role"]]
    assert sent[1]["ttl"] == "1d" and sent[0]["name"] == "laptop" and sent[0]["role"] == "operator"
    # The key is nobody's but the client's, and a new one each time.
    assert all("PRIVATE" not in json.dumps(body) for body in sent) and len({body["request"] for body in sent}) == 3


def test_nothing_is_left_of_one_that_is_not_made(b):
    failed = "Error making a certificate for laptop: "
    b.fake.on("POST", "/client-certificates", status=403, message="this needs the role admin, and uid 1000 is viewer")
    b.expect(["client-cert", "laptop", "--role=admin"], 1, "", failed + "this needs the role admin, and uid 1000 is viewer\n")
    assert not os.path.exists(os.path.join(b.folder, "laptop.pem"))
    b.fake.rules = []
    b.fake.on("POST", "/client-certificates", json=LISTED[0])
    b.expect(["client-cert", "laptop", "--role=admin"], 1, "", failed + "fleetd's answer holds no certificate\n")
    assert not os.path.exists(os.path.join(b.folder, "laptop.pem"))
    # A file that is there is somebody's key.
    b.fake.log.clear()
    b.file("laptop.pem", "precious")
    b.expect(["client-cert", "laptop", "--role=admin"], 1, "", failed + "cannot make the file laptop.pem: File exists\n")
    b.expect(["client-cert", "laptop", "--role=admin", "--file=no/where"], 1, "",
             failed + "cannot make the file no/where: No such file or directory\n")
    assert not b.fake.log and open(os.path.join(b.folder, "laptop.pem")).read() == "precious"


def test_usage_of_client_cert(b):
    role = "fleetctl client-cert: --role is admin, operator or viewer\n"
    b.expect(["client-cert"], 2, "", ["One name must be provided"])
    b.expect(["client-cert", "laptop"], 2, "", role)
    b.expect(["client-cert", "laptop", "--role=root"], 2, "", role)
    b.expect(["client-cert", "laptop", "--role=none"], 2, "", role)
    for name in ("", "-x", "a b", "a/../b", "x" * 65, "\u00e4"):
        b.expect(["client-cert", "--role=viewer", "--", name], 2, "", ["fleetctl client-cert: "])
    b.expect(["list-units", "--role=viewer"], 2, "", "fleetctl list-units: there is no option --role\n")
    assert not b.fake.log and os.listdir(b.folder) == ["sock"]


def test_certificates_are_listed_and_revoked(b):
    b.fake.on("GET", "/client-certificates", json={"certificates": LISTED})
    b.expect(["list-client-certs"], 0, "NAME\tROLE\t\tSTATE\tEXPIRES\t\t\tSERIAL\n"
             f"laptop\toperator\tvalid\t2023-11-14 23:13:20\t{SERIAL}\nold\tviewer\t\trevoked\t2020-09-13 13:26:40\t77\n", "")
    assert json.loads(b.run("list-client-certs", "-o", "json")[1]) == LISTED
    b.fake.on("DELETE", "/client-certificates/laptop", status=204)
    b.fake.on("DELETE", "/client-certificates/a b", status=404, message="no certificate of a client has the serial or the name a b")
    b.expect(["revoke-client-cert", "laptop", "a b"], 1, "Revoked laptop\n",
             "Error revoking a b: no certificate of a client has the serial or the name a b\n")
    b.expect(["revoke-client-cert"], 2, "", ["No certificates given"])


# --- using one ---

def test_one_file_is_enough(b):
    ca = Authority(b, "ca", CLUSTER)
    laptop = ca.make("laptop", "client/laptop/viewer")
    b.fake.add("a.service", SERVICE)
    with OverTcp(b, ca.server(ca)) as over:
        url = f"--endpoint=https://127.0.0.1:{over.port}"
        b.expect([url, "--cert-file=" + laptop, "cat", "a"], 0, SERVICE, "")
        b.expect(["cat", "a"], 0, SERVICE, "", env={"FLEETCTL_ENDPOINT": url.split("=")[1], "FLEETCTL_CERT_FILE": laptop})
        # Where it is looked for by itself.
        for variable, folder in (("XDG_CONFIG_HOME", "config/fleet"), ("HOME", "home/.config/fleet")):
            os.makedirs(os.path.join(b.folder, folder))
            shutil.copy(laptop, os.path.join(b.folder, folder, "client.pem"))
            env = {"HOME": "/nonexistent", "XDG_CONFIG_HOME": "", variable: os.path.join(b.folder, folder.split("/")[0])}
            b.expect([url, "cat", "a"], 0, SERVICE, "", env=env)
        # In three files, as the first fleet had them.
        b.expect([url, "--cert-file=" + ca.path("laptop.pem"), "--key-file=" + ca.path("laptop.key"),
                  "--ca-file=" + ca.path("ca.pem"), "cat", "a"], 0, SERVICE, "")
        os.chmod(laptop, 0o644)
        b.expect([url, "--cert-file=" + laptop, "cat", "a"], 0, SERVICE,
                 f"WARNING: the private key in {laptop} can be read by others (chmod 600 {laptop})\n")


def test_without_one(b):
    ca = Authority(b, "ca", CLUSTER)
    with OverTcp(b, ca.server(ca)) as over:
        b.expect([f"--endpoint=https://127.0.0.1:{over.port}", "--ca-file=" + ca.path("ca.pem"), "cat", "a"], 1, "",
                 ["it wants to see a client's certificate", "fleetctl client-cert"], env={"HOME": "/nonexistent"})
    assert not b.fake.log


def test_files_that_do_not_fit(b):
    ca, other = Authority(b, "ca", CLUSTER), Authority(b, "other", OTHER)
    laptop, phone = ca.make("laptop", "client/laptop/viewer"), ca.make("phone", "client/phone/viewer")
    host = ca.make("host", "machine/" + "a" * 32, usage="serverAuth,clientAuth")
    cannot, url = "Unable to initialize client: ", "--endpoint=https://127.0.0.1:1"
    b.expect([url, "--cert-file=" + host, "cat", "a"], 1, "",
             cannot + f"{host} is the certificate of a host (machine {'a' * 32}), which has no say in the API: use a client's "
             "(fleetctl client-cert makes one)\n")
    b.expect([url, "--cert-file=" + laptop, "--key-file=" + phone, "cat", "a"], 1, "", [cannot + "the private key in " + phone])
    b.expect([url, "--cert-file=" + ca.path("laptop.pem"), "cat", "a"], 1, "",
             cannot + f"the private key in {ca.path('laptop.pem')}: there is none\n")
    mixed = other.write("mixed.pem", ca.read("laptop.key") + ca.read("laptop.pem") + other.read("ca.pem"), 0o600)
    b.expect([url, "--cert-file=" + mixed, "cat", "a"], 1, "",
             cannot + f"the certificate in {mixed} is not signed by an authority in {mixed}: are they of different clusters?\n")
    b.expect([url, "--cert-file=" + ca.path("ca.pem"), "--key-file=" + ca.path("ca.key"), "cat", "a"], 1, "",
             [cannot + f"{ca.path('ca.pem')} does not begin with the certificate of a client\n"])
    b.expect([url, "--cert-file=nosuch", "cat", "a"], 1, "", cannot + "--cert-file: nosuch: No such file or directory\n")
    b.expect([url, "--key-file=" + laptop, "cat", "a"], 1, "", cannot + "--key-file needs --cert-file\n")
    big = ca.write("big.pem", "x" * 70000)
    b.expect([url, "--cert-file=" + big, "cat", "a"], 1, "", cannot + f"--cert-file: {big}: it is larger than 65536 bytes\n")


def test_one_that_has_ended(b):
    ca = Authority(b, "ca", CLUSTER)
    ended = ca.make("laptop", "client/laptop/viewer", days="-1")
    err = b.expect(["--endpoint=https://127.0.0.1:1", "--cert-file=" + ended, "cat", "a"], 1, "", None)[2]
    day = time.strftime("%Y-%m-%d", time.gmtime(time.time() - 86400))
    assert err.startswith(f"Unable to initialize client: the certificate of client laptop in {ended} has ended at {day} "), err
    assert err.endswith("have a new one made (fleetctl client-cert)\n"), err


def test_hosts_that_are_not_to_be_trusted(b):
    ca, other = Authority(b, "ca", CLUSTER), Authority(b, "other", OTHER)
    laptop = ca.make("laptop", "client/laptop/admin")
    lies = (other.server(ca),                                               # A host of another cluster.
            ca.server(ca, hosts=",DNS:elsewhere"),                          # Another host of ours.
            ca.server(ca, who="client/x/viewer", usage="clientAuth", hosts=""))  # A client that plays the host.
    for context in lies:
        with OverTcp(b, context) as over:
            for host in ("127.0.0.1", "localhost"):
                b.expect([f"--endpoint=https://{host}:{over.port}", "--cert-file=" + laptop, "cat", "a"], 1, "",
                         [f"the certificate of https://{host}:{over.port} is not to be trusted by the authorities in {laptop}: ",
                          "Is it a host of another cluster, or known to its cluster by another name?"])
    assert not b.fake.log


def test_a_host_that_does_not_take_ours(b):
    ca, other = Authority(b, "ca", CLUSTER), Authority(b, "other", OTHER)
    laptop = ca.make("laptop", "client/laptop/admin")
    with OverTcp(b, ca.server(other)) as over:
        b.expect([f"--endpoint=https://127.0.0.1:{over.port}", "--cert-file=" + laptop, "cat", "a"], 1, "",
                 [f"it does not take the certificate in {laptop}. Is it of another cluster? Its journal says why"])
    b.fake.on("GET", "/units/a.service", status=403, message="the certificate 77 of client laptop was revoked")
    with OverTcp(b, ca.server(ca)) as over:
        b.expect([f"--endpoint=https://127.0.0.1:{over.port}", "--cert-file=" + laptop, "cat", "a"], 1, "",
                 "Error retrieving Unit a.service: the certificate 77 of client laptop was revoked\n")
