"""A plain DNS client, and servers to ask (real ones: Debian's unbound) for tests."""

from __future__ import annotations

import contextlib
import ipaddress
import secrets
import socket
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.lab import HANGING, ONE_TRY, Namespace, ended_afterwards, until

KINDS = {"A": 1, "PTR": 12, "TXT": 16, "AAAA": 28}
NOERROR, SERVFAIL, NXDOMAIN, REFUSED = 0, 2, 3, 5


@dataclass(frozen=True, slots=True)
class Answer:
    code: int
    data: frozenset[str] = frozenset()


def lookup(where: Namespace, server: str, name: str, kind: str = "A", timeout: float = HANGING) -> Answer | None:
    """What ``server`` answers to ``where``; None for no answer within ``timeout`` seconds."""
    query = struct.pack("!HHHHHH", secrets.randbits(16), 0x0100, 1, 0, 0, 0) + _encoded(name)
    said = where.ask_udp(server, 53, query + struct.pack("!HH", KINDS[kind], 1), timeout)
    return parse(said) if said is not None else None


def reverse(where: Namespace, server: str, address: str) -> Answer | None:
    return lookup(where, server, ipaddress.ip_address(address).reverse_pointer, "PTR")


def _encoded(name: str) -> bytes:
    return b"".join(bytes([len(part)]) + part.encode() for part in name.split(".")) + b"\0"


def parse(message: bytes) -> Answer:
    _, flags, questions, answers, _, _ = struct.unpack_from("!HHHHHH", message)
    position, data = 12, set()
    for _ in range(questions):
        position = _name(message, position)[1] + 4
    for _ in range(answers):
        position = _name(message, position)[1]
        kind, _, _, length = struct.unpack_from("!HHIH", message, position)
        position += 10
        raw = message[position : position + length]
        if kind in (KINDS["A"], KINDS["AAAA"]):
            data.add(socket.inet_ntop(socket.AF_INET if length == 4 else socket.AF_INET6, raw))
        elif kind == KINDS["PTR"]:
            data.add(_name(message, position)[0])
        position += length
    return Answer(flags & 15, frozenset(data))


def _name(message: bytes, position: int) -> tuple[str, int]:
    """The name at ``position``, and where what follows it begins."""
    parts, end = [], 0
    while length := message[position]:
        if length >= 0xC0:
            end = end or position + 2
            position = struct.unpack_from("!H", message, position)[0] & 0x3FFF
        else:
            parts.append(message[position + 1 : position + 1 + length].decode())
            position += 1 + length
    return ".".join(parts), end or position + 1


@contextlib.contextmanager
def dns_server(
    where: Namespace, address: str, records: Sequence[str], directory: Path, tls: tuple[Path, Path] | None = None
) -> Iterator[None]:
    """A DNS server that knows ``records`` (as in a zone file), plainly on port 53; or with ``tls`` (certificate and
    key) over TLS on port 853, and not plainly."""
    file = directory / f"upstream-{secrets.token_hex(4)}.conf"
    lines = [
        "server:",
        f"interface: {address}@{853 if tls else 53}",
        "access-control: 0.0.0.0/0 allow",
        "do-daemonize: no",
        'username: ""',
        'chroot: ""',
        'directory: ""',
        'pidfile: ""',
        "use-syslog: no",
        'module-config: "iterator"',
        "unblock-lan-zones: yes",
        'local-zone: "." static',
        *([f'tls-service-pem: "{tls[0]}"', f'tls-service-key: "{tls[1]}"', "tls-port: 853"] if tls else []),
        *(f"local-data: '{record}'" for record in records),
        "remote-control:",
        "control-enable: no",
    ]
    file.write_text("\n".join(lines) + "\n")
    server = where.start("unbound", "-d", "-c", file, log=directory / "upstream.log")
    with ended_afterwards(server):
        until(lambda: _listens(where, address, 853 if tls else 53))
        yield


def _listens(where: Namespace, address: str, port: int) -> bool:
    with where.socket(address, socket.SOCK_STREAM) as connection:
        connection.settimeout(ONE_TRY)
        return connection.connect_ex((address, port)) == 0
