"""The tunnel's link and its addresses, by netlink."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from wgpeer.constants import MAX_INTERFACES

IFA_F_NODAD = 2
IFF_UP = 1
SCOPE_LINK = 253
INTERFACE_PREFIX = "wgp"
DISCARD_PORT = 9  # the port of the service that answers nothing


def interface_number(interface: str) -> int:
    """The number in the name of an interface of ours."""
    return int(interface.removeprefix(INTERFACE_PREFIX))


def free_names() -> Iterable[str]:
    """Names that no link in this namespace has: first those after every tunnel that is there, for of two with the same
    networks the lower number wins, and that is to be the one that came first."""
    taken = {name for _, name in socket.if_nameindex()}
    names = [f"{INTERFACE_PREFIX}{number}" for number in range(MAX_INTERFACES)]
    after = max((number for number, name in enumerate(names) if name in taken), default=-1) + 1
    return (name for name in [*names[after:], *names[:after]] if name not in taken)


def interface_index(interface: str) -> int:
    """The index of a link, 0 when there is none of that name."""
    try:
        return socket.if_nametoindex(interface)
    except OSError:
        return 0


def delete_link(interface: str) -> None:
    """Delete a link. No error when there is none."""
    if index := interface_index(interface):
        with IPRoute() as route:
            ignore_missing(partial(route.link, "del", index=index))


def configure_link(interface: str, addresses: Iterable[str], mtu: int) -> list[str]:
    """Set the link up with this MTU (bytes) and exactly these addresses (with prefix length). Returns what was not so,
    for people. Raises ``NetlinkError``."""
    index, changed = interface_index(interface), []
    with IPRoute() as route:
        changed += _set_link(route, index, mtu)
        parsed = [ipaddress.ip_interface(address) for address in addresses]
        desired = {str(address) for address in parsed if address.version == 4 or has_ipv6(interface)}
        observed = _addresses(route, index)
        _add_addresses(route, index, desired - observed)
        for address in observed - desired:
            ignore_missing(partial(route.addr, "del", index=index, **_address(address)))
        # With the first address of a network the kernel may take its later ones away: add those once more.
        _add_addresses(route, index, desired - _addresses(route, index))
    return [*changed, *(["its addresses"] if observed != desired else [])]


def _set_link(route: IPRoute, index: int, mtu: int) -> list[str]:
    (observed,) = route.get_links(index)
    if observed["flags"] & IFF_UP and observed.get_attr("IFLA_MTU") == mtu:
        return []
    route.link("set", index=index, mtu=mtu, state="up")
    return ["its link"]


def _addresses(route: IPRoute, index: int) -> set[str]:
    return {
        f"{message.get_attr('IFA_ADDRESS')}/{message['prefixlen']}"
        for message in route.get_addr(index=index)
        if message["scope"] != SCOPE_LINK
    }


def _add_addresses(route: IPRoute, index: int, addresses: Iterable[str]) -> None:
    for address in addresses:
        # No duplicate address detection: nobody else is on this link, and the first ping cannot wait for it.
        flags = {"flags": IFA_F_NODAD} if ":" in address else {}
        route.addr("add", index=index, **_address(address), **flags)


def _address(address: str) -> dict[str, Any]:
    parsed = ipaddress.ip_interface(address)
    return {"address": str(parsed.ip), "prefixlen": parsed.network.prefixlen}


def has_ipv6(interface: str) -> bool:
    """Whether the kernel gives this interface IPv6. It may be switched off, and an MTU below 1280 does that too."""
    path = Path("/proc/sys/net/ipv6/conf") / interface / "disable_ipv6"
    return path.exists() and path.read_text().strip() == "0"


def trigger_handshake(interface: str, address: str) -> None:
    """Send one packet to ``address`` through the interface: WireGuard begins a handshake only when it has something to
    send. Nobody answers it."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as packet, contextlib.suppress(OSError):
        packet.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode() + b"\0")
        packet.sendto(b"", (address, DISCARD_PORT))


def ignore_missing(work: Callable[[], object]) -> None:
    """Run a deletion. No error when the thing is gone already: its link took it along, or another was quicker."""
    try:
        work()
    except NetlinkError as error:
        if error.code not in (2, 3, 19, 99):  # ENOENT, ESRCH, ENODEV, EADDRNOTAVAIL
            raise
