"""Any host becomes what is wanted, and is then left alone."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from servers.hostnet.observed import HostRoute, ObservedLink
from servers.hostnet.reconcile.desired import Desired
from servers.hostnet.reconcile.executor import Executor, Failures
from servers.hostnet.reconcile.plan import (
    plan,
)
from servers.hostnet.reconcile.route_conflicts import conflicts
from servers.hostnet.state import HostState, Interface, Peer
from servers.hostnet.wireguard.base import PeerChange
from tests.servers.hostnet.fakes import FakeLinks, FakeWireGuard

ADDRESSES = ("10.9.0.1/24", "10.10.0.1/24", "fd01::1/64", "fd02::1/64")
NETWORKS = ("192.168.7.0/24", "192.168.7.9/32", "192.168.0.0/16", "fd77::/48", "fd77::9/128")
OWN = tuple(f"10.9.0.{number}/32" for number in (2, 3, 4))
PORTS = (51820, 51821, 51822)
NAMES = ("wgs1", "wgs2", "wgs3")
PEER_KEYS = ("a-key", "b-key", "c-key")


def some(values: tuple[str, ...]) -> st.SearchStrategy[frozenset[str]]:
    return st.frozensets(st.sampled_from(values))


@st.composite
def seen_hosts(draw: st.DrawFn) -> tuple[FakeLinks, FakeWireGuard]:
    """A host that somebody left in any state that a kernel can be in."""
    links = FakeLinks()
    wireguard = FakeWireGuard(links)
    links.outer_mtu = draw(st.sampled_from((1300, 1400, 1500)))
    attached = draw(some(("192.168.7.0/24", "172.16.0.0/12", "fd77::/48")))
    links.host_routes = tuple(HostRoute(network, "lan0", True) for network in sorted(attached))
    ports = draw(st.permutations(PORTS))
    left = set(NETWORKS) - attached
    for name, port in zip(draw(st.lists(st.sampled_from(NAMES), unique=True)), ports, strict=False):
        up = draw(st.booleans())
        routes = draw(some(tuple(sorted(left)))) if up and left else frozenset()
        left -= routes
        link = ObservedLink(up, draw(st.sampled_from((1280, 1420, 1500))), draw(some(ADDRESSES)), routes)
        if draw(st.sampled_from(("whole", "whole", "whole", "no device"))) == "whole":
            wireguard.create(name)
            wireguard.set(name, port=port, peers=draw(st.lists(peer_changes, max_size=4)))
        links.links[name] = link
    return links, wireguard


peer_changes = st.builds(
    lambda key, own, networks: PeerChange(key, (own or dict(zip(PEER_KEYS, OWN, strict=True))[key], *sorted(networks))),
    st.sampled_from(PEER_KEYS),
    st.sampled_from(("", "", *OWN)),  # mostly its right one
    some(NETWORKS),
) | st.just(PeerChange("x-key", ("10.9.0.9/32",)))


@st.composite
def wanted_states(draw: st.DrawFn) -> HostState:
    """Up to three servers with peers that may claim the same networks."""
    ports = draw(st.permutations(PORTS))
    interfaces = []
    for name, port in zip(draw(st.lists(st.sampled_from(NAMES), unique=True)), ports, strict=False):
        keys = sorted(draw(some(PEER_KEYS)))
        peers = tuple(
            Peer(f"{name}-{key}", number, key, (own,), networks=tuple(sorted(draw(some(NETWORKS)))))
            for number, (key, own) in enumerate(zip(keys, draw(st.sampled_from((OWN, OWN[::-1]))), strict=False))
        )
        addresses = tuple(sorted(draw(some(ADDRESSES))))
        mtu = draw(st.sampled_from((0, 0, 1380)))
        interfaces.append(Interface(name, f"server-{name}", port, addresses, mtu, False, 360, (), peers))
    return HostState("h", 9, "boot", 9790, tuple(interfaces))


@settings(max_examples=300, deadline=None)
@given(host=seen_hosts(), state=wanted_states())
def test_the_plan_makes_any_host_what_is_wanted_and_then_nothing_is_left_to_do(
    host: tuple[FakeLinks, FakeWireGuard], state: HostState, tmp_path_factory: pytest.TempPathFactory
) -> None:
    links, wireguard = host
    executor = Executor(wireguard, links, key_directory(tmp_path_factory))
    desired = Desired("boot")
    assert desired.take_full(state, 0.0)
    interfaces = desired.interfaces()
    failures = Failures()
    keys = executor.load_keys(interfaces, failures)
    refused = conflicts(interfaces, links.host_routes)

    executor.execute(plan(interfaces, keys, executor.observe()), failures)
    assert failures.errors == {}
    assert [condition.text for condition in failures.others] == list(refused.values())
    observed = executor.observe()
    assert plan(interfaces, keys, observed).steps == ()

    # The same said without the plan: what is there is what was asked for.
    assert observed.devices.keys() == observed.links.keys() == {i.name for i in interfaces}
    for interface in interfaces:
        link, device = observed.links[interface.name], observed.devices[interface.name]
        assert (device.public_key, device.port) == (keys[interface.server], interface.port)
        assert link.addresses == set(interface.addresses)
        assert (link.up, link.mtu) == (True, interface.mtu or max(1280, links.outer_mtu - 80))
        assert {p.public_key: p.allowed_ips for p in device.peers.values()} == {
            p.public_key: {*p.routed} for p in interface.peers
        }
        # Every network that a peer claims is with one of those that do, and routed unless the host has it.
        claimed = {
            n for asked in state.interfaces if asked.name == interface.name for p in asked.peers for n in p.networks
        }
        assert {n for p in interface.peers for n in p.networks} == claimed
        assert link.routes == {n for n in claimed if (interface.name, n) not in refused}


def key_directory(factory: pytest.TempPathFactory) -> Path:
    """One for all examples: keys are kept."""
    return factory.getbasetemp() / "plan-keys"
