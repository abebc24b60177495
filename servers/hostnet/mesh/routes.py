"""Routes into the mesh, thousands of them: in a routing table of their own, which is asked before the main one.

There they are in nobody's way: who reads the main table need not go through them, and none of them hides another one
for longer than it is there. pyroute2 makes objects of each, so the messages are written and read here (rtnetlink(7)).
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from servers.hostnet.netlink.links import LinkError
from servers.hostnet.netlink_attributes import attribute, attributes

TABLE = 51800
# Of the rule that has it asked: right before that of the main table (32766).
PRIORITY = 32700
PROTOCOL = 159  # marks these routes; nothing in rt_protos has it

SOL_NETLINK, NETLINK_GET_STRICT_CHK = 270, 12
NLMSG_ERROR, NLMSG_DONE = 2, 3
NLM_F_REQUEST, NLM_F_ACK, NLM_F_DUMP, NLM_F_REPLACE, NLM_F_CREATE = 1, 4, 0x300, 0x100, 0x400
RTM_NEWROUTE, RTM_DELROUTE, RTM_GETROUTE = 24, 25, 26
RTA_DST, RTA_OIF, RTA_TABLE = 1, 4, 15
RT_TABLE_UNSPEC, RTN_UNSPEC, RTN_UNICAST, RT_SCOPE_LINK, RT_SCOPE_NOWHERE = 0, 0, 1, 253, 255

HEADER = struct.Struct("=IHHII")  # length, type, flags, sequence, sender
ROUTE = struct.Struct(
    "=BBBBBBBBI"
)  # family, length of destination and source, tos, table, protocol, scope, type, flags
AT_ONCE = 200  # messages; their answers fit into any socket's buffer
LONGEST = 1 << 17  # bytes; what the kernel sends at once is shorter
OURS = "the rule of the mesh's routes"
WITHIN = 30.0  # seconds that the kernel may take to answer
HAS_IPV6 = Path("/proc/net/if_inet6")  # is there where the kernel has IPv6


def families() -> list[socket.AddressFamily]:
    return [socket.AF_INET, *([socket.AF_INET6] if HAS_IPV6.exists() else [])]


def read(index: int, table: int = TABLE) -> set[str]:
    """The networks that are routed to the link ``index`` in our table, or in another one."""
    found: set[str] = set()
    with _socket() as netlink:
        netlink.setsockopt(SOL_NETLINK, NETLINK_GET_STRICT_CHK, 1)
        for family in families():
            body = ROUTE.pack(family, 0, 0, 0, RT_TABLE_UNSPEC, 0, 0, 0, 0)
            body += attribute(RTA_TABLE, struct.pack("=I", table))
            netlink.send(_message(RTM_GETROUTE, NLM_F_DUMP, 1, body))
            found.update(_destinations(netlink, index))
    return found


def change(index: int, add: Iterable[str], remove: Iterable[str], table: int = TABLE) -> None:
    """Route the networks of ``add`` to the link ``index``, and those of ``remove`` no longer. Each may be so already.
    Raise ``LinkError`` for the first that the kernel refuses; the others are done."""
    wanted: list[Callable[[int], bytes]] = [_writer(RTM_NEWROUTE, each, index, table) for each in add]
    wanted += [_writer(RTM_DELROUTE, each, index, table) for each in remove]
    refused = 0
    with _socket() as netlink:
        for start in range(0, len(wanted), AT_ONCE):
            batch = wanted[start : start + AT_ONCE]
            netlink.send(b"".join(write(number) for number, write in enumerate(batch)))
            refused = _first_error(netlink, len(batch)) or refused
    if refused:
        raise LinkError(f"a route into the mesh: {os.strerror(refused).lower()}")


def ask_our_table() -> None:
    """Have the kernel ask our table."""
    with Asking(OURS) as netlink:
        for family in families():
            if not _rules(netlink, family):
                netlink.rule("add", family=family, table=TABLE, priority=PRIORITY)


def is_asked() -> bool:
    with Asking(OURS) as netlink:
        return all(_rules(netlink, family) for family in families())


def forget_our_table() -> None:
    """Take the rules back; the routes have gone with their link."""
    with Asking(OURS) as netlink:
        for family in families():
            for _ in range(_rules(netlink, family)):
                netlink.rule("del", family=family, table=TABLE, priority=PRIORITY)


def _rules(netlink: IPRoute, family: int) -> int:
    """How many rules have our table asked."""
    found = netlink.get_rules(family=family)
    return sum(rule.get_attr("FRA_TABLE") == TABLE and rule.get_attr("FRA_PRIORITY") == PRIORITY for rule in found)


class Asking:
    """pyroute2, whose errors are ours; ``what`` is what it is asked about."""

    def __init__(self, what: str) -> None:
        self._what = what

    def __enter__(self) -> IPRoute:
        self._netlink = IPRoute()
        return self._netlink

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._netlink.close()
        if isinstance(error, NetlinkError | OSError):
            raise LinkError(f"{self._what}: {error}") from error


def _socket() -> socket.socket:
    netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
    netlink.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, LONGEST)
    netlink.settimeout(WITHIN)
    netlink.bind((0, 0))
    return netlink


def _message(kind: int, flags: int, number: int, body: bytes) -> bytes:
    return HEADER.pack(HEADER.size + len(body), kind, NLM_F_REQUEST | flags, number, 0) + body


def _writer(kind: int, network: str, index: int, table: int) -> Callable[[int], bytes]:
    address, _, length = network.partition("/")
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    scope = RT_SCOPE_LINK if family == socket.AF_INET else 0
    if kind == RTM_DELROUTE:  # whatever its scope
        scope = RT_SCOPE_NOWHERE
    head = ROUTE.pack(family, int(length), 0, 0, RT_TABLE_UNSPEC, PROTOCOL, scope, RTN_UNICAST, 0)
    attrs = attribute(RTA_DST, socket.inet_pton(family, address))
    attrs += attribute(RTA_OIF, struct.pack("=i", index)) + attribute(RTA_TABLE, struct.pack("=I", table))
    flags = NLM_F_ACK | (NLM_F_CREATE | NLM_F_REPLACE if kind == RTM_NEWROUTE else 0)
    return lambda number: _message(kind, flags, number, head + attrs)


def _first_error(netlink: socket.socket, count: int) -> int:
    """Take in so many answers; the first errno among them that says that something is not as it was asked."""
    first = 0
    while count > 0:
        for kind, payload in _received(netlink):
            if kind == NLMSG_ERROR:
                count -= 1
                code = -struct.unpack_from("=i", payload)[0]
                first = first or (code if code not in (0, errno.ESRCH) else 0)
    return first


def _destinations(netlink: socket.socket, index: int) -> Iterator[str]:
    while True:
        for kind, payload in _received(netlink):
            if kind == NLMSG_DONE:
                return
            if kind == NLMSG_ERROR:
                code = -struct.unpack_from("=i", payload)[0]
                if code == errno.ENOENT:  # nobody has put anything into the table yet
                    return
                raise LinkError(f"the mesh's routes cannot be read: {os.strerror(code).lower()}")
            if kind == RTM_NEWROUTE:
                family, length, *_ = ROUTE.unpack_from(payload)
                found = dict(attributes(payload[ROUTE.size :]))
                if struct.unpack("=i", found.get(RTA_OIF, bytes(4)))[0] == index and RTA_DST in found:
                    yield f"{socket.inet_ntop(family, found[RTA_DST])}/{length}"


def _received(netlink: socket.socket) -> Iterator[tuple[int, bytes]]:
    try:
        data = netlink.recv(LONGEST)
    except OSError as error:
        raise LinkError(f"the mesh's routes: {error}") from error
    at = 0
    while at + HEADER.size <= len(data):
        length, kind, *_ = HEADER.unpack_from(data, at)
        if length < HEADER.size:
            raise LinkError("the mesh's routes: a message has a wrong length")
        yield kind, data[at + HEADER.size : at + length]
        at += (length + 3) & ~3
