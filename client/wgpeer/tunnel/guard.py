"""A firewall table of our own: what must not leave beside the tunnel is dropped, whatever happens to routes and rules.

It stands while a profile sends everything through the tunnel, and lets out: what leaves by an interface of ours, what
carries our mark (WireGuard's own packets and our API requests), what the routes leave outside (the LANs of this
machine, the networks of the profile that are kept outside), and the housekeeping of a link (neighbours, multicast,
broadcast). It sees forwarded packets as well, for they go where the routes send them too.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from wgpeer.constants import SOCKET_MARK
from wgpeer.tunnel import nft
from wgpeer.tunnel.link import INTERFACE_PREFIX

# Behind every NAT: what is seen here leaves as it is.
PRIORITY = 300
NEIGHBOURS = "nd-router-solicit, nd-router-advert, nd-neighbor-solicit, nd-neighbor-advert"
LINK_ADDRESSES = {4: "224.0.0.0/4, 255.255.255.255", 6: "fe80::/10, ff00::/8"}

Ranges = Iterable[tuple[int, int]]


@dataclass(slots=True)
class Guard:
    """The table of one interface number. ``problem`` says for people why it does not stand, empty when it does or is
    not wanted."""

    problem: str = ""
    _text: str = ""
    _listing: str = ""
    _removed: int | None = None

    def ensure(self, number: int, outside: Mapping[int, Ranges]) -> bool:
        """Have the table stand, for the IP versions of ``outside``: the ranges of addresses that stay outside the
        tunnel. Returns whether somebody else had changed or removed it."""
        self._removed = None
        text = ruleset(number, outside)
        observed = _listing(number)
        if text == self._text and observed and observed == self._listing:
            return False
        harmed = text == self._text and bool(self._listing)
        self.problem = nft.run(["-f", "-"], text)[1]
        self._text, self._listing = text, "" if self.problem else _listing(number)
        return harmed and not self.problem

    def remove(self, number: int) -> None:
        """Remove the table, once: to do so when it is gone is a change too, which the kernel announces, and whoever
        repairs after each change would never rest."""
        if self._removed != number:
            remove(number)
        self.problem, self._text, self._listing, self._removed = "", "", "", number


def remove(number: int) -> None:
    """Remove the table of an interface number. No error when there is none."""
    nft.run(["-f", "-"], f"table inet {_name(number)} {{}}\ndelete table inet {_name(number)}\n")


def ruleset(number: int, outside: Mapping[int, Ranges]) -> str:
    """The text that replaces the table in one transaction: it is never missing in between."""
    name = _name(number)
    rules = [f"meta mark {SOCKET_MARK:#x} accept", 'oifname "lo" accept', f'oifname "{INTERFACE_PREFIX}*" accept']
    sets = []
    for version in (4, 6):
        if version not in outside:
            rules.append(f"meta nfproto ipv{version} accept")  # the profile leaves this family as it was
            continue
        word = {4: "ip", 6: "ip6"}[version]
        sets.append(_set(version, outside[version]))
        rules += [f"{word} daddr {{ {LINK_ADDRESSES[version]} }} accept", f"{word} daddr @outside{version} accept"]
    rules += [f"icmpv6 type {{ {NEIGHBOURS} }} accept", "counter drop"]
    chain = [f"type filter hook postrouting priority {PRIORITY}; policy accept;", *rules]
    body = "\n".join([*sets, "chain leaving {", *chain, "}"])
    return f"table inet {name} {{}}\ndelete table inet {name}\ntable inet {name} {{\n{body}\n}}\n"


def _set(version: int, ranges: Ranges) -> str:
    kind, address = {4: ("ipv4_addr", ipaddress.IPv4Address), 6: ("ipv6_addr", ipaddress.IPv6Address)}[version]
    shown = [str(address(low)) if low == high else f"{address(low)}-{address(high)}" for low, high in ranges]
    elements = f"elements = {{ {', '.join(shown)} }}\n" if shown else ""
    return f"set outside{version} {{\ntype {kind}\nflags interval\n{elements}}}"


def _name(number: int) -> str:
    return f"wgpeer_{number}"


def _listing(number: int) -> str:
    """The table as the kernel has it, without counters; empty when it is not there."""
    done, said = nft.run(["-s", "list", "table", "inet", _name(number)])
    return "" if said else done
