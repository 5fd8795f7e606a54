# SPDX-License-Identifier: Apache-2.0
"""A hostile neighbour: opens connections to fleetd's ports that are wrong in every way, at a steady rate.

    flood.py PLAN SECONDS           PLAN: JSON; prints JSON: per kind how many, who was let in, what processor time it took
    flood.py --sink SECONDS PORT... a neighbour whom connections cost as little as may be; prints the same of itself

Runs in a host of the lab, which has nothing but Python. Nothing in here knows more of fleet than the first words on a
connection (raftstore/fleet.proto); whoever is taken for one of the cluster, or is answered by the API, is "let in"."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import random
import selectors
import socket
import ssl
import struct
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable

READ_S = 3.0
HOLD_S = 4.0  # How long one keeps still who keeps still.
PURPOSES = {"raft": 1, "session": 2, "join": 3}
OPEN_MAX = 400  # At a time, from here.
BLOCK = bytes(4096)


# --- The little of protobuf that is needed ---------------------------------------------------------------------------


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes(out + bytes([value]))


def field(number: int, value: int | bytes | str, fixed: bool = False) -> bytes:
    if fixed:
        return varint(number << 3 | 1) + struct.pack("<Q", value)
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    data = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(data)) + data


def hello(purpose: str, cluster: bytes, machine: str, server: int) -> bytes:
    return (field(1, 1) + field(2, PURPOSES[purpose]) + field(3, cluster) + field(4, server, fixed=True)
            + field(6, machine) + field(7, os.urandom(16)) + field(8, "2.1.0") + field(80, 1))


def machine_message(machine: str, server: int) -> bytes:
    return (field(1, machine) + field(2, "mallory") + field(3, "10.77.0.66") + field(4, "10.77.0.66:7390")
            + field(5, server, fixed=True) + field(7, "2.1.0") + field(80, 1))


def framed(message: bytes) -> bytes:
    return struct.pack(">I", len(message)) + message


# --- One connection --------------------------------------------------------------------------------------------------


class Attack:
    def __init__(self, plan: dict) -> None:
        self.plan = plan
        self.counts: Counter[str] = Counter()
        self.let_in: list[str] = []
        self.refused: Counter[str] = Counter()
        self.cluster = bytes.fromhex(plan["cluster"])
        self.contexts = {name: self.context(files) for name, files in plan["certificates"].items()}
        self.kinds: list[tuple[str, Callable[[], Awaitable[None]]]] = []
        for port in plan["ports"]:
            self.kinds += [(f"{port}: {name}", lambda port=port, way=way: way(tuple(plan["ports"][port])))
                           for name, way in (("silent", self.silent), ("garbage", self.garbage), ("huge", self.huge),
                                             ("half a handshake", self.half_handshake), ("reset", self.reset),
                                             ("drip", self.drip), ("no certificate", self.nobody))]
        for name in self.contexts:
            for purpose in ("raft", "session"):
                self.kinds.append((f"cluster: {name} {purpose}",
                                   lambda name=name, purpose=purpose: self.impostor(name, purpose)))
            if "api" in plan["ports"] and name not in plan["clients"]:
                self.kinds.append((f"api: {name}", lambda name=name: self.client(name)))
        for name in plan["tokens"]:
            self.kinds.append((f"cluster: token {name}", lambda name=name: self.join(name)))

    @staticmethod
    def context(files: list[str]) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # It does not care who is there.
        if files:
            context.load_cert_chain(*files)
        return context

    def target(self, port: str) -> tuple[str, int]:
        return tuple(self.plan["ports"][port])

    async def tls(self, context: ssl.SSLContext, where: tuple[str, int], alpn: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        context.set_alpn_protocols([alpn])
        return await asyncio.wait_for(asyncio.open_connection(*where, ssl=context), READ_S)

    async def silent(self, where: tuple[str, int]) -> None:
        _, writer = await asyncio.open_connection(*where)
        await asyncio.sleep(HOLD_S)
        writer.close()

    async def garbage(self, where: tuple[str, int]) -> None:
        reader, writer = await asyncio.open_connection(*where)
        writer.write(os.urandom(random.choice((1, 100, 5000, 100000))))
        await asyncio.wait_for(reader.read(100), READ_S)
        writer.close()

    async def huge(self, where: tuple[str, int]) -> None:
        reader, writer = await asyncio.open_connection(*where)
        writer.write(b"\xff\xff\xff\xff" + b"\x16\x03\x03\xff\xff" + b"A" * 70000)
        await asyncio.wait_for(reader.read(100), READ_S)
        writer.close()

    async def half_handshake(self, where: tuple[str, int]) -> None:
        """A ClientHello, and then nothing."""
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        context = self.context([])
        context.set_alpn_protocols(["fleet-raft/1"])
        try:
            context.wrap_bio(incoming, outgoing).do_handshake()
        except ssl.SSLWantReadError:
            pass
        _, writer = await asyncio.open_connection(*where)
        first = outgoing.read()
        writer.write(first[:random.choice((len(first), len(first) // 2, 6))])
        await asyncio.sleep(HOLD_S)
        writer.close()

    async def reset(self, where: tuple[str, int]) -> None:
        _, writer = await asyncio.open_connection(*where)
        sock = writer.get_extra_info("socket")
        sock.setsockopt(1, 13, struct.pack("ii", 1, 0))  # SO_LINGER: its end is a reset.
        writer.close()

    async def drip(self, where: tuple[str, int]) -> None:
        _, writer = await asyncio.open_connection(*where)
        for byte in b"\x16\x03\x01\x02\x00\x01\x00\x01":
            writer.write(bytes([byte]))
            await asyncio.sleep(0.4)
        writer.close()

    async def nobody(self, where: tuple[str, int]) -> None:
        reader, writer = await self.tls(self.context([]), where, "fleet-session/1")
        writer.write(framed(hello("session", self.cluster, os.urandom(16).hex(), random.getrandbits(63))))
        if await asyncio.wait_for(reader.read(1000), READ_S):
            self.let_in.append("no certificate")
        writer.close()

    async def impostor(self, name: str, purpose: str) -> None:
        """With a certificate that is wrong in one way; as the machine that it names, or as another one."""
        machine, server = self.plan["identities"][name]
        reader, writer = await self.tls(self.contexts[name], self.target("cluster"), f"fleet-{purpose}/1")
        writer.write(framed(hello(purpose, self.cluster, machine, server)))
        head = await asyncio.wait_for(reader.readexactly(4), READ_S)
        welcome = await asyncio.wait_for(reader.readexactly(struct.unpack(">I", head)[0]), READ_S)
        if welcome.startswith(b"\x08\x01"):  # accepted = true
            # A machine that was removed is told so on a session, and no more.
            writer.write(framed(field(1, field(1, random.getrandbits(62), fixed=False) + field(2, machine_message(machine, server))
                                      + field(3, 1))))
            head = await asyncio.wait_for(reader.readexactly(4), READ_S)
            answer = await asyncio.wait_for(reader.readexactly(struct.unpack(">I", head)[0]), READ_S)
            if answer != field(40, b""):
                self.let_in.append(f"{name} for {purpose}: {answer[:40]!r}")
        writer.close()

    async def client(self, name: str) -> None:
        reader, writer = await self.tls(self.contexts[name], self.target("api"), "http/1.1")
        writer.write(b"GET /fleet/v1/units HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        answer = await asyncio.wait_for(reader.read(4000), READ_S)
        if answer.startswith(b"HTTP/1.1 2"):
            self.let_in.append(f"{name} at the API: {answer[:40]!r}")
        writer.close()

    async def join(self, name: str) -> None:
        secret = bytes.fromhex(self.plan["tokens"][name])
        machine, server = os.urandom(16).hex(), random.getrandbits(62) | 1
        reader, writer = await self.tls(self.context([]), self.target("cluster"), "fleet-join/1")
        writer.write(framed(hello("join", b"", machine, 0)))
        head = await asyncio.wait_for(reader.readexactly(4), READ_S)
        await asyncio.wait_for(reader.readexactly(struct.unpack(">I", head)[0]), READ_S)
        writer.write(framed(field(1, machine_message(machine, server)) + field(40, secret) + field(41, os.urandom(300))))
        head = await asyncio.wait_for(reader.readexactly(4), READ_S)
        reply = await asyncio.wait_for(reader.readexactly(struct.unpack(">I", head)[0]), READ_S)
        if reply.startswith(b"\x08\x01"):
            self.let_in.append(f"joined with token {name}")
        else:
            self.refused[name] += 1
        writer.close()

    def burn(self) -> None:
        """Takes the processor for as long as a connection to the sink needs less of it than one to fleetd."""
        end = time.thread_time() + self.plan.get("burn_s", 0.0)
        while time.thread_time() < end:
            hashlib.sha256(BLOCK).digest()

    async def one(self, name: str, way: Callable[[], Awaitable[None]]) -> None:
        self.burn()
        try:
            await way()
        except (OSError, asyncio.TimeoutError, asyncio.IncompleteReadError, ssl.SSLError):
            pass  # Being cut off is what it is for.
        finally:  # Also one that is still open at the end.
            self.counts[name] += 1

    async def run(self, seconds: float) -> None:
        begin, tasks, number = time.monotonic(), set(), 0
        random.shuffle(self.kinds)
        while time.monotonic() - begin < seconds:
            due = int((time.monotonic() - begin) * self.plan["rate"])
            while number < due and len(tasks) < OPEN_MAX:
                name, way = self.kinds[number % len(self.kinds)]
                task = asyncio.ensure_future(self.one(name, way))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
                number += 1
            number = max(number, due - OPEN_MAX)
            await asyncio.sleep(0.01)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


# --- Whom it attacks instead, for comparison -------------------------------------------------------------------------


def sink(seconds: float, ports: list[int]) -> int:
    """Accepts, and hangs up with the first word. Who says nothing is kept, as fleetd keeps it. Returns how many came."""
    came, end, ready = 0, time.monotonic() + seconds, selectors.DefaultSelector()
    for port in ports:
        ready.register(socket.create_server(("", port), backlog=128), selectors.EVENT_READ, "listener")
    while time.monotonic() < end:
        for key, _ in ready.select(0.1):
            if key.data == "listener":
                ready.register(key.fileobj.accept()[0], selectors.EVENT_READ)
                came += 1
            else:
                ready.unregister(key.fileobj)
                key.fileobj.close()
    return came


def main() -> None:
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))  # Another machine would not take our processors either.
    if sys.argv[1] == "--sink":
        begin = time.process_time()
        came = sink(float(sys.argv[2]), [int(port) for port in sys.argv[3:]])
        print(json.dumps({"came": came, "cpu_s": time.process_time() - begin}))
        return
    attack = Attack(json.loads(sys.argv[1]))
    begin = time.process_time()
    asyncio.run(attack.run(float(sys.argv[2])))
    print(json.dumps({"counts": attack.counts, "let_in": attack.let_in, "refused": attack.refused,
                      "cpu_s": time.process_time() - begin}))


if __name__ == "__main__":
    main()
