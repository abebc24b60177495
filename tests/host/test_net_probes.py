"""Probes by real sockets, on loopback: what counts as an answer, and from where it is asked."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from servers.hostnet.probes.prober import Prober, Target
from servers.hostnet.probes.sockets import Sockets
from servers.hostnet.state import Interface, Peer, Probe
from tests.lab import NEVER, ONE_TRY, until
from tests.servers.hostnet.fakes import state_of

pytestmark = pytest.mark.host


class Heard:
    """A channel that keeps what is reported."""

    def __init__(self) -> None:
        self.said: list[dict[str, Any]] = []

    def report(self, kind: str, **fields: Any) -> None:
        self.said.append({"kind": kind, **fields})


def on_loopback(*probes: Probe) -> Interface:
    peer = Peer("alice", 1, "key", ("10.9.0.2/32",), (), probes)
    return Interface("lo", "red", 51820, ("127.0.0.1/8", "::1/128"), 0, False, 360, (), (peer,))


@pytest.fixture
def sockets() -> Iterator[Sockets]:
    opened = Sockets()
    yield opened
    opened.close()


def listening(family: socket.AddressFamily, address: str) -> socket.socket:
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.bind((address, 0))
    listener.listen()
    return listener


@pytest.mark.parametrize(
    ("family", "address", "source"),
    [(socket.AF_INET, "127.0.0.2", "127.0.0.1"), (socket.AF_INET6, "::1", "::1")],
    ids=["v4", "v6"],
)
def test_a_real_port_answers_or_does_not(
    sockets: Sockets, family: socket.AddressFamily, address: str, source: str
) -> None:
    with listening(family, address) as listener:
        target = Target("lo", source, "alice", "10.77.0.0/24", address, listener.getsockname()[1])
        assert sockets.ask(1, target)
        assert until(lambda: sockets.wait(ONE_TRY)) == [(1, True)]
        taken, client = listener.accept()
        taken.close()
        assert client[0] == source
    try:
        sockets.ask(2, target)
        assert until(lambda: sockets.wait(ONE_TRY)) == [(2, False)]
    except ConnectionRefusedError:  # said at once, which is allowed
        pass


@pytest.mark.parametrize(("address", "source"), [("127.0.0.2", "127.0.0.1"), ("::1", "::1")], ids=["v4", "v6"])
def test_a_real_echo_comes_back(sockets: Sockets, address: str, source: str) -> None:
    assert sockets.ask(7, Target("lo", source, "alice", "n", address, 0))
    assert until(lambda: sockets.wait(ONE_TRY)) == [(7, True)]
    # Answered already: it is not taken twice, and what nobody waits for is not taken at all.
    sockets.ask(8, Target("lo", source, "alice", "n", address, 0))
    sockets.forget(8)
    assert sockets.wait(NEVER) == []


def test_an_answer_to_somebody_elses_echo_is_none(sockets: Sockets) -> None:
    """Other programs ping from this host too, and others may send replies that nobody asked for."""
    sockets.ask(7, Target("lo", "127.0.0.1", "alice", "n", "127.0.0.2", 0))
    other = Sockets()
    try:
        other.ask(7, Target("lo", "127.0.0.1", "bob", "n", "127.0.0.3", 0))
        assert until(lambda: other.wait(ONE_TRY)) == [(7, True)]
        assert until(lambda: sockets.wait(ONE_TRY)) == [(7, True)]
        assert (sockets.wait(NEVER), other.wait(NEVER)) == ([], [])
    finally:
        other.close()


def test_an_interface_that_is_not_there_is_an_error(sockets: Sockets) -> None:
    for port in (0, 80):
        with pytest.raises(OSError, match=r"No such device|no interface"):
            sockets.ask(1, Target("wgs999", "127.0.0.1", "alice", "n", "127.0.0.2", port))


def test_the_whole_runs_in_its_own_threads_and_ends(sockets: Sockets) -> None:
    heard = Heard()
    before = threading.active_count()
    prober = Prober(heard, sockets)
    prober.start()
    prober.apply(state_of(on_loopback(Probe("10.77.0.0/24", "127.0.0.9", 0))))
    until(lambda: heard.said)
    assert heard.said == [{"kind": "probe", "connection": "alice", "network": "10.77.0.0/24", "ok": True}]
    prober.stop()
    assert threading.active_count() == before
