"""Unbound's control socket, spoken to directly: to start ``unbound-control`` for each name would cost 50 times that."""

from __future__ import annotations

import socket
import struct
from collections.abc import Sequence
from pathlib import Path

TIMEOUT = 5.0  # seconds for one request; it takes milliseconds
# Unbound answers no client while it takes lines: this many at a time, which are about 5 ms.
BULK = 300
_END = "\x04\n"
_CREDENTIALS = struct.Struct("3i")  # pid, uid, gid


class DnsError(Exception):
    """The resolver could not be started or told something. The text is for an administrator."""


def reachable(path: Path) -> bool:
    """Whether somebody listens there."""
    try:
        with _connected(path):
            return True
    except OSError:
        return False


def listener(path: Path) -> int:
    """The pid of the process that listens there, as the kernel knows it; 0 when there is none."""
    try:
        with _connected(path) as connection:
            packed = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    except OSError:
        return 0
    return int(_CREDENTIALS.unpack(packed)[0])


def add(path: Path, records: Sequence[str]) -> None:
    """Give unbound ``records`` (as in a zone file, one line each); raise ``DnsError`` unless it took all of them."""
    for chunk in _chunks(records):
        _bulk(path, "local_datas", chunk, "added")


def remove(path: Path, owners: Sequence[str]) -> None:
    """Take everything that it was given for these names, of whatever type, from unbound."""
    for chunk in _chunks(owners):
        _bulk(path, "local_datas_remove", chunk, "removed")


def given(path: Path, ttl: int) -> set[str]:
    """The records with this TTL that unbound was given, as lines of a zone file. Those of its own live for hours."""
    found = (record.split() for record in ask(path, "list_local_data").splitlines())
    return {" ".join(record) for record in found if record[1:2] == [str(ttl)]}


def _chunks(lines: Sequence[str]) -> list[Sequence[str]]:
    return [lines[start : start + BULK] for start in range(0, len(lines), BULK)]


def _bulk(path: Path, command: str, lines: Sequence[str], done: str) -> None:
    said = ask(path, command, "".join(f"{line}\n" for line in lines) + _END).strip().splitlines()
    if f"{done} {len(lines)} datas" not in said:
        raise DnsError(f"unbound did not take all names: {said[0] if said else 'it said nothing'}")


def ask(path: Path, command: str, text: str = "") -> str:
    """One request with what belongs to it; the answer. Raise ``DnsError`` where there is none in time."""
    try:
        with _connected(path) as connection:
            connection.sendall(f"UBCT1 {command}\n{text}".encode())
            return b"".join(iter(lambda: connection.recv(65536), b"")).decode(errors="replace")
    except OSError as error:
        raise DnsError(f"unbound does not answer on {path} ({error.strerror or type(error).__name__})") from None


def _connected(path: Path) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.settimeout(TIMEOUT)
        connection.connect(str(path))
    except OSError:
        connection.close()
        raise
    return connection
