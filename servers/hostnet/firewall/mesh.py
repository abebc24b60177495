"""What our nftables table lets through to, from and by way of the mesh. Pure.

WireGuard has checked that a packet from the mesh has a source that lies behind the machine which sent it. So what is
left to say is which ports the other machines reach here, and which clients may speak to whom on other machines.

A port that is forwarded to a client leads to it from every host of its server. A machine where the client is not hands
the packets on in its own name, by an address of ``RELAYS``, so that the answers come back to it; the client's machine
lets them in for what is forwarded and nothing else, and in the tunnel they are the gateway's.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Sequence

from servers.hostnet.state import RELAYS, Interface, Mesh

from . import links
from .ended import from_ended, to_ended
from .port_forwards import written
from .route_policy import Tunnel
from .sets import FAMILY, MESH, NFPROTO, TUNNELS, anonymous, forwarded

# Before any other direction. What comes from the mesh and goes to neither a tunnel nor this machine itself is nobody's,
# but for what is handed on, and for clients of linked servers, which reach routes by this machine.
DIRECTIONS = (
    f"iifname {TUNNELS} oifname {MESH} goto to_mesh",
    f"iifname {MESH} oifname {TUNNELS} goto from_mesh",
    f"iifname {MESH} goto mesh_outwards",
    f"oifname {MESH} goto outside_to_mesh",
)
# Between clients no address is translated: each is known by its own on every machine. And a port of this machine's is
# never taken for a forwarded one by what comes from another, so nothing is handed on twice.
UNTRANSLATED_IN, UNTRANSLATED_OUT = f"iifname {MESH} accept", f"oifname {MESH} accept"
FROM_MESH = f"iifname {MESH} goto mesh"
ICMP_ERRORS = "meta l4proto { icmp, ipv6-icmp } ct state related accept"


def reaches_us(mesh: Mesh | None, answers: str) -> Iterator[str]:
    """From the other machines to this one: answers, pings, and the ports that it serves them."""
    yield f"{answers} accept"
    yield "meta l4proto { icmp, ipv6-icmp } accept"
    if mesh is not None and mesh.serves:
        yield f"tcp dport {{ {', '.join(str(port) for port in sorted({*mesh.serves}))} }} accept"
    yield "drop"


def by_no_other_way(mesh: Mesh | None) -> Iterator[str]:
    """The kernel answers for any of its addresses on any link: what is for our address in the mesh comes from there."""
    for each in mesh.addresses if mesh is not None else ():
        address = ipaddress.ip_interface(each).ip
        yield f"{FAMILY[address.version]} daddr {written(address)} drop"


def in_our_name(mesh: Mesh | None) -> Iterator[str]:
    """Sources of what is handed on from here. What clients send to each other has never been translated."""
    for each in mesh.relays if mesh is not None else ():
        address = ipaddress.ip_interface(each).ip
        ip = FAMILY[address.version]
        what = f"iifname != {TUNNELS} oifname {MESH} meta nfproto {NFPROTO[address.version]} ct status dnat"
        yield f"{what} snat {ip} to {written(address)}"


def in_gateways_name(tunnel: Tunnel) -> Iterator[str]:
    """Sources of what was handed on to here. The real ones are not known any more."""
    for gateway in tunnel.gateways:
        handed_on = f"{FAMILY[gateway.version]} saddr {RELAYS[gateway.version]}"
        yield f'iifname {MESH} oifname "{tunnel.name}" {handed_on} masquerade'


def ports(mesh: Mesh | None) -> set[int]:
    """UDP ports that are the mesh's own."""
    return {mesh.port} if mesh is not None else set()


def chains(
    tunnels: Sequence[Tunnel], interfaces: Sequence[Interface], versions: Sequence[int], segment_size: str
) -> Iterator[tuple[str, list[str]]]:
    """Between clients here and those on other machines, by the same rules as between two here; and what is handed
    on."""
    behind = {interface.name: interface.behind for interface in interfaces}
    for name, own, far, near in (("to_mesh", "iifname", "daddr", "saddr"), ("from_mesh", "oifname", "saddr", "daddr")):
        ended = [*from_ended(versions, "drop"), *to_ended(versions, "drop")]
        rules = [rule for tunnel in tunnels for rule in _clients(tunnel, behind[tunnel.name], own, far, near)]
        rules += [rule for each in interfaces for rule in links.over_mesh(each, own, far, near)]
        rules += [_handed(version, far, near) for version in versions]
        yield name, [*ended, segment_size, *rules, ICMP_ERRORS, "drop"]
    for name, side, direction, of in (
        ("mesh_outwards", "s", "reply", links.from_mesh_outwards),
        ("outside_to_mesh", "d", "original", links.outside_to_mesh),
    ):
        forwards = [forwarded(version, side, direction) for version in versions]
        linked = [rule for each in interfaces for rule in of(each)]
        yield name, [segment_size, *forwards, *linked, ICMP_ERRORS, "drop"]


def _handed(version: int, far: str, near: str) -> str:
    """At the client's machine: to ports that are forwarded, and answers from them."""
    ip, direction, port = FAMILY[version], *(("reply", "sport") if far == "daddr" else ("original", "dport"))
    handed = f"ct direction {direction} {ip} {far} {RELAYS[version]}"
    return f"{handed} {ip} {near} . meta l4proto . th {port} @targets{version} accept"


def _clients(tunnel: Tunnel, behind: Iterable[str], own: str, far: str, near: str) -> Iterator[str]:
    """``far`` is the field of the address on the other machine."""
    networks = [ipaddress.ip_network(network) for network in behind]
    for gateway in tunnel.gateways:
        ip, here = FAMILY[gateway.version], f'{own} "{tunnel.name}"'
        sites = [network for network in networks if network.version == gateway.version]
        everybody = anonymous([gateway.network, *sites])
        if tunnel.inter_client:
            yield f"{here} {ip} {far} {everybody} accept"
        elif sites:
            # To and from clients' networks always: both are then not clients, or not both of them.
            yield f"{here} {ip} {far} {anonymous(sites)} accept"
            yield f"{here} {ip} {near} {anonymous(sites)} {ip} {far} {everybody} accept"
