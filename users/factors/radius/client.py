"""Asking one of several RADIUS servers: in order, again where a packet may have been lost, and never for longer than is
said. Whoever was silent is asked last for a while.

An answer that was not made with our secret counts as none, and it goes on waiting: anybody may send us one.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from users.factors import silence

from .packets import LONGEST_PACKET, Answer, Request
from .servers import RadiusServer


class NoAnswer(Exception):
    """No server answered in time. ``lied``: something did, and not with our secret."""

    def __init__(self, lied: bool) -> None:
        super().__init__("bad answer" if lied else "no answer")
        self.lied = lied


@dataclass(frozen=True, slots=True)
class Service:
    """``timeout``: seconds to wait for a server before it is asked again, ``tries`` times in all; ``patience``: seconds
    for all servers together."""

    public_id: str
    servers: Sequence[RadiusServer]
    secret: str = field(repr=False)
    timeout: float
    tries: int
    patience: float


class Conversation:
    """One attempt of one user, within the patience of its service."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._ends = time.monotonic() + service.patience
        self._server: RadiusServer | None = None

    def ask(self, password: str, attributes: dict[int, bytes]) -> Answer:
        """Raise ``NoAnswer``."""
        lied = False
        # Only who made a challenge knows what it was about.
        servers = [self._server] if self._server else silence.in_order(self._service.public_id, self._service.servers)
        for server in servers:
            exchange = _Exchange(Request(self._service.secret, password, attributes))
            answer = exchange.with_server(server, self._service, self._ends)
            if answer is not None:
                self._server = server
                return answer
            lied = lied or exchange.lied
            silence.remember(self._service.public_id, server)
        raise NoAnswer(lied)


class _Exchange:
    """One request with one server. ``lied``: an answer came that was none."""

    def __init__(self, request: Request) -> None:
        self._request, self._raw = request, request.raw()
        self.lied = False

    def with_server(self, server: RadiusServer, service: Service, ends: float) -> Answer | None:
        try:
            # A port of its own, and connected: the kernel drops what comes from elsewhere.
            with server.connected() as sock:
                for _ in range(service.tries):
                    until = min(time.monotonic() + service.timeout, ends)
                    if until <= time.monotonic():
                        break
                    sock.send(self._raw)
                    if answer := self._listen(sock, until):
                        return answer
        except OSError:
            return None  # no such name, no way there, nobody listens
        return None

    def _listen(self, sock: socket.socket, until: float) -> Answer | None:
        while (left := until - time.monotonic()) > 0:
            sock.settimeout(left)
            try:
                # One more than a packet may have: what is too long is not taken for what it begins with.
                data = sock.recv(LONGEST_PACKET + 1)
            except TimeoutError:
                return None
            if answer := self._request.answer(data):
                return answer
            self.lied = True
        return None
