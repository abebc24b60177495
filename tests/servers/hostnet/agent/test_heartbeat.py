"""When a host says hello again, and when it judges silence by itself."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest

from servers.hostnet.agent.channel import Beat, Channel
from servers.hostnet.agent.heartbeat import ALONE_AFTER, HELLO_EVERY, INTERVAL, SWEEP_EVERY, Heartbeat
from servers.hostnet.reconcile.apply import Applier
from servers.hostnet.reconcile.desired import Desired
from servers.hostnet.reconcile.silence import HANDSHAKE_LIFE
from servers.hostnet.state import HostState, Interface, Peer
from servers.hostnet.state.reach import Reach, reach_from_json
from tests.servers.hostnet.fakes import FakeFirewall, FakeLinks, FakeWireGuard

ALICE = Peer("alice", 5, "alice-key", ("10.9.0.2/32",))
RED = Interface("wgs1", "red", 51820, ("10.9.0.1/24",), 0, False, 60, (), (ALICE,))


@dataclass
class FakeChannel:
    """Takes what is said; ``next_beat`` is what becomes of heartbeats."""

    next_beat: Beat = Beat.FINE
    said: list[dict[str, Any]] = field(default_factory=list)
    beats: list[dict[str, Any]] = field(default_factory=list)

    def report(self, kind: str, **fields: Any) -> None:
        self.said.append({"kind": kind, **fields})

    def flush(self) -> None:
        self.said.append({"kind": "flush"})

    def beat(self, **fields: Any) -> Beat:
        self.beats.append(fields)
        return self.next_beat

    def kinds(self) -> list[str]:
        kinds = [report["kind"] for report in self.said if report["kind"] != "flush"]
        self.said.clear()
        return kinds


class Scene:
    def __init__(self, directory: Path) -> None:
        self.now = 1000.0
        self.channel = FakeChannel()
        self.desired = Desired("boot")
        links = FakeLinks()
        self.wireguard = FakeWireGuard(links)
        self.applier = Applier(
            self.desired, self.wireguard, links, directory, lambda _: 0, [FakeFirewall()], lambda: self.now
        )
        channel = cast(Channel, self.channel)
        self.ways: dict[str, Reach] = {}
        self.heartbeat = Heartbeat(
            channel, self.applier, self.desired, "fake", clock=lambda: self.now, ways=lambda: self.ways
        )

    def come_up(self) -> None:
        self.heartbeat.hello()
        self.applier.full(HostState("h", 10, "boot", 9790, (RED,)))
        self.heartbeat.step()
        assert self.channel.kinds() == ["hello"]

    def steps(self, seconds: float) -> None:
        end = self.now + seconds
        while self.now < end:
            self.now += INTERVAL
            self.heartbeat.step()


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


def test_beats_and_says_nothing_else_when_all_is_well(scene: Scene) -> None:
    scene.come_up()
    scene.steps(120)
    assert scene.channel.kinds() == []
    assert len(scene.channel.beats) == 61
    said = scene.channel.beats[-1]
    assert {name: said[name] for name in ("version", "backend", "peers")} == {
        "version": 10,
        "backend": "fake",
        "peers": 1,
    }


def test_says_what_is_known_of_the_ways_to_other_machines_with_each_beat(scene: Scene) -> None:
    scene.come_up()
    assert scene.channel.beats[-1]["reach"] == ""  # it is alone
    scene.ways = {"berlin": Reach(answers=True, round_trip=0.012)}
    scene.steps(INTERVAL)
    assert reach_from_json(scene.channel.beats[-1]["reach"]) == scene.ways


def test_says_hello_again_until_a_full_state_comes(scene: Scene) -> None:
    scene.heartbeat.hello()
    scene.steps(HELLO_EVERY * 2)
    assert scene.channel.kinds() == ["hello"] * 3
    scene.applier.full(HostState("h", 10, "boot", 9790, ()))
    scene.steps(HELLO_EVERY * 2)
    assert scene.channel.kinds() == []


def test_says_hello_when_redis_forgot_it(scene: Scene) -> None:
    scene.come_up()
    scene.channel.next_beat = Beat.FORGOTTEN
    scene.heartbeat.step()
    assert scene.channel.kinds() == ["hello"]


def test_short_absence_of_redis_removes_nobody(scene: Scene) -> None:
    scene.come_up()
    scene.now += 10_000  # alice has been silent for long, as far as WireGuard knows
    scene.channel.next_beat = Beat.UNREACHABLE
    scene.steps(ALONE_AFTER)
    assert scene.channel.kinds() == []
    scene.channel.next_beat = Beat.FINE
    scene.heartbeat.step()
    assert scene.channel.kinds() == ["hello"]
    assert scene.desired.holds("alice")


def test_host_alone_removes_the_silent_and_says_so_before_its_hello(scene: Scene) -> None:
    scene.come_up()
    scene.channel.next_beat = Beat.UNREACHABLE
    scene.steps(HANDSHAKE_LIFE)
    assert scene.channel.kinds() == []
    scene.steps(SWEEP_EVERY + INTERVAL)
    assert scene.channel.said == [{"kind": "removed", "connections": ["alice"], "reason": "silent"}]
    assert scene.wireguard.devices["wgs1"].peers == {}
    scene.channel.next_beat = Beat.FINE
    scene.heartbeat.step()
    assert [report["kind"] for report in scene.channel.said] == ["removed", "flush", "hello"]


def test_host_alone_keeps_who_shakes_hands(scene: Scene) -> None:
    scene.come_up()
    scene.channel.next_beat = Beat.UNREACHABLE
    for _ in range(5):
        scene.wireguard.shake_hands("wgs1", "alice-key", int(scene.now))
        scene.steps(HANDSHAKE_LIFE - 2 * INTERVAL)
    assert scene.channel.kinds() == []
    assert scene.desired.holds("alice")
