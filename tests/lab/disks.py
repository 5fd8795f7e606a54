# SPDX-License-Identifier: Apache-2.0
"""What is on a host's disks before its first boot: what differs from this machine, above all what is not started."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from kernel import LabError, make_file_system

if TYPE_CHECKING:
    from host import Host
    from lab import Lab

# What of systemd's own start-up a host keeps; everything else is masked. Targets and slices only group things.
KEEP_UNITS = re.compile(r"(systemd-journald(-dev-log)?\.(service|socket)|dbus\.(service|socket)|.*\.(target|slice))$")
UNIT_DIRS = ("/usr/local/lib/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system")
GENERATOR_DIRS = ("/usr/local/lib/systemd/system-generators", "/usr/lib/systemd/system-generators",
                  "/lib/systemd/system-generators")


def make_disks(lab: Lab, host: Host) -> None:
    """Lays out a host's folders: its root disk (what differs from this machine), its data disk, its journal."""
    for name in ("upper", "root", "data", "journal"):
        (host.dir / name).mkdir(parents=True)
    upper = host.dir / "upper"
    if host.number in lab.disk_mb:
        image = host.dir / "data.img"
        with open(image, "wb") as file:
            file.truncate(lab.disk_mb[host.number] << 20)
        make_file_system(image)
        result = subprocess.run(["nsenter", "-t", str(lab.keeper_pid), "-m", "--", "mount", "-o", "loop",
                                 host.own_dir / "data.img", host.own_dir / "data"], text=True, capture_output=True)
        if result.returncode != 0:
            raise LabError(result.stderr.strip())

    for path in ("etc/systemd", "etc/fleet"):
        (upper / path).mkdir(parents=True)
        # Opaque: nothing shines through of what this machine configures and enables there.
        os.setxattr(upper / path, "trusted.overlay.opaque", b"y")
    names = "".join(f"{h.ip} {h.name}\n{h.ip6} {h.name}\n" for h in lab.hosts)
    files = {
        "etc/machine-id": f"{host.machine_id}\n",  # Its presence also tells systemd that this is no first boot.
        "etc/hostname": f"{host.name}\n",
        "etc/hosts": f"127.0.0.1 localhost\n::1 localhost\n{names}",
        "etc/resolv.conf": "",
        "etc/fstab": "",
        "etc/systemd/system.conf": "[Manager]\nShowStatus=no\nLogTarget=journal\n",
        "etc/systemd/journald.conf": "[Journal]\nStorage=volatile\nRuntimeMaxUse=256M\nRateLimitIntervalSec=0\n"
                                     "ForwardToSyslog=no\nAudit=no\n",
    }
    for path, text in files.items():
        (upper / path).write_text(text)
    for folder, names_to_mask in (("system", set(units_to_mask())), ("system-generators", set(generators()))):
        (upper / "etc/systemd" / folder).mkdir()
        for name in names_to_mask:
            (upper / "etc/systemd" / folder / name).symlink_to("/dev/null")


def units_to_mask() -> Iterator[str]:
    """What packages pull into every boot by themselves (what is enabled in /etc does not shine through at all)."""
    yield from ("systemd-logind.service", "systemd-udevd.service", "systemd-networkd.service",
                "systemd-resolved.service", "systemd-hostnamed.service", "systemd-timedated.service")
    for folder in UNIT_DIRS:
        for link in [*Path(folder).glob("*.wants/*"), *Path(folder).glob("*.requires/*")]:
            if not KEEP_UNITS.match(link.name):
                yield link.name


def generators() -> Iterator[str]:
    for folder in GENERATOR_DIRS:
        for path in Path(folder).glob("*"):
            yield path.name
