# SPDX-License-Identifier: Apache-2.0
"""The completions of data/completions, with the pretend fleetd as the live cluster. bash is tried by filling in what
readline would; fish and zsh where they are installed. Run by test_ctl.py."""

import os
import re
import shutil
import subprocess

COMPLETIONS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "data", "completions")
SERVICE = "[Service]\nExecStart=/bin/sleep inf\n"
BASH = """
compopt() { :; } # It works only where readline asks.
. "$1"
COMP_LINE=$2 COMP_POINT=${#2}
read -ra COMP_WORDS <<<"$2"
[[ $2 == *' ' ]] && COMP_WORDS+=('')
COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
_fleetctl
printf '%s\\n' "${COMPREPLY[@]}"
"""
A = "aaaaaaaa0000000000000000000000aa"

# What is typed, and all that it may become (readline puts in what is behind the last of "@:=").
CASES = [
    ("sto", ["stop"]),
    ("list-u", ["list-unit-files", "list-units"]),
    ("stop ", ["db.service", "web@1.service"]),
    ("stop d", ["db.service"]),
    ("cat web@", ["1.service"]),
    ("is-active d", ["db.service"]),
    ("ssh n", ["node1", "node2"]),
    ("ssh " + A[:3], [A]),
    ("ssh --machine=node", ["node1", "node2"]),
    ("ssh --unit=d", ["db.service"]),
    ("ssh --for", ["--forward-agent"]),
    ("list-units --out", ["--output="]),
    ("list-units --output=json", ["json", "json-pretty"]),
    ("list-units -o t", ["text"]),
    ("--tunn", ["--tunnel="]),
    ("--endpoint=x --debug submi", ["submit"]),
    ("help ver", ["verify", "version"]),
    ("verify files/a", ["files/a.service"]),
    ("start files/a", ["files/a.service"]),
    ("explain --re", ["--request-timeout="]),
    ("promote --aut", ["--automatic"]),
    ("transfer-leadership n", ["node1", "node2"]),
    ("set vot", ["voters="]),
    ("set failure_limit_burst=3 v", ["voters="]),
    ("nosuch ", None),  # Whatever it is, it is no unit.
]


def environment(b):
    b.fake.add("web@1.service", SERVICE)
    b.fake.add("db.service", SERVICE)
    b.file("files/a.service", SERVICE)
    os.mkdir(os.path.join(b.folder, "bin"))
    os.symlink(b.program, os.path.join(b.folder, "bin", "fleetctl"))
    return dict(os.environ, PATH=os.path.join(b.folder, "bin") + ":" + os.environ["PATH"], LC_ALL="C",
                FLEETCTL_ENDPOINT="unix://" + b.socket, HOME=b.folder)


def complete(b, env, typed):
    p = subprocess.run(["bash", "--norc", "-c", BASH, "bash", os.path.join(COMPLETIONS, "fleetctl.bash"),
                        "fleetctl " + typed], cwd=b.folder, env=env, capture_output=True, text=True, timeout=60)
    assert p.returncode == 0 and p.stderr == "", p
    return sorted(p.stdout.split())


def test_bash_completion(b):
    env = environment(b)
    for typed, wanted in CASES:
        got = complete(b, env, typed)
        if wanted is None:
            assert "db.service" not in got, (typed, got)
        else:
            assert got == wanted, (typed, got)


def test_every_verb_is_completed(b):
    env = environment(b)
    verbs = re.findall(r"^\t([a-z][a-z-]*) ", b.run("help")[1].split("COMMANDS:\n")[1].split("\n\n")[0], re.M)
    assert complete(b, env, "") == sorted(verbs) and "submit" in verbs


def test_completion_without_a_cluster_says_nothing(b):
    env = dict(environment(b), FLEETCTL_ENDPOINT="unix:///nonexistent")
    assert complete(b, env, "stop ") == []
    assert complete(b, env, "sto") == ["stop"]


def test_fish_completion(b):
    if shutil.which("fish") is None:
        raise b.skip("fish is not installed")
    env = environment(b)
    for typed, wanted in (("sto", ["stop"]), ("stop ", ["db.service", "web@1.service"]), ("ssh node", ["node1", "node2"]),
                          ("ssh --machine=node", ["--machine=node1", "--machine=node2"]), ("--tunn", ["--tunnel="]),
                          ("list-units --output=js", ["--output=json", "--output=json-pretty"]),
                          ("help ver", ["verify", "version"]), ("list-units --no-l", ["--no-legend"]),
                          ("verify files/", ["files/a.service"]),
                          ("set vot", ["voters="])):
        p = subprocess.run(["fish", "--no-config", "-c", 'source $argv[1]; complete -C "fleetctl $argv[2]"',
                            os.path.join(COMPLETIONS, "fleetctl.fish"), typed], cwd=b.folder, env=env,
                           capture_output=True, text=True, timeout=60)
        got = sorted(line.split("\t")[0] for line in p.stdout.splitlines())
        assert p.stderr == "" and got == wanted, (typed, p)


def test_zsh_completion_parses(b):
    if shutil.which("zsh") is None:
        raise b.skip("zsh is not installed")
    p = subprocess.run(["zsh", "-n", os.path.join(COMPLETIONS, "_fleetctl")], capture_output=True, text=True, timeout=60)
    assert p.returncode == 0 and p.stderr == "", p
