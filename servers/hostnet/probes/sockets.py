"""The sockets that probes go out by: one for ICMP in each family, and one for each TCP connection that is tried."""

from __future__ import annotations

import errno
import logging
import os
import secrets
import selectors
import socket
import struct

from .prober import Target

log = logging.getLogger("hostnet.probes")

# Of linux/in.h, linux/icmp.h and linux/icmpv6.h; Python has no names for them.
IP_PKTINFO = 8
SOL_RAW = 255
ICMP_FILTER = ICMPV6_FILTER = 1
ECHO = {socket.AF_INET: (8, 0), socket.AF_INET6: (128, 129)}  # types of request and reply
READS = 1000  # datagrams read in one turn at most
HEADER = struct.Struct("!BBHHH")  # type, code, checksum, identifier, sequence
BODY = struct.Struct("!16sQ")  # this run's cookie, and the question's number


class Sockets:
    """Asks for real; see ``probes.Asking``. What one ICMP socket sends goes out by the interface and from the address
    that come with each message."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._waker, self._woken = socket.socketpair()
        for each in (self._waker, self._woken):
            each.setblocking(False)
        self._selector.register(self._woken, selectors.EVENT_READ, None)
        # Nobody who has not seen the question can make up its answer.
        self._cookie = secrets.token_bytes(16)
        self._asked: dict[int, str] = {}  # addresses asked by ICMP
        self._tcp: dict[int, socket.socket] = {}
        self._icmp = {family: self._icmp_socket(family) for family in ECHO}

    def _icmp_socket(self, family: socket.AddressFamily) -> socket.socket | None:
        protocol = socket.IPPROTO_ICMP if family == socket.AF_INET else socket.IPPROTO_ICMPV6
        try:
            icmp = socket.socket(family, socket.SOCK_RAW, protocol)
            _only_replies(icmp)
        except OSError:
            try:
                # Without the right to raw sockets, where ping_group_range allows it.
                icmp = socket.socket(family, socket.SOCK_DGRAM, protocol)
            except OSError as error:
                log.warning("no probes by ICMP over %s: %s", family.name, error)
                return None
        icmp.setblocking(False)
        icmp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        self._selector.register(icmp, selectors.EVENT_READ, family)
        return icmp

    # Asking

    def ask(self, number: int, target: Target) -> bool:
        if target.port:
            self._connect(number, target)
            return True
        family = socket.AF_INET6 if ":" in target.address else socket.AF_INET
        icmp = self._icmp[family]
        if icmp is None:
            return False
        index = socket.if_nametoindex(target.interface)
        message = _echo(family, number, BODY.pack(self._cookie, number))
        icmp.sendmsg([message], [_way_out(family, index, target.source)], 0, (target.address, 0))
        self._asked[number] = target.address
        return True

    def _connect(self, number: int, target: Target) -> None:
        family = socket.AF_INET6 if ":" in target.address else socket.AF_INET
        tcp = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            tcp.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, target.interface.encode())
            # Closed by a reset: thousands of probes leave no thousands of sockets in TIME_WAIT.
            tcp.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            tcp.bind((target.source, 0))
            error = tcp.connect_ex((target.address, target.port))
            if error not in (0, errno.EINPROGRESS):
                raise OSError(error, os.strerror(error))
            self._selector.register(tcp, selectors.EVENT_WRITE, number)
        except BaseException:
            tcp.close()
            raise
        self._tcp[number] = tcp

    # Answers

    def wait(self, seconds: float) -> list[tuple[int, bool]]:
        answers: list[tuple[int, bool]] = []
        for key, _ in self._selector.select(seconds):
            if key.data is None:
                self._woken.recv(4096)
            elif isinstance(key.data, socket.AddressFamily):
                answers += self._echoes(key.data)
            else:
                number: int = key.data
                refused = self._tcp[number].getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                self.forget(number)
                answers.append((number, not refused))
        return answers

    def _echoes(self, family: socket.AddressFamily) -> list[tuple[int, bool]]:
        """The answers that are here; whatever else came is dropped."""
        icmp = self._icmp[family]
        found: list[tuple[int, bool]] = []
        for _ in range(READS):
            try:
                data, sender = icmp.recvfrom(2048) if icmp is not None else (b"", ("",))
            except OSError:  # nothing more, or an error of an earlier question
                break
            number = self._number(family, _without_header(icmp, family, data))
            if number is not None and self._asked.get(number) == sender[0].partition("%")[0]:
                del self._asked[number]
                found.append((number, True))
        return found

    def _number(self, family: socket.AddressFamily, message: bytes) -> int | None:
        """The question that ``message`` answers; None if it answers none of ours."""
        if len(message) != HEADER.size + BODY.size or message[0] != ECHO[family][1]:
            return None
        cookie, number = BODY.unpack(message[HEADER.size :])
        return int(number) if secrets.compare_digest(cookie, self._cookie) else None

    def forget(self, number: int) -> None:
        self._asked.pop(number, None)
        if tcp := self._tcp.pop(number, None):
            self._selector.unregister(tcp)
            tcp.close()

    def wake(self) -> None:
        try:
            self._waker.send(b".")
        except OSError:  # it is full, and so awake; or closed
            return

    def close(self) -> None:
        for number in list(self._tcp):
            self.forget(number)
        self._selector.close()
        for each in (self._waker, self._woken, *self._icmp.values()):
            if each is not None:
                each.close()


def _only_replies(icmp: socket.socket) -> None:
    """A raw socket sees every ICMP message of the host: take replies alone."""
    if icmp.family == socket.AF_INET:
        reply = ECHO[socket.AF_INET][1]
        icmp.setsockopt(SOL_RAW, ICMP_FILTER, struct.pack("=I", 0xFFFFFFFF & ~(1 << reply)))
        return
    reply = ECHO[socket.AF_INET6][1]
    words = [0xFFFFFFFF] * 8
    words[reply // 32] &= ~(1 << reply % 32)
    icmp.setsockopt(socket.IPPROTO_ICMPV6, ICMPV6_FILTER, struct.pack("=8I", *words))


def _way_out(family: socket.AddressFamily, index: int, source: str) -> tuple[int, int, bytes]:
    """The control message that has a datagram leave by interface ``index`` from ``source``."""
    address = socket.inet_pton(family, source)
    if family == socket.AF_INET6:
        return socket.IPPROTO_IPV6, socket.IPV6_PKTINFO, struct.pack("=16sI", address, index)
    return socket.IPPROTO_IP, IP_PKTINFO, struct.pack("=I4s4s", index, address, bytes(4))


def _echo(family: socket.AddressFamily, number: int, body: bytes) -> bytes:
    """An echo request. The kernel fills in an ICMPv6 checksum by itself."""
    fields = (ECHO[family][0], 0, 0, os.getpid() & 0xFFFF, number & 0xFFFF)
    if family == socket.AF_INET6:
        return HEADER.pack(*fields) + body
    checksum = _checksum(HEADER.pack(*fields) + body)
    return HEADER.pack(*fields[:2], checksum, *fields[3:]) + body


def _checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071) of an even number of bytes."""
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def _without_header(icmp: socket.socket | None, family: socket.AddressFamily, data: bytes) -> bytes:
    """A raw IPv4 socket gives the IP header too."""
    if icmp is None or family != socket.AF_INET or icmp.type != socket.SOCK_RAW or not data:
        return data
    return data[(data[0] & 0x0F) * 4 :]
