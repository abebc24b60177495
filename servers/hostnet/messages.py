"""Messages as they arrive: JSON to checked dataclasses.

The control side is trusted, but a message may still be damaged or come from another release. What gets past here is
well formed, so that nothing further in can be surprised: names cannot escape into a ruleset, addresses are written
the one way WireGuard and the kernel write them back.
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import ipaddress
import re
import socket
from collections.abc import Callable, Mapping
from typing import Any

from servers.hostnet.state import (
    AddPeer,
    HostState,
    Interface,
    Peer,
    RemovePeers,
    Route,
    add_peer_from_json,
    host_state_from_json,
    remove_peers_from_json,
)

Message = HostState | AddPeer | RemovePeers

OUR_INTERFACE = re.compile(r"wgs[0-9]{1,12}")  # the kernel takes 15 characters
OPAQUE_ID = re.compile(r"[0-9A-Za-z_-]{1,64}")
FULL_STATE, ADD_PEER, REMOVE_PEERS = "hostnet.full_state", "hostnet.add_peer", "hostnet.remove_peers"


class BadMessage(ValueError):
    """The message is not what its task name says. The text says what is wrong, without quoting the message."""


def read(task: str, data: object, host: str) -> Message:
    """The message of task ``task`` that ``data`` is; raise ``BadMessage`` where it is not one for ``host``."""
    if task not in _READERS or not isinstance(data, Mapping):
        raise BadMessage("not a message of ours")
    try:
        return _READERS[task](data, host)
    except BadMessage:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise BadMessage(f"malformed ({type(error).__name__})") from None


def _full_state(data: Mapping[str, Any], host: str) -> HostState:
    state = host_state_from_json(data)
    _require(state.host == host, "for another host")
    _require(0 < state.web_port < 65536, "web port out of range")
    for field in ("name", "server", "port"):
        values = [getattr(interface, field) for interface in state.interfaces]
        _require(len(set(values)) == len(values), f"two interfaces share a {field}")
    return dataclasses.replace(state, interfaces=tuple(_interface(interface) for interface in state.interfaces))


def _interface(interface: Interface) -> Interface:
    _require(OUR_INTERFACE.fullmatch(interface.name) is not None, "interface name")
    # The server id becomes a file name (its private key).
    _require(OPAQUE_ID.fullmatch(interface.server) is not None, "server id")
    _require(0 < interface.port < 65536, "port out of range")
    _require(interface.mtu == 0 or 1280 <= interface.mtu <= 65535, "MTU out of range")
    _require(interface.ping_timeout > 0, "ping timeout")
    return dataclasses.replace(
        interface,
        addresses=tuple(str(ipaddress.ip_interface(address)) for address in interface.addresses),
        routes=tuple(Route(str(ipaddress.ip_network(route.network)), route.nat) for route in interface.routes),
        peers=tuple(_peer(peer) for peer in interface.peers),
    )


def _peer(peer: Peer) -> Peer:
    _require(0 < len(peer.connection) <= 64, "connection id")
    _require(len(base64.b64decode(peer.public_key, validate=True)) == 32, "WireGuard key")
    _require(len(peer.allowed_ips) > 0, "a peer without allowed IPs")
    allowed = tuple(_normal(ip) for ip in peer.allowed_ips)
    return peer if allowed == peer.allowed_ips else dataclasses.replace(peer, allowed_ips=allowed)


def _normal(ip: str) -> str:
    """``ip`` as it is read back. ``ip_network`` alone would cost more than all else in a state of 10,000 peers."""
    address, _, length = ip.partition("/")
    family, single = (socket.AF_INET6, "128") if ":" in address else (socket.AF_INET, "32")
    with contextlib.suppress(OSError):
        if length == single and socket.inet_ntop(family, socket.inet_pton(family, address)) == address:
            return ip
    return str(ipaddress.ip_network(ip))


def _add_peer(data: Mapping[str, Any], host: str) -> AddPeer:
    message = add_peer_from_json(data)
    # The answer goes to a list that the message names: only to one of our own confirmations, never to another key.
    _require(not message.confirm or message.confirm == f"host.{host}:confirm:{message.peer.connection}", "confirm list")
    return dataclasses.replace(message, peer=_peer(message.peer))


def _remove_peers(data: Mapping[str, Any], host: str) -> RemovePeers:
    return remove_peers_from_json(data)


def _require(condition: bool, what: str) -> None:
    if not condition:
        raise BadMessage(what)


_READERS: dict[str, Callable[[Mapping[str, Any], str], Message]] = {
    FULL_STATE: _full_state,
    ADD_PEER: _add_peer,
    REMOVE_PEERS: _remove_peers,
}
