"""Behind which machine of the mesh each client lies, from what changed about them."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from servers.hostnet.mesh.membership import Membership
from servers.hostnet.state import Mesh, MeshPeer, Remote

HOSTS = ("a", "b", "c")
NETWORKS = tuple(f"10.9.0.{number}/32" for number in range(2, 6))
PEERS = tuple(
    MeshPeer(host, f"key-{host}", (f"198.51.100.{n}:51800",), (f"fd00::{n}/128",)) for n, host in enumerate(HOSTS, 2)
)
MESH = Mesh(("fd00::1/128",), 51800, 0, PEERS)


def remote(network: str, host: str) -> Remote:
    return Remote(f"{network} on {host}", 1, 1, "red", host, (network,))


def test_full_state_says_where_everything_is() -> None:
    members = Membership()
    site = replace(remote(NETWORKS[1], "b"), networks=("10.60.0.0/24",))
    members.take_full(MESH, [remote(NETWORKS[0], "a"), site])
    assert members.owners == {NETWORKS[0]: "a", NETWORKS[1]: "b", "10.60.0.0/24": "b"}
    assert members.allowed_ips() == {
        "a": ["fd00::2/128", NETWORKS[0]],
        "b": ["fd00::3/128", NETWORKS[1], "10.60.0.0/24"],
        "c": ["fd00::4/128"],
    }


def test_change_says_what_lies_elsewhere_now_and_nothing_else() -> None:
    members = Membership()
    members.take_full(MESH, [remote(network, "a") for network in NETWORKS])
    gone = [remote(network, "a") for network in NETWORKS[:3]]
    assert members.change(gone, [remote(NETWORKS[0], "b"), remote(NETWORKS[1], "a")]) == [NETWORKS[0], NETWORKS[2]]
    assert members.owners == {NETWORKS[0]: "b", NETWORKS[1]: "a", NETWORKS[3]: "a"}


def test_behind_a_machine_that_is_not_in_the_mesh_nothing_lies() -> None:
    members = Membership()
    members.take_full(MESH, [remote(NETWORKS[0], "a")])
    assert members.change([remote(NETWORKS[0], "a")], [remote(NETWORKS[0], "stranger")]) == [NETWORKS[0]]
    assert members.owners == {}
    # Should it join later, the state that says so brings it.
    joined = replace(MESH, peers=(*PEERS, MeshPeer("stranger", "key", (), ("fd00::9/128",))))
    members.take_full(joined, [remote(NETWORKS[0], "stranger")])
    assert members.owners == {NETWORKS[0]: "stranger"}


def test_without_a_mesh_nothing_lies_anywhere() -> None:
    members = Membership()
    members.take_full(None, [remote(NETWORKS[0], "a")])
    assert members.change([], [remote(NETWORKS[1], "a")]) == []
    assert members.allowed_ips() == {}


def test_what_was_known_in_an_earlier_run_has_no_clients() -> None:
    members = Membership()
    members.remember(MESH)
    assert members.allowed_ips() == {"a": ["fd00::2/128"], "b": ["fd00::3/128"], "c": ["fd00::4/128"]}


PLACES = st.dictionaries(st.sampled_from(NETWORKS), st.sampled_from((*HOSTS, "stranger")))


@given(st.lists(PLACES, min_size=1, max_size=8))
def test_changes_lead_where_a_full_state_would(steps: list[dict[str, str]]) -> None:
    members, before = Membership(), steps[0]
    members.take_full(MESH, [remote(*each) for each in before.items()])
    for now in steps[1:]:
        known = dict(members.owners)
        gone = [remote(*each) for each in before.items() if now.get(each[0]) != each[1]]
        changed = members.change(gone, [remote(*each) for each in now.items() if before.get(each[0]) != each[1]])
        anew = Membership()
        anew.take_full(MESH, [remote(*each) for each in now.items()])
        assert members.owners == anew.owners
        assert changed == sorted(n for n in NETWORKS if known.get(n) != anew.owners.get(n))
        before = now
