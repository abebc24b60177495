"""Overlapping networks as what nftables wants: sorted, disjoint intervals of addresses. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Mapping
from typing import TypeVar

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Label = TypeVar("Label")
# First and last address as numbers, both included, and what is said of them.
Interval = tuple[int, int, Label]

BEYOND = 1 << 129  # greater than any address


def most_specific(networks: Mapping[Network, Label]) -> list[Interval[Label]]:
    """``networks``, all of one IP version, as sorted, disjoint intervals.

    nft's interval sets take no overlaps. Where networks overlap, the more specific one decides, so that 0.0.0.0/0 with
    NAT and 10.0.0.0/8 without mean what they say. Neighbouring intervals alike are joined.
    """
    ordered = sorted((int(n.network_address), -int(n.broadcast_address), index) for index, n in enumerate(networks))
    labels = list(networks.values())
    intervals: list[Interval[Label]] = []
    around: list[tuple[int, Label]] = []  # last address and label of the networks around the position, outermost first
    position = 0

    def emit(last: int, label: Label) -> None:
        if last < position:
            return
        if intervals and intervals[-1][1] == position - 1 and intervals[-1][2] == label:
            intervals[-1] = (intervals[-1][0], last, label)
        else:
            intervals.append((position, last, label))

    for first, negative_last, index in [*ordered, (BEYOND, 0, 0)]:
        while around and around[-1][0] < first:
            last, label = around.pop()
            emit(last, label)
            position = max(position, last + 1)
        if around and first > position:
            emit(first - 1, around[-1][1])
        position = max(position, first)
        if first != BEYOND:
            around.append((-negative_last, labels[index]))
    return intervals


def mapped(intervals: Iterable[Interval[tuple[Network, Network]]]) -> Iterator[tuple[Network, Network]]:
    """Pieces of networks that stand one to one for others: for each interval, labelled with the whole of both,
    the pairs of equally long networks that it consists of."""
    for first, last, (here, there) in intervals:
        address = ipaddress.IPv4Address if here.version == 4 else ipaddress.IPv6Address
        for piece in ipaddress.summarize_address_range(address(first), address(last)):
            offset = int(piece.network_address) - int(here.network_address)
            yield piece, ipaddress.ip_network((int(there.network_address) + offset, piece.prefixlen))
