"""One Access-Request, and what answers it (RFC 2865, RFC 3579).

Every request carries a Message-Authenticator, first, and no answer counts without one (BlastRADIUS, CVE-2024-3596).
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field

from pyrad.packet import AuthPacket, PacketError

# Codes of packets, numbers of attributes.
REQUEST, ACCEPT, REJECT, CHALLENGE = 1, 2, 3, 11
USER_NAME, USER_PASSWORD, REPLY_MESSAGE, STATE = 1, 2, 18, 24
CALLING_STATION, NAS_IDENTIFIER, NAS_PORT_TYPE = 31, 32, 61
MESSAGE_AUTHENTICATOR = 80
VIRTUAL = (5).to_bytes(4, "big")  # of NAS-Port-Type
# Octets: of a packet's head, of one packet, of a password, of another attribute.
HEAD, LONGEST_PACKET, LONGEST_PASSWORD, LONGEST_VALUE = 20, 4096, 128, 253
# Characters of what a server says that administrators are shown.
LONGEST_MESSAGE = 120


def usable(password: str) -> bool:
    """Whether a packet can hold it as it is: it is filled up with NUL, so what has one would be cut there."""
    return 0 < len(password.encode()) <= LONGEST_PASSWORD and "\0" not in password


def attribute(text: str) -> bytes:
    """As long as an attribute may be, cut between characters."""
    return text.encode()[:LONGEST_VALUE].decode(errors="ignore").encode()


@dataclass(frozen=True, slots=True)
class Answer:
    """``code``: of the packet. ``state``: to be sent back with what is answered to a challenge. ``message``: what the
    server said, one printable line."""

    code: int
    state: tuple[bytes, ...] = field(default=(), repr=False)
    message: str = ""

    @property
    def accepted(self) -> bool:
        return self.code == ACCEPT

    @property
    def challenged(self) -> bool:
        return self.code == CHALLENGE


class Request:
    """An Access-Request with an identifier and an authenticator of its own. ``attributes``: by their numbers."""

    def __init__(self, secret: str, password: str, attributes: Mapping[int, bytes]) -> None:
        self._packet = AuthPacket(
            REQUEST, id=secrets.randbelow(256), secret=secret.encode(), authenticator=secrets.token_bytes(16)
        )
        for number, value in attributes.items():
            if value:
                self._packet[number] = [value]
        self._packet[USER_PASSWORD] = [self._packet.PwCrypt(password)]
        self._packet.add_message_authenticator()

    def raw(self) -> bytes:
        """The same each time, so that the server knows what is sent again by it."""
        return bytes(self._packet.RequestPacket())

    def answer(self, data: bytes) -> Answer | None:
        """What ``data`` says in answer to this; None where it was not made by who has the secret, or not for this."""
        if not _well_formed(data):
            return None
        try:
            reply = self._packet.CreateReply(packet=data)
        except (PacketError, ValueError, IndexError):
            return None
        # One of two could hide behind the other.
        signed_once = len(reply.get(MESSAGE_AUTHENTICATOR, [])) == 1
        if not signed_once or not self._packet.VerifyReply(reply, data, enforce_ma=True):
            return None
        states = tuple(reply.get(STATE, []))
        if reply.code not in (ACCEPT, REJECT, CHALLENGE) or len(states) > 1:
            return None
        return Answer(reply.code, states, _line(reply.get(REPLY_MESSAGE, [])))


def _well_formed(data: bytes) -> bool:
    """Whether the attributes fill the length that its head says, neither less nor more; what follows is padding."""
    end = int.from_bytes(data[2:4])
    if len(data) > LONGEST_PACKET or not HEAD <= end <= len(data):
        return False
    at = HEAD
    while at < end - 1 and data[at + 1] >= 2:
        at += data[at + 1]
    return at == end


def _line(said: list[bytes]) -> str:
    words = b" ".join(said).decode(errors="replace").split()
    return "".join(each for each in " ".join(words) if each.isprintable())[:LONGEST_MESSAGE]
