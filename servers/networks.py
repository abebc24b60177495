"""Arithmetic on a server's networks, and what cannot work. Pure; addresses are text, host parts are integers.

A client has one host part: its address is the network's first address plus the host part, in the Virtual Network
and in the Virtual WG Network alike. Host part 1 is the gateway; 0 and the last one are network and broadcast.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from functools import lru_cache

from django.core.exceptions import ValidationError

from .hostnet.state.addresses import overlap

IPv4 = ipaddress.IPv4Network
IPv6 = ipaddress.IPv6Network
Network = IPv4 | IPv6

GATEWAY_HOST_PART = 1
FIRST_HOST_PART = 2
# /28 leaves 13 clients, which is the least that is of use; above /8 there is no private network.
SHORTEST_PREFIX, LONGEST_PREFIX = 8, 28


# By its text, so that it is never out of date.
_known = lru_cache(maxsize=1024)(ipaddress.ip_network)
_APART = re.compile(r"\s*/\s*|\s+")


def parse(text: str) -> Network:
    """The network that ``text`` is, its length as a number or as a mask, behind a slash or a space. Raise
    ``ValidationError``, in words for the admin, where it is none or has host bits."""
    written = _APART.sub("/", text.strip())
    try:
        return _known(written)
    except ValueError:
        pass
    try:
        loose = ipaddress.ip_network(written, strict=False)
    except ValueError:
        raise ValidationError(f"{text!r} is not a network. Write it like 10.9.0.0/24 or fd09::/64.") from None
    raise ValidationError(f"{text} has host bits set. Did you mean {loose}?")


def parse4(text: str) -> IPv4:
    network = parse(text)
    if not isinstance(network, IPv4):
        raise ValidationError(f"{text} is an IPv6 network; an IPv4 one is needed here.")
    return network


def parse6(text: str) -> IPv6:
    network = parse(text)
    if not isinstance(network, IPv6):
        raise ValidationError(f"{text} is an IPv4 network; an IPv6 one is needed here.")
    return network


def virtual_network(text: str) -> IPv4:
    """A network that tunnel addresses can come from."""
    network = parse4(text)
    if network.prefixlen > LONGEST_PREFIX:
        raise ValidationError(f"{network} is too small: a /{LONGEST_PREFIX} is the least, for {2**4 - 3} clients.")
    if network.prefixlen < SHORTEST_PREFIX:
        raise ValidationError(f"{network} is too large: a /{SHORTEST_PREFIX} is the most.")
    unusable = network.is_loopback or network.is_multicast or network.is_link_local or network.is_reserved
    if unusable or network.network_address.packed[0] == 0:
        raise ValidationError(f"{network} cannot be used for clients.")
    return network


def virtual_network6(text: str) -> IPv6:
    """An IPv6 network that tunnel addresses can come from."""
    network = parse6(text)
    if network.prefixlen > 64:
        raise ValidationError(f"{network} is too small: a /64 is the least.")
    if network.is_loopback or network.is_multicast or network.is_link_local or network.is_unspecified:
        raise ValidationError(f"{network} cannot be used for clients.")
    return network


def derived6(wg_network: IPv4) -> IPv6:
    """The private IPv6 network of a server that was given none: fd56:504e:AABB:CCDD::/64 from the virtual WG
    network's address A.B.C.D. No two servers have the same, because no two have the same WG network."""
    return ipaddress.IPv6Network((bytes.fromhex("fd56504e") + wg_network.network_address.packed + bytes(8), 64))


def derived6_of(wg_network: str) -> str:
    """``derived6`` of a network as text; empty where that is none."""
    try:
        return str(derived6(parse4(wg_network)))
    except ValidationError:
        return ""


def subtract(network: Network, holes: Iterable[Network]) -> list[Network]:
    """What remains of ``network`` without ``holes``, as the fewest networks, in order. Holes of the other family, or
    elsewhere, change nothing."""
    inside = [hole for hole in holes if overlaps(hole, network)]
    if not inside:
        return [network]
    if any(hole.prefixlen <= network.prefixlen for hole in inside):  # it lies within the hole
        return []
    return [piece for half in network.subnets() for piece in subtract(half, inside)]


def within(inner: Network, outer: Network) -> bool:
    """Whether ``inner`` is all or part of ``outer``."""
    return inner.prefixlen >= outer.prefixlen and overlap(inner, outer)


def overlaps(network: Network, other: Network | str) -> bool:
    """Whether the two share an address; those of different families never do. A text may be empty, or wrong in a form
    where its own field says so: that one overlaps nothing."""
    if isinstance(other, str):
        try:
            other = parse(other)
        except ValidationError:
            return False
    return overlap(network, other)


def spelled(text: str) -> str:
    """A network in its one spelling (10.8.0.0/255.255.255.0 and 10.8.0.0 255.255.255.0 are others); what is none stays
    as it is."""
    try:
        return str(parse(text))
    except ValidationError:
        return text


def same_place(piece: Network, whole: Network, other: Network) -> Network:
    """The part of ``other`` that lies in it where ``piece`` lies in ``whole``; the two are equally long."""
    offset = int(piece.network_address) - int(whole.network_address)
    return ipaddress.ip_network((int(other.network_address) + offset, piece.prefixlen))


def last_host_part(network: IPv4) -> int:
    """The greatest host part that a client may have."""
    return network.num_addresses - 2


def address(network: str, host_part: int) -> str:
    """The address of host part ``host_part``, without prefix length."""
    return str(_known(network)[host_part])


def host_part_of(network: str, text: str) -> int:
    """The host part of an address in ``network``; raise ``ValidationError`` if it cannot be a client's."""
    parsed = parse4(network)
    try:
        wanted = ipaddress.IPv4Address(text.strip())
    except ValueError:
        raise ValidationError(f"{text!r} is not an IPv4 address.") from None
    if wanted not in parsed:
        raise ValidationError(f"{wanted} is not in {parsed}.")
    host_part = int(wanted) - int(parsed.network_address)
    if host_part == GATEWAY_HOST_PART:
        raise ValidationError(f"{wanted} is the gateway's own address.")
    if not FIRST_HOST_PART <= host_part <= last_host_part(parsed):
        raise ValidationError(f"{wanted} is the network's first or last address; a client cannot have it.")
    return host_part


def with_length(network: str, host_part: int) -> str:
    """The address of ``host_part`` with the network's own prefix length (``10.9.0.5/24``)."""
    parsed = _known(network)
    return f"{parsed[host_part]}/{parsed.prefixlen}"
