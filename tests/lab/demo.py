#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""What tools/demo shows: one story, told by the real commands and their real output."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from fleet import Cluster, write_service
from lab import HOLD_DIR, Host, Lab, exit_on_signals, remove_lab, wait_until

CITIES = {1: "region=eu,disk=ssd", 2: "region=eu", 3: "region=us,disk=ssd"}


def say(text: str) -> None:
    print(f"\n\033[1m{text}\033[0m" if sys.stdout.isatty() else f"\n== {text}", flush=True)


def show(cluster: Cluster, host: Host, *arguments: str, check: bool = True) -> str:
    """Runs fleetctl on a host as a user would, and shows what the user sees."""
    shown = [argument.removeprefix("/root/units/") for argument in arguments]
    print(f"{host.name}# fleetctl {' '.join(shown)}", flush=True)
    result = cluster.ctl(host, *arguments, check=check)
    print((result.stdout + result.stderr).expandtabs(), end="", flush=True)
    return result.stdout


def voters_say(cluster: Cluster, asked: Host) -> str:
    """What list-members says is still under way, or missing, behind its table."""
    return cluster.ctl(asked, "list-members").stderr


def tell_joining(cluster: Cluster) -> None:
    one, *others = cluster.hosts
    say("Three hosts, each with its own systemd and one fleetd, which belongs to no cluster. The first one founds one, ...")
    show(cluster, one, "init")
    say("... and makes a token that lets the others in: by it they know the cluster, and the cluster knows them.")
    token = show(cluster, one, "join-token")
    for host in others:
        host.write("/root/token", token, 0o600)
        show(cluster, host, "join", one.ip, "--token-file", "/root/token")


def tell_basics(cluster: Cluster) -> None:
    one = cluster.hosts[0]
    say("Together they are a Raft cluster; what they say to each other is encrypted, with certificates on both sides.")
    show(cluster, one, "list-machines")
    wait_until(lambda: cluster.ctl(one, "list-members").stdout, 30, "three voters",
               accept=lambda text: text.count("voter") == 3)
    wait_until(lambda: voters_say(cluster, one), 30, "all voters to answer", accept=lambda text: text == "")
    show(cluster, one, "list-members")

    say("A unit file, step by step. Any host will do for asking.")
    hello = write_service(one, "hello.service")
    show(cluster, one, "submit", hello)
    show(cluster, cluster.hosts[1], "list-unit-files")
    show(cluster, cluster.hosts[1], "cat", "hello")
    show(cluster, cluster.hosts[2], "load", "hello")
    show(cluster, cluster.hosts[2], "start", "hello")
    show(cluster, one, "list-units")
    show(cluster, one, "stop", "hello")
    show(cluster, one, "unload", "hello")
    show(cluster, one, "destroy", "hello")
    show(cluster, one, "list-unit-files")


def tell_placement(cluster: Cluster) -> None:
    one, two, _ = cluster.hosts
    say("A template, started three times: one on each host.")
    write_service(one, "hello@.service")
    show(cluster, one, "start", *(f"/root/units/hello@{i}" for i in (1, 2, 3)))

    say("[X-Fleet] decides the place.")
    write_service(one, "pinned.service", {"MachineID": two.machine_id})
    write_service(one, "american.service", {"MachineMetadata": "region=us"})
    write_service(one, "beside.service", {"MachineOf": "american.service"})
    write_service(one, "lonely@.service", {"Conflicts": "lonely@*"})
    write_service(one, "everywhere.service", {"Global": "true"})
    show(cluster, one, "start", "/root/units/pinned", "/root/units/american", "/root/units/beside")
    show(cluster, one, "start", *(f"/root/units/lonely@{i}" for i in (1, 2, 3)))
    show(cluster, one, "start", "/root/units/everywhere")
    show(cluster, one, "list-units")

    say("What fits nowhere is said at once, and why.")
    write_service(one, "asian.service", {"MachineMetadata": "region=asia"})
    show(cluster, one, "start", "/root/units/asian", check=False)
    show(cluster, one, "destroy", "asian")


def tell_crash(cluster: Cluster) -> None:
    asked = cluster.hosts[0]
    victim = cluster.where("hello@2.service")[0]
    if victim is asked:
        asked = cluster.hosts[1]
    mine = [unit.name for unit in cluster.units(asked) if victim.machine_id == unit.machine]
    say(f"The power of {victim.name} is cut. It ran: {' '.join(mine)}")
    begin = time.monotonic()
    victim.power_cut()
    wait_until(lambda: cluster.where("hello@2.service", asked), 30, "hello@2 to run elsewhere",
               accept=lambda hosts: len(hosts) == 1 and hosts[0] is not victim)
    print(f"hello@2.service is active elsewhere {time.monotonic() - begin:.1f} s after the crash (agent_ttl is 10 s).")
    show(cluster, asked, "list-units")
    show(cluster, asked, "explain", "hello@2")

    say(f"{victim.name} has power again: it boots, is back by itself, and has nothing left over.")
    begin = time.monotonic()
    victim.boot()
    wait_until(lambda: cluster.machines(asked), 30, "all hosts to be listed", accept=lambda rows: len(rows) == 3)
    # It gets the global unit again, and what found no other place meanwhile.
    wait_until(lambda: [unit for unit in cluster.units(asked) if unit.active != "active"], 30, "all units to be active",
               accept=lambda waiting: not waiting)
    wait_until(lambda: victim.is_active("everywhere.service"), 30, "the global unit to run there again")
    show(cluster, asked, "list-units")
    # It votes as soon as it is there, but the leader notices by its first answer.
    wait_until(lambda: voters_say(cluster, victim), 30, "all voters to answer", accept=lambda text: text == "")
    say(f"{time.monotonic() - begin:.1f} s after it got its power all that it runs is active, and all voters answer the leader.")
    show(cluster, victim, "list-members")


def tell(cluster: Cluster) -> None:
    tell_joining(cluster)
    tell_basics(cluster)
    tell_placement(cluster)
    tell_crash(cluster)


def run(build: Path, keep: bool) -> None:
    if HOLD_DIR.exists():
        sys.exit("A demo is running already (or another lab that was kept). End it first: ./tools/demo down")
    conf = {number: {"metadata": metadata} for number, metadata in CITIES.items()}
    with Lab(hosts=3, build=build, directory=HOLD_DIR if keep else None) as lab:
        print("Bringing up three hosts with systemd ...", flush=True)
        cluster = Cluster(lab, {"bootstrap": None, "join": None, "join_token_file": None}, host_conf=conf)
        cluster.start_waiting()
        tell(cluster)
        if keep:
            lab.hold()
    if keep:
        say("The cluster is still there. Try:")
        print("  ./tools/lab-host node1                        a shell on a host (node2 and node3 likewise)\n"
              "  ./tools/lab-host node1 fleetctl list-units    or one command\n"
              "  ./tests/lab/lab.py power-cut node2            and: boot, cut, mend, freeze, thaw\n"
              "  ./tools/demo down                             ends it")
    else:
        say("That was all; the hosts are gone. With --keep they stay, for you to play with.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    running = verbs.add_parser("run")
    running.add_argument("--build", type=Path, required=True)
    running.add_argument("--keep", action="store_true")
    verbs.add_parser("down")
    arguments = parser.parse_args()
    exit_on_signals()
    if arguments.verb == "run":
        run(arguments.build.resolve(), arguments.keep)
    elif HOLD_DIR.exists():
        remove_lab(HOLD_DIR)
        print("The demo's hosts are gone.")
    else:
        print("There is no demo running.")


if __name__ == "__main__":
    main()
