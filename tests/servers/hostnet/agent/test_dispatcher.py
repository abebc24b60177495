"""The dispatcher of a host: what comes out of the queue together, and that one bad message costs nothing but itself."""

from __future__ import annotations

import base64
import dataclasses
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from servers.hostnet.agent.channel import Channel
from servers.hostnet.agent.decoding import ADD_PEER, FULL_STATE, Message
from servers.hostnet.agent.dispatcher import TAKEN_AT_ONCE, Dispatcher, Inbox
from servers.hostnet.agent.worker import Settings, make_app
from servers.hostnet.reconcile.apply import Applier
from servers.hostnet.reconcile.desired import Desired
from servers.hostnet.state import AddPeer, HostState, Interface, Peer, RemovePeers, ShowPlan, to_json
from servers.hostnet.subsystem import Subsystem
from tests.host.control import Control
from tests.lab import RedisServer
from tests.servers.hostnet.fakes import FakeFirewall, FakeLinks, FakeSubsystem, FakeWireGuard

KEYS = {name: base64.b64encode(bytes([number]) * 32).decode() for number, name in enumerate("abcdex", 1)}
RED = Interface("wgs1", "red", 51820, ("10.9.0.1/24",), 0, False, 360, (), ())
BLUE = Interface("wgs2", "blue", 51821, ("10.10.0.1/24",), 0, False, 360, (), ())


def full(version: int, *peers: Peer) -> HostState:
    return HostState("h", version, "boot", 9790, (dataclasses.replace(RED, peers=peers), BLUE))


def peer(name: str, version: int) -> Peer:
    return Peer(name, version, KEYS[name], (f"10.9.0.{version}/32",))


def add(name: str, version: int, server: str = "red") -> AddPeer:
    return AddPeer(server, peer(name, version), (), f"host.h:confirm:{name}")


class FakeChannel:
    def __init__(self) -> None:
        self.confirmed: dict[str, str] = {}
        self.reports: list[dict[str, Any]] = []

    def confirm(self, answers: list[tuple[str, str]]) -> None:
        self.confirmed |= {name.rpartition(":")[2]: text for name, text in answers}

    def report(self, kind: str, **fields: Any) -> None:
        self.reports.append({"kind": kind, **fields})


class HostInMemory:
    """A dispatcher with its host in memory, which has taken its first full state; ``queue`` is what waits."""

    def __init__(self, directory: Path) -> None:
        self.links = FakeLinks()
        self.wireguard = FakeWireGuard(self.links)
        self.follower = FakeSubsystem()
        self.desired = Desired("boot")
        self.channel = FakeChannel()
        self.queue: list[Message] = []
        parts: list[Subsystem] = [FakeFirewall(), self.follower]
        applier = Applier(self.desired, self.wireguard, self.links, directory, lambda _: 0, parts, lambda: 0.0)
        self.dispatcher = Dispatcher("h", applier, cast(Channel, self.channel), self._waiting)
        self.receive(full(10, peer("x", 9)))

    def _waiting(self, limit: int) -> Iterator[Message]:
        for _ in range(min(limit, len(self.queue))):
            yield self.queue.pop(0)

    def receive(self, first: HostState | AddPeer, *then: Message) -> None:
        """``first`` comes by Celery, and the others wait behind it."""
        self.queue += then
        self.dispatcher.receive(FULL_STATE if isinstance(first, HostState) else ADD_PEER, to_json(first))
        assert self.queue == []

    def peers(self, interface: str = "wgs1") -> set[str]:
        names = {key: name for name, key in KEYS.items()}
        return {names[key] for key in self.wireguard.devices[interface].peers}


@pytest.fixture
def host(tmp_path: Path) -> HostInMemory:
    return HostInMemory(tmp_path / "keys")


def test_message_that_raises_unexpectedly_costs_nothing_but_itself(
    host: HostInMemory, caplog: pytest.LogCaptureFixture
) -> None:
    host.wireguard.surprising = {KEYS["b"]}
    blue = add("d", 23, "blue")
    host.receive(add("a", 20), add("b", 21), add("c", 22), blue, RemovePeers(24, ("x",)), add("e", 25))
    assert host.peers() == {"a", "c", "e"}
    assert host.peers("wgs2") == {"d"}
    odd = "error: unexpected ZeroDivisionError"
    assert host.channel.confirmed == {"a": "ok", "b": odd, "c": "ok", "d": "ok", "e": "ok"}
    assert {"kind": "removed", "connections": ["x"], "reason": "asked"} in host.channel.reports
    # Where it happened is in the log; what it said, which may quote a message, is not.
    assert "in _change" in caplog.text
    assert KEYS["b"] not in caplog.text


def test_what_raised_unexpectedly_is_not_tried_again_with_what_comes_later(host: HostInMemory) -> None:
    host.wireguard.surprising = {KEYS["b"]}
    host.receive(add("b", 20))
    host.wireguard.requests.clear()
    host.receive(add("a", 21))
    assert host.channel.confirmed == {"b": "error: unexpected ZeroDivisionError", "a": "ok"}
    # It may have been told half of it: so it is told that this peer is none.
    ((_, changes),) = host.wireguard.requests
    assert [(change.public_key, change.remove) for change in changes] == [(KEYS["a"], False), (KEYS["b"], True)]
    # It has not ended: it may come again.
    host.wireguard.surprising.clear()
    host.receive(add("b", 20))
    assert host.channel.confirmed["b"] == "ok"
    assert host.peers() == {"x", "a", "b"}


def test_repeated_message_that_fails_does_not_cost_the_connection_that_was_there(host: HostInMemory) -> None:
    host.receive(add("a", 20))
    host.wireguard.surprising = {KEYS["b"]}
    host.wireguard.requests.clear()
    host.receive(add("b", 21), add("a", 20))
    assert host.channel.confirmed == {"a": "ok", "b": "error: unexpected ZeroDivisionError"}
    assert host.peers() == {"x", "a"}
    # Not even for a moment: its session would be gone.
    changes = [change for _, request in host.wireguard.requests for change in request]
    assert [change for change in changes if change.remove and change.public_key == KEYS["a"]] == []


def test_full_state_in_mid_batch_is_carried_out_in_its_turn(host: HostInMemory) -> None:
    state = full(21, peer("x", 9), peer("a", 20), peer("b", 21))
    host.receive(add("a", 20), state, add("c", 22), RemovePeers(23, ("x",)))
    assert host.peers() == {"a", "b", "c"}
    assert host.channel.confirmed == {"a": "ok", "c": "ok"}
    assert [said["version"] for said in host.channel.reports if said["kind"] == "applied"] == [10, 21]
    # What comes behind the state was taken after it, else c were older than the state knows.
    assert [told[0] for told in host.follower.told] == ["apply", "wgs1", "apply", "wgs1"]


@pytest.mark.parametrize("shown", [True, False])
def test_full_state_in_mid_batch_that_raises_unexpectedly_costs_nothing_but_itself(
    host: HostInMemory, shown: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    words = "secret words"

    def observe(_: object) -> None:
        raise ZeroDivisionError(words)

    monkeypatch.setattr(host.links, "observe", observe)
    state = full(21, peer("x", 9), peer("a", 20))
    message = ShowPlan(state, "host.h:plan:1") if shown else state
    host.receive(add("a", 20), message, add("c", 22), RemovePeers(23, ("x",)))
    assert host.peers() == {"a", "c"}
    assert host.channel.confirmed == {"a": "ok", "c": "ok"}
    assert [said["version"] for said in host.channel.reports if said["kind"] == "applied"] == [10]
    assert ("ShowPlan" if shown else "HostState") in caplog.text
    assert words not in caplog.text


# The inbox


@pytest.fixture(scope="module")
def redis_server() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


def nested_body(envelope: bytes) -> bytes:
    """The message with arguments that are nested without end."""
    message = json.loads(envelope)
    message["body"] = base64.b64encode(b"[" * 200_000 + b"]" * 200_000).decode()
    return json.dumps(message).encode()


def nested_header(envelope: bytes) -> bytes:
    head = json.dumps(json.loads(envelope))[:-1]
    return f'{head}, "more": {"[" * 200_000}{"]" * 200_000}}}'.encode()


@pytest.mark.parametrize("damage", [nested_body, nested_header, lambda envelope: envelope[:50], lambda _: b"[]"])
def test_damaged_message_in_the_inbox_loses_none_behind_it(
    damage: Any, redis_server: RedisServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR)
    settings = Settings("h", f"unix://{redis_server.socket}?db=0", tmp_path, "auto", 9790)
    app = make_app(settings)
    inbox = Inbox(app, app.conf.task_queues[0], "h")
    control = Control(redis_server, "h")
    sent = [add(name, version) for version, name in enumerate("abcde", 20)]
    for message in sent:
        control.send(message)
    # Redis takes from the other end: the third is the damaged one.
    good = control.redis.lindex("host.h", 2)
    assert isinstance(good, bytes)
    control.redis.lset("host.h", 2, damage(good))
    assert list(inbox.waiting(TAKEN_AT_ONCE)) == [sent[0], sent[1], sent[3], sent[4]]
    assert caplog.text.count("message dropped") == 1
    assert "[[[" not in caplog.text
    assert list(inbox.waiting(TAKEN_AT_ONCE)) == []
