"""The mesh's link as the kernel has it, with the routes into it."""

from __future__ import annotations

import ipaddress

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from servers.hostnet.netlink.links import IFF_UP, RT_SCOPE_LINK, LinkError
from servers.hostnet.observed import ObservedLink
from servers.hostnet.wireguard.fields import link_index

from . import routes


def read(name: str, *, with_routes: bool = True) -> ObservedLink | None:
    """None where there is no such link. Addresses are without IPv6 link-local ones. Raise ``LinkError``."""
    index = link_index(name)
    if not index:
        return None
    try:
        with IPRoute() as netlink:
            links = list(netlink.get_links(index))
            addresses = [each for each in netlink.get_addr(index=index) if each["scope"] != RT_SCOPE_LINK]
    except (NetlinkError, OSError) as error:
        raise LinkError(f"{name}: {error}") from error
    if not links:
        return None
    found = (f"{a.get_attr('IFA_LOCAL') or a.get_attr('IFA_ADDRESS')}/{a['prefixlen']}" for a in addresses)
    return ObservedLink(
        bool(links[0]["flags"] & IFF_UP),
        int(links[0].get_attr("IFLA_MTU") or 0),
        frozenset(str(ipaddress.ip_interface(each)) for each in found),
        frozenset(routes.read(index)) if with_routes else frozenset(),
    )
