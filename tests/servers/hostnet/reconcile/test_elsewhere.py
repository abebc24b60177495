"""What a host knows of clients on others: an old message never wins, and each change is told of once."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from servers.hostnet.reconcile.desired import Desired
from servers.hostnet.reconcile.remotes import Moved, Remotes
from servers.hostnet.state import AddPeer, HostState, Interface, Link, Peer, Remote
from tests.servers.hostnet.reconcile.elsewhere import Elsewhere


def check(remotes_class: type[Remotes], examples: int) -> None:
    class Host(Desired):
        def __init__(self, boot: str, **options: Any) -> None:
            super().__init__(boot, **options)
            self.remotes = remotes_class(100_000, self.uses)

    class Machine(Elsewhere):
        desired_class = Host

    broken = remotes_class is not Remotes
    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=60,
            deadline=None,
            database=None,
            derandomize=broken,
            print_blob=True,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.generate] if broken else list(Phase),
        ),
    )


def test_an_old_message_never_wins() -> None:
    check(Remotes, 300)


class Forgetful(Remotes):
    """Does not remember who ended."""

    def _end(self, connection: str) -> None:
        self._forget(connection)


class TakesStaleAdditions(Remotes):
    def add(self, remotes: Iterable[Remote]) -> None:
        super().add(dataclasses.replace(remote, version=10**9) for remote in remotes)


class AddsBeforeTheFirstState(Remotes):
    def add(self, remotes: Iterable[Remote]) -> None:
        self._ready, self._servers = True, self._servers or frozenset({"red", "blue"})
        super().add(remotes)


class DropsNewerOnes(Remotes):
    """Believes a full state about everything, not only up to the versions that it names."""

    def take_full(self, state: HostState) -> None:
        super().take_full(dataclasses.replace(state, others=tuple((host, 10**9) for host, _ in state.others)))


class KeepsWhatAStateLacks(Remotes):
    def take_full(self, state: HostState) -> None:
        super().take_full(dataclasses.replace(state, others=tuple((host, -1) for host, _ in state.others)))


class BelievesLateStatesAboutPending(Remotes):
    """Lets one that waited when the state was read be nowhere again."""

    def take_full(self, state: HostState) -> None:
        super().take_full(state)
        for remote in state.remotes:
            if not remote.host and self._may_be(remote):
                self._hold(remote)


class TheOldestHasIt(Remotes):
    def _owner(self, network: str) -> str:
        found = self._by_network.get(network, ())
        return min(found, key=lambda connection: self._held[connection].number, default="")


MUTANTS = [
    Forgetful,
    TakesStaleAdditions,
    AddsBeforeTheFirstState,
    DropsNewerOnes,
    KeepsWhatAStateLacks,
    BelievesLateStatesAboutPending,
    TheOldestHasIt,
]


@pytest.mark.long
@pytest.mark.parametrize("broken", MUTANTS)
def test_a_host_that_does_it_wrong_is_found_out(broken: type[Remotes]) -> None:
    with pytest.raises(AssertionError):
        check(broken, 3000)


# What followers are told

RED = Interface("wgs1", "red", 51820, ("10.9.0.1/24",), 0, True, 360, (), ())
IP, SITE = "10.9.0.2/32", "192.168.7.0/24"


def remote(connection: str, number: int = 1, host: str = "a", ips: tuple[str, ...] = (IP,), **fields: object) -> Remote:
    return dataclasses.replace(Remote(connection, 5, number, "red", host, ips), **fields)  # type: ignore[arg-type]


def state(*remotes: Remote, peers: tuple[Peer, ...] = (), version: int = 10) -> HostState:
    interface = dataclasses.replace(RED, peers=peers)
    return HostState("own", version, "boot", 9790, (interface,), remotes=remotes, others=(("a", 4), ("b", 4)))


def ready(*remotes: Remote, peers: tuple[Peer, ...] = ()) -> Desired:
    desired = Desired("boot")
    assert desired.take_full(state(*remotes, peers=peers), 0.0)
    desired.remotes.take_all()
    return desired


def moved(gone: Iterable[Remote] = (), new: Iterable[Remote] = ()) -> Moved:
    return Moved(tuple(gone), tuple(new))


def test_each_change_is_told_of_once() -> None:
    desired = ready()
    desired.add_remotes([remote("c1")])
    desired.add_remotes([remote("c1")])
    assert desired.remotes.take_changes() == moved(new=[remote("c1")])
    assert desired.remotes.take_changes() == moved()
    desired.remotes.remove(["c1", "nobody"])
    assert desired.remotes.take_changes() == moved(gone=[remote("c1")])


def test_what_comes_and_goes_between_two_tellings_is_not_told_of() -> None:
    desired = ready()
    desired.add_remotes([remote("c1")])
    desired.remotes.remove(["c1"])
    assert desired.remotes.take_changes() == moved()


def test_the_newer_of_two_has_the_address_and_the_older_gets_it_back() -> None:
    older, newer = remote("c1", 1, "a"), remote("c2", 2, "b")
    desired = ready(older)
    desired.add_remotes([newer])
    assert desired.remotes.take_changes() == moved([older], [newer])
    desired.remotes.remove(["c2"])
    assert desired.remotes.take_changes() == moved([newer], [older])


def test_an_open_peer_of_this_host_comes_first() -> None:
    here = Peer("here", 11, "key", (IP,))
    desired = ready(remote("c1"))
    assert desired.add(AddPeer("red", here), 0.0) == ""
    desired.remotes.touch(here.routed)
    assert desired.remotes.take_changes() == moved(gone=[remote("c1")])
    desired.remove(["here"])
    desired.remotes.touch(here.routed)
    assert desired.remotes.take_changes() == moved(new=[remote("c1")])


def test_who_lingers_here_is_gone_when_its_address_is_elsewhere() -> None:
    """Else the firewall would shut in whoever has the address now."""
    here = Peer("here", 5, "key", (IP,))
    desired = ready(peers=(here,))
    desired.remove(["here"], lingers=13.0)
    assert [peer.connection for peer in desired.interfaces()[0].peers] == ["here"]
    desired.add_remotes([remote("c1")])
    assert desired.interfaces()[0].peers == ()
    # Nor does a state that was read between the two bring it back.
    assert desired.take_full(state(peers=(here.lingering(9.0),)), 0.0)
    assert desired.interfaces()[0].peers == ()


def test_who_is_to_linger_when_its_address_is_elsewhere_already_is_gone_at_once() -> None:
    desired = ready(remote("c1"), peers=(Peer("here", 5, "key", (IP,)),))
    desired.remove(["here"], lingers=13.0)
    assert desired.interfaces()[0].peers == ()
    desired.remotes.touch((IP,))
    assert desired.remotes.take_changes() == moved(new=[remote("c1")])


def test_who_lingers_by_a_state_that_has_its_address_elsewhere_does_not() -> None:
    desired = ready(remote("c1"), peers=(Peer("here", 5, "key", (IP,)).lingering(9.0),))
    assert desired.interfaces()[0].peers == ()


def test_a_network_goes_with_the_newest_that_names_it() -> None:
    first = remote("c1", 1, ips=(IP,), networks=(SITE,))
    second = remote("c2", 2, "b", ips=("10.9.0.3/32",), networks=(SITE,))
    desired = ready(first)
    desired.add_remotes([second])
    without = dataclasses.replace(first, networks=())
    assert set(desired.remotes.take_changes().new) == {without, second}
    assert {each.connection: each.networks for each in desired.remotes.all()} == {"c1": (), "c2": (SITE,)}


def test_a_state_changes_what_a_remote_has() -> None:
    desired = ready(remote("c1"))
    altered = remote("c1", networks=(SITE,), names=("laptop.vpn",))
    assert desired.take_full(state(altered, version=11), 0.0)
    assert desired.remotes.take_changes() == moved([remote("c1")], [altered])


@pytest.mark.parametrize("host", ["a", ""], ids=["open", "pending"])
def test_a_state_that_was_read_before_another_one_brings_nobody_back(host: str) -> None:
    """Both are of one version of this host, on which nothing has changed."""
    read_before = state(remote("c1", host=host))
    read_after = dataclasses.replace(state(), others=(("a", 6), ("b", 4)))
    desired = Desired("boot")
    assert desired.take_full(read_after, 0.0)
    assert desired.take_full(dataclasses.replace(read_before, others=(("a", 5), ("b", 4))), 0.0)
    desired.add_remotes([remote("c1")])
    assert desired.remotes.all() == ()


def test_a_preview_leaves_no_trace() -> None:
    desired = ready(remote("c1"))
    preview = desired.preview(state(remote("c2", 2, "b"), version=11), 0.0)
    assert preview is not None
    assert [each.connection for each in preview.remotes] == ["c2"]
    assert desired.remotes.take_changes() == moved()
    assert [each.connection for each in desired.remotes.all()] == ["c1"]


def test_clients_of_a_linked_server_are_known_for_as_long_as_it_is_linked() -> None:
    told = Remote("b", 3, 1, "blue", "far", ("10.19.0.5/32",))
    late = dataclasses.replace(told, connection="c", version=9, number=2, allowed_ips=("10.19.0.6/32",))
    alone = Interface("wgs1", "red", 51820, ("10.9.0.1/24",), 0, True, 360, (), ())
    linked = dataclasses.replace(alone, links=(Link("blue", "wgs2", ("10.19.0.0/24",)),))

    def state(version: int, interface: Interface, *remotes: Remote) -> HostState:
        return HostState("here", version, "boot", 9790, (interface,), remotes=remotes, others=(("far", 5),))

    desired = Desired("boot")
    desired.take_full(state(1, alone, told), 0.0)
    desired.add_remotes([late])
    assert desired.remotes.all() == ()
    desired.take_full(state(2, linked, told), 0.0)
    desired.add_remotes([late])
    assert desired.remotes.all() == (told, late)
    desired.take_full(state(3, alone), 0.0)
    assert desired.remotes.all() == ()
    # They have not ended: linked again, they are there again.
    desired.take_full(state(4, linked, told), 0.0)
    assert desired.remotes.all() == (told,)
    assert desired.remotes.take_changes().new == (told,)
