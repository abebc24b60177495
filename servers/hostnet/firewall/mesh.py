"""What our nftables table lets through to, from and by way of the mesh. Pure.

WireGuard has checked that a packet from the mesh has a source that lies behind the machine which sent it. So what is
left to say is which ports the other machines reach here, and which clients may speak to whom on other machines.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Sequence

from servers.hostnet.state import MESH_PREFIX, Interface, Mesh

from . import links
from .ended import from_ended, to_ended
from .port_forwards import written
from .route_policy import Tunnel
from .sets import FAMILY, TUNNELS, anonymous

MESH = f'"{MESH_PREFIX}*"'

# Before any other direction. What comes from the mesh and goes to neither a tunnel nor this machine itself is nobody's
# but that of clients of linked servers, which reach routes by this machine.
DIRECTIONS = (
    f"iifname {TUNNELS} oifname {MESH} goto to_mesh",
    f"iifname {MESH} oifname {TUNNELS} goto from_mesh",
    f"iifname {MESH} goto mesh_outwards",
    f"oifname {MESH} goto outside_to_mesh",
)
# No address is translated on the way: a client is known by its own on every machine, and a port of this machine's is
# never taken for a forwarded one.
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


def ports(mesh: Mesh | None) -> set[int]:
    """UDP ports that are the mesh's own."""
    return {mesh.port} if mesh is not None else set()


def chains(
    tunnels: Sequence[Tunnel], interfaces: Sequence[Interface], versions: Sequence[int], segment_size: str
) -> Iterator[tuple[str, list[str]]]:
    """Between clients here and those on other machines, by the same rules as between two here."""
    behind = {interface.name: interface.behind for interface in interfaces}
    for name, own, far, near in (("to_mesh", "iifname", "daddr", "saddr"), ("from_mesh", "oifname", "saddr", "daddr")):
        ended = [*from_ended(versions, "drop"), *to_ended(versions, "drop")]
        rules = [rule for tunnel in tunnels for rule in _clients(tunnel, behind[tunnel.name], own, far, near)]
        rules += [rule for each in interfaces for rule in links.over_mesh(each, own, far, near)]
        yield name, [*ended, segment_size, *rules, ICMP_ERRORS, "drop"]
    for name, of in (("mesh_outwards", links.from_mesh_outwards), ("outside_to_mesh", links.outside_to_mesh)):
        linked = [rule for each in interfaces for rule in of(each)]
        yield name, [segment_size, *linked, ICMP_ERRORS, "drop"] if linked else ["drop"]


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
