"""The way to a host outside the tunnel: which of its addresses, and how large a packet may be."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

from wgpeer.constants import MTU_MAX, MTU_MIN, SOCKET_MARK, TUNNEL_OVERHEAD
from wgpeer.responses import Configuration

IP_MTU, IPV6_MTU = 14, 24  # socket options that the socket module has no names for


def reachable_endpoint(configuration: Configuration, resolve: Callable[[str], list[str]]) -> tuple[str, int] | None:
    """The first address of a host that this machine has a route to, and the tunnel's MTU (bytes) on that route."""
    for name in configuration.endpoints:
        for address in resolve(name):
            if outer := _path_mtu(address, configuration.port):
                return address, max(MTU_MIN, min(outer - TUNNEL_OVERHEAD, MTU_MAX))
    return None


def _path_mtu(address: str, port: int) -> int:
    """The path MTU (bytes) to an address as the kernel knows it: the interface's, the route's, or what a router on the
    path has said. 0 when there is no route. The route is that of our marked packets, outside every tunnel."""
    six = ":" in address
    try:
        with socket.socket(socket.AF_INET6 if six else socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, SOCKET_MARK)
            probe.connect((address, port))  # a routing decision; nothing is sent
            level, option = (socket.IPPROTO_IPV6, IPV6_MTU) if six else (socket.IPPROTO_IP, IP_MTU)
            return probe.getsockopt(level, option)
    except OSError:
        return 0


def strict_reverse_path() -> bool:
    """Whether an interface drops what comes by another way than replies would go."""
    conf = Path("/proc/sys/net/ipv4/conf")
    values = {entry: (conf / entry / "rp_filter") for entry in os.listdir(conf)}
    every = int(values["all"].read_text()) if "all" in values else 0
    return any(max(every, int(path.read_text())) == 1 for name, path in values.items() if name not in ("all", "lo"))
