# SPDX-License-Identifier: Apache-2.0
"""Every type of unit lives on its host as systemd means it to: started, triggered, replaced, enabled, and gone."""

from __future__ import annotations

from collections.abc import Iterable

from fleet import Cluster
from lab import Host, wait_until
from test_errors import FAILED, refused
from testing import Needs, lab_test

SHARED = True
NEEDS = Needs(hosts=3)

# Leaves a line for each time it was started; in a tmpfs, so that it tells of this boot only.
RUN = "ExecStartPre=/bin/sh -c 'echo x >>/run/starts.%n'\nExecStart=/bin/sleep infinity\n"


def write(cluster: Cluster, units: dict[str, str]) -> list[str]:
    """Writes unit files on the first host; returns their paths."""
    for name, text in units.items():
        cluster.hosts[0].write(f"/root/units/{name}", text)
    return [f"/root/units/{name}" for name in units]


def start(cluster: Cluster, units: dict[str, str], *options: str) -> None:
    cluster.ctl(cluster.hosts[0], "start", *options, *write(cluster, units))


def home_of(cluster: Cluster, unit: str) -> Host:
    """The one host on which it is active."""
    homes = cluster.where_truly(unit)
    assert len(homes) == 1 and cluster.where(unit) == homes, f"{unit} is active on {homes}"
    return homes[0]


def starts(host: Host, unit: str) -> int:
    return len(host.run(["cat", f"/run/starts.{unit}"], check=False).stdout.splitlines())


def reloads(host: Host) -> int:
    return host.run(["journalctl", "-q", "--no-pager", "_PID=1", "MESSAGE=Reloading."]).stdout.count("Reloading.")


def lives(host: Host, units: Iterable[str]) -> dict[str, tuple[str, int]]:
    return {unit: (host.show(unit, "InvocationID"), starts(host, unit)) for unit in units}


def destroy(cluster: Cluster, *units: str) -> None:
    """Also sees that nothing of them is left on any host."""
    cluster.ctl(cluster.hosts[0], "destroy", *units)
    names = set(units)
    for host in cluster.hosts:
        assert not names & set(host.run(["ls", "/run/fleet/units"]).stdout.split()), host.name
        links = host.run(["find", "/run/systemd/system", "-lname", "/run/fleet/units/*", "-printf", "%l\\n"]).stdout
        assert not {f"/run/fleet/units/{unit}" for unit in names} & set(links.split()), (host.name, links)
        for unit in units:
            assert host.show(unit, "ActiveState") in ("inactive", ""), (host.name, unit)


def test_a_socket_activates_its_service(cluster: Cluster) -> None:
    greet = "import socket; s = socket.socket(fileno=3); c, _ = s.accept(); c.send(b'hello')"
    units = {"greet.service": f"[Service]\nExecStart=/usr/bin/python3 -c \"{greet}\"\n",
             "greet.socket": "[Socket]\nListenStream=/run/greet.sock\n[X-Fleet]\nMachineOf=greet.service\n"}
    one = cluster.hosts[0]
    cluster.ctl(one, "load", *write(cluster, units))
    assert "Unit greet.socket launched on " in cluster.ctl(one, "start", "greet.socket").stdout
    home = home_of(cluster, "greet.socket")
    assert home.show("greet.socket", "SubState") == "listening" and not home.is_active("greet.service")
    call = "import socket; s = socket.socket(socket.AF_UNIX); s.connect('/run/greet.sock'); print(s.recv(9))"
    for _ in range(2):  # The service ends after each call; the socket stays, and fleet does not mind.
        assert home.run(["/usr/bin/python3", "-c", call]).stdout == "b'hello'\n"
        wait_until(lambda: home.show("greet.socket", "SubState"), 5, "the socket to listen again",
                   accept=lambda sub: sub == "listening")
    cluster.ctl(one, "stop", "greet.socket")
    assert home.show("greet.socket", "ActiveState") == "inactive"
    destroy(cluster, "greet.socket", "greet.service")


def test_a_timer_and_a_path_trigger_their_services(cluster: Cluster) -> None:
    job = "[Service]\nType=oneshot\nExecStart=/bin/sh -c 'echo x >>/run/starts.%n; rm -f /run/bell'\n"
    together = "[X-Fleet]\nMachineOf=tick.service\n"
    units = {"tick.service": job, "tick.timer": "[Timer]\nOnActiveSec=1\nAccuracySec=1ms\n" + together,
             "bell.service": job + together, "bell.path": "[Path]\nPathExists=/run/bell\n" + together}
    one = cluster.hosts[0]
    cluster.ctl(one, "load", *write(cluster, units))
    cluster.ctl(one, "start", "tick.timer", "bell.path")
    home = home_of(cluster, "tick.timer")
    wait_until(lambda: starts(home, "tick.service"), 10, "the timer to fire", accept=lambda count: count == 1)
    assert home_of(cluster, "tick.timer") is home and home_of(cluster, "bell.path") is home
    assert starts(home, "bell.service") == 0
    home.write("/run/bell", "")
    wait_until(lambda: starts(home, "bell.service"), 10, "the path unit to see the file", accept=lambda count: count == 1)
    assert home_of(cluster, "bell.path") is home
    destroy(cluster, *units)
    home.write("/run/bell", "")
    assert home.show("bell.path", "LoadState") == "not-found"


def test_a_mount_is_mounted_and_unmounted(cluster: Cluster) -> None:
    text = "[Mount]\nWhat=tmpfs\nType=tmpfs\nWhere=/mnt/lab-data\n"
    start(cluster, {"mnt-lab\\x2ddata.mount": text})
    home = home_of(cluster, "mnt-lab\\x2ddata.mount")
    assert home.run(["findmnt", "-no", "FSTYPE", "/mnt/lab-data"]).stdout == "tmpfs\n"
    destroy(cluster, "mnt-lab\\x2ddata.mount")
    assert home.run(["findmnt", "/mnt/lab-data"], check=False).stdout == ""
    # systemd's own words about what is wrong reach the user.
    [path] = write(cluster, {"data.mount": text})
    said = refused(cluster, cluster.hosts[0], FAILED, "Where= setting doesn't match unit name", "start", path)
    assert said.startswith("Unit data.mount failed on ")
    destroy(cluster, "data.mount")


def test_a_target_and_a_slice_hold_their_units(cluster: Cluster) -> None:
    service = f"[Unit]\nPartOf=app.target\n[Service]\nSlice=app.slice\n{RUN}[X-Fleet]\nMachineOf=app.target\n"
    units = {"app.target": "[Unit]\nWants=app-a.service\n[X-Fleet]\nMachineOf=app.slice\n",
             "app.slice": "[Slice]\nTasksMax=50\n", "app-a.service": service, "app-b.service": service}
    one = cluster.hosts[0]
    cluster.ctl(one, "load", *write(cluster, units))
    cluster.ctl(one, "start", "app.slice", "app.target")
    home = home_of(cluster, "app.target")
    assert home_of(cluster, "app-a.service") is home and not home.is_active("app-b.service")
    assert "/app.slice/" in home.show("app-a.service", "ControlGroup")
    before = lives(home, ["app.target", "app.slice", "app-a.service"])
    reloads_before = reloads(home)

    # What stands for others takes its new content on without a restart of them.
    start(cluster, {"app.target": units["app.target"].replace("app-a.service", "app-a.service app-b.service"),
                    "app.slice": "[Slice]\nTasksMax=60\n"}, "--replace")
    assert home.show("app.slice", "TasksMax") == "60" and reloads(home) == reloads_before + 1
    assert home_of(cluster, "app-b.service") is home
    assert lives(home, before) == before

    cluster.ctl(one, "stop", "app.target")
    wait_until(lambda: home.is_active("app-a.service"), 5, "the target's units to stop", accept=lambda up: not up)
    assert (starts(home, "app-a.service"), starts(home, "app-b.service")) == (1, 1)
    destroy(cluster, *units)


def enabled(host: Host, unit: str) -> str:
    return host.systemctl("is-enabled", unit, check=False).stdout.strip()


@lab_test(deadline_s=90)
def test_install_sections(cluster: Cluster) -> None:
    one, two, _ = cluster.hosts
    pinned = f"\n[X-Fleet]\nMachineID={two.machine_id}\n"
    plain = f"[Service]\n{RUN}{pinned}"
    wanted = f"[Service]\n{RUN}\n[Install]\nWantedBy=multi-user.target\nAlias=nick.service\n{pinned}"
    start(cluster, {"wanted.service": wanted})
    assert enabled(two, "wanted.service") == "enabled-runtime"
    assert two.show("nick.service", "LoadState") == "loaded"
    assert "wanted.service" in two.show("multi-user.target", "Wants").split()
    two.systemctl("start", "multi-user.target")
    assert starts(two, "wanted.service") == 1

    start(cluster, {"wanted.service": plain}, "--replace")
    assert enabled(two, "wanted.service") == "linked-runtime" and starts(two, "wanted.service") == 2
    assert "wanted.service" not in two.show("multi-user.target", "Wants").split()
    assert two.show("nick.service", "LoadState") == "not-found"
    start(cluster, {"wanted.service": wanted}, "--replace")
    assert enabled(two, "wanted.service") == "enabled-runtime" and starts(two, "wanted.service") == 3

    two.power_cut()
    two.boot()
    wait_until(lambda: two.is_active("wanted.service") and cluster.where("wanted.service", one) == [two], 30,
               "the unit to be back with its host")
    assert enabled(two, "wanted.service") == "enabled-runtime" and starts(two, "wanted.service") == 1

    cluster.ctl(one, "unload", "wanted.service")
    assert not two.run(["find", "/run/systemd/system", "-name", "wanted*", "-o", "-name", "nick*"]).stdout
    assert "wanted.service" not in two.show("multi-user.target", "Wants").split()
    assert two.show("wanted.service", "LoadState") == two.show("nick.service", "LoadState") == "not-found"
    destroy(cluster, "wanted.service")

    # An instance, and a unit of another type.
    write(cluster, {"want@.service": f"[Service]\n{RUN}\n[Install]\nWantedBy=multi-user.target\n{pinned}"})
    cluster.ctl(one, "start", "/root/units/want@1.service")
    start(cluster, {"want.path": f"[Path]\nPathExists=/run/never\nUnit=want@1.service\n"
                                 f"[Install]\nRequiredBy=paths.target\n{pinned}"})
    assert enabled(two, "want@1.service") == enabled(two, "want.path") == "enabled-runtime"
    assert "want@1.service" in two.show("multi-user.target", "Wants").split()
    assert "want.path" in two.show("paths.target", "Requires").split()
    destroy(cluster, "want.path", "want@1.service")
    assert "want.path" not in two.show("paths.target", "Requires").split()

    [path] = write(cluster, {"vain.service": f"[Service]\n{RUN}\n[Install]\nDefaultInstance=x\n"})
    said = refused(cluster, one, FAILED, "cannot enable it: its [Install] section has none of WantedBy=", "start", path)
    assert said.startswith("Unit vain.service failed on ")
    destroy(cluster, "vain.service")


def test_units_of_one_command_come_up_together(cluster: Cluster) -> None:
    """Sidekicks that bind to each other, given in the wrong order; new units need no reload of systemd at all."""
    side = "[Unit]\nBindsTo={0}.service\nAfter={0}.service\n[Service]\n" + RUN + "[X-Fleet]\nMachineOf={0}.service\n"
    units = {"a-side.service": side.format("main"), "b-side.service": side.format("a-side"),
             "main.service": f"[Service]\n{RUN}", "main.timer": "[Timer]\nOnActiveSec=1d\n[X-Fleet]\nMachineOf=main.service\n"}
    before = {host.name: reloads(host) for host in cluster.hosts}
    start(cluster, units)
    home = home_of(cluster, "main.service")
    assert all(home_of(cluster, unit) is home for unit in units)
    assert [starts(home, unit) for unit in units] == [1, 1, 1, 0]
    assert {host.name: reloads(host) for host in cluster.hosts} == before

    # All replaced at once: one reload, and every unit is restarted once, although each drags the others along.
    start(cluster, {name: text.replace("[Service]\n", "[Service]\nEnvironment=A=2\n") for name, text in units.items()},
          "--replace")
    assert home_of(cluster, "main.service") is home and reloads(home) == before[home.name] + 1
    assert [starts(home, unit) for unit in units] == [2, 2, 2, 0]

    # An operator's stop is reported, and not fought; it takes those along that are bound to it.
    home.systemctl("stop", "main.service")
    wait_until(lambda: {u.name: u.active for u in cluster.units(home)}, 5, "the stop to be listed",
               accept=lambda states: states["main.service"] == states["b-side.service"] == "inactive")
    assert [starts(home, unit) for unit in units] == [2, 2, 2, 0]
    destroy(cluster, *units)
    assert reloads(home) == before[home.name] + 1


def test_replacing_happens_in_place_and_once(cluster: Cluster) -> None:
    kinds = {"plain.service": "", "notify.service": "Type=exec\n", "kept.service": "Type=oneshot\nRemainAfterExit=yes\n"}
    run = RUN.replace("/bin/sleep infinity", "/bin/sh -c 'sleep ${A} &'")
    texts = {name: f"[Service]\nEnvironment=A=1001\n{kind}{run if 'oneshot' in kind else RUN}"
             for name, kind in kinds.items()}
    start(cluster, texts)
    homes = {name: home_of(cluster, name) for name in texts}
    for host in cluster.hosts:  # An administrator's drop-in, of before and after.
        host.write("/etc/systemd/system/plain.service.d/admin.conf", "[Service]\nEnvironment=B=admin\n")
    start(cluster, {name: text.replace("1001", "1002") for name, text in texts.items()}, "--replace")
    for name, home in homes.items():
        assert home_of(cluster, name) is home and starts(home, name) == 2, name
        assert "A=1002" in home.show(name, "Environment") and home.show(name, "NeedDaemonReload") == "no"
    assert "B=admin" in homes["plain.service"].show("plain.service", "Environment")

    # Only [X-Fleet] is new: that is not systemd's business, and nothing is restarted nor reloaded.
    before = {name: (homes[name].show(name, "InvocationID"), reloads(homes[name])) for name in texts}
    start(cluster, {name: text.replace("1001", "1002") + "[X-Fleet]\nConflicts=other-*\n" for name, text in texts.items()},
          "--replace")
    for name, home in homes.items():
        assert home_of(cluster, name) is home and starts(home, name) == 2, name
        assert "Conflicts=other-*" in home.read(f"/run/fleet/units/{name}")
        assert (home.show(name, "InvocationID"), reloads(home)) == before[name]
        assert home.show(name, "NeedDaemonReload") == "no"

    # New content that systemd refuses: that is said, and what runs is left alone until there is better content.
    home, pid = homes["plain.service"], homes["plain.service"].main_pid("plain.service")
    [path] = write(cluster, {"plain.service": "[Service]\nType=exec\n"})
    refused(cluster, cluster.hosts[0], FAILED, "Service has no ExecStart=", "start", "--replace", path)
    assert home.main_pid("plain.service") == pid and home_of(cluster, "plain.service") is home
    start(cluster, {"plain.service": texts["plain.service"]}, "--replace")
    assert home_of(cluster, "plain.service") is home and starts(home, "plain.service") == 3
    destroy(cluster, *texts)
    for host in cluster.hosts:
        host.run(["rm", "-r", "/etc/systemd/system/plain.service.d"])


def test_a_finished_job_is_not_run_again_for_its_placement(cluster: Cluster) -> None:
    job = "[Service]\nType=oneshot\nExecStart=/bin/sh -c 'echo x >>/run/starts.%n'\n"
    [path] = write(cluster, {"job.service": job})
    one = cluster.hosts[0]
    assert "Unit job.service finished on " in cluster.ctl(one, "start", path).stdout
    [home] = [cluster.host_of(unit.machine) for unit in cluster.units(one) if unit.name == "job.service"]
    write(cluster, {"job.service": job + "[X-Fleet]\nConflicts=other-*\n"})
    assert "Unit job.service finished on " in cluster.ctl(one, "start", "--replace", path).stdout
    assert starts(home, "job.service") == 1
    write(cluster, {"job.service": job + "Environment=A=1\n"})
    assert "Unit job.service finished on " in cluster.ctl(one, "start", "--replace", path).stdout
    assert starts(home, "job.service") == 2
    destroy(cluster, "job.service")


def test_instances_follow_their_template(cluster: Cluster) -> None:
    one = cluster.hosts[0]
    names = [f"cell@{number}.service" for number in range(3)]
    paths = [f"/root/units/{name}" for name in names]
    write(cluster, {"cell@.service": f"[Service]\nEnvironment=A=1\n{RUN}"})
    cluster.ctl(one, "start", *paths)
    homes = {name: home_of(cluster, name) for name in names}
    write(cluster, {"cell@.service": f"[Service]\nEnvironment=A=2\n{RUN}"})
    cluster.ctl(one, "start", "--replace", *paths)
    for name, home in homes.items():
        assert home_of(cluster, name) is home and starts(home, name) == 2
        assert home.show(name, "Environment") == "A=2"
    destroy(cluster, *names)


def test_a_global_unit_is_replaced_on_every_host(cluster: Cluster) -> None:
    texts = [f"[Service]\nEnvironment=A={number}\n{RUN}[X-Fleet]\nGlobal=yes\n" for number in (1, 2)]
    start(cluster, {"everywhere.service": texts[0]})
    start(cluster, {"everywhere.service": texts[1]}, "--replace")
    for host in cluster.hosts:
        assert host.show("everywhere.service", "Environment") == "A=2" and starts(host, "everywhere.service") == 2
    destroy(cluster, "everywhere.service")


def test_what_systemd_remembers_of_a_destroyed_unit_does_not_come_back(cluster: Cluster) -> None:
    """It is kept in memory for as long as another unit names it."""
    follower = f"[Unit]\nAfter=front.service\n[Service]\n{RUN}[X-Fleet]\nGlobal=yes\n"
    start(cluster, {"follower.service": follower, "front.service": f"[Service]\nEnvironment=A=1\n{RUN}"})
    home = home_of(cluster, "front.service")
    destroy(cluster, "front.service")
    assert home.show("front.service", "Environment") == "A=1"  # Else this test shows nothing.
    pinned = f"[Service]\nEnvironment=A=2\n{RUN}[X-Fleet]\nMachineID={home.machine_id}\n"
    start(cluster, {"front.service": pinned})
    assert home_of(cluster, "front.service") is home and home.show("front.service", "Environment") == "A=2"
    destroy(cluster, "front.service", "follower.service")


def test_nothing_of_fleetd_or_of_the_bus_touches_a_unit_of_any_type(cluster: Cluster) -> None:
    one = cluster.hosts[0]
    together = "[X-Fleet]\nMachineOf=all.target\n"
    units = {"all.target": "[Unit]\nDescription=all\n", "all.slice": "[Slice]\n" + together,
             "all.service": f"[Service]\n{RUN}{together}", "all.timer": "[Timer]\nOnActiveSec=1d\n" + together,
             "all.path": "[Path]\nPathExists=/run/never\n" + together,
             "other.socket": "[Socket]\nListenStream=/run/all.sock\n" + together,
             "other.service": "[Service]\nExecStart=/bin/true\n" + together,
             "mnt-all.mount": "[Mount]\nWhat=tmpfs\nType=tmpfs\nWhere=/mnt/all\n" + together,
             "kept.service": f"[Service]\nType=oneshot\nRemainAfterExit=yes\n"
                             f"ExecStart=/bin/sh -c 'echo x >>/run/starts.%n'\n{together}"}
    running = [unit for unit in units if unit != "other.service"]
    cluster.ctl(one, "load", *write(cluster, units))
    cluster.ctl(one, "start", *running)
    home = home_of(cluster, "all.target")
    before = lives(home, running)

    def nothing_changed() -> None:
        wait_until(lambda: [unit for unit in running if cluster.where(unit, one) != [home]], 20,
                   "all units to be reported as active", accept=lambda missing: not missing)
        assert lives(home, running) == before

    nothing_changed()
    home.systemctl("kill", "-s", "KILL", "fleetd")
    wait_until(lambda: home.is_active("fleetd.service"), 10, "fleetd to be back")
    nothing_changed()
    home.systemctl("restart", "fleetd")
    nothing_changed()
    home.systemctl("daemon-reexec")  # Ends every connection to systemd.
    nothing_changed()
    start(cluster, {"later.service": f"[Service]\n{RUN}{together}"})
    assert home_of(cluster, "later.service") is home
    cluster.ctl(one, "stop", *running)
    assert not [unit for unit in running if home.is_active(unit)]
    destroy(cluster, *units, "later.service")


def test_one_broken_unit_among_twenty(cluster: Cluster) -> None:
    units = {f"good-{number}.service": f"[Service]\n{RUN}" for number in range(19)}
    paths = write(cluster, units | {"broken.service": "[Service]\nType=exec\n"})
    result = cluster.ctl(cluster.hosts[0], "start", *paths, check=False)
    assert result.returncode == FAILED
    [said] = result.stderr.splitlines()
    assert said.startswith("Unit broken.service failed on ") and "Service has no ExecStart=" in said
    assert all(starts(home_of(cluster, unit), unit) == 1 for unit in units)
    destroy(cluster, *units, "broken.service")


def test_types_that_this_host_does_not_have(cluster: Cluster) -> None:
    """Devices, swap and automounts need what the hosts of a lab, as containers, lack: systemd's word is passed on."""
    for name, text in {"dev-none.device": "[Unit]\nDescription=x\n", "dev-none.swap": "[Swap]\nWhat=/dev/none\n",
                       "mnt-none.automount": "[Automount]\nWhere=/mnt/none\n"}.items():
        [path] = write(cluster, {name: text})
        said = refused(cluster, cluster.hosts[0], FAILED, "does not support this type of unit", "start", path)
        assert said.startswith(f"Unit {name} failed on ")
        destroy(cluster, name)


def test_names_and_masks_that_systemd_refuses(cluster: Cluster) -> None:
    one = cluster.hosts[0]
    for host in cluster.hosts:
        host.systemctl("mask", "masked.service", check=False)
    for name, reason in {"masked.service": "is masked", ".service": "not a valid unit name"}.items():
        [path] = write(cluster, {name: f"[Service]\n{RUN}"})
        refused(cluster, one, FAILED, reason, "start", path)
        destroy(cluster, name)
    for host in cluster.hosts:
        host.systemctl("unmask", "masked.service")


def test_fleetd_does_not_run_itself(cluster: Cluster) -> None:
    one, _, three = cluster.hosts
    before = [host.main_pid("fleetd") for host in cluster.hosts]
    for name in ("fleetd.service", "fleet-lease.service"):
        [path] = write(cluster, {name: f"[Service]\n{RUN}"})
        for verb in ("submit", "start"):
            refused(cluster, one, FAILED, f"unit name {name} is taken by fleet itself", verb, path)
    assert cluster.ctl(one, "list-unit-files", "--no-legend").stdout == ""
    assert [host.main_pid("fleetd") for host in cluster.hosts] == before

    # Where somebody gave it another name, that one's host knows.
    three.run(["cp", "/etc/systemd/system/fleetd.service", "/run/systemd/system/other.service"])
    three.systemctl("stop", "fleetd")
    try:
        three.systemctl("daemon-reload")
        three.systemctl("start", "other")
        cluster.wait_ready()
        other = three.main_pid("other")
        [path] = write(cluster, {"other.service": f"[Service]\n{RUN}[X-Fleet]\nMachineID={three.machine_id}\n"})
        refused(cluster, one, FAILED, "fleetd itself runs in the unit of this name", "start", path)
        cluster.ctl(one, "destroy", "other.service")
        assert three.main_pid("other") == other
    finally:
        three.systemctl("stop", "other")
        three.run(["rm", "/run/systemd/system/other.service"])
        three.systemctl("daemon-reload")
        three.systemctl("start", "fleetd")
    cluster.wait_ready()


def test_a_unit_of_the_host_gives_way(cluster: Cluster) -> None:
    """What runs by a name from the host's packages is replaced by what the cluster runs by that name."""
    one = cluster.hosts[0]
    one.write("/usr/lib/systemd/system/own.service", "[Service]\nExecStart=/bin/sleep 1001\n")
    one.systemctl("start", "own.service")
    start(cluster, {"own.service": f"[Service]\n{RUN}[X-Fleet]\nMachineID={one.machine_id}\n"})
    assert one.read(f"/proc/{one.main_pid('own.service')}/cmdline") == "/bin/sleep\0infinity\0"
    assert starts(one, "own.service") == 1
    destroy(cluster, "own.service")
    one.run(["rm", "/usr/lib/systemd/system/own.service"])


def test_types_that_are_no_files(cluster: Cluster) -> None:
    one = cluster.hosts[0]
    reasons = {"x.scope": "does not load this type", "x.snapshot": "no longer has this type",
               "x.busname": "no longer has this type", "x@1.slice": "invalid unit type for template",
               "x@1.mount": "invalid unit type for template"}
    for name, reason in reasons.items():
        [path] = write(cluster, {name: "[Unit]\nDescription=x\n"})
        for verb in ("submit", "load", "start"):
            refused(cluster, one, FAILED, reason, verb, path)
    assert cluster.ctl(one, "list-unit-files", "--no-legend").stdout == ""
