"""The packets between machines that other firewalls have to let pass: WireGuard's own, and those that come out of the
mesh. As those of servers, a few stand for all of their kind."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator

from servers.hostnet.state import MESH_INTERFACE, MESH_PREFIX, HostState, Interface, Mesh, Remote

from .match import Address, Packet
from .packets import (
    EPHEMERAL,
    FROM_TUNNELS,
    MOST_ROUTES,
    SERVICE,
    SOMEBODY,
    TO_TUNNELS,
    Case,
    Exits,
    Kind,
    Statement,
    case,
    match,
    to_port,
)

FROM_MESH = match({"meta": {"key": "iifname"}}, f"{MESH_PREFIX}*")
TO_MESH = match({"meta": {"key": "oifname"}}, f"{MESH_PREFIX}*")


def cases(state: HostState, exits: Exits) -> Iterator[Case]:
    mesh = state.mesh
    if mesh is None or not mesh.peers:
        return
    yield from _wireguard(mesh, exits)
    yield from _to_this_machine(mesh)
    for interface in state.interfaces:
        mine = [remote for remote in state.remotes if remote.server == interface.server]
        yield from _between_clients(interface, mine)
        yield from _handed_on(interface, mine, exits)
        yield from _to_routes(interface, exits)


def _wireguard(mesh: Mesh, exits: Exits) -> Iterator[Case]:
    """From where the others are known to be; from anywhere, where one is known by a name or not at all."""
    for source in dict.fromkeys(_whereabouts(mesh)):
        if outside := exits.leading_to(source):
            packet = Packet("input", outside, "", source, None, "udp", mesh.port, EPHEMERAL)
            yield case(Kind.PORT, MESH_INTERFACE, mesh.port, packet, to_port("udp", mesh.port))


def _whereabouts(mesh: Mesh) -> Iterator[Address]:
    for peer in mesh.peers[:MOST_ROUTES]:
        for endpoint in peer.endpoints or ("",):
            try:
                yield ipaddress.ip_address(endpoint.rpartition(":")[0].strip("[]"))
            except ValueError:
                yield from SOMEBODY.values()


def _to_this_machine(mesh: Mesh) -> Iterator[Case]:
    for own, theirs in _pairs(mesh):
        for port in mesh.serves:
            packet = Packet("input", MESH_INTERFACE, "", theirs, own, "tcp", port, EPHEMERAL)
            yield _case(Kind.MACHINES, packet, FROM_MESH, to_port("tcp", port))
        ping = Packet("input", MESH_INTERFACE, "", theirs, own, "icmp")
        protocol = "icmp" if own.version == 4 else "ipv6-icmp"
        yield _case(Kind.MACHINES, ping, FROM_MESH, match({"meta": {"key": "l4proto"}}, protocol))


def _pairs(mesh: Mesh) -> Iterator[tuple[Address, Address]]:
    """An address of this machine in the mesh, and one of the same version of another one."""
    theirs = [ipaddress.ip_interface(each).ip for each in mesh.peers[0].addresses]
    for own in (ipaddress.ip_interface(each).ip for each in mesh.addresses):
        yield from ((own, other) for other in theirs[:MOST_ROUTES] if other.version == own.version)


def _between_clients(interface: Interface, remotes: list[Remote]) -> Iterator[Case]:
    """Where clients reach each other, or what is behind them, a connection may begin on either machine."""
    if not (interface.inter_client or interface.behind):
        return
    for here in _clients(interface):
        for there in _addresses(remotes, here.version):
            out = Packet("forward", interface.name, MESH_INTERFACE, here, there, "tcp", SERVICE, EPHEMERAL)
            into = Packet("forward", MESH_INTERFACE, interface.name, there, here, "tcp", SERVICE, EPHEMERAL)
            yield case(Kind.OUT, interface.name, interface.port, out, FROM_TUNNELS)
            yield case(Kind.IN, interface.name, interface.port, into, TO_TUNNELS)


def _handed_on(interface: Interface, remotes: list[Remote], exits: Exits) -> Iterator[Case]:
    """What arrives at a port here that is forwarded to a client on another machine, and its answers."""
    forwarding = [remote for remote in remotes if remote.forwards]
    for version, somebody in SOMEBODY.items():
        outside = exits.leading_to(somebody)
        for client in _addresses(forwarding, version) if outside else ():
            into = Packet("forward", outside, MESH_INTERFACE, somebody, client, "tcp", SERVICE, EPHEMERAL, dnat=True)
            back = Packet("forward", MESH_INTERFACE, outside, client, somebody, "tcp", EPHEMERAL, SERVICE, reply=True)
            yield _case(Kind.THROUGH, into, TO_MESH)
            yield _case(Kind.THROUGH, back, FROM_MESH)


def _to_routes(interface: Interface, exits: Exits) -> Iterator[Case]:
    """Clients of linked servers on other machines, who reach routes of this one by this machine."""
    for link in interface.links:
        clients = [ipaddress.ip_network(each).network_address + 2 for each in link.networks]
        networks = [ipaddress.ip_network(route.netmap or route.network) for route in link.offered[:MOST_ROUTES]]
        pairs = [(c, n.network_address + (n.num_addresses > 1)) for c in clients for n in networks]
        for client, target in pairs if link.openvpn is None else ():
            if client.version == target.version and (outside := exits.leading_to(target)):
                out = Packet("forward", MESH_INTERFACE, outside, client, target, "tcp", SERVICE, EPHEMERAL)
                back = Packet("forward", outside, MESH_INTERFACE, target, client, "tcp", EPHEMERAL, SERVICE, reply=True)
                yield _case(Kind.THROUGH, out, FROM_MESH)
                yield _case(Kind.THROUGH, back, TO_MESH)


def _clients(interface: Interface) -> Iterator[Address]:
    """An address that a client here has, or could have."""
    for gateway in map(ipaddress.ip_interface, interface.addresses):
        yield gateway.ip + 1


def _addresses(remotes: list[Remote], version: int) -> Iterator[Address]:
    """Of one of them, where there is any."""
    every = (ipaddress.ip_network(each).network_address for remote in remotes for each in remote.allowed_ips)
    found = next((address for address in every if address.version == version), None)
    if found is not None:
        yield found


def _case(kind: Kind, packet: Packet, *rule: Statement) -> Case:
    return case(kind, MESH_INTERFACE, 0, packet, *rule)
