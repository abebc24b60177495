"""From how the mesh's interface is to how it should be. Pure."""

from __future__ import annotations

import secrets
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from servers.hostnet.observed import ObservedLink
from servers.hostnet.state import Mesh, MeshPeer
from servers.hostnet.wireguard.base import Device, PeerChange
from servers.hostnet.wireguard.fields import KEY_BYTES, key_text

# Seconds. A machine behind NAT is reached for as long as its router remembers the way, which is often half a minute.
KEEPALIVE = 25


@dataclass(frozen=True, slots=True)
class Observed:
    """How it is. ``link`` and ``device`` are None where there is none; ``asked``: whether our routing table is.
    ``ways``: by interface, the networks of linked servers that are routed for what comes from it."""

    device: Device | None
    link: ObservedLink | None
    asked: bool
    ways: Mapping[str, frozenset[str]] = field(default_factory=dict)


@dataclass(slots=True)
class Steps:
    """What is to be done. ``words`` say all of it for people."""

    create: bool = False
    device: bool = False  # private key and port
    add_addresses: list[str] = field(default_factory=list)
    mtu: int = 0  # also: bring it up
    peers: list[PeerChange] = field(default_factory=list)
    add_routes: list[str] = field(default_factory=list)
    remove_routes: list[str] = field(default_factory=list)
    remove_addresses: list[str] = field(default_factory=list)
    ask: bool = False
    ways: bool = False  # tables of linked servers
    words: list[str] = field(default_factory=list)


def plan(
    mesh: Mesh,
    public_key: str,
    peers: Mapping[str, MeshPeer],
    allowed: Mapping[str, list[str]],
    mtu: int,
    observed: Observed,
    ways: Mapping[str, Collection[str]] = MappingProxyType({}),
) -> Steps:
    """``allowed`` is what lies behind each machine, by host; ``mtu`` what the interface is to have. ``ways`` as in
    ``Observed``: what is in it is routed for those interfaces alone."""
    steps = Steps()
    device = observed.device or Device("", "", 0, {})
    link = observed.link or ObservedLink(False, 0, frozenset())
    if observed.device is None or observed.link is None:
        steps.create = True
        steps.words.append("create the interface")
    if device.public_key != public_key or device.port != mesh.port:
        steps.device = True
        steps.words.append(f"listen on UDP port {mesh.port}")
    steps.add_addresses = [each for each in mesh.addresses if each not in link.addresses]
    steps.remove_addresses = sorted(link.addresses - {*mesh.addresses})
    if not link.up or link.mtu != mtu:
        steps.mtu = mtu
        steps.words.append(f"up, MTU {mtu}")
    if not observed.asked:
        steps.ask = True
        steps.words.append("have the routing table of the mesh asked")
    _peers(peers, allowed, device, steps)
    if {name: frozenset(networks) for name, networks in ways.items()} != observed.ways:
        steps.ways = True
        steps.words.append("route the networks of linked servers")
    wanted = {network for networks in allowed.values() for network in networks}
    wanted = wanted.difference(*ways.values())
    steps.add_routes = sorted(wanted - link.routes)
    steps.remove_routes = sorted(link.routes - wanted)
    steps.words += [f"address {each}" for each in steps.add_addresses]
    steps.words += [f"remove address {each}" for each in steps.remove_addresses]
    steps.words += [f"route {len(steps.add_routes)} more networks"] if steps.add_routes else []
    steps.words += [f"route {len(steps.remove_routes)} networks less"] if steps.remove_routes else []
    return steps


def _peers(peers: Mapping[str, MeshPeer], allowed: Mapping[str, list[str]], device: Device, steps: Steps) -> None:
    """A network that goes to another peer is set there, and WireGuard takes it off the one that had it: what one move
    costs does not depend on how much else lies behind either."""
    keys = {peer.public_key for peer in peers.values()}
    wanted = {network for networks in allowed.values() for network in networks}
    strays: set[str] = set()
    for host, peer in sorted(peers.items()):
        there = device.peers.get(peer.public_key)
        if there is None:
            steps.peers.append(PeerChange(peer.public_key, tuple(allowed[host]), keepalive=KEEPALIVE))
            steps.words.append(f"add machine {host}")
            continue
        if missing := [network for network in allowed[host] if network not in there.allowed_ips]:
            steps.peers.append(PeerChange(peer.public_key, tuple(missing), add=True))
            steps.words.append(f"put {len(missing)} networks behind machine {host}")
        strays |= there.allowed_ips - wanted
    for key in sorted(device.peers.keys() - keys):
        steps.peers.append(PeerChange(key, remove=True))
        steps.words.append(f"remove the machine with key {key}")
    if strays:
        steps.peers += take_off(sorted(strays))
        steps.words.append(f"take {len(strays)} networks off their machines")


def take_off(networks: Iterable[str]) -> Iterator[PeerChange]:
    """Take allowed IPs off whichever peer has them, by a peer that nobody is, which takes them along.

    WireGuard has no other way that would not send all that is left of a peer's once more.
    """
    nobody = key_text(secrets.token_bytes(KEY_BYTES))
    yield PeerChange(nobody, tuple(networks))
    yield PeerChange(nobody, remove=True)
