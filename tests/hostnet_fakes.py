"""The edges of the host side, in memory: WireGuard, links and firewall that do as told, or fail when told."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

from servers.hostnet.firewall import FirewallError, ruleset
from servers.hostnet.plan import SeenLink
from servers.hostnet.state import Interface
from servers.hostnet.wireguard import keys
from servers.hostnet.wireguard.base import Device, PeerChange, SeenPeer, WireGuardError


class FakeWireGuard:
    """A ``Backend``. ``broken`` interfaces refuse changes; ``requests`` are the sets of peers it was asked for."""

    name = "fake"

    def __init__(self, links: FakeLinks) -> None:
        self.devices: dict[str, Device] = {}
        self.broken: set[str] = set()
        self.requests: list[tuple[str, list[PeerChange]]] = []
        self.reads = 0
        self._links = links

    def list(self) -> list[str]:
        return list(self.devices)

    def create(self, interface: str) -> None:
        self._check(interface)
        self.devices.setdefault(interface, Device(interface, "", 0, {}))
        self._links.links.setdefault(interface, SeenLink(False, 1500, frozenset()))

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
        peers: Iterable[PeerChange] = (),
    ) -> None:
        self._check(interface)
        if interface not in self.devices:
            raise WireGuardError(f"{interface}: no such interface")
        device = self.devices[interface]
        if private_key is not None:
            device = dataclasses.replace(device, public_key=keys.public_of(private_key))
        if port is not None:
            device = dataclasses.replace(device, port=port)
        self.devices[interface] = device
        changes = [*peers]
        if changes:
            self.requests.append((interface, changes))
        for change in changes:
            self._change(device.peers, change)

    def _change(self, peers: dict[str, SeenPeer], change: PeerChange) -> None:
        if change.remove:
            peers.pop(change.public_key, None)
            return
        for key, other in peers.items():  # an allowed IP moves to the peer that is set last
            peers[key] = dataclasses.replace(other, allowed_ips=other.allowed_ips - set(change.allowed_ips))
        old = peers.get(change.public_key) or SeenPeer(change.public_key, frozenset(), "", 0, 0, 0)
        peers[change.public_key] = dataclasses.replace(old, allowed_ips=frozenset(change.allowed_ips))

    def shake_hands(self, interface: str, public_key: str, when: int) -> None:
        """That peer's last handshake was then."""
        peers = self.devices[interface].peers
        peers[public_key] = dataclasses.replace(peers[public_key], last_handshake=when)

    def _check(self, interface: str) -> None:
        if interface in self.broken:
            raise WireGuardError(f"{interface}: refused")


class FakeLinks:
    def __init__(self) -> None:
        self.links: dict[str, SeenLink] = {}
        self.forwarding = False

    def read(self) -> dict[str, SeenLink]:
        return dict(self.links)

    def bring_up(self, name: str, mtu: int) -> None:
        self.links[name] = dataclasses.replace(self.links[name], up=True, mtu=mtu)

    def add_address(self, name: str, address: str) -> None:
        link = self.links[name]
        self.links[name] = dataclasses.replace(link, addresses=link.addresses | {address})

    def remove_address(self, name: str, address: str) -> None:
        link = self.links[name]
        self.links[name] = dataclasses.replace(link, addresses=link.addresses - {address})

    def delete(self, name: str) -> None:
        self.links.pop(name, None)

    def forward(self, *, ipv6: bool) -> None:
        self.forwarding = True


class FakeFirewall:
    def __init__(self) -> None:
        self.text = ""
        self.changed_by_others = False
        self.broken = False

    def drifted(self) -> bool:
        return self.changed_by_others

    def apply(self, interfaces: Sequence[Interface], web_port: int) -> None:
        if self.broken:
            raise FirewallError("nft: refused")
        self.text = ruleset(interfaces, web_port)
        self.changed_by_others = False
