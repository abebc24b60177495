"""One request of a client and its answer, through the real front: by TLS at the public port, or as from a tunnel."""

from __future__ import annotations

import json
import socket
import ssl
import time
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from typing import Any

from nacl.public import PrivateKey

from tests.lab import Namespace
from tests.protocol_client import Identity, make_request, open_answer, plaintext
from tests.stack import GATEWAY_PORT, unverified

# Longer than a ping waits for a database that is locked for as long as it is here; nobody is judged by it.
WITHIN = 30.0
TLS = unverified()


@dataclass(frozen=True, slots=True)
class Way:
    """From which machine (and address there) to which address."""

    machine: Namespace
    address: str
    port: int = GATEWAY_PORT
    source: str = ""
    tls: ssl.SSLContext | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """``status`` 0: none came, and ``word`` names the error. ``content`` is what was in the box."""

    status: int
    word: str
    content: dict[str, Any]


def exchange(way: Way, wire: bytes) -> tuple[int, bytes]:
    """Status and body. Raise ``OSError`` or ``HTTPException``."""
    with way.machine.socket(way.address, socket.SOCK_STREAM) as plain:
        plain.settimeout(WITHIN)
        if way.source:
            plain.bind((way.source, 0))
        plain.connect((way.address, way.port))
        with way.tls.wrap_socket(plain) if way.tls else plain as connection:
            connection.sendall(wire)
            response = HTTPResponse(connection)
            response.begin()
            return response.status, response.read()


def ask(way: Way, identity: Identity, method: str, **said: Any) -> Answer:
    """Send what a client says of itself (``said``), and open what it is answered."""
    now, box = int(time.time()), PrivateKey.generate()
    request = make_request(identity, plaintext(timestamp=now, **said), method=method, now=now, box=box)
    try:
        status, body = exchange(way, request.wire())
    except (OSError, HTTPException) as error:
        return Answer(0, type(error).__name__, {})
    try:
        data = json.loads(body)
    except ValueError:
        return Answer(status, "no JSON", {})
    if status != 200:
        return Answer(status, str(data.get("error")), {})
    content = open_answer(data, identity, box)
    if method == "PUT":
        return Answer(status, "true" if content["status"] is True else "false", content)
    return Answer(status, "allowed" if content["allow"] is True else "refused", content)
