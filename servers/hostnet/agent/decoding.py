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
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from servers.hostnet.state import (
    DNS_NAME,
    FOREIGN_INTERFACE,
    HOST_NAME,
    OPAQUE_ID,
    OUR_INTERFACE,
    RELAYS,
    AddPeer,
    AddRemotes,
    Dns,
    Forward,
    HostState,
    Interface,
    Link,
    Mesh,
    MeshPeer,
    Peer,
    Probe,
    Remote,
    RemovePeers,
    RemoveRemotes,
    Route,
    ShowPlan,
    Split,
    add_peer_from_json,
    add_remotes_from_json,
    host_state_from_json,
    remove_peers_from_json,
    remove_remotes_from_json,
)
from servers.hostnet.state.version import FORMAT


@dataclasses.dataclass(frozen=True, slots=True)
class OfLater:
    """A message that says it needs a later release than this one to be carried out rightly. ``confirm`` is where to say
    so; empty where nobody waits."""

    format: int
    confirm: str


Message = HostState | AddPeer | RemovePeers | AddRemotes | RemoveRemotes | ShowPlan | OfLater

FULL_STATE, ADD_PEER, REMOVE_PEERS = "hostnet.full_state", "hostnet.add_peer", "hostnet.remove_peers"
ADD_REMOTES, REMOVE_REMOTES = "hostnet.add_remotes", "hostnet.remove_remotes"
SHOW_PLAN = "hostnet.show_plan"


# Seconds. A ping interval is five minutes at most; nobody lingers for ever by a slip.
LONGEST_LINGERING = 600
# Seconds. Within them a client has made its handshake, or never will.
LONGEST_HANDOVER = 60.0


class BadMessage(ValueError):
    """The message is not what its task name says. The text says what is wrong, without quoting the message."""


def read(task: str, data: object, host: str) -> Message:
    """The message of task ``task`` that ``data`` is; raise ``BadMessage`` where it is not one for ``host``."""
    if task not in _READERS or not isinstance(data, Mapping):
        raise BadMessage("not a message of ours")
    try:
        if (needed := int(data.get("format", 1))) > FORMAT:
            return OfLater(needed, _confirm_list(data.get("confirm", ""), host))
        return _READERS[task](data, host)
    except BadMessage:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise BadMessage(f"malformed ({type(error).__name__})") from None


def _confirm_list(name: object, host: str) -> str:
    """``name`` if it is a list for answers of this host; empty for anything else, which is never written to."""
    return name if isinstance(name, str) and re.fullmatch(rf"host\.{host}:(confirm|plan):[0-9A-Za-z_-]+", name) else ""


def _full_state(data: Mapping[str, Any], host: str) -> HostState:
    state = host_state_from_json(data)
    _require(state.host == host, "for another host")
    _require(0 < state.web_port < 65536, "web port out of range")
    for field in ("name", "server", "port"):
        values = [getattr(interface, field) for interface in state.interfaces]
        _require(len(set(values)) == len(values), f"two interfaces share a {field}")
    return dataclasses.replace(
        state,
        interfaces=tuple(_interface(interface) for interface in state.interfaces),
        remotes=tuple(_remote(remote) for remote in state.remotes),
        mesh=checked_mesh(state.mesh) if state.mesh is not None else None,
    )


def checked_mesh(mesh: Mesh) -> Mesh:
    """``mesh``, well formed; raise ``ValueError`` where it is not."""
    _require(0 < mesh.port < 65536, "port of the mesh")
    _require(all(0 < port < 65536 for port in mesh.serves), "port that is open to the mesh")
    _require(mesh.mtu == 0 or 1280 <= mesh.mtu <= 65535, "MTU of the mesh")
    _require(len(mesh.addresses) > 0, "no address in the mesh")
    for field in ("host", "public_key"):
        values = [getattr(peer, field) for peer in mesh.peers]
        _require(len(set(values)) == len(values), f"two machines of the mesh share a {field}")
    return dataclasses.replace(
        mesh,
        addresses=tuple(_normal(address) for address in mesh.addresses),
        relays=_relays(mesh.relays),
        peers=tuple(_mesh_peer(peer) for peer in mesh.peers),
    )


def _mesh_peer(peer: MeshPeer) -> MeshPeer:
    _require(OPAQUE_ID.fullmatch(peer.host) is not None, "id of a machine")
    _require(len(base64.b64decode(peer.public_key, validate=True)) == 32, "WireGuard key")
    for endpoint in peer.endpoints:
        host, _, port = endpoint.rpartition(":")
        _require(port.isdecimal() and 0 < int(port) < 65536, "port of an endpoint")
        if HOST_NAME.fullmatch(host) is None:
            ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))
    addresses = tuple(_behind(each) for each in peer.addresses)
    return dataclasses.replace(peer, addresses=addresses, relays=_relays(peer.relays))


def _relays(addresses: tuple[str, ...]) -> tuple[str, ...]:
    whole = [ipaddress.ip_interface(each) for each in addresses]
    _require(all(each.network.num_addresses == 1 for each in whole), "networks that hand on")
    found = [each.ip for each in whole]
    _require(all(each in ipaddress.ip_network(RELAYS[each.version]) for each in found), "address that hands on")
    _require(len({each.version for each in found}) == len(found), "two addresses that hand on")
    return tuple(f"{each}/{each.max_prefixlen}" for each in found)


def _behind(network: str) -> str:
    found = _normal(network)
    # It would become a route of the host's, and this one its way to everywhere.
    _require(not found.endswith("/0"), "everything behind a machine or a link")
    return found


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
        routes=tuple(_route(route) for route in interface.routes),
        peers=tuple(_peer(peer) for peer in interface.peers),
        dns=_dns(interface.dns) if interface.dns is not None else None,
        behind=tuple(str(ipaddress.ip_network(network)) for network in interface.behind),
        links=tuple(_link(link) for link in interface.links),
    )


def _link(link: Link) -> Link:
    # One of another installation has none that could be here.
    named, tunnel = OUR_INTERFACE.fullmatch(link.interface) is not None, link.openvpn is not None
    _require(not link.interface and (tunnel or link.there) if link.outside else named, "interface of a linked server")
    _require(not link.there or (bool(link.via) and not tunnel), "a link that ends on another machine")
    _require(OPAQUE_ID.fullmatch(link.server) is not None, "id of a linked server")
    _require(not link.zone or DNS_NAME.fullmatch(link.zone) is not None, "zone of a linked server")
    _require(not link.via or OPAQUE_ID.fullmatch(link.via) is not None, "host of a linked server")
    networks, behind, shown = (
        tuple(_behind(each) for each in every) for every in (link.networks, link.behind, link.shown)
    )
    routed, offered = (tuple(_route(each) for each in every) for every in (link.routed, link.offered))
    for route in (*routed, *offered):
        _behind(route.network)
    return dataclasses.replace(link, networks=networks, behind=behind, routed=routed, offered=offered, shown=shown)


def _route(route: Route) -> Route:
    network = ipaddress.ip_network(route.network)
    netmap = ipaddress.ip_network(route.netmap) if route.netmap else None
    if netmap is not None:
        _require((netmap.version, netmap.prefixlen) == (network.version, network.prefixlen), "netmap of another length")
    # It is written into a ruleset.
    _require(not route.nat_interface or FOREIGN_INTERFACE.fullmatch(route.nat_interface) is not None, "NAT interface")
    return dataclasses.replace(route, network=str(network), netmap=str(netmap) if netmap is not None else "")


def _dns(dns: Dns) -> Dns:
    _require(DNS_NAME.fullmatch(dns.zone) is not None, "zone")
    _require(not dns.tls_name or DNS_NAME.fullmatch(dns.tls_name) is not None, "TLS name")
    _require(all(DNS_NAME.fullmatch(split.domain) is not None for split in dns.splits), "split domain")
    return dataclasses.replace(
        dns,
        servers=tuple(str(ipaddress.ip_address(server)) for server in dns.servers),
        splits=tuple(Split(s.domain, tuple(str(ipaddress.ip_address(each)) for each in s.servers)) for s in dns.splits),
    )


def _peer(peer: Peer) -> Peer:
    _require(0 < len(peer.connection) <= 64, "connection id")
    _require(len(base64.b64decode(peer.public_key, validate=True)) == 32, "WireGuard key")
    _require(len(peer.allowed_ips) > 0, "a peer without allowed IPs")
    _require(0 <= peer.lingers <= LONGEST_LINGERING, "time to linger")
    allowed = tuple(_normal(ip) for ip in peer.allowed_ips)
    if allowed != peer.allowed_ips:
        peer = dataclasses.replace(peer, allowed_ips=allowed)
    return _with_extras(peer) if peer.networks or peer.probes or peer.forwards or peer.names else peer


def _require_forwards(forwards: Iterable[Forward]) -> None:
    for forward in forwards:
        _require(forward.protocol in {"tcp", "udp"}, "protocol of a forward")
        _require(0 < forward.port <= forward.last < 65536, "port of a forward")
        _require(0 < forward.to_port <= 65535 - (forward.last - forward.port), "client's port of a forward")


def _with_extras(peer: Peer) -> Peer:
    _require_forwards(peer.forwards)
    _require(all(0 <= probe.port < 65536 for probe in peer.probes), "port of a probe")
    _require(all(DNS_NAME.fullmatch(name) is not None for name in peer.names), "DNS name")
    networks = [ipaddress.ip_network(network) for network in peer.networks]
    # It would become a route of the host's, and this one its way to everywhere.
    _require(all(network.prefixlen for network in networks), "a client with everything behind it")
    return dataclasses.replace(
        peer,
        networks=tuple(str(network) for network in networks),
        probes=tuple(
            Probe(str(ipaddress.ip_network(p.network)), str(ipaddress.ip_address(p.address)), p.port)
            for p in peer.probes
        ),
    )


def _remote(remote: Remote) -> Remote:
    _require(0 < len(remote.connection) <= 64, "connection id")
    _require(not remote.host or OPAQUE_ID.fullmatch(remote.host) is not None, "host of a remote client")
    _require(bool(remote.allowed_ips) or not remote.host, "a remote client without allowed IPs")
    _require(all(DNS_NAME.fullmatch(name) is not None for name in remote.names), "DNS name")
    _require_forwards(remote.forwards)
    allowed, networks = (tuple(_normal(ip) for ip in ips) for ips in (remote.allowed_ips, remote.networks))
    _require(not any(each.endswith("/0") for each in (*allowed, *networks)), "a client with everything behind it")
    return dataclasses.replace(remote, allowed_ips=allowed, networks=networks)


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
    _require(not message.peer.lingers, "an ended connection is added")
    _require(0 <= message.hand_over <= LONGEST_HANDOVER, "time to hand over")
    # The answer goes to a list that the message names: only to one of our own confirmations, never to another key.
    _require(not message.confirm or message.confirm == f"host.{host}:confirm:{message.peer.connection}", "confirm list")
    return dataclasses.replace(message, peer=_peer(message.peer))


def _remove_peers(data: Mapping[str, Any], host: str) -> RemovePeers:
    message = remove_peers_from_json(data)
    _require(0 <= message.lingers <= LONGEST_LINGERING, "time to linger")
    return message


def _add_remotes(data: Mapping[str, Any], host: str) -> AddRemotes:
    message = add_remotes_from_json(data)
    _require(all(remote.host for remote in message.remotes), "a remote client that is on no host")
    return AddRemotes(tuple(_remote(remote) for remote in message.remotes))


def _remove_remotes(data: Mapping[str, Any], host: str) -> RemoveRemotes:
    return remove_remotes_from_json(data)


def _show_plan(data: Mapping[str, Any], host: str) -> ShowPlan:
    state, confirm = _full_state(data["state"], host), str(data["confirm"])
    head, _, rest = confirm.rpartition(":")
    _require(head == f"host.{host}:plan" and OPAQUE_ID.fullmatch(rest) is not None, "confirm list")
    return ShowPlan(state, confirm)


def _require(condition: bool, what: str) -> None:
    if not condition:
        raise BadMessage(what)


_READERS: dict[str, Callable[[Mapping[str, Any], str], Message]] = {
    FULL_STATE: _full_state,
    ADD_PEER: _add_peer,
    REMOVE_PEERS: _remove_peers,
    ADD_REMOTES: _add_remotes,
    REMOVE_REMOTES: _remove_remotes,
    SHOW_PLAN: _show_plan,
}
