"""What can be seen on a wire between machines."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

from tests.lab.namespaces import Namespace
from tests.lab.waiting import HANGING, ONE_TRY

ETH_P_ALL = 3
VERSIONS = {b"\x08\x00": 4, b"\x86\xdd": 6}
MORE_FRAGMENTS_OR_OFFSET = 0x3FFF
FRAGMENT_HEADER = 44


@dataclass(frozen=True, slots=True)
class Seen:
    """One packet: its protocol, ports (of a protocol that has them), all of its bytes after the IP header, and whether
    it is a fragment."""

    protocol: int
    ports: tuple[int, int]
    body: bytes
    fragment: bool


class Capture:
    """Every packet that passes ``where`` between two of ``addresses`` (of either IP version) while it is entered."""

    def __init__(self, where: Namespace, addresses: Iterable[str]) -> None:
        self.packets: list[Seen] = []
        self._addresses = {ipaddress.ip_address(each).packed for each in addresses}
        family = socket.AF_PACKET
        self._socket = where.call(lambda: socket.socket(family, socket.SOCK_RAW, socket.htons(ETH_P_ALL)))
        self._socket.settimeout(ONE_TRY)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join(HANGING)
        self._socket.close()

    def _run(self) -> None:
        while not self._over.is_set():
            with contextlib.suppress(TimeoutError):
                self._take(self._socket.recv(65536))

    def _take(self, frame: bytes) -> None:
        version, packet = VERSIONS.get(frame[12:14]), frame[14:]
        if version is None:
            return
        source, target = (packet[12:16], packet[16:20]) if version == 4 else (packet[8:24], packet[24:40])
        if {source, target} <= self._addresses:
            self.packets.append(_read4(packet) if version == 4 else _read6(packet))


def _read4(packet: bytes) -> Seen:
    fragment = int.from_bytes(packet[6:8], "big") & MORE_FRAGMENTS_OR_OFFSET
    return _seen(packet[9], packet[(packet[0] & 15) * 4 :], bool(fragment))


def _read6(packet: bytes) -> Seen:
    return _seen(packet[6], packet[40:], packet[6] == FRAGMENT_HEADER)


def _seen(protocol: int, body: bytes, fragment: bool) -> Seen:
    return Seen(protocol, (int.from_bytes(body[:2], "big"), int.from_bytes(body[2:4], "big")), body, fragment)
