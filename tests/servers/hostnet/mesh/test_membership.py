"""Behind which machine each network lies: messages may come late, twice or in any order, and the newest word holds."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from servers.hostnet.mesh.membership import Membership
from servers.hostnet.state import Mesh, MeshPeer, Move

HOSTS = ("a", "b", "c")
NETWORKS = tuple(f"10.9.0.{number}/32" for number in range(2, 6))


def mesh(**behind: tuple[str, ...]) -> Mesh:
    peers = tuple(
        MeshPeer(host, f"key-{host}", (f"198.51.100.{n}:51800",), (f"fd00::{n}/128",), behind.get(host, ()))
        for n, host in enumerate(HOSTS, 2)
    )
    return Mesh(("fd00::1/128",), 51800, 0, peers)


def test_full_state_says_where_everything_is() -> None:
    members = Membership()
    members.take_full(mesh(a=NETWORKS[:1], b=NETWORKS[1:2]), 5)
    assert members.owners == {NETWORKS[0]: "a", NETWORKS[1]: "b"}
    assert members.routed() == {"fd00::2/128", "fd00::3/128", "fd00::4/128", *NETWORKS[:2]}
    assert members.allowed_ips()["a"] == ["fd00::2/128", NETWORKS[0]]


def test_move_changes_what_it_names_and_says_so() -> None:
    members = Membership()
    members.take_full(mesh(a=NETWORKS), 5)
    assert members.move(6, [Move(NETWORKS[0], "b"), Move(NETWORKS[1], "a"), Move(NETWORKS[2], "")]) == [
        NETWORKS[0],
        NETWORKS[2],
    ]
    assert members.owners == {NETWORKS[0]: "b", NETWORKS[1]: "a", NETWORKS[3]: "a"}


def test_nothing_moves_before_the_first_state_nor_without_a_mesh() -> None:
    members = Membership()
    assert members.move(9, [Move(NETWORKS[0], "a")]) == []
    members.take_full(None, 3)
    assert members.move(9, [Move(NETWORKS[0], "a")]) == []
    assert members.routed() == set()


def test_move_to_a_machine_that_is_not_in_the_mesh_is_a_move_to_nowhere() -> None:
    members = Membership()
    members.take_full(mesh(a=NETWORKS[:1]), 5)
    assert members.move(6, [Move(NETWORKS[0], "stranger")]) == [NETWORKS[0]]
    assert members.owners == {}
    # Should it join later, the same state brings it.
    late = mesh()
    members.take_full(replace(late, peers=(*late.peers, MeshPeer("stranger", "key", (), ("fd00::9/128",)))), 6)
    assert members.owners == {}


def test_what_was_known_in_an_earlier_run_has_no_clients() -> None:
    members = Membership()
    members.remember(mesh(a=NETWORKS))
    assert members.routed() == {"fd00::2/128", "fd00::3/128", "fd00::4/128"}


@dataclass
class World:
    """The control side: each change has a version, and a state read at a version may hold later changes, too."""

    version: int = 1
    owners: dict[str, str] = field(default_factory=dict)
    messages: list[tuple[int, Mesh | list[Move]]] = field(default_factory=list)

    def move(self, network: str, host: str) -> None:
        self.version += 1
        self.owners[network] = host
        self.messages.append((self.version, [Move(network, host)]))

    def state(self, behind_by: int) -> Mesh:
        """Its version was read before its rows, in which ``behind_by`` later changes are."""
        behind: dict[str, list[str]] = {}
        for network, host in self.owners.items():
            behind.setdefault(host, []).append(network)
        told = mesh(**{host: tuple(networks) for host, networks in behind.items() if host})
        self.messages.append((max(1, self.version - behind_by), told))
        return told


CHANGES = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(NETWORKS), st.sampled_from((*HOSTS, ""))),
        st.integers(0, 3),
    ),
    max_size=12,
)


@given(CHANGES, st.randoms(use_true_random=False))
def test_whatever_comes_late_or_twice_the_last_state_makes_it_right(
    changes: list[tuple[str, str] | int], random: Random
) -> None:
    world = World()
    for change in changes:
        if isinstance(change, tuple):
            world.move(*change)
        else:
            world.state(change)
    members = Membership()
    members.take_full(mesh(), 1)
    arriving = [*world.messages, *world.messages]
    random.shuffle(arriving)
    highest = 1
    for version, message in arriving[: len(arriving) * 3 // 4]:
        if isinstance(message, Mesh):
            if version >= highest:  # an older one is ignored before it comes here
                highest = version
                members.take_full(message, version)
        else:
            members.move(version, message)
    # The slow beat, and whatever is still under way.
    members.take_full(world.state(0), world.version)
    for version, message in arriving:
        if isinstance(message, list):
            members.move(version, message)
    assert members.owners == {network: host for network, host in world.owners.items() if host}
