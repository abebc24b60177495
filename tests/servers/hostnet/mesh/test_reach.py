"""Which machines of the mesh answer, with a stand-in for the sockets and a clock that only the test moves."""

from __future__ import annotations

import errno
import itertools
import json
from dataclasses import dataclass, field

import pytest

from servers.hostnet.mesh.reach import IN_A_ROW, LIMIT, Reaching, ask, targets
from servers.hostnet.probes.prober import Target
from servers.hostnet.state import Mesh, MeshPeer
from servers.hostnet.state.reach import Reach, reach_from_json, reach_to_json
from servers.hostnet.wireguard.base import Device, ObservedPeer

BERLIN = MeshPeer("berlin", "berlin-key", (), ("fd5c::2/128",))
PARIS = MeshPeer("paris", "paris-key", (), ("fd5c::3/128", "fd00:1::3/128"))
MESH = Mesh(("fd5c::1/128", "fd00:1::1/128"), 51800, 0, (BERLIN, PARIS))


@dataclass
class Network:
    """Answers of ``there`` (addresses) arrive after so many seconds; ``faults``: what the kernel says to a question."""

    now: float = 1000.0
    there: dict[str, float] = field(default_factory=dict)
    faults: dict[str, int] = field(default_factory=dict)
    asked: list[Target] = field(default_factory=list)
    able: bool = True
    _coming: dict[int, float] = field(default_factory=dict)

    def ask(self, number: int, target: Target) -> bool:
        self.asked.append(target)
        if code := self.faults.get(target.address):
            raise OSError(code, "no")
        if self.able and target.address in self.there:
            self._coming[number] = self.now + self.there[target.address]
        return self.able

    def wait(self, seconds: float) -> list[tuple[int, bool]]:
        first = min(self._coming.values(), default=self.now + seconds)
        self.now = min(first, self.now + seconds)
        arrived = [number for number, at in self._coming.items() if at <= self.now]
        for number in arrived:
            del self._coming[number]
        return [(number, True) for number in arrived]

    def forget(self, number: int) -> None:
        self._coming.pop(number, None)

    def wake(self) -> None: ...

    def close(self) -> None: ...


class Scene:
    def __init__(self) -> None:
        self.network = Network()
        self.mesh: Mesh | None = MESH
        self.device: Device | None = None
        self.ahead = 0.0  # of the time of day
        self.reaching = Reaching(
            lambda: (self.mesh, self.device), self.network, lambda: self.network.now, lambda: self.day
        )

    @property
    def day(self) -> float:
        return self.network.now + 1_000_000 + self.ahead

    def shaken(self, at: float) -> None:
        peer = ObservedPeer("berlin-key", frozenset(), "", int(at), 500, 700)
        self.device = Device("wgm0", "", 51800, {"berlin-key": peer})

    def turns(self, count: int) -> None:
        for _ in range(count):
            self.reaching.step()

    def way(self, host: str = "berlin") -> Reach:
        return self.reaching.ways()[host]


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_who_answers_is_reached_at_once_and_who_does_not_is_cut_after_some_questions(scene: Scene) -> None:
    scene.network.there = {"fd5c::2": 0.012}
    scene.turns(1)
    assert scene.way().answers is True
    assert scene.way().round_trip == pytest.approx(0.012)
    assert (scene.way("paris").answers, scene.way("paris").round_trip) == (None, None)
    scene.turns(IN_A_ROW - 1)
    assert scene.way("paris").answers is False


def test_one_lost_packet_cuts_nothing_and_one_answer_is_enough_to_be_back(scene: Scene) -> None:
    scene.network.there = {"fd5c::2": 0.012}
    scene.turns(2)
    scene.network.there = {}
    scene.turns(IN_A_ROW - 1)
    assert scene.way().answers is True
    scene.turns(1)
    assert (scene.way().answers, scene.way().since) == (False, 0.0)
    scene.network.now += 60
    assert scene.way().since == 60
    scene.network.there = {"fd5c::2": 0.5}
    scene.turns(1)
    assert scene.way().answers is True
    assert scene.way().round_trip == pytest.approx(0.5)


def test_an_answer_that_comes_too_late_is_none(scene: Scene) -> None:
    scene.network.there = {"fd5c::2": LIMIT + 0.1}
    scene.turns(IN_A_ROW)
    assert scene.way().answers is False


def test_a_machine_is_asked_at_its_other_address_while_the_network_is_changed(scene: Scene) -> None:
    """It has not heard of the change yet; each is asked from our own address of the same network."""
    scene.network.there = {"fd00:1::3": 0.1}
    scene.turns(2)
    assert scene.way("paris").answers is True
    asked = {(each.address, each.source, each.interface) for each in scene.network.asked}
    assert {("fd5c::3", "fd5c::1", "wgm0"), ("fd00:1::3", "fd00:1::1", "wgm0")} <= asked


def test_a_mesh_of_the_other_family_is_asked_from_no_address() -> None:
    mesh = Mesh(("10.77.0.1/32",), 51800, 0, (BERLIN, MeshPeer("lone", "k", (), ())))
    assert targets(mesh, {}) == {}


@pytest.mark.parametrize(
    ("code", "answers"),
    [(errno.ENOKEY, False), (errno.ENETUNREACH, False), (errno.ENOBUFS, None), (errno.EMFILE, None)],
)
def test_faults_of_this_machine_say_nothing_of_the_way(scene: Scene, code: int, answers: bool | None) -> None:
    scene.network.faults = {"fd5c::2": code}
    scene.turns(IN_A_ROW)
    assert scene.way().answers is answers


def test_where_nothing_can_be_asked_nothing_is_known(scene: Scene) -> None:
    scene.network.able = False
    scene.turns(IN_A_ROW)
    assert scene.way() == Reach(since=scene.way().since)


def test_all_are_asked_at_once_and_waited_for_together(scene: Scene) -> None:
    began = scene.network.now
    whom = {str(number): Target("wgm0", "fd5c::1", "", "", f"fd5c::{number}", 0) for number in range(2, 22)}
    scene.network.there = dict.fromkeys(("fd5c::7", "fd5c::9"), 0.2)
    found = ask(scene.network, whom, itertools.count(1), 1.0, lambda: scene.network.now)
    assert {host for host, seconds in found.items() if seconds is not None} == {"7", "9"}
    assert len(found) == 20
    assert scene.network.now - began <= 1.0


def test_a_handshake_s_age_goes_on_whatever_is_done_to_the_clock(scene: Scene) -> None:
    scene.shaken(scene.day - 30)
    scene.turns(1)
    scene.network.now += 20 - LIMIT
    assert scene.way().handshake == pytest.approx(50, abs=1.5)
    scene.ahead = -86_400
    scene.turns(1)
    assert scene.way().handshake == pytest.approx(52, abs=1.5)
    # One that is new is no older than the last look.
    scene.shaken(scene.day + 86_400)
    scene.turns(1)
    assert scene.way().handshake == pytest.approx(2, abs=1.5)
    scene.ahead = 86_400
    scene.shaken(scene.day - 86_400)
    scene.turns(1)
    assert (scene.way().handshake or 0) < 10
    assert (scene.way().received, scene.way().sent) == (500, 700)


def test_an_interface_that_is_made_anew_has_had_no_handshake(scene: Scene) -> None:
    scene.shaken(scene.day - 30)
    scene.turns(1)
    scene.shaken(0)
    scene.turns(1)
    assert scene.way().handshake is None


def test_machines_that_leave_are_forgotten_and_without_a_mesh_there_are_none(scene: Scene) -> None:
    scene.turns(1)
    scene.mesh = Mesh(MESH.addresses, 51800, 0, (PARIS,))
    scene.turns(1)
    assert [*scene.reaching.ways()] == ["paris"]
    scene.mesh = None
    scene.turns(1)
    assert scene.reaching.ways() == {}


def test_what_is_said_is_read_as_it_was_meant() -> None:
    ways = {"berlin": Reach(True, 3.5, 0.0123, 61.0, 5, 2**40), "paris": Reach()}
    assert reach_from_json(reach_to_json(ways)) == ways


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("nonsense", {}),
        ("[1]", {}),
        ("[" * 100_000, {}),
        ('{"a": 7, "b": {}}', {"b": Reach()}),
        (
            json.dumps({"a": {"answers": 1, "since": -1, "round_trip": "x", "handshake": float("nan"), "sent": 1e300}}),
            {"a": Reach()},
        ),
    ],
)
def test_whatever_a_host_writes_is_read_as_far_as_it_makes_sense(text: str, read: dict[str, Reach]) -> None:
    assert reach_from_json(text) == read
