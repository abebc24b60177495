"""A plan in words, for an administrator: what was found wrong, and what would be done."""

from __future__ import annotations

from servers.hostnet.observed import Observed
from servers.hostnet.state import Code, HostCondition
from servers.hostnet.wireguard.base import Device, PeerChange

from .plan import (
    AddAddress,
    AddRoute,
    CreateInterface,
    DeleteInterface,
    Plan,
    RemoveAddress,
    RemoveRoute,
    SetDevice,
    SetLink,
    SetPeers,
    Step,
)


def describe(plan: Plan) -> list[str]:
    """What was found wrong."""
    return [_found(step, plan.observed) for step in plan.steps]


def intend(plan: Plan) -> list[str]:
    """What would be done, and what is refused."""
    refused = (str(HostCondition.of(Code.ROUTE_REFUSED, text)) for text in plan.refused.values())
    collided = (str(HostCondition.of(Code.NETWORK_COLLIDES, each.text)) for each in plan.collisions.values())
    return [*(_to_do(step, plan.observed) for step in plan.steps), *refused, *collided]


def _found(step: Step, observed: Observed) -> str:
    match step:
        case DeleteInterface(name):
            return f"{name}: an interface nobody asked for"
        case CreateInterface(name):
            return f"{name}: the interface was gone"
        case SetDevice(name):
            return f"{name}: another key, port or mark"
        case AddAddress(name, address):
            return f"{name}: address {address} was gone"
        case SetLink(name):
            return f"{name}: link down, or another MTU or group"
        case RemoveAddress(name, address):
            return f"{name}: address {address} was added"
        case AddRoute(name, network):
            return f"{name}: the route to {network} was gone"
        case RemoveRoute(name, network):
            return f"{name}: a route to {network} was added"
        case SetPeers(name, changes):
            gone, altered, added = _count(changes, observed.devices.get(name))
            return f"{name}: peers {_listed({'gone': gone, 'altered': altered, 'added': added})}"


def _to_do(step: Step, observed: Observed) -> str:
    match step:
        case DeleteInterface(name):
            return f"{name}: delete the interface"
        case CreateInterface(name):
            return f"{name}: make the interface"
        case SetDevice(name, "", _):
            return f"{name}: free its port for another interface"
        case SetDevice(name, _, port):
            return f"{name}: set its private key and port {port}"
        case AddAddress(name, address):
            return f"{name}: add address {address}"
        case SetLink(name, mtu):
            return f"{name}: bring the link up with MTU {mtu}"
        case RemoveAddress(name, address):
            return f"{name}: remove address {address}"
        case AddRoute(name, network):
            return f"{name}: route {network} to it"
        case RemoveRoute(name, network):
            return f"{name}: remove the route to {network}"
        case SetPeers(name, changes):
            add, alter, remove = _count(changes, observed.devices.get(name))
            return f"{name}: peers {_listed({'to add': add, 'to alter': alter, 'to remove': remove})}"


def _count(changes: tuple[PeerChange, ...], device: Device | None) -> tuple[int, int, int]:
    """How many peers are new to ``device``, how many it has otherwise, and how many it has too many."""
    known = device.peers if device is not None else {}
    surplus = sum(change.remove for change in changes)
    altered = sum(not change.remove and change.public_key in known for change in changes)
    return len(changes) - surplus - altered, altered, surplus


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{what}: {count}" for what, count in counts.items() if count)
