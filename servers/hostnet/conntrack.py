"""Forget the kernel's tracked connections of addresses that were released.

A tunnel address soon belongs to somebody else. Were its old entries left, replies to the old client's connections
would be let through to the new one. The kernel's table is dumped once per IP version and entries that name a released
address on either side are deleted, so the cost does not grow with the number of addresses. Spoken in raw netlink:
only two attributes of each entry matter, and the table may have hundreds of thousands.
"""

from __future__ import annotations

import ipaddress
import os
import socket
import struct
import time
from collections.abc import Collection, Iterable, Iterator

NFNL_SUBSYS_CTNETLINK = 1
CT_GET, CT_DELETE = (NFNL_SUBSYS_CTNETLINK << 8) | 1, (NFNL_SUBSYS_CTNETLINK << 8) | 2
NLM_F_REQUEST, NLM_F_ACK, NLM_F_DUMP = 0x1, 0x4, 0x300
NLMSG_ERROR, NLMSG_DONE = 2, 3
CTA_TUPLE_ORIG, CTA_TUPLE_REPLY, CTA_TUPLE_IP, CTA_ID, CTA_ZONE = 1, 2, 1, 12, 18
TYPE_MASK = 0x3FFF  # without the "nested" and "byte order" flags
SOURCE_OR_DESTINATION: dict[int, tuple[int, int]] = {socket.AF_INET: (1, 2), socket.AF_INET6: (3, 4)}
NETLINK_NETFILTER = 12
TIMEOUT = 5.0  # seconds for one whole pass
DELETES_AT_ONCE = 64


class ConntrackError(Exception):
    """The table could not be read or changed, or not within ``TIMEOUT``."""


def flush(addresses: Collection[str]) -> int:
    """Delete every entry whose source or destination, original or reply, is one of ``addresses``; return how many."""
    found = [ipaddress.ip_address(address) for address in addresses]
    deadline = time.monotonic() + TIMEOUT
    count = 0
    try:
        for version, kind in ((4, socket.AF_INET), (6, socket.AF_INET6)):
            packed = frozenset(address.packed for address in found if address.version == version)
            if packed:
                with _Socket(deadline) as netlink:
                    # Read all of it before deleting: a dump that is changed under way may skip entries.
                    doomed = list(_matching(netlink.dump(kind), packed, kind))
                    netlink.delete(kind, doomed)
                    count += len(doomed)
    except (OSError, struct.error) as error:
        raise ConntrackError(f"conntrack: {error}") from error
    return count


class _Socket:
    """A netfilter netlink socket with one deadline for everything done on it."""

    def __init__(self, deadline: float) -> None:
        self._deadline = deadline
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER)

    def __enter__(self) -> _Socket:
        self._socket.bind((0, 0))
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def dump(self, kind: int) -> Iterator[bytes]:
        """The attributes of every entry of one address family."""
        self._socket.send(_message(CT_GET, NLM_F_REQUEST | NLM_F_DUMP, kind, b""))
        while True:
            for type_, body in _messages(self._receive()):
                if type_ == NLMSG_DONE:
                    return
                if type_ == NLMSG_ERROR:
                    _raise_error(body)
                else:
                    yield body[4:]

    def delete(self, kind: int, entries: list[bytes]) -> None:
        for start in range(0, len(entries), DELETES_AT_ONCE):
            batch = entries[start : start + DELETES_AT_ONCE]
            self._socket.send(b"".join(_message(CT_DELETE, NLM_F_REQUEST | NLM_F_ACK, kind, entry) for entry in batch))
            answers = 0
            while answers < len(batch):
                for type_, body in _messages(self._receive()):
                    answers += 1
                    if type_ == NLMSG_ERROR:
                        _raise_error(body, ignore=2)  # ENOENT: it ended by itself meanwhile

    def _receive(self) -> bytes:
        self._socket.settimeout(max(0.01, self._deadline - time.monotonic()))
        return self._socket.recv(1 << 18)


def _matching(entries: Iterable[bytes], addresses: frozenset[bytes], kind: int) -> Iterator[bytes]:
    """For each entry that names one of ``addresses``: the attributes by which the kernel finds it again."""
    for entry in entries:
        attributes = dict(_attributes(entry))
        original, reply = attributes.get(CTA_TUPLE_ORIG, b""), attributes.get(CTA_TUPLE_REPLY, b"")
        if addresses & {*_tuple_addresses(original, kind), *_tuple_addresses(reply, kind)}:
            # With its id, so that a new entry that took the same tuple since is not hit.
            yield b"".join(
                _attribute(type_ | (0x8000 if type_ == CTA_TUPLE_ORIG else 0), attributes[type_])
                for type_ in (CTA_TUPLE_ORIG, CTA_ID, CTA_ZONE)
                if type_ in attributes
            )


def _tuple_addresses(data: bytes, kind: int) -> Iterator[bytes]:
    for type_, value in _attributes(data):
        if type_ == CTA_TUPLE_IP:
            yield from (address for which, address in _attributes(value) if which in SOURCE_OR_DESTINATION[kind])


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    offset = 0
    while offset + 4 <= len(data):
        length, type_ = struct.unpack_from("HH", data, offset)
        if length < 4:
            return
        yield type_ & TYPE_MASK, data[offset + 4 : offset + length]
        offset += (length + 3) & ~3


def _attribute(type_: int, value: bytes) -> bytes:
    return struct.pack("HH", len(value) + 4, type_) + value + bytes(-len(value) % 4)


def _message(type_: int, flags: int, kind: int, attributes: bytes) -> bytes:
    body = struct.pack("BBH", kind, 0, 0) + attributes
    return struct.pack("IHHII", 16 + len(body), type_, flags, 1, 0) + body


def _messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    offset = 0
    while offset + 16 <= len(data):
        length, type_ = struct.unpack_from("IH", data, offset)
        if length < 16:
            return
        yield type_, data[offset + 16 : offset + length]
        offset += (length + 3) & ~3


def _raise_error(body: bytes, ignore: int = 0) -> None:
    (code,) = struct.unpack_from("i", body)
    if code and -code != ignore:
        raise OSError(-code, os.strerror(-code))
