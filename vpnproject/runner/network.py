"""Which address and port clients are told, and who already holds a port."""

from __future__ import annotations

import ipaddress
import os
import re
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from .console import RunError

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

HTTPS = 443
# Where browsers come that were given a name or an address and no more.
PLAIN_HTTP = 80
OTHER_HTTPS = 8443
FIRST_WIREGUARD = 51820
CARRIER_GRADE_NAT = ipaddress.ip_network("100.64.0.0/10")
_LABEL = r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_NAME = re.compile(rf"{_LABEL}(\.{_LABEL})+\.?")
# Any address of the Internet will do: connecting a UDP socket sends nothing, it only asks the kernel for the route.
_FAR = {socket.AF_INET: "198.41.0.4", socket.AF_INET6: "2001:503:ba3e::2:30"}
# The state of a listening TCP socket in /proc/net/tcp. A UDP socket that only receives is in state 07.
_LISTENING = {"tcp": "0A", "udp": "07"}


def source_address(family: socket.AddressFamily) -> IPAddress | None:
    """The address this machine sends from on its default route, or ``None`` without one."""
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((_FAR[family], 9))
        except OSError:
            return None
        return ipaddress.ip_address(probe.getsockname()[0].partition("%")[0])


@dataclass(frozen=True, slots=True)
class Address:
    """The address that clients are told. ``given``: a person chose it, so it is kept until another one is given."""

    text: str
    given: bool

    @property
    def in_url(self) -> str:
        return f"[{self.text}]" if ":" in self.text else self.text

    def doubt(self) -> str:
        """Why clients elsewhere may not reach it, in words; empty when nothing speaks against it."""
        try:
            ip = ipaddress.ip_address(self.text)
        except ValueError:
            return ""
        if ip.is_loopback:
            return "only this machine itself reaches it"
        if ip in CARRIER_GRADE_NAT:
            return "it is behind the provider's own NAT (100.64.0.0/10): nobody reaches it from outside"
        if not ip.is_global:
            return "it is not a public address: only clients in this network reach it, unless a router forwards to it"
        return ""


def parse_address(text: str) -> str:
    """An IP address or DNS name as a person gave it, in its plain form; ``RunError`` for anything else."""
    bare = text.strip().removeprefix("[").removesuffix("]")
    try:
        return str(ipaddress.ip_address(bare))
    except ValueError:
        pass
    if len(bare) > 253 or not _NAME.fullmatch(bare) or bare.replace(".", "").isdigit():
        raise RunError(f"--public-address {text!r}: give an IP address or a DNS name such as vpn.example.com.")
    return bare.rstrip(".").lower()


def choose_address(
    given: str | None, kept: str | None, source: Callable[[socket.AddressFamily], IPAddress | None] = source_address
) -> Address:
    """The address to tell clients: the one ``given`` now, else the one ``kept`` from an earlier time it was given, else
    the source address of the default route, IPv4 first."""
    if given or kept:
        return Address(parse_address(given or kept or ""), given=True)
    for family in (socket.AF_INET, socket.AF_INET6):
        if (found := source(family)) is not None:
            return Address(str(found), given=False)
    raise RunError("This machine has no default route, so its address is not known: give it with --public-address.")


def has_ipv6() -> bool:
    """Whether one socket can serve both IPv4 and IPv6 here."""
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            probe.bind(("::", 0))
    except OSError:
        return False
    return Path("/proc/sys/net/ipv6/bindv6only").read_text().strip() == "0"


def port_free(port: int, kind: socket.SocketKind = socket.SOCK_STREAM) -> bool:
    """Whether nobody holds ``port`` on any address. ``RunError`` when this process may not ask (ports below 1024)."""
    for family, anywhere in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):  # noqa: S104 (bound, never served)
        try:
            with socket.socket(family, kind) as probe:
                if kind == socket.SOCK_STREAM:
                    # Connections that linger in TIME_WAIT do not hold the port; a listener still does.
                    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                probe.bind((anywhere, port))
        except PermissionError:
            return not _inodes(port, kind)
        except OSError as error:
            if family == socket.AF_INET6 and not Path("/proc/net/if_inet6").exists():
                continue
            del error
            return False
    return True


def port_holder(port: int, kind: socket.SocketKind = socket.SOCK_STREAM) -> str:
    """Who holds ``port``, as ``name (pid 12)``; ``another program`` when that cannot be seen."""
    wanted = {f"socket:[{inode}]" for inode in _inodes(port, kind)}
    for process in Path("/proc").iterdir():
        if not process.name.isdigit():
            continue
        try:
            if any(_target(entry) in wanted for entry in os.scandir(process / "fd")):
                return f"{(process / 'comm').read_text().strip()} (pid {process.name})"
        except OSError:
            continue  # it ended meanwhile, or is not ours to look into
    return "another program"


def _target(link: os.DirEntry[str]) -> str:
    """Empty if it has just gone, as files do that are open for a moment only: the others still count."""
    try:
        return os.readlink(link)
    except FileNotFoundError:
        return ""


def _inodes(port: int, kind: socket.SocketKind) -> set[str]:
    name = "tcp" if kind == socket.SOCK_STREAM else "udp"
    found = set()
    for table in (Path(f"/proc/net/{name}"), Path(f"/proc/net/{name}6")):
        if table.exists():
            rows = [line.split() for line in table.read_text().splitlines()[1:]]
            found |= {
                row[9] for row in rows if int(row[1].rpartition(":")[2], 16) == port and row[3] == _LISTENING[name]
            }
    return found


def choose_port(given: int | None, kept: int | None, free: Callable[[int], bool] = port_free) -> tuple[int, str]:
    """The port of web, and words to say about it. A port that was given or kept must be free, else ``RunError``."""
    wanted = given or kept
    if wanted is not None:
        if not free(wanted):
            raise RunError(f"Port {wanted} is held by {port_holder(wanted)}: end that, or choose another with --port.")
        return wanted, "" if wanted == HTTPS else _explain(wanted)
    if free(HTTPS):
        return HTTPS, ""
    if free(OTHER_HTTPS):
        return OTHER_HTTPS, f"Port 443 is held by {port_holder(HTTPS)}. {_explain(OTHER_HTTPS)}"
    raise RunError(f"Ports 443 ({port_holder(HTTPS)}) and 8443 ({port_holder(OTHER_HTTPS)}) are in use: give --port.")


def choose_plain_port(
    setting: str, kept: int | None, https: int, free: Callable[[int], bool] = port_free
) -> tuple[int, str]:
    """The port on which people are sent to HTTPS (0: none), and words to say about it. ``setting`` is PLAIN_PORT of the
    settings: ``0`` leaves all alone. ``kept``: one that our own front, which runs, has."""
    if not setting.isdecimal() or int(setting) > 65535:
        raise RunError(f"PLAIN_PORT={setting}: give a port number, or 0 for none.")
    wanted = int(setting)
    if not wanted or wanted == https:
        return 0, ""
    if wanted == kept or free(wanted):
        return wanted, ""
    holder = port_holder(wanted)
    return 0, f"Port {wanted} is held by {holder}: who types the address without https:// does not get here by it."


def _explain(port: int) -> str:
    return (
        f"Clients find the server on port {port} by the profile's sync_hosts alone; its remote lines always mean "
        "port 443. Current clients read sync_hosts."
    )


def choose_wireguard_port(free: Callable[[int, socket.SocketKind], bool] = port_free) -> int:
    """The first free UDP port from 51820 on, for the first server; ``RunError`` when a hundred are taken."""
    for port in range(FIRST_WIREGUARD, FIRST_WIREGUARD + 100):
        if free(port, socket.SOCK_DGRAM):
            return port
    raise RunError("No UDP port from 51820 to 51919 is free for WireGuard.")
