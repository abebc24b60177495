"""What becomes of our table and our links, as the kernel tells it while it happens: two netlink sockets of our own.

Of the table everything counts; of links, addresses and routes what may be a loss; and of other links their addresses,
by which the host may have a network that we lead elsewhere. The kernel tells of our own changes
as well: to look once too often does no harm, and tells them apart from those of others.
"""

from __future__ import annotations

import contextlib
import errno
import select
import socket
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from servers.hostnet.netlink_attributes import attributes
from servers.hostnet.state import MESH_INTERFACE, OUR_INTERFACE

from .links import IFF_UP, PROTOCOL, RT_SCOPE_LINK

# linux/netlink.h, linux/netfilter/nfnetlink.h, linux/netfilter/nf_tables.h
SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, NETLINK_NETFILTER = 270, 1, 12
NFNLGRP_NFTABLES, NFNL_SUBSYS_NFTABLES, NFPROTO_INET, NFT_MSG_NEWGEN = 7, 10, 1, 15
NFTA_TABLE = 1  # in messages of tables, chains, rules, sets, their elements and all else: the table's name
# linux/rtnetlink.h
GROUPS = (1, 5, 7, 8, 9, 11, 19)  # RTNLGRP_LINK, and addresses, routes and rules of either family
RTM_NEWLINK, RTM_DELLINK, RTM_NEWADDR, RTM_DELADDR, RTM_DELROUTE, RTM_DELRULE = 16, 17, 20, 21, 25, 33
IFLA_IFNAME, FRA_PROTOCOL = 3, 21

HEADER = struct.Struct("=IHHII")  # length, type, flags, sequence, sender
LINK = struct.Struct("=BxHiII")  # family, kind, index, flags, which of them changed
ADDRESS = struct.Struct("=BBBBI")  # family, prefix length, flags, scope, index
NFT_HEADER, ROUTE_HEADER, RULE_HEADER = 4, 12, 12  # bytes
ROUTE_PROTOCOL = 5  # its place in a route's header

SO_RCVBUFFORCE = 33
BUFFER = 1 << 20  # bytes of events that wait
LONGEST = 1 << 16  # bytes; what the kernel sends at once is shorter


@dataclass(frozen=True, slots=True)
class Changed:
    """What may be another than we left it. ``host``: what the host has besides us."""

    table: bool = False
    links: bool = False
    host: bool = False

    def __or__(self, other: Changed) -> Changed:
        return Changed(self.table or other.table, self.links or other.links, self.host or other.host)

    def __bool__(self) -> bool:
        return self.table or self.links or self.host


NOTHING, EVERYTHING = Changed(), Changed(table=True, links=True, host=True)


class Events:
    """Listens from the moment it is made, in the network that its maker is in. ``table`` is the name of ours, which is
    of family inet. One thread at a time."""

    def __init__(self, table: str) -> None:
        self._of_table = partial(_of_table, table)
        self._nft = _listen(NETLINK_NETFILTER, NFNLGRP_NFTABLES)
        self._links = _listen(socket.NETLINK_ROUTE, *GROUPS)
        self._poll = select.poll()
        for each in (self._nft, self._links):
            self._poll.register(each, select.POLLIN)

    def wait(self, timeout: float | None) -> Changed:
        """What happened since the last call, at once; where that is nothing, wait for it (None: for ever)."""
        self._poll.poll(None if timeout is None else timeout * 1000)
        (table,), (links, host) = _received(self._nft, self._of_table), _received(self._links, _of_links, _of_host)
        return Changed(table, links, host)

    def close(self) -> None:
        self._nft.close()
        self._links.close()


def _listen(family: int, *groups: int) -> socket.socket:
    netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK, family)
    netlink.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER)
    netlink.bind((0, 0))
    for group in groups:
        netlink.setsockopt(SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, group)
    return netlink


def _received(netlink: socket.socket, *asked: Callable[[int, bytes], bool]) -> list[bool]:
    """Take in all that waits; by each of ``asked``, whether it says so of any message. Where some were lost, any of
    them may be."""
    found = [False] * len(asked)
    while True:
        try:
            data = netlink.recv(LONGEST)
        except BlockingIOError:
            return found
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                raise
            found = [True] * len(asked)
        else:
            found = [known or _any(data, each) for known, each in zip(found, asked, strict=True)]


def _any(data: bytes, ours: Callable[[int, bytes], bool]) -> bool:
    try:
        return any(ours(kind, payload) for kind, payload in _messages(data))
    except (ValueError, struct.error):  # what cannot be read may be anything
        return True


def _messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at < len(data):
        length, kind, *_ = HEADER.unpack_from(data, at)
        if length < HEADER.size or at + length > len(data):
            raise ValueError("a message has a wrong length")
        yield kind, data[at + HEADER.size : at + length]
        at += (length + 3) & ~3


def _of_table(table: str, kind: int, payload: bytes) -> bool:
    """Whether it is about that table or anything in it."""
    subsystem, message = divmod(kind, 256)
    if subsystem != NFNL_SUBSYS_NFTABLES or message == NFT_MSG_NEWGEN or payload[0] != NFPROTO_INET:
        return False
    named = next((value for each, value in attributes(payload[NFT_HEADER:]) if each == NFTA_TABLE), b"")
    return named.rstrip(b"\0").decode() == table


def _of_links(kind: int, payload: bytes) -> bool:
    """Whether a link of ours is gone or down, or has lost an address, or a route or routing rule of ours is gone."""
    if kind in {RTM_NEWLINK, RTM_DELLINK}:
        flags = LINK.unpack_from(payload)[3]
        return _is_ours(_name_of(payload)) and (kind == RTM_DELLINK or not flags & IFF_UP)
    if kind == RTM_DELADDR:
        with contextlib.suppress(OSError):  # the link itself has gone, which is told of as well
            return _is_ours(socket.if_indextoname(ADDRESS.unpack_from(payload)[4]))
    if kind == RTM_DELRULE:
        return any(
            each == FRA_PROTOCOL and value == bytes([PROTOCOL]) for each, value in attributes(payload[RULE_HEADER:])
        )
    return kind == RTM_DELROUTE and len(payload) >= ROUTE_HEADER and payload[ROUTE_PROTOCOL] == PROTOCOL


def _of_host(kind: int, payload: bytes) -> bool:
    """Whether a link that is not ours has got an address or lost one, or is gone."""
    if kind == RTM_DELLINK:
        return not _is_ours(_name_of(payload))
    if kind not in {RTM_NEWADDR, RTM_DELADDR}:
        return False
    _, _, _, scope, index = ADDRESS.unpack_from(payload)
    with contextlib.suppress(OSError):  # the link itself has gone, which is told of as well
        return scope != RT_SCOPE_LINK and not _is_ours(socket.if_indextoname(index))
    return False


def _name_of(payload: bytes) -> str:
    named = next((value for each, value in attributes(payload[LINK.size :]) if each == IFLA_IFNAME), b"")
    return named.rstrip(b"\0").decode()


def _is_ours(name: str) -> bool:
    return name == MESH_INTERFACE or OUR_INTERFACE.fullmatch(name) is not None
