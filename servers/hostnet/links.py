"""Links and addresses of our interfaces by netlink, and forwarding by sysctl. WireGuard itself is not here."""

from __future__ import annotations

import ipaddress
import socket
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from servers.hostnet.messages import OUR_INTERFACE
from servers.hostnet.plan import SeenLink

SYSCTL = Path("/proc/sys/net")
IFF_UP = 0x1
IFA_F_NODAD = 0x02  # a tunnel has no neighbours to collide with, and an address on probation cannot be used
RT_SCOPE_LINK = 253


class LinkError(Exception):
    """The kernel refused a change of a link, an address or a sysctl, or the link is not there."""


class Links:
    """The kernel's view of interfaces named ``wgs<number>``; all others are neither read nor touched."""

    def read(self) -> dict[str, SeenLink]:
        """Every link of ours by name, with its addresses (IPv6 link-local ones, which the kernel adds, left out)."""
        with _netlink() as netlink:
            links = {link["index"]: link for link in netlink.get_links() if _is_ours(link)}
            addresses: defaultdict[int, set[str]] = defaultdict(set)
            for message in netlink.get_addr() if links else ():
                if message["index"] in links and message["scope"] != RT_SCOPE_LINK:
                    address = message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS")
                    addresses[message["index"]].add(str(ipaddress.ip_interface(f"{address}/{message['prefixlen']}")))
        return {
            link.get_attr("IFLA_IFNAME"): SeenLink(
                bool(link["flags"] & IFF_UP), int(link.get_attr("IFLA_MTU") or 0), frozenset(addresses[index])
            )
            for index, link in links.items()
        }

    def bring_up(self, name: str, mtu: int) -> None:
        with _netlink() as netlink:
            netlink.link("set", index=_index(netlink, name), mtu=mtu, state="up")

    def add_address(self, name: str, address: str) -> None:
        self._address("replace", name, address)

    def remove_address(self, name: str, address: str) -> None:
        # Else the kernel removes with an address every later one of the same network, its successor for instance.
        _write(SYSCTL / "ipv4/conf" / name / "promote_secondaries", "1")
        self._address("del", name, address)

    def _address(self, verb: str, name: str, address: str) -> None:
        interface = ipaddress.ip_interface(address)
        kind: dict[str, int] = {"family": socket.AF_INET if interface.version == 4 else socket.AF_INET6}
        if interface.version == 6 and verb != "del":
            kind["flags"] = IFA_F_NODAD
        with _netlink() as netlink:
            index = _index(netlink, name)
            netlink.addr(verb, index=index, address=str(interface.ip), prefixlen=interface.network.prefixlen, **kind)

    def delete(self, name: str) -> None:
        """Remove the link, whatever kind it is; no error if it is gone already."""
        with _netlink() as netlink:
            for index in netlink.link_lookup(ifname=name):
                netlink.link("del", index=index)

    def forward(self, *, ipv6: bool) -> None:
        """Let the host route IPv4, and IPv6 where asked; written only where it is not so."""
        _write(SYSCTL / "ipv4/ip_forward", "1")
        if not ipv6:
            return
        # A kernel that routes IPv6 stops listening to router advertisements, which may be where its own default route
        # comes from. 2 means: listen although routing.
        for setting in (SYSCTL / "ipv6/conf").glob("*/accept_ra"):
            if setting.read_text().strip() == "1":
                _write(setting, "2")
        _write(SYSCTL / "ipv6/conf/all/forwarding", "1")


def _is_ours(link: Any) -> bool:
    return OUR_INTERFACE.fullmatch(link.get_attr("IFLA_IFNAME") or "") is not None


def _index(netlink: IPRoute, name: str) -> int:
    found = netlink.link_lookup(ifname=name)
    if not found:
        raise LinkError(f"{name}: no such link")
    return int(found[0])


@contextmanager
def _netlink() -> Iterator[IPRoute]:
    try:
        with IPRoute() as netlink:
            yield netlink
    except (NetlinkError, OSError) as error:
        raise LinkError(f"netlink: {error}") from error


def _write(path: Path, value: str) -> None:
    try:
        if path.read_text().strip() != value:
            path.write_text(value)
    except OSError as error:
        raise LinkError(f"{path.name}: {error.strerror}") from error
