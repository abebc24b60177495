"""Who answers in a lab, and who asks all the time."""

from __future__ import annotations

import contextlib
import secrets
import socket
import struct
import threading
import time
from collections.abc import Callable
from typing import Self

from tests.lab.namespaces import Namespace
from tests.lab.waiting import HANGING, until


class Echo:
    """A TCP and UDP server in ``where``: answers with the sender's address, a space, and what it was sent.

    ``seen`` is what it was sent, each datagram or piece of a stream.
    """

    def __init__(self, where: Namespace, address: str, port: int) -> None:
        self.seen: list[bytes] = []
        self._tcp = where.socket(address, socket.SOCK_STREAM)
        self._udp = where.socket(address, socket.SOCK_DGRAM)
        self._tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        for each in (self._tcp, self._udp):
            if ":" in address:  # so that another server may have the same port on IPv4
                each.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            each.bind((address, port))
        self._tcp.listen()
        self._threads = [threading.Thread(target=turn, daemon=True) for turn in (self._serve_tcp, self._serve_udp)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        for each in (self._tcp, self._udp):
            # Closing alone would not wake the thread that waits in it.
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()
        for thread in self._threads:
            thread.join(HANGING)

    def _serve_tcp(self) -> None:
        while True:
            try:
                connection, sender = self._tcp.accept()
            except OSError:
                return
            threading.Thread(target=self._answer, args=(connection, sender[0]), daemon=True).start()

    def _answer(self, connection: socket.socket, sender: str) -> None:
        with connection, contextlib.suppress(OSError):
            while data := connection.recv(65536):
                self.seen.append(data)
                connection.sendall(sender.encode() + b" " + data)

    def _serve_udp(self) -> None:
        while True:
            try:
                data, sender = self._udp.recvfrom(65536)
                if not data and sender is None:
                    return
                self.seen.append(data)
                self._udp.sendto(sender[0].encode() + b" " + data, sender)
            except (OSError, TypeError):  # closed; a shut down socket may also give an empty datagram from nobody
                return


class Pinger:
    """Pings ``address`` (IPv4) from ``where`` all the time it is entered. Afterwards ``sent`` says how often, ``lost``
    how many of these never got an answer, however late, and ``lost_at`` when (Unix seconds) each of them was sent.

    Packets on one way do not overtake each other. So at the end it pings on until one more is answered: what has no
    answer by then gets none.
    """

    def __init__(self, where: Namespace, address: str, every: float = 0.02) -> None:
        self.sent = self.lost = 0
        self.lost_at: list[float] = []
        self._where = where
        self._address = address
        self._every = every
        self._identifier = secrets.randbits(16)
        self._sequence = 0
        self._sent_at: list[float] = []
        self._answered: set[int] = set()
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._socket = self._where.call(lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP))
        self._socket.connect((self._address, 0))
        until(self._answers_after(0))
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._ending.set()
        self._thread.join(HANGING)
        self.sent = self._sequence
        if kind is None:
            until(self._answers_after(self.sent))
        self._socket.close()
        sent = enumerate(self._sent_at[: self.sent], start=1)
        self.lost_at = [moment for number, moment in sent if number not in self._answered]
        self.lost = len(self.lost_at)

    def _run(self) -> None:
        while not self._ending.is_set():
            self._ping()

    def _answers_after(self, number: int) -> Callable[[], bool]:
        """Whether one more ping, or another one after that of this number, is answered."""

        def answers() -> bool:
            self._ping()
            return max(self._answered, default=0) > number

        return answers

    def _ping(self) -> None:
        """Send one, and note what is answered until the next one is due."""
        self._sequence += 1
        self._sent_at.append(time.time())
        due = time.monotonic() + self._every
        with contextlib.suppress(OSError):  # nothing more came in time; or what the network says of an address
            self._socket.send(_echo_request(self._identifier, self._sequence))
            while (left := due - time.monotonic()) > 0:
                self._socket.settimeout(left)
                packet = self._socket.recv(2048)
                kind, _, _, identifier, sequence = struct.unpack_from("!BBHHH", packet, (packet[0] & 15) * 4)
                if (kind, identifier) == (0, self._identifier):
                    self._answered.add(sequence)


def segment_sizes(client: Namespace, server: Namespace, address: str, port: int) -> tuple[int, int]:
    """The largest segment that each end of a new TCP connection may send, the client first: what the other end's SYN
    said, less the 12 octets that timestamps take. ``port`` is free on the server."""
    with server.socket(address, socket.SOCK_STREAM) as listener, client.socket(address, socket.SOCK_STREAM) as asking:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address, port))
        listener.listen()
        for each in (listener, asking):
            each.settimeout(HANGING)
        asking.connect((address, port))
        with listener.accept()[0] as answering:
            size = [each.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG) + 12 for each in (asking, answering)]
            return size[0], size[1]


def _echo_request(identifier: int, sequence: int) -> bytes:
    """An ICMP echo request (RFC 792) without data."""
    checksum = 0xFFFF - ((8 << 8) + identifier + sequence) % 0xFFFF
    return struct.pack("!BBHHH", 8, 0, checksum, identifier, sequence)
