# SPDX-License-Identifier: Apache-2.0
"""Daemons that are built with AddressSanitizer and UBSan (configure --enable-sanitize), on the hosts of a lab: the service's
sandbox is opened as far as they need it, and what they report is collected, whatever the test itself thinks."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from lab import Host

REPORTS = "/var/log/sanitizers"
# They come after a library that LD_PRELOAD names (faults.py); a leak is looked for by a process that traces this one.
OPTIONS = f"log_path={REPORTS}/report:verify_asan_link_order=0:abort_on_error=0"
ENVIRONMENT = {"ASAN_OPTIONS": OPTIONS, "UBSAN_OPTIONS": f"print_stacktrace=1:log_path={REPORTS}/report"}
DROP_IN = "".join(["[Service]\n", *(f"Environment={name}={value}\n" for name, value in ENVIRONMENT.items()),
                   f"ReadWritePaths={REPORTS}\n", "SystemCallFilter=@debug\n", "CapabilityBoundingSet=CAP_SYS_PTRACE\n"])


@cache
def is_sanitized(build: Path) -> bool:
    status = build / "config.log"
    return status.exists() and "--enable-sanitize" in status.read_text(errors="replace")


def install(host: Host) -> None:
    """Before fleetd starts there."""
    host.run(["install", "-d", "-m", "1777", REPORTS])  # fleetctl is run by others than root, too.
    host.environment |= ENVIRONMENT
    for service in ("fleetd.service", "fleet-lease.service"):
        host.write(f"/etc/systemd/system/{service}.d/sanitizers.conf", DROP_IN)


def reports(host: Host) -> str:
    """What they have said on this host so far, also while it is down."""
    folder = host.dir / "upper" / REPORTS.lstrip("/")
    if not folder.is_dir():
        return ""
    return "".join(f"--- {host.name}: {path.name}\n{path.read_text(errors='replace')}" for path in sorted(folder.iterdir()))
