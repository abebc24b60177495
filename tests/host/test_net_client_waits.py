"""How long the client waits for an answer to a connect: long for a machine that lives, not for one that has gone."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from wgpeer.clock import SystemClock
from wgpeer.constants import ALIVE_WITHIN, RESPONSE_TIMEOUT
from wgpeer.envelope import SealedRequest
from wgpeer.transport import HttpResponse, HttpTransport, NoResponse

from tests.lab import HANGING, Lab, Machine
from vpnproject import settings
from wgpeers.lifecycle import choosing

pytestmark = pytest.mark.host

PORT = 8080
REQUEST = SealedRequest("POST", "/key/wg/x", {}, b"{}", None)
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}"


class Uninterrupted(SystemClock):
    """Signals are for the main thread alone."""

    @contextlib.contextmanager
    def interruptible(self) -> Iterator[None]:
        yield


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab() as lab:
        yield lab


def asked(lab: Lab, server: Machine, then: Callable[[socket.socket], object]) -> HttpResponse:
    """What a client gets of ``server``, which does ``then`` once it has the request, and keeps the connection open."""
    client = lab.add_client()
    listener = server.call(lambda: socket.create_server((server.address, PORT)))
    connections: list[socket.socket] = []

    def serve() -> None:
        connections.append(listener.accept()[0])
        connections[0].recv(65536)
        then(connections[0])

    serving = threading.Thread(target=serve)
    serving.start()
    try:
        transport = HttpTransport(Uninterrupted())
        return client.call(lambda: transport.send(f"http://{server.address}:{PORT}", REQUEST, 5 * HANGING))
    finally:
        serving.join()
        for each in (listener, *connections):
            each.close()


def test_a_machine_that_vanishes_while_it_is_waited_for_is_left_soon(lab: Lab) -> None:
    server, began = lab.add_host(), time.monotonic()
    with pytest.raises(NoResponse) as gone:
        asked(lab, server, lambda _: server.ip("link", "set", server.interface, "down"))
    assert gone.value.silent
    assert time.monotonic() - began < HANGING  # a fifth of what it waits for an answer


def test_a_machine_that_lives_is_waited_for(lab: Lab) -> None:
    def answer_late(connection: socket.socket) -> None:
        threading.Event().wait(ALIVE_WITHIN + 3)  # longer than a dead one is given
        connection.sendall(ANSWER)

    assert asked(lab, lab.add_host(), answer_late).status == 200


def test_who_waits_for_a_turn_is_answered_while_they_are_there() -> None:
    """The server tells those to come again who would have left before their connect is done."""
    for_hosts = choosing.MOST * settings.CONFIRM_TIMEOUT
    assert settings.CONNECT_PATIENCE + for_hosts <= RESPONSE_TIMEOUT
    assert settings.CONNECT_PATIENCE + for_hosts < 40  # existing clients
    assert for_hosts < settings.PENDING_TIMEOUT
