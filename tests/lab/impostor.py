# SPDX-License-Identifier: Apache-2.0
"""Runs on a host that is in the wrong hands: with the host's own key and certificate, it answers at the cluster port as
whoever is meant, and as the leader. Prints a line for each connection: what it was for, and how many bytes were said to it
after it had been greeted as that one.

    impostor.py ADDRESS PORT CERTIFICATES KEY MACHINE-ID
"""

from __future__ import annotations

import socket
import ssl
import sys
import threading

HELLO_TO_SERVER_ID = 5
LISTEN_S = 2


def read(connection: ssl.SSLSocket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = connection.recv(size - len(data))
        if not piece:
            raise ConnectionError("the other side has gone")
        data += piece
    return data


def varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        value |= (data[at] & 0x7F) << shift
        shift += 7
        at += 1
        if not data[at - 1] & 0x80:
            return value, at


def fixed64_of(data: bytes, wanted: int) -> bytes:
    """The field of a protobuf message with this number."""
    at = 0
    while at < len(data):
        key, at = varint(data, at)
        if key & 7 == 0:
            _, at = varint(data, at)
        elif key & 7 == 1:
            if key >> 3 == wanted:
                return data[at:at + 8]
            at += 8
        else:
            size, at = varint(data, at)
            at += size
    return bytes(8)


def serve(plain: socket.socket, context: ssl.SSLContext, machine_id: str) -> None:
    said = 0
    purpose = "?"
    try:
        plain.settimeout(LISTEN_S)
        connection = context.wrap_socket(plain, server_side=True)
        purpose = connection.selected_alpn_protocol() or "?"
        hello = read(connection, int.from_bytes(read(connection, 4), "big"))
        # Welcome: accepted, server_id, machine_id, boot_id.
        welcome = (b"\x08\x01" + b"\x19" + fixed64_of(hello, HELLO_TO_SERVER_ID) + b"\x22\x20" + machine_id.encode() +
                   b"\xa2\x01\x10" + bytes(16))
        connection.sendall(len(welcome).to_bytes(4, "big") + welcome)
        while piece := connection.recv(65536):
            said += len(piece)
    except (OSError, ConnectionError):
        pass
    print(purpose, said, flush=True)


def main() -> None:
    address, port, certificates, key, machine_id = sys.argv[1:]
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(certificates, key)
    context.set_alpn_protocols(["fleet-session/1", "fleet-raft/1", "fleet-identify/1", "fleet-join/1"])
    server = socket.create_server((address, int(port)))
    print("listens", flush=True)
    while True:
        connection, _ = server.accept()
        threading.Thread(target=serve, args=(connection, context, machine_id), daemon=True).start()


if __name__ == "__main__":
    main()
