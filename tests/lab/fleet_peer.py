# SPDX-License-Identifier: Apache-2.0
"""A daemon that is none: runs on a host of the lab with its key and certificate, and says to the leader what it likes.
Prints what came of it. By hand, without protobuf's library: a host of the lab has none."""

from __future__ import annotations

import json
import os
import socket
import ssl
import struct
import sys
import time

PORT = 7390
TLS = "/var/lib/fleet/tls"
LEVEL = 1  # Feature level (raftstore/registry_level.h).


def varint(n: int) -> bytes:
    out = b""
    while n > 0x7F:
        out += bytes([n & 0x7F | 0x80])
        n >>= 7
    return out + bytes([n])


def number(field: int, n: int) -> bytes:
    return varint(field << 3) + varint(n)


def fixed64(field: int, n: int) -> bytes:
    return varint(field << 3 | 1) + struct.pack("<Q", n)


def data(field: int, value: bytes | str) -> bytes:
    value = value.encode() if isinstance(value, str) else value
    return varint(field << 3 | 2) + varint(len(value)) + value


def decode(message: bytes) -> dict[int, list]:
    fields: dict[int, list] = {}
    at = 0

    def read() -> int:
        nonlocal at
        n = shift = 0
        while True:
            byte = message[at]
            at += 1
            n |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return n
    while at < len(message):
        key = read()
        kind = key & 7
        if kind == 0:
            value: int | bytes = read()
        else:
            size = {1: 8, 5: 4}.get(kind) or read()
            value = message[at:at + size]
            at += size
        fields.setdefault(key >> 3, []).append(value)
    return fields


class Peer:
    def __init__(self, ask: dict[str, str], machine: str) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.load_verify_locations(f"{TLS}/authority.crt")
        context.load_cert_chain(f"{TLS}/host.crt", f"{TLS}/host.key")
        context.set_alpn_protocols(["fleet-session/1"])
        self.heard = b""
        self.buffer = b""
        self.socket = context.wrap_socket(socket.create_connection((ask["leader"], PORT), timeout=10))
        boot = open("/run/fleet/boot-id").read().strip()
        self.boot = boot
        self.send(number(1, 1) + number(2, 2) + data(3, bytes.fromhex(ask["cluster"])) +
                  fixed64(4, int(ask["server"], 16)) + data(6, machine) + data(7, bytes.fromhex(boot)) + number(80, LEVEL))

    def send(self, message: bytes) -> None:
        self.socket.sendall(struct.pack(">I", len(message)) + message)

    def receive(self) -> dict[int, list]:
        while len(self.buffer) < 4 or len(self.buffer) < 4 + struct.unpack(">I", self.buffer[:4])[0]:
            piece = self.socket.recv(65536)
            if not piece:
                raise ConnectionError("closed")
            self.buffer += piece
        size = struct.unpack(">I", self.buffer[:4])[0]
        message, self.buffer = self.buffer[4:4 + size], self.buffer[4 + size:]
        self.heard += message
        return decode(message)


def as_other(ask: dict[str, str]) -> str:
    try:
        peer = Peer(ask, ask["other"])
        welcome = peer.receive()
        return "accepted" if welcome.get(1) == [1] else welcome.get(2, [b"refused"])[0].decode()
    except (OSError, ConnectionError) as error:
        return f"cut off: {error}"


def request(ident: int, caller: bytes) -> bytes:
    message = number(1, ident) + data(2, "GET") + data(3, "/fleet/v1/units") + data(7, "nowhere")
    return data(4, message + (data(50, caller) if caller else b""))  # SessionUp.api_request


def as_itself(ask: dict[str, str]) -> dict:
    peer = Peer(ask, ask["machine"])
    welcome = peer.receive()
    if welcome.get(1) != [1]:
        return {"refused": welcome.get(2, [b""])[0].decode()}
    machine = data(1, ask["machine"]) + data(2, "impostor") + fixed64(5, int(ask["server"], 16)) + data(21, peer.boot) + \
        number(80, LEVEL)
    peer.send(data(1, number(1, int.from_bytes(os.urandom(7), "little") | 1) + data(2, machine) + number(3, 1)))
    callers = {"nobody": b"", "root": number(1, 1) + number(5, 3),
               "client": number(1, 2) + data(3, "admin") + data(4, ask["serial"]) + number(5, 3)}
    for ident, caller in enumerate(callers.values(), 1):
        peer.send(request(ident, caller))
    shares: set[str] = set()
    answers: dict[str, int] = {}
    until = time.monotonic() + 20
    while (len(answers) < len(callers) or not shares) and time.monotonic() < until:
        down = peer.receive()
        for share in down.get(3, []):
            shares |= {decode(unit)[1][0].decode() for unit in decode(share).get(3, [])}
        for reply in down.get(4, []):
            fields = decode(reply)
            answers[list(callers)[fields[1][0] - 1]] = fields[2][0]
    return {"shares": sorted(shares), "answers": answers, "heard": peer.heard.decode(errors="replace")}


def main() -> None:
    ask = json.load(open(sys.argv[1]))
    print(json.dumps({"as_other": as_other(ask), **as_itself(ask)}))


main()
