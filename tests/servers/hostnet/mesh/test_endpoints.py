"""Whoever is heard is left alone; whoever is not is looked for where it may be, each address in turn."""

from __future__ import annotations

from dataclasses import replace

import pytest

from servers.hostnet.mesh.endpoints import IN_VAIN, IN_VAIN_FOR, TRY_EVERY, UNHEARD, Endpoints, addresses_of
from servers.hostnet.state import MeshPeer
from servers.hostnet.wireguard.base import Device, ObservedPeer, PeerChange

NAMES = {"vpn.example.com:51800": ["198.51.100.2:51800"], "[2001:db8::2]:51800": ["[2001:db8::2]:51800"]}
PEER = MeshPeer("a", "key-a", tuple(NAMES), ("fd00::2/128",))
WELL = ObservedPeer("key-a", frozenset(), "198.51.100.2:51800", 1000, 500, 500)


class World:
    def __init__(self) -> None:
        self.now = 0.0
        self.names = dict(NAMES)
        self.endpoints = Endpoints(lambda endpoint: self.names[endpoint])

    def look(self, there: ObservedPeer, after: float = 0.0) -> list[PeerChange]:
        self.now += after
        device = Device("wgm0", "mine", 51800, {"key-a": there})
        return self.endpoints.find(self.endpoints.lost(device, [PEER], self.now))


@pytest.fixture
def world() -> World:
    return World()


def to(endpoint: str) -> list[PeerChange]:
    return [PeerChange("key-a", add=True, endpoint=endpoint)]


def test_new_machine_is_looked_for_at_once_and_at_each_address_in_turn(world: World) -> None:
    new = replace(WELL, endpoint="", last_handshake=0)
    assert world.look(new) == to("198.51.100.2:51800")
    there = replace(new, endpoint="198.51.100.2:51800")
    assert world.look(there, TRY_EVERY - 1) == []
    assert world.look(there, 1) == to("[2001:db8::2]:51800")
    assert world.look(replace(there, endpoint="[2001:db8::2]:51800"), TRY_EVERY) == to("198.51.100.2:51800")


def test_machine_that_is_heard_is_left_alone_wherever_it_sends_from(world: World) -> None:
    """As behind NAT, where no address that we know leads to it."""
    there = replace(WELL, endpoint="203.0.113.77:4711")
    for number in range(20):
        heard = replace(there, rx_bytes=500 + number, tx_bytes=500 + 1000 * number)
        assert world.look(heard, 60) == []


def test_machine_that_was_found_before_we_began_is_not_looked_for_at_once(world: World) -> None:
    assert world.look(replace(WELL, endpoint="203.0.113.77:4711")) == []


def test_name_is_looked_up_anew_once_its_machine_is_not_heard(world: World) -> None:
    assert world.look(WELL) == []
    world.names["vpn.example.com:51800"] = ["198.51.100.9:51800"]
    assert world.look(WELL, UNHEARD - 1) == []
    assert world.look(WELL, 2) == to("198.51.100.9:51800")


def test_machine_that_lets_us_talk_in_vain_is_looked_for_sooner(world: World) -> None:
    world.look(WELL)
    world.names["vpn.example.com:51800"] = ["198.51.100.9:51800"]
    unanswered = replace(WELL, tx_bytes=WELL.tx_bytes + IN_VAIN)
    assert world.look(unanswered, IN_VAIN_FOR - 1) == []
    assert world.look(unanswered, 2) == to("198.51.100.9:51800")


def test_keepalives_that_nobody_answers_are_not_talking_in_vain(world: World) -> None:
    """Of two machines that have nothing to say, one sends them all."""
    world.look(replace(WELL, endpoint="203.0.113.77:4711"))
    quiet = replace(WELL, endpoint="203.0.113.77:4711", tx_bytes=WELL.tx_bytes + 4 * 32)
    assert world.look(quiet, 100) == []


def test_name_that_is_not_known_changes_nothing(world: World) -> None:
    world.names = {name: [] for name in NAMES}
    assert world.look(replace(WELL, last_handshake=0)) == []


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("198.51.100.2:51800", ["198.51.100.2:51800"]),
        ("[2001:db8::2]:51800", ["[2001:db8::2]:51800"]),
        ("localhost:5", None),
        ("no-such-name.invalid:5", []),
    ],
)
def test_endpoints_are_written_as_wireguard_takes_them(text: str, found: list[str] | None) -> None:
    if found is None:
        assert set(addresses_of(text)) <= {"127.0.0.1:5", "[::1]:5"}
        assert addresses_of(text)
    else:
        assert addresses_of(text) == found
