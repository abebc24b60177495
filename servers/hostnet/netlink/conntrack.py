"""Forget the kernel's tracked connections of addresses and networks that were released.

A tunnel address soon belongs to somebody else. Were its old entries left, replies to the old client's connections
would be let through to the new one. The kernel's table is dumped once per IP version and entries that name a released
address on either side are deleted, so the cost does not grow with the number of addresses. That covers
what a forward led to a client (the reply comes from its tunnel address) and what went to networks behind it. Spoken in
raw netlink: only two attributes of each entry matter, and the table may have hundreds of thousands.
"""

from __future__ import annotations

import ipaddress
import os
import socket
import struct
import time
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping

from servers.hostnet.netlink_attributes import NESTED, attribute, attributes

NFNL_SUBSYS_CTNETLINK = 1
CT_GET, CT_DELETE = (NFNL_SUBSYS_CTNETLINK << 8) | 1, (NFNL_SUBSYS_CTNETLINK << 8) | 2
NLM_F_REQUEST, NLM_F_ACK, NLM_F_DUMP = 0x1, 0x4, 0x300
NLMSG_ERROR, NLMSG_DONE = 2, 3
CTA_TUPLE_ORIG, CTA_TUPLE_REPLY, CTA_TUPLE_IP, CTA_ID, CTA_ZONE = 1, 2, 1, 12, 18
CTA_TUPLE_PROTO, CTA_PROTO_NUM, CTA_PROTO_DST_PORT = 2, 1, 3
CTA_FILTER, CTA_FILTER_ORIG_FLAGS, CTA_FILTER_REPLY_FLAGS = 25, 1, 2
FILTER_PROTO_NUM, FILTER_DST_PORT = 1 << 3, 1 << 5
PROTOCOLS: dict[str, int] = {"tcp": socket.IPPROTO_TCP, "udp": socket.IPPROTO_UDP}
FEW_PORTS = 8  # that the kernel is asked for one by one, rather than for everything of the protocol
SOURCE_OR_DESTINATION: dict[int, tuple[int, int]] = {socket.AF_INET: (1, 2), socket.AF_INET6: (3, 4)}
NETLINK_NETFILTER = 12
TIMEOUT = 5.0  # seconds for one whole pass
DELETES_AT_ONCE = 64


class ConntrackError(Exception):
    """The table could not be read or changed, or not within ``TIMEOUT``."""


def flush(networks: Collection[str]) -> int:
    """Delete every entry whose source or destination, original or reply, is in one of ``networks`` (addresses, or
    networks in prefix notation); return how many."""
    found = [ipaddress.ip_network(network) for network in networks]
    deadline = time.monotonic() + TIMEOUT
    count = 0
    try:
        for version, kind in ((4, socket.AF_INET), (6, socket.AF_INET6)):
            released = Released(network for network in found if network.version == version)
            if released:
                with _Socket(deadline) as netlink:
                    # Read all of it before deleting: a dump that is changed under way may skip entries.
                    doomed = list(_matching(netlink.dump(kind), released, kind))
                    netlink.delete(kind, doomed)
                    count += len(doomed)
    except (OSError, struct.error, ValueError) as error:
        raise ConntrackError(f"conntrack: {error}") from error
    return count


def flush_forwarded(protocol: str, version: int, ports: Collection[int], targets: Collection[str]) -> int:
    """Delete entries of ``protocol`` (``tcp`` or ``udp``) to one of ``ports`` that lead nowhere else or to one of
    ``targets``; return how many.

    For ports that are forwarded from now on, no more, to others, or another way: the translation is decided with the
    first packet, and a sender that never pauses keeps that alive for ever. What the host masqueraded to such a port
    elsewhere stays.
    """
    kind = socket.AF_INET if version == 4 else socket.AF_INET6
    number = PROTOCOLS[protocol]
    led = {socket.inet_pton(kind, target) for target in targets}
    dumps = [_only(number, port) for port in ports] if len(ports) <= FEW_PORTS else [_only(number)]
    try:
        with _Socket(time.monotonic() + TIMEOUT) as netlink:
            doomed = [
                _found_by(entry)
                for only in dumps
                for entry in map(dict, map(attributes, netlink.dump(kind, only)))
                if _port(entry[CTA_TUPLE_ORIG], number) in ports and _leads_to(entry, kind, led)
            ]
            netlink.delete(kind, doomed)
    except (OSError, struct.error, ValueError, KeyError) as error:
        raise ConntrackError(f"conntrack: {error}") from error
    return len(doomed)


def _only(protocol: int, port: int = 0) -> bytes:
    """Attributes of a dump of entries of one protocol alone, or of those to one port."""
    parts = attribute(CTA_PROTO_NUM, bytes([protocol]))
    parts += attribute(CTA_PROTO_DST_PORT, port.to_bytes(2, "big")) if port else b""
    matched = FILTER_PROTO_NUM | (FILTER_DST_PORT if port else 0)
    flags = {CTA_FILTER_ORIG_FLAGS: matched, CTA_FILTER_REPLY_FLAGS: 0}
    packed = b"".join(attribute(type_, struct.pack("I", value)) for type_, value in flags.items())
    original = attribute(NESTED | CTA_TUPLE_ORIG, attribute(NESTED | CTA_TUPLE_PROTO, parts))
    return original + attribute(NESTED | CTA_FILTER, packed)


def _port(data: bytes, protocol: int) -> int:
    """The destination port of a tuple of ``protocol``; 0 of any other. A kernel before 5.8 does not know what we ask
    for, and hands out everything."""
    parts = dict(attributes(dict(attributes(data))[CTA_TUPLE_PROTO]))
    asked = parts[CTA_PROTO_NUM] == bytes([protocol])
    return int.from_bytes(parts[CTA_PROTO_DST_PORT], "big") if asked else 0


def _leads_to(entry: dict[int, bytes], kind: int, targets: Collection[bytes]) -> bool:
    """Whether the replies come from one of ``targets``, or nothing was translated at all."""
    source, destination = _tuple_addresses(entry[CTA_TUPLE_ORIG], kind)
    answers_from, answers_to = _tuple_addresses(entry[CTA_TUPLE_REPLY], kind)
    return answers_from in targets or (answers_from, answers_to) == (destination, source)


class Released:
    """Networks of one IP version. A look-up costs as many steps as there are different lengths of them."""

    def __init__(self, networks: Iterable[ipaddress.IPv4Network | ipaddress.IPv6Network]) -> None:
        by_length: defaultdict[int, set[int]] = defaultdict(set)  # by the number of bits that do not matter
        for network in networks:
            shift = network.max_prefixlen - network.prefixlen
            by_length[shift].add(int(network.network_address) >> shift)
        self._by_length = list(by_length.items())

    def __bool__(self) -> bool:
        return bool(self._by_length)

    def __contains__(self, packed: bytes) -> bool:
        address = int.from_bytes(packed, "big")
        return any(address >> shift in heads for shift, heads in self._by_length)


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

    def dump(self, kind: int, only: bytes = b"") -> Iterator[bytes]:
        """The attributes of every entry of one address family, or of those that the attributes ``only`` let pass."""
        self._socket.send(_message(CT_GET, NLM_F_REQUEST | NLM_F_DUMP, kind, only))
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


def _matching(entries: Iterable[bytes], released: Released, kind: int) -> Iterator[bytes]:
    """For each entry that names a released address: the attributes by which the kernel finds it again."""
    for entry in map(dict, map(attributes, entries)):
        original, reply = entry.get(CTA_TUPLE_ORIG, b""), entry.get(CTA_TUPLE_REPLY, b"")
        if any(each in released for each in {*_tuple_addresses(original, kind), *_tuple_addresses(reply, kind)}):
            yield _found_by(entry)


def _found_by(entry: Mapping[int, bytes]) -> bytes:
    """With its id, so that a new entry that took the same tuple since is not hit."""
    return b"".join(
        attribute(type_ | (NESTED if type_ == CTA_TUPLE_ORIG else 0), entry[type_])
        for type_ in (CTA_TUPLE_ORIG, CTA_ID, CTA_ZONE)
        if type_ in entry
    )


def _tuple_addresses(data: bytes, kind: int) -> Iterator[bytes]:
    for type_, value in attributes(data):
        if type_ == CTA_TUPLE_IP:
            yield from (address for which, address in attributes(value) if which in SOURCE_OR_DESTINATION[kind])


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
