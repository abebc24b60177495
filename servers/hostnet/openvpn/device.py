"""The interface of an end. It is made before its process and stays when that dies, so that what is routed into it goes
nowhere else meanwhile."""

from __future__ import annotations

import fcntl
import struct
from pathlib import Path

from pyroute2 import IPRoute

from servers.hostnet.marks import GROUP
from servers.hostnet.mesh.routes import Asking
from servers.hostnet.netlink.links import IFF_UP, LinkError
from servers.hostnet.state import LINK_INTERFACE
from servers.hostnet.wireguard.fields import link_index

TUN = Path("/dev/net/tun")
IFF_TUN, IFF_NO_PI = 1, 0x1000  # linux/if_tun.h
TUNSETIFF, TUNSETPERSIST, TUNSETOWNER = 0x400454CA, 0x400454CB, 0x400454CC
SETTINGS = Path("/proc/sys/net/ipv4/conf")
LOOSE = "2"  # rp_filter: answers come from networks to which the main table knows another way
WHAT = "the interfaces of links"


def ensure(name: str, mtu: int) -> int:
    """Make it where it is not, bring it up; its index. Raise ``LinkError``."""
    with Asking(WHAT) as netlink:
        if not link_index(name):
            _make(name)
        index = link_index(name)
        if not _is_so(netlink, index, mtu):
            netlink.link("set", index=index, mtu=mtu, group=GROUP, state="up")
    path = SETTINGS / name / "rp_filter"
    try:
        if path.read_text().strip() != LOOSE:
            path.write_text(LOOSE)
    except OSError as error:
        raise LinkError(f"{name}: {error}") from error
    return index


def _make(name: str) -> None:
    """It stays when nobody has it open, and root alone may open it: not whoever may open the device file."""
    try:
        with TUN.open("r+b", buffering=0) as tun:
            fcntl.ioctl(tun, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TUN | IFF_NO_PI))
            fcntl.ioctl(tun, TUNSETOWNER, 0)
            fcntl.ioctl(tun, TUNSETPERSIST, 1)
    except OSError as error:
        raise LinkError(f"{name} cannot be made: {error}") from error


def _is_so(netlink: IPRoute, index: int, mtu: int) -> bool:
    link = next(iter(netlink.get_links(index)))
    return bool(link["flags"] & IFF_UP) and (link.get_attr("IFLA_MTU"), link.get_attr("IFLA_GROUP")) == (mtu, GROUP)


def there() -> set[str]:
    """The names of all of ours. Raise ``LinkError``."""
    with Asking(WHAT) as netlink:
        names = {str(link.get_attr("IFLA_IFNAME")) for link in netlink.get_links()}
    return {name for name in names if LINK_INTERFACE.fullmatch(name)}


def remove(name: str) -> None:
    """Its routes go with it; no error where it is gone. Raise ``LinkError``."""
    with Asking(WHAT) as netlink:
        for index in netlink.link_lookup(ifname=name):
            netlink.link("del", index=index)
