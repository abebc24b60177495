"""Whether all traffic really goes through a tunnel, as the kernel would send it now; and what it loses to others."""

from __future__ import annotations

import socket
from collections.abc import Iterable, Mapping

from wgpeer.tunnel import routing
from wgpeer.tunnel.link import INTERFACE_PREFIX, interface_index
from wgpeer.tunnel.recovery import is_ours
from wgpeer.tunnel.routing import Surroundings
from wgpeer.tunnel.split_tunnel import SplitTunnel, is_inside

# Where the search for an address to ask about begins, in each half of what is routed on the internet.
STARTS = {4: (0x01000001, 0x81000001), 6: (0x2000 << 112 | 1, 0x2A00 << 112 | 1)}
FAMILY = {4: socket.AF_INET, 6: socket.AF_INET6}

Ranges = Iterable[tuple[int, int]]


def leaks(interface: str, outside: Mapping[int, Ranges]) -> dict[int, str]:
    """By which other interface each IP version leaves, for addresses outside the ranges of ``outside``. What is sent
    nowhere does not leave."""
    found, own = {}, interface_index(interface)
    for version, starts in STARTS.items():
        for start in starts:
            index = routing.leaves_by(FAMILY[version], _address(version, start, outside.get(version, ())))
            if index not in (0, own) and (name := _name(index)) != "lo":
                found[version] = name
    return found


def describe(
    interface: str, split: SplitTunnel, outside: Mapping[int, Ranges], guard_problem: str, titles: Mapping[str, str]
) -> tuple[bool, str]:
    """Whether this tunnel carries everything that does not stay on this machine's LANs, and that in words. ``titles``
    are the names of other tunnels' interfaces for people. Empty words where the profile does not want it."""
    if not split.default_routes:
        return False, ""
    wanted, problems = {net.version for net in split.default_routes}, []
    for version, name in leaks(interface, outside).items():
        if is_ours(name):
            problems.append(f"IPv{version} goes through {titles.get(name, name)}")
        elif version not in wanted:
            problems.append(f"IPv{version} goes by {name}, as this profile leaves it")
        else:
            held = "it goes there beside the tunnel" if guard_problem else "the guard holds it back"
            problems.append(f"another program sends IPv{version} to {name}; {held}")
    guarded = f"no guard ({guard_problem})" if guard_problem else "guarded"
    return not problems, f"no: {'; '.join(problems)}; {guarded}" if problems else f"yes, {guarded}"


def conflicts(number: int, split: SplitTunnel, around: Surroundings, titles: Mapping[str, str]) -> list[str]:
    """What this tunnel shares with this machine's LANs or loses to other tunnels, for people."""
    said = [
        f"{lan} is also a network of this machine: the tunnel has it, or its part of it"
        for lan in split.swallowed_lans(around.main)
    ]
    for other, networks in sorted(around.tunnels.items()):
        mine = split.included.keys() | split.default_routes.keys()
        lost = set(networks & mine) if other < number else set()
        lost |= {
            net for net in networks - split.included.keys() if any(is_inside(net, mine) for mine in split.included)
        }
        widest = [net for net in lost if not any(is_inside(net, wide) for wide in lost)]
        if widest:
            name = f"{INTERFACE_PREFIX}{other}"
            shown = ", ".join(str(net) for net in sorted(widest, key=lambda net: (net.version, net)))
            said.append(f"{shown} goes through {titles.get(name, name)}")
    return said


def _address(version: int, start: int, outside: Ranges) -> str:
    """The first address from ``start`` that is in none of the ranges."""
    for first, last in sorted(outside):
        if first <= start <= last:
            start = last + 1
    if version == 4:
        return socket.inet_ntoa(start.to_bytes(4))
    return socket.inet_ntop(socket.AF_INET6, start.to_bytes(16))


def _name(index: int) -> str:
    try:
        return socket.if_indextoname(index)
    except OSError:
        return ""
