"""What the watch does with what it hears: look once, put back, say so, and pause."""

from __future__ import annotations

from collections import deque
from pathlib import Path
from typing import cast

import pytest

from servers.hostnet.agent.channel import Channel
from servers.hostnet.agent.watch import LONGEST, SHORTEST, TOGETHER, Watch
from servers.hostnet.netlink.events import NOTHING, Changed, Events
from servers.hostnet.reconcile.contest import LONGEST_PAUSE
from tests.servers.hostnet.agent.test_heartbeat import FakeChannel
from tests.servers.hostnet.reconcile.applied import RED, Host, full

TABLE, LINKS = Changed(table=True), Changed(links=True)


class FakeEvents:
    """Says what is in ``next``, one by one, and then nothing; ``waited`` are the limits that it was given."""

    def __init__(self) -> None:
        self.next: deque[Changed] = deque()
        self.waited: list[float | None] = []
        self.broken = self.closed = False

    def wait(self, timeout: float | None) -> Changed:
        self.waited.append(timeout)
        if self.broken:
            raise OSError("no socket")
        return self.next.popleft() if self.next else NOTHING

    def close(self) -> None:
        self.closed = True


class Scene:
    def __init__(self, directory: Path) -> None:
        self.host = Host(directory)
        self.channel = FakeChannel()
        self.events: list[FakeEvents] = []
        self.slept: list[float] = []
        self.watch = Watch(
            cast(Channel, self.channel), self.host.applier, self.listen, self.slept.append, lambda: self.host.now
        )
        self.host.applier.full(full(RED))

    def listen(self) -> Events:
        self.events.append(FakeEvents())
        return cast(Events, self.events[-1])

    def step(self, *seen: Changed) -> list[float]:
        """One turn in which ``seen`` is heard; for how long it slept."""
        if self.events:
            self.events[-1].next.extend(seen)
        self.slept.clear()
        self.watch.step()
        return list(self.slept)


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    found = Scene(tmp_path)
    assert found.step() == [TOGETHER, SHORTEST]  # at first it looks without being told
    assert found.channel.said == []
    found.events[-1].waited.clear()
    return found


def test_it_waits_for_as_long_as_nothing_happens(scene: Scene) -> None:
    assert scene.step(NOTHING) == [TOGETHER]
    assert scene.events[0].waited == [None, 0]


def test_what_comes_at_once_is_looked_at_once(scene: Scene) -> None:
    scene.host.firewall.changed_by_others = True
    scene.host.links.remove_address("wgs1", "10.9.0.1/24")
    scene.step(TABLE, LINKS)
    assert [report["kind"] for report in scene.channel.said] == ["repaired"]
    assert len(scene.channel.said[0]["drift"]) == 2
    assert scene.step(NOTHING) == [TOGETHER]


def test_our_own_changes_cost_one_look_and_no_report(scene: Scene) -> None:
    assert scene.step(TABLE) == [TOGETHER, SHORTEST]
    assert scene.step(NOTHING) == [TOGETHER]
    assert scene.channel.said == []


def test_long_looks_are_followed_by_longer_pauses_but_never_by_very_long_ones(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    took = 0.02

    def slow(*, tunnels: bool, host: bool) -> None:
        scene.host.now += took

    monkeypatch.setattr(scene.host.applier, "repair", slow)
    assert scene.step(TABLE)[-1] == pytest.approx(0.2)
    took = 3.0
    assert scene.step(TABLE)[-1] == LONGEST


def test_pauses_grow_while_somebody_goes_on(scene: Scene) -> None:
    pauses = []
    for _ in range(10):
        scene.host.firewall.changed_by_others = True
        pauses.append(scene.step(TABLE)[-1])
    assert pauses[:3] == [0.1, 0.2, 0.4]
    assert pauses[-1] == LONGEST_PAUSE
    assert len(scene.channel.said) == 10


def test_what_cannot_be_put_back_is_tried_again_without_an_event(scene: Scene) -> None:
    scene.host.firewall.changed_by_others = scene.host.firewall.broken = True
    assert scene.step(TABLE)[-1] == LONGEST_PAUSE
    assert scene.channel.said[-1]["conditions"][0]["code"] == "firewall_failed"
    scene.host.firewall.broken = False
    scene.events[0].waited.clear()
    scene.step()
    assert scene.events[0].waited == [0, 0]
    assert not scene.host.firewall.changed_by_others
    assert scene.channel.said[-1]["conditions"] == []


def test_while_nobody_could_listen_everything_may_have_happened(scene: Scene) -> None:
    scene.events[0].broken = True
    with pytest.raises(OSError, match="no socket"):
        scene.step()
    scene.watch.listen_anew()
    assert scene.events[0].closed
    scene.host.links.remove_address("wgs1", "10.9.0.1/24")
    scene.step()
    assert len(scene.events) == 2
    assert scene.channel.said[-1]["drift"] == ["wgs1: address 10.9.0.1/24 was gone"]
