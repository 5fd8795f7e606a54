#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Stands for ssh: notes its words in $SSH_LOG, then runs the command behind "--" here, or connects where -W says."""

import os
import select
import socket
import sys


def connect(target):
    host, port = target.rsplit(":", 1)
    with socket.create_connection((host.strip("[]"), int(port))) as s:
        while True:
            for ready in select.select([0, s], [], [])[0]:
                data = os.read(0, 65536) if ready == 0 else s.recv(65536)
                if not data:
                    return
                s.sendall(data) if ready == 0 else os.write(1, data)


words = sys.argv[1:]
with open(os.environ["SSH_LOG"], "a") as log:
    log.write(repr(words) + "\n")
if "SSH_FAILS" in os.environ:
    sys.stderr.write("ssh: connect to host gate port 22: No route to host\n")
    sys.exit(255)
if "-W" in words:
    connect(words[words.index("-W") + 1])
elif "--" in words:
    os.execv("/bin/sh", ["sh", "-c", " ".join(words[words.index("--") + 1:])])
else:
    print("a shell")
