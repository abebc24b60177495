"""The edges of the host side, in memory: WireGuard, links and firewall that do as told, or fail when told."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

from servers.hostnet.firewall.table import FirewallError, ruleset
from servers.hostnet.marks import GROUP
from servers.hostnet.netlink.links import LinkError
from servers.hostnet.observed import USUAL_MTU, HostRoute, Observed, ObservedLink
from servers.hostnet.state import HostCondition, HostState, Interface, Peer
from servers.hostnet.state.host_networks import HostNetwork
from servers.hostnet.subsystem import Stage
from servers.hostnet.wireguard import keys
from servers.hostnet.wireguard.base import Device, ObservedPeer, PeerChange, WireGuardError


def connections(peers: Iterable[Peer]) -> list[str]:
    """Sorted: in which order a host is told of several says nothing."""
    return sorted(peer.connection for peer in peers)


class FakeWireGuard:
    """A ``Backend``. ``broken`` interfaces refuse changes; a peer whose key is in ``surprising`` makes it raise what
    nobody expects, in the middle of a request; ``requests`` are the sets of peers it was asked for."""

    name = "fake"

    def __init__(self, links: FakeLinks) -> None:
        self.devices: dict[str, Device] = {}
        self.broken: set[str] = set()
        self.surprising: set[str] = set()
        self.requests: list[tuple[str, list[PeerChange]]] = []
        self.reads = 0
        self._links = links

    def list(self) -> list[str]:
        return list(self.devices)

    def create(self, interface: str) -> None:
        self._check(interface)
        self.devices.setdefault(interface, Device(interface, "", 0, {}, mark=0))
        self._links.links.setdefault(interface, ObservedLink(False, 1500, frozenset(), group=0))

    def delete(self, interface: str) -> None:
        self._check(interface)
        self.devices.pop(interface, None)
        self._links.links.pop(interface, None)

    def get(self, interface: str) -> Device:
        self.reads += 1
        if interface not in self.devices:
            raise WireGuardError(f"{interface}: no such interface")
        return dataclasses.replace(self.devices[interface], peers=dict(self.devices[interface].peers))

    def set(
        self,
        interface: str,
        *,
        private_key: bytes | None = None,
        port: int | None = None,
        mark: int | None = None,
        peers: Iterable[PeerChange] = (),
    ) -> None:
        self._check(interface)
        if interface not in self.devices:
            raise WireGuardError(f"{interface}: no such interface")
        device = self.devices[interface]
        if private_key is not None:
            device = dataclasses.replace(device, public_key=keys.public_of(private_key))
        if port is not None:
            if port and any(other.port == port for name, other in self.devices.items() if name != interface):
                raise WireGuardError(f"{interface}: the port is in use")
            device = dataclasses.replace(device, port=port)
        if mark is not None:
            device = dataclasses.replace(device, mark=mark)
        self.devices[interface] = device
        changes = [*peers]
        if changes:
            self.requests.append((interface, changes))
        for change in changes:
            self._change(device.peers, change)

    def _change(self, peers: dict[str, ObservedPeer], change: PeerChange) -> None:
        if change.remove:
            peers.pop(change.public_key, None)
            return
        if change.public_key in self.surprising:
            raise ZeroDivisionError(change.public_key)
        for key, other in peers.items():  # an allowed IP moves to the peer that is set last
            peers[key] = dataclasses.replace(other, allowed_ips=other.allowed_ips - set(change.allowed_ips))
        old = peers.get(change.public_key) or ObservedPeer(change.public_key, frozenset(), "", 0, 0, 0)
        peers[change.public_key] = dataclasses.replace(old, allowed_ips=frozenset(change.allowed_ips))

    def shake_hands(self, interface: str, public_key: str, when: int) -> None:
        """That peer's last handshake was then."""
        peers = self.devices[interface].peers
        received = peers[public_key].rx_bytes + 148
        peers[public_key] = dataclasses.replace(peers[public_key], last_handshake=when, rx_bytes=received)

    def _check(self, interface: str) -> None:
        if interface in self.broken:
            raise WireGuardError(f"{interface}: refused")


class FakeLinks:
    """``host_routes``, ``outer_mtu`` and ``own`` are the world around. As in the kernel, a network has one route, and
    only a link that is up has any."""

    def __init__(self) -> None:
        self.links: dict[str, ObservedLink] = {}
        self.host_routes: tuple[HostRoute, ...] = ()
        self.outer_mtu = USUAL_MTU
        self.own: tuple[HostNetwork, ...] = ()
        self.forwarding = False
        self.changes = 0

    def read(self) -> dict[str, ObservedLink]:
        return dict(self.links)

    def observe(self, devices: Mapping[str, Device]) -> Observed:
        return Observed(devices, dict(self.links), self.host_routes, self.outer_mtu, self.own)

    def bring_up(self, name: str, mtu: int) -> None:
        self.links[name] = dataclasses.replace(self.links[name], up=True, mtu=mtu, group=GROUP)

    def add_address(self, name: str, address: str) -> None:
        link = self.links[name]
        self.links[name] = dataclasses.replace(link, addresses=link.addresses | {address})

    def remove_address(self, name: str, address: str) -> None:
        link = self.links[name]
        self.links[name] = dataclasses.replace(link, addresses=link.addresses - {address})

    def add_route(self, name: str, network: str) -> None:
        self.changes += 1
        link = self.links[name]
        if not link.up:
            raise LinkError(f"{name}: the link is down")
        taken = any(network in other.routes for other in self.links.values() if other is not link)
        if taken or any(route.network == network for route in self.host_routes):
            raise LinkError(f"{name}: the host has another route to {network}")
        self.links[name] = dataclasses.replace(link, routes=link.routes | {network})

    def remove_route(self, name: str, network: str) -> None:
        self.changes += 1
        link = self.links[name]
        self.links[name] = dataclasses.replace(link, routes=link.routes - {network})

    def delete(self, name: str) -> None:
        self.links.pop(name, None)

    def forward(self, *, ipv6: bool) -> None:
        self.forwarding = True


def state_of(*interfaces: Interface, web_port: int = 9790, open_foreign_firewalls: bool = False) -> HostState:
    """A state in which only what a subsystem looks at matters."""
    return HostState("h", 1, "boot", web_port, interfaces, open_foreign_firewalls)


class FakeFirewall:
    """A guard. Refuses all changes where ``broken``; ``asked`` are the single changes that concern it: interface, gone
    and new connections."""

    stage = Stage.GUARD

    def __init__(self) -> None:
        self.text = ""
        self.changed_by_others = False
        self.broken = False
        self.asked: list[tuple[str, list[str], list[str]]] = []

    def drift(self) -> list[str]:
        return ["the nftables table was changed or removed"] if self.changed_by_others else []

    def preview(self, state: HostState) -> list[str]:
        differs = self.changed_by_others or self.text != ruleset(state.interfaces, state.web_port)
        return ["the nftables table: write it anew"] if differs else []

    def conditions(self) -> list[HostCondition]:
        return []

    def apply(self, state: HostState) -> None:
        if self.broken:
            raise FirewallError("nft: refused")
        self.text = ruleset(state.interfaces, state.web_port)
        self.changed_by_others = False

    def change(self, interface: Interface, gone: Sequence[Peer], new: Sequence[Peer]) -> None:
        assert interface.peers == ()
        if not any(peer.forwards or peer.lingers for peer in (*gone, *new)):
            return
        if self.broken:
            raise FirewallError("nft: refused")
        self.asked.append((interface.name, connections(gone), connections(new)))


class FakeSubsystem:
    """A follower that remembers what it was told. ``would`` is what it says it would do, ``wrong`` what is wrong with
    it, ``changed`` what others did to it."""

    stage = Stage.FOLLOWER

    def __init__(self) -> None:
        self.told: list[tuple[str, list[str], list[str]]] = []
        self.would: list[str] = []
        self.wrong: list[HostCondition] = []
        self.changed: list[str] = []
        self.state: HostState | None = None  # as it was last told

    def preview(self, state: HostState) -> list[str]:
        return self.would

    def drift(self) -> list[str]:
        return self.changed

    def conditions(self) -> list[HostCondition]:
        return self.wrong

    def apply(self, state: HostState) -> None:
        self.state = state
        self.told.append(("apply", [], connections(peer for i in state.interfaces for peer in i.peers)))

    def change(self, interface: Interface, gone: Sequence[Peer], new: Sequence[Peer]) -> None:
        self.told.append((interface.name, connections(gone), connections(new)))
