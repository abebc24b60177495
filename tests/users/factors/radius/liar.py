"""A RADIUS server that says what a test wants, right or wrong; written from the RFCs, with nothing of what it tests."""

from __future__ import annotations

import hashlib
import hmac
import socket
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Self

from tests.lab import HANGING

from .freeradius import SECRET

ACCEPT, REJECT, CHALLENGE = 2, 3, 11


def attributes_of(packet: bytes) -> list[tuple[int, bytes]]:
    found, at = [], 20
    while at < len(packet):
        number, length = packet[at], packet[at + 1]
        found.append((number, packet[at + 2 : at + length]))
        at += length
    return found


def password_of(packet: bytes, secret: str = SECRET) -> str:
    hidden, last, plain = dict(attributes_of(packet))[2], packet[4:20], b""
    for at in range(0, len(hidden), 16):
        block = hidden[at : at + 16]
        stream = hashlib.md5(secret.encode() + last).digest()  # noqa: S324
        plain, last = plain + bytes(one ^ other for one, other in zip(block, stream, strict=True)), block
    return plain.rstrip(b"\0").decode()


def signed_request(packet: bytes, secret: str = SECRET) -> bool:
    """Whether the Message-Authenticator comes first, and is right."""
    number, value = attributes_of(packet)[0]
    zeroed = packet[:22] + bytes(16) + packet[38:]
    return number == 80 and value == hmac.new(secret.encode(), zeroed, "md5").digest()


def reply(
    request: bytes,
    code: int = ACCEPT,
    *,
    identifier: int | None = None,
    secret: str = SECRET,
    signed: bool = True,
    message_authenticator: bytes | None = None,
    more: bytes = b"",
) -> bytes:
    """An answer to ``request``. ``more``: attributes after the Message-Authenticator, encoded."""
    key = secret.encode()
    identifier = request[1] if identifier is None else identifier
    head = struct.pack("!BBH", code, identifier, 20 + 18 * signed + len(more))
    attributes = more
    if signed:
        empty = b"\x50\x12" + bytes(16)
        value = hmac.new(key, head + request[4:20] + empty + more, "md5").digest()
        attributes = b"\x50\x12" + (message_authenticator or value) + more
    return head + hashlib.md5(head + request[4:20] + attributes + key).digest() + attributes  # noqa: S324


@dataclass
class Liar:
    """``says``: the answers to a request, of it and how many came before. ``seen``: all that came."""

    says: Callable[[bytes, int], list[bytes]] = lambda request, before: []
    seen: list[bytes] = field(default_factory=list)
    port: int = 0

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", self.port))
        self.port = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as last:
            last.sendto(b"", self._socket.getsockname())
        self._thread.join(HANGING)
        self._socket.close()

    def _serve(self) -> None:
        while True:
            request, sender = self._socket.recvfrom(5000)
            if not request:
                return
            answers = self.says(request, len(self.seen))
            self.seen.append(request)
            for answer in answers:
                self._socket.sendto(answer, sender)
