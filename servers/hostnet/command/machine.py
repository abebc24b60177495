"""What a machine must be like to join."""

from __future__ import annotations

import errno
import ipaddress
import socket

from pyroute2 import IPRoute

from servers.hostnet.netlink.links import Links
from servers.hostnet.state import LINK_PREFIX, MESH_INTERFACE, MESH_PREFIX, PREFIX, routing_table
from servers.hostnet.wireguard.fields import link_index

from .place import HostError

OURS = (PREFIX, MESH_PREFIX, LINK_PREFIX)


def check_carries_nothing() -> None:
    """Raise ``HostError`` where tunnels of ours are up: of which installation, nobody could say later."""
    if link_index(MESH_INTERFACE) or Links().read():
        raise HostError("This machine carries tunnels of an installation already: end its bin/run, or leave it, first.")


def networks() -> list[str]:
    """What this machine routes already, but for our own interfaces."""
    return sorted({str(each.network) for each in routing_table.read() if not each.interface.startswith(OURS)})


def addresses() -> list[str]:
    """What others could reach this machine by: its addresses, but for the loopback's, a link's own, and ours."""
    found = set()
    with IPRoute() as netlink:
        ours = {link["index"] for link in netlink.get_links() if link.get_attr("IFLA_IFNAME").startswith(OURS)}
        for row in netlink.get_addr():
            address = ipaddress.ip_address(row.get_attr("IFA_LOCAL") or row.get_attr("IFA_ADDRESS"))
            if row["index"] not in ours and not address.is_loopback and not address.is_link_local:
                found.add(str(address))
    return sorted(found)


def check_port(port: int) -> None:
    """Raise ``HostError`` where somebody else has the mesh's UDP port."""
    if link_index(MESH_INTERFACE):  # ours, of before
        return
    for family, anywhere in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):  # noqa: S104 (bound, never served)
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as probe:
                if family == socket.AF_INET6:
                    probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                probe.bind((anywhere, port))
        except OSError as error:  # a machine without IPv6 has another one
            if error.errno == errno.EADDRINUSE:
                raise HostError(f"UDP port {port} is in use on this machine, and the mesh needs it.") from None
