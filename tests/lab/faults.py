# SPDX-License-Identifier: Apache-2.0
"""Faults of a host's disk and clock that only its fleetd notices: see faults.c, which fleetd is made to load.

    install(cluster)
    set_faults(host, sync_ms=500)
    set_faults(host, log_ms=500)  # Only what libraft writes, in a thread of its own.
    set_faults(host, io_error=READS_FAIL)
    set_faults(host)  # And it is well again.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from fleet import Cluster
from lab import Host, LabError

LIBRARY = "/usr/lib/fleet-lab-faults.so"
FILE = "/etc/lab-faults"  # As in faults.c.
WRITES_FAIL, READS_FAIL = 1, 2
DROP_IN = f"[Service]\nEnvironment=LD_PRELOAD={LIBRARY}\n"


def install(cluster: Cluster, hosts: Sequence[Host] | None = None) -> None:
    """Makes these hosts' fleetd (by default the cluster's) load it, from its next start on."""
    source = cluster.build / "tests/lab/faults.so"
    if not source.exists():
        raise LabError(f"{source} does not exist: \"make check\" builds it")
    for host in cluster.hosts if hosts is None else hosts:
        host.install(source, LIBRARY)
        set_faults(host)
        host.write("/etc/systemd/system/fleetd.service.d/faults.conf", DROP_IN)
        host.systemctl("daemon-reload")


def set_faults(host: Host, sync_ms: int = 0, clock_s: int = 0, io_error: int = 0, log_ms: int = 0) -> None:
    """From now on; in place, for fleetd looks at the very file. libraft does not start on a disk that is slow so."""
    path = host.root / FILE.lstrip("/")
    if not path.exists():
        path.write_bytes(bytes(16))
    with open(path, "r+b") as file:
        file.write(struct.pack("=iiii", sync_ms, clock_s, io_error, log_ms))
