"""In which order subsystems have their turn, and that guards do all of a change or nothing of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import pytest

from servers.hostnet.state import Code, HostCondition, HostState, Interface, Peer
from servers.hostnet.subsystem import Stage, Subsystem, SubsystemError, Subsystems
from tests.servers.hostnet.fakes import state_of

RED = Interface("wgs1", "red", 51820, ("10.9.0.1/24",), 0, False, 360, (), ())
A, B = (Peer(name, 1, f"{name}-key", (f"10.9.0.{number}/32",)) for number, name in enumerate("ab", 2))


class Failure(SubsystemError):
    code: ClassVar[Code] = Code.FIREWALL_FAILED


class Part:
    """Writes down its turns in ``turns``; raises ``fault`` at those named in ``faulty``."""

    def __init__(self, name: str, stage: Stage, turns: list[str]) -> None:
        self.name = name
        self.stage = stage
        self.turns = turns
        self.faulty: set[str] = set()
        self.fault: Exception = Failure("refused")

    def _turn(self, what: str) -> None:
        self.turns.append(f"{self.name} {what}")
        if what in self.faulty:
            raise self.fault

    def apply(self, state: HostState) -> None:
        self._turn("apply")

    def change(self, interface: Interface, gone: Sequence[Peer], new: Sequence[Peer]) -> None:
        self._turn(f"-{''.join(peer.connection for peer in gone)}+{''.join(peer.connection for peer in new)}")

    def preview(self, state: HostState) -> list[str]:
        return [f"{self.name} would"]

    def drift(self) -> list[str]:
        return [f"{self.name} was changed"]

    def conditions(self) -> list[HostCondition]:
        return [HostCondition.of(Code.DNS_FAILED, self.name)]


class Scene:
    def __init__(self) -> None:
        self.turns: list[str] = []
        # A follower that is registered first has its turn after the guards all the same.
        stages = [("dns", Stage.FOLLOWER), ("one", Stage.GUARD), ("two", Stage.GUARD), ("probes", Stage.FOLLOWER)]
        self.parts = {name: Part(name, stage, self.turns) for name, stage in stages}
        registered: list[Subsystem] = [*self.parts.values()]
        self.all = Subsystems(registered)


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_guards_come_before_the_interfaces_and_followers_after_them(scene: Scene) -> None:
    scene.all.guard(state_of(RED))
    scene.turns.append("interfaces")
    scene.all.follow(state_of(RED))
    assert scene.turns == ["one apply", "two apply", "interfaces", "dns apply", "probes apply"]
    lines = scene.all.preview(state_of(RED), ["interfaces"], state_of(RED))
    assert lines == ["one would", "two would", "interfaces", "dns would", "probes would"]
    assert scene.all.drift() == [f"{name} was changed" for name in ("one", "two", "dns", "probes")]
    assert [condition.text for condition in scene.all.conditions()] == ["one", "two", "dns", "probes"]


def test_change_reaches_the_guards_first(scene: Scene) -> None:
    scene.all.change(RED, [A], [B])
    assert scene.turns == ["one -a+b", "two -a+b", "dns -a+b", "probes -a+b"]


@pytest.mark.parametrize("fault", [Failure("refused"), ZeroDivisionError()])
def test_change_that_a_guard_refuses_is_taken_back_from_all_that_were_asked(scene: Scene, fault: Exception) -> None:
    two = scene.parts["two"]
    two.faulty, two.fault = {"-a+b"}, fault
    with pytest.raises(type(fault)):
        scene.all.change(RED, [A], [B])
    # The last asked first, the one that failed among them; no follower hears of what is not so.
    assert scene.turns == ["one -a+b", "two -a+b", "two -b+a", "one -b+a"]


def test_guard_that_cannot_take_back_either_does_not_keep_the_others_from_it(scene: Scene) -> None:
    scene.parts["two"].faulty = {"-a+b", "-b+a"}
    with pytest.raises(Failure):
        scene.all.change(RED, [A], [B])
    assert scene.turns == ["one -a+b", "two -a+b", "two -b+a", "one -b+a"]
