# SPDX-License-Identifier: Apache-2.0
"""The rules of fleet-behaviour.md §0 and §1, one row each, against the pretend fleetd: what is typed, the exit status,
stdout and stderr. Where we differ on purpose (design: usage errors exit 2, 3 and 4 as systemctl has them, waits that
know why), the row says so. A text is exact; a list has parts of it; None is anything. Run by test_ctl.py."""

import os
import re

SERVICE = "[Service]\nExecStart=/bin/sleep inf\n"
OTHER = "[Service]\nExecStart=/bin/true\n"
GLOBAL = SERVICE + "\n[X-Fleet]\nGlobal=true\n"
A, B = "aaaaaaaa0000000000000000000000aa", "bbbbbbbb0000000000000000000000bb"
HERE = "aaaaaaaa.../10.0.0.1"
DIFFERS = ("WARNING: Unit {0} in registry differs from local {1}unit file {2}. Add --replace to override.\n")
NO_UNITS = ["No units given (usage: fleetctl "]


def prepare(b):
    """Units in all states, files beside them, and what machines report."""
    b.file("new.service", SERVICE)
    b.file("sub/hello.service", SERVICE)
    b.file("t@.service", SERVICE)
    b.file("empty.service", "")
    b.file("bogus.service", SERVICE + "[X-Fleet]\nBogus=1\n")
    b.file("g2.service", GLOBAL)
    b.file("differs.service", OTHER)
    b.file("same.service", SERVICE)
    os.mkdir(os.path.join(b.folder, "dir.service"))
    b.fake.add("inactive.service", SERVICE)
    b.fake.add("loaded.service", SERVICE, "loaded", machine=A)
    b.fake.add("launched.service", SERVICE, "launched", machine=A)
    b.fake.add("differs.service", SERVICE, "launched", machine=B)
    b.fake.add("same.service", SERVICE)
    b.fake.add("g.service", GLOBAL, "launched")
    b.fake.add("stored@.service", OTHER)
    b.fake.states = [
        {"name": "g.service", "machineID": A, "systemdActiveState": "active", "systemdLoadState": "loaded",
         "systemdSubState": "running", "hash": "0123456789" * 4},
        {"name": "g.service", "machineID": B, "systemdActiveState": "failed", "systemdLoadState": "loaded",
         "systemdSubState": "failed"},
        {"name": "launched.service", "machineID": A, "systemdActiveState": "active", "systemdLoadState": "loaded",
         "systemdSubState": "running", "hash": "0123456789" * 4},
        {"name": "lost.service", "machineID": "c" * 32, "systemdActiveState": "inactive"}]


RULES = [
    # §1.1: the commands, and their unique prefixes.
    ("1.1 cat takes exactly one", ["cat"], 2, "", ["One unit file must be provided"]),
    ("1.1 cat takes exactly one", ["cat", "a", "b"], 2, "", ["One unit file must be provided"]),
    ("1.1 destroy needs one", ["destroy"], 2, "", NO_UNITS),
    ("1.1 fd-forward takes exactly one", ["fd-forward"], 2, "", ["Provide a single argument"]),
    ("1.1 list-units has --l", ["list-units", "--l", "--no-legend", "--fields=machine", "launched"], 0,
     A + "/10.0.0.1\n", ""),
    ("1.1 load needs one", ["load"], 2, "", NO_UNITS),
    ("1.1 start needs one", ["start"], 2, "", NO_UNITS),
    ("1.1 stop needs one", ["stop"], 2, "", NO_UNITS),
    ("1.1 submit needs one", ["submit"], 2, "", NO_UNITS),
    ("1.1 unload needs one", ["unload"], 2, "", NO_UNITS),
    ("1.1 submit does not wait", ["submit", "--no-block", "new"], 2, "",
     "fleetctl submit: there is no option --no-block\n"),
    ("1.1 --sign is ignored", ["submit", "--sign", "new"], 0, "Unit new.service inactive\n", ""),
    ("1.1 version ignores arguments", ["version", "x"], 0, ["fleetctl version "], ""),
    ("1.1 a unique prefix", ["sub", "new"], 0, "Unit new.service inactive\n", ""),
    ("1.1 a unique prefix", ["dest", "launched"], 0, "Destroyed launched.service\n", ""),
    ("1.1 an ambiguous prefix", ["list-u"], 2, "",
     'Error: unknown command "list-u" for "fleetctl" (did you mean one of list-unit-files, list-units?)\n'),
    ("1.1 verify, ours: checks files", ["verify", "new"], 0, "", ""),

    # §1.2: flags, environment (more in test-ctl-args), exit statuses.
    ("1.2 global flags before the command", ["--request-timeout", "5", "cat", "launched"], 0, SERVICE, ""),
    ("1.2 global flags behind the command", ["cat", "launched", "--request-timeout=5"], 0, SERVICE, ""),
    ("1.2 command flags before it, mended", ["--no-block", "start", "new"], 0, "Triggered unit new.service start\n", ""),
    ("1.2 a switch's value with =", ["start", "--no-block=true", "new"], 0, "Triggered unit new.service start\n", ""),
    ("1.2 -- ends the options", ["cat", "--", "--x"], 4, "", "Unit --x.service not found\n"),
    ("1.2 no other driver", ["--driver=etcd", "list-units"], 1, "",
     'Unable to initialize client: unrecognized driver "etcd" (there is API only, the default)\n'),
    ("1.2 no other driver", ["--driver", "foo", "list-units"], 1, "",
     'Unable to initialize client: unrecognized driver "foo" (there is API only, the default)\n'),
    ("1.2 driver API", ["--driver=API", "cat", "launched"], 0, SERVICE, ""),
    ("1.2 --experimental-api", ["--experimental-api=false", "cat", "launched"], 0, SERVICE, ""),
    ("1.2 --etcd-key-prefix", ["--etcd-key-prefix=/x/", "cat", "launched"], 0, SERVICE,
     "WARNING: --etcd-key-prefix means nothing any more: fleetd keeps its own data, without etcd\n"),
    ("1.2 TLS files do not matter without https", ["--cert-file=/nonexistent", "cat", "launched"], 0, SERVICE, ""),
    ("1.2 --strict-host-key-checking", ["--strict-host-key-checking=false", "cat", "launched"], 0, SERVICE, ""),
    ("1.2 --version", ["--version"], 0, ["fleetctl version "], ""),
    ("1.2 -v", ["-v"], 0, ["fleetctl version "], ""),
    ("1.2 no arguments", [], 0, ["USAGE:\n"], ""),
    ("1.2 help", ["help"], 0, ["NAME:\n\t", "USAGE:\n\t", "VERSION:\n\t2", "COMMANDS:\n\t", "OPTIONS:\n\t"], ""),
    ("1.2 help of a command", ["help", "stop"], 0,
     ["NAME:\n\t", "USAGE:\n\t", "DESCRIPTION:\n\t", "OPTIONS:\n\t", "GLOBAL OPTIONS:\n\t"], ""),
    ("1.2 -h", ["stop", "-h"], 0, ["DESCRIPTION:\n\t"], ""),
    ("1.2 --h", ["stop", "--h"], 0, ["DESCRIPTION:\n\t"], ""),
    ("1.2 unknown topic; exits 2 on purpose", ["help", "x"], 2, "",
     "Unknown help topic [`x`]. (fleetctl help lists the commands)\n"),
    ("1.2 unknown command; exits 2 on purpose", ["x"], 2, "",
     'Error: unknown command "x" for "fleetctl" (fleetctl help lists them)\n'),
    ("1.2 unknown flag; exits 2 on purpose", ["list-units", "--bogus"], 2, "", "Error: unknown flag: --bogus\n"),
    ("1.2 unknown short flag; likewise", ["list-units", "-x"], 2, "", "Error: unknown shorthand flag: 'x'\n"),
    ("1.2 missing value; likewise", ["list-units", "--fields"], 2, "", "Error: flag needs an argument: --fields\n"),
    ("1.2 bad value; likewise", ["start", "--block-attempts=x", "new"], 2, "",
     'Error: --block-attempts: "x" is not a number\n'),

    # §1.3: endpoints (more in test-ctl-args and test_remote.py).
    ("1.3 no scheme", ["--endpoint=/run/x", "list-units"], 1, "",
     ["Unable to initialize client: URL scheme undefined"]),
    ("1.3 host:port", ["--endpoint=127.0.0.1:49153", "list-units"], 1, "",
     ["Unable to initialize client: first path segment in URL cannot contain colon"]),
    ("1.3 unix with a host", ["--endpoint=unix://var/run/x", "list-units"], 1, "",
     'Unable to initialize client: unable to connect to host "var" with scheme "unix"\n'),

    # §1.4: names.
    ("1.4 a suffix is added", ["cat", "launched"], 0, SERVICE, ""),
    ("1.4 only the last component counts", ["cat", "/some/where/launched.service"], 0, SERVICE, ""),
    ("1.4 foo.conf is foo.conf.service", ["cat", "foo.conf"], 4, "", "Unit foo.conf.service not found\n"),
    ("1.4 a path is where the file is", ["submit", "sub/hello"], 0, "Unit hello.service inactive\n", ""),

    # §1.5: creating units.
    ("1.5.1 the unit cannot be read", ["submit", "fails"], 1, "",
     "Error creating units: error retrieving Unit(fails.service) from Registry: it is broken\n"),
    ("1.5.2 differs from the file", ["start", "differs"], 0, "Unit differs.service launched on " + HERE + "\n",
     DIFFERS.format("differs.service", "", "differs.service")),
    ("1.5.2 no file", ["start", "inactive"], 0, f"Unit inactive.service launched on {HERE}\n", ""),
    ("1.5.2 --replace, same", ["submit", "--replace", "same"], 0,
     "Found same Unit(same.service) in Registry, nothing to do\n", ""),
    ("1.5.2 --replace, state check", ["submit", "--replace", "differs"], 0, "",
     "Warning: can not replace Unit(differs.service) in state 'launched', use the appropriate command\n"),
    ("1.5.2 --replace, state check, then its action", ["load", "--replace", "differs"], 0,
     f"Unit differs.service loaded on {HERE}\n",
     "Warning: can not replace Unit(differs.service) in state 'launched', use the appropriate command\n"),
    ("1.5.2 --replace", ["start", "--replace", "differs"], 0, f"Unit differs.service launched on {HERE}\n", ""),
    ("1.5.3a a directory", ["submit", "dir"], 1, "",
     "Error creating units: failed getting Unit(dir.service) from file: Is a directory\n"),
    ("1.5.3b found nowhere; exits 4 on purpose", ["submit", "nosuch"], 4, "",
     "Error creating units: unable to find Unit(nosuch.service) in Registry or on filesystem\n"),
    ("1.5.3c from the stored template", ["submit", "stored@1"], 0, "Unit stored@1.service inactive\n", ""),
    ("1.5.3d from the local template", ["submit", "t@1"], 0, "Unit t@1.service inactive\n", ""),
    ("1.5.3d found nowhere; exits 4 on purpose", ["submit", "no@1"], 4, "",
     "Error creating units: failed getting Unit(no@1.service) from template: unable to find template Unit(no@.service) "
     "in Registry or on filesystem\n"),
    ("1.5.4 unknown requirement", ["submit", "bogus"], 0, "Unit bogus.service inactive\n",
     'WARNING: Unit bogus.service: unrecognized requirement in [X-Fleet] section: "Bogus"\n'),
    ("1.5.5 an empty file", ["submit", "empty"], 1, "",
     "Error creating units: empty.service: there is no option in it: this is no unit file\n"),
    ("1.5.6 a global unit", ["submit", "g2"], 0, "Unit g2.service inactive\n", ""),

    # §1.6: changes.
    ("1.6.1 the legend in full", ["start", "--full", "new"], 0, f"Unit new.service launched on {A}/10.0.0.1\n", ""),
    ("1.6.1 --no-block", ["load", "--no-block", "new"], 0, "Triggered unit new.service load\n", ""),
    ("1.6.1 --no-block wins", ["load", "--no-block", "--block-attempts=3", "new"], 0,
     "Triggered unit new.service load\n", ""),
    ("1.6.2 a global unit", ["load", "g2"], 0, ["Triggered global unit g2.service load\n"], ""),
    ("1.6.2 a template", ["start", "t@"], 1, "", 'Error creating units: cannot activate template "t@.service"\n'),
    ("1.6.3 none is known; exits 4 on purpose", ["stop", "nosuch"], 4, "",
     "Units not found in registry: nosuch.service\n"),
    ("1.6.3 inactive", ["stop", "inactive"], 1, "", "Unable to stop unit inactive.service in state inactive\n"),
    ("1.6.3 stop", ["stop", "launched", "loaded"], 0,
     f"Unit launched.service loaded on {HERE}\nUnit loaded.service loaded on {HERE}\n",
     "Successfully stopped units [launched.service loaded.service].\n"),
    ("1.6.3 a global unit", ["stop", "g"], 0, ["Triggered global unit g.service stop\n"],
     "Successfully stopped units [g.service].\n"),
    ("1.6.4 unload", ["unload", "launched"], 0, "Unit launched.service inactive\n",
     "Successfully unloaded units [launched.service].\n"),
    ("1.6.4 a global unit", ["unload", "g"], 0, ["Triggered global unit g.service unload\n"],
     "Successfully unloaded units [g.service].\n"),
    ("1.6.4 destroy", ["destroy", "launched", "g"], 0, "Destroyed launched.service\nDestroyed g.service\n", ""),
    ("1.6.4 none is known; exits 4 on purpose", ["destroy", "nosuch"], 4, "",
     "Units not found in registry: nosuch.service\n"),
    ("1.6.5 one line with --no-block, on purpose", ["start", "--no-block", "new"], 0,
     "Triggered unit new.service start\n", ""),

    # §1.8: lists.
    ("1.8 no fields; exits 2 on purpose", ["list-units", "--fields="], 2, "", "Must define output format\n"),
    ("1.8 unknown field; exits 2 on purpose", ["list-units", "--fields=unit,Unit"], 2, "",
     'Invalid key in output format: "Unit"\n'),
    ("1.8 a field may repeat", ["list-unit-files", "--no-legend", "--fields=unit,unit", "g"], 0,
     "g.service\tg.service\n", ""),
    ("1.8 one column has no tabs", ["list-unit-files", "--fields=unit", "g"], 0, "UNIT\ng.service\n", ""),
    ("1.8 list-machines", ["list-machines"], 0, "MACHINE\t\tIP\t\tMETADATA\n"
     "aaaaaaaa...\t10.0.0.1\ta=2,a-b=1\nbbbbbbbb...\t-\t\t-\n", ""),
    ("1.8 list-units", ["list-units"], 0, "UNIT\t\t\tMACHINE\t\t\tACTIVE\t\tSUB\n"
     f"g.service\t\t{HERE}\tactive\t\trunning\ng.service\t\tbbbbbbbb...\t\tfailed\t\tfailed\n"
     f"launched.service\t{HERE}\tactive\t\trunning\nlost.service\t\tcccccccc...\t\tinactive\t-\n", ""),
    ("1.8 hashes", ["list-units", "--no-legend", "--fields=hash,load"], 0,
     "0123456\tloaded\n-\tloaded\n0123456\tloaded\n-\t-\n", ""),
    ("1.8 hashes in full", ["list-units", "--no-legend", "--full", "--fields=hash", "launched"], 0,
     "0123456789" * 4 + "\n", ""),
    ("1.8 list-unit-files", ["list-unit-files", "g", "launched", "inactive"], 0, None, ""),
    ("1.8 state and target", ["list-unit-files", "--no-legend", "--fields=unit,dstate,state,target,global", "g",
                              "inactive", "loaded"], 0,
     "g.service\t\tlaunched\t-\t\tglobal\t\t\ttrue\n"
     "inactive.service\tinactive\tinactive\t-\t\t\tfalse\n"
     f"loaded.service\t\tloaded\t\tloaded\t\t{HERE}\tfalse\n", ""),
    ("1.8 tmachine", ["list-unit-files", "--no-legend", "--fields=tmachine", "g"], 0, "global\n",
     'WARNING: The "tmachine" field is deprecated. Use "target" instead\n'),
    ("1.8 cat", ["cat", "launched"], 0, SERVICE, ""),
    ("1.8 cat, unknown", ["cat", "nosuch"], 4, "", "Unit nosuch.service not found\n"),
    ("1.8 cat, error", ["cat", "fails"], 1, "", "Error retrieving Unit fails.service: it is broken\n"),

    # Ours: is-active and is-failed, as systemctl has them.
    ("is-active", ["is-active", "launched"], 0, "active\n", ""),
    ("is-active: one of several", ["is-active", "inactive", "launched"], 0, "inactive\nactive\n", ""),
    ("is-active: none", ["is-active", "inactive", "loaded"], 3, "inactive\ninactive\n", ""),
    ("is-active: unknown", ["is-active", "nosuch"], 4, "inactive\n", ""),
    ("is-active: the worst of a global unit", ["is-active", "g"], 3, "failed\n", ""),
    ("is-active: a pattern", ["is-active", "la*"], 0, "active\n", ""),
    ("is-active: a pattern without match", ["is-active", "zz*"], 4, "", ""),
    ("is-active -q", ["is-active", "-q", "launched"], 0, "", ""),
    ("is-active --quiet", ["is-active", "--quiet", "inactive"], 3, "", ""),
    ("is-active needs one", ["is-active"], 2, "", NO_UNITS),
    ("is-failed", ["is-failed", "g"], 0, "failed\n", ""),
    ("is-failed: none", ["is-failed", "launched"], 1, "active\n", ""),
    ("is-failed: unknown", ["is-failed", "nosuch"], 4, "inactive\n", ""),
    ("is-active: error", ["is-active", "fails"], 1, "",
     "Error retrieving list of units from repository: it is broken\n"),

    # Ours: verify.
    ("verify: several, all said", ["verify", "empty", "new.service", "dir"], 1, "",
     "empty.service: there is no option in it: this is no unit file\ndir.service: Is a directory\n"),
    ("verify: a warning only", ["verify", "bogus"], 0, "",
     'WARNING: bogus.service: unrecognized requirement in [X-Fleet] section: "Bogus"\n'),
    ("verify: no file", ["verify", "nosuch"], 1, "", "nosuch.service: No such file or directory\n"),
    ("verify: a path", ["verify", "sub/hello"], 0, "", ""),
    ("verify: a bad name", ["verify", "a b.service"], 1, "", ["a b.service: ", "' '"]),
    ("verify needs one", ["verify"], 2, "", ["No units given"]),
]


def test_every_rule(b):
    wrong = []
    for number, (name, words, code, out, err) in enumerate(RULES):
        b.clean()
        prepare(b)
        b.fake.machines = [dict(b.fake.machines[0], metadata={"a-b": "1", "a": "2"}), *b.fake.machines[1:]]
        b.fake.on("GET", "/units/fails.service", status=500, message="it is broken")
        try:
            b.expect(words, code, out, err)
        except AssertionError as error:
            wrong.append(f"rule {number}, {name}: {error}")
    assert not wrong, "\n".join(wrong)


def test_debug(b):
    """§1.2: the first fleet took notice of the environment only."""
    b.fake.add("a.service", SERVICE)
    for words, env in ((["--debug"], {}), ([], {"FLEETCTL_DEBUG": "true"})):
        said = b.run(*words, "cat", "a", env=env)
        assert said[:2] == (0, SERVICE) and re.fullmatch(
            r"DEBUG: GET /fleet/v1/units/a\.service: 200, \d+ bytes, \d+ ms\n", said[2]), said
    b.expect(["cat", "a"], 0, SERVICE, "", env={"FLEETCTL_DEBUG": ""})
    b.expect(["cat", "a"], 0, SERVICE, 'WARNING: FLEETCTL_DEBUG is ignored: "x" is neither true nor false\n',
             env={"FLEETCTL_DEBUG": "x"})
    b.expect(["--debug=false", "cat", "a"], 0, SERVICE, "", env={"FLEETCTL_DEBUG": "true"})
    b.expect(["list-unit-files"], 0, ["UNIT\t"], "", env={"FLEETCTL_NO_LEGEND": "true"})


def test_is_active_of_many_asks_once(b):
    for i in range(50):
        b.fake.add(f"u{i:02}.service", SERVICE, "launched", machine=A)
    b.fake.states = [{"name": f"u{i:02}.service", "machineID": A, "systemdActiveState": "active" if i else "failed"}
                     for i in range(50)]
    b.expect(["is-active", "u*"], 0, "failed\n" + 49 * "active\n", "")
    assert len(b.fake.log) == 2, b.fake.log


def test_verify_asks_nobody(b):
    b.file("broken.service", "[Service]\n\nExecStart\n")
    b.file("torn.service", "[X-Fleet]\nMachineID=1\nGlobal=true\n")
    b.expect(["--endpoint=unix:///nonexistent", "verify", "broken", "torn"], 1, "",
             "broken.service: line 3: unexpected newline encountered while parsing option name\n"
             "torn.service: MachineID cannot be used with Global\n")
    assert b.fake.log == []


def test_errors_of_lists(b):
    """§1.8: what cannot be listed; the first fleet's lines about etcd mean nothing any more."""
    for path in ("/machines", "/units", "/state"):
        b.fake.on("GET", path, status=500, message="it is broken")
    b.expect(["list-machines"], 1, "", "Error retrieving list of active machines from fleet API (it is broken)\n")
    for verb in ("list-units", "list-unit-files"):
        b.expect([verb], 1, "", "Error retrieving list of units from repository: it is broken\n")


def test_cat_to_the_byte(b):
    """§1.8: sections gathered, comments gone, values as they are."""
    b.file("x.service", "# comment\n[Unit]\nDescription = a  b \n\n[Service]\nExecStart=/bin/sh -c 'x \\\n  y'\n"
           "[Unit]\nAfter=\u00e4.service\n")
    b.expect(["submit", "x"], 0, "Unit x.service inactive\n", "")
    code, out, err = b.run("cat", "x")
    assert (code, err) == (0, "")
    b.file("y.service", out)
    b.expect(["submit", "y"], 0, None, "")
    b.expect(["cat", "y"], 0, out, "")  # What cat says, submitted, is the same again.
    assert out.startswith("[Unit]\nDescription=a  b\nAfter=\u00e4.service\n\n[Service]\nExecStart=/bin/sh -c 'x "), out


def test_help_fits_a_screen(b):
    verbs = re.findall(r"^\t([a-z][a-z-]*) ", b.run("help")[1].split("COMMANDS:\n")[1].split("\n\n")[0], re.M)
    assert "submit" in verbs and len(verbs) > 15
    for verb in [None, *verbs]:
        lines = b.run("help", *([verb] if verb else []))[1].expandtabs(8).splitlines()
        assert len(lines) <= 72 and max(map(len, lines)) <= 80, (verb, len(lines), max(lines, key=len))
