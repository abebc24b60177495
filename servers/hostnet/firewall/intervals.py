"""Overlapping networks as what nftables wants: sorted, disjoint spans of addresses. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Mapping
from typing import TypeVar

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Label = TypeVar("Label")
# First and last address as numbers, both included, and what is said of them.
Span = tuple[int, int, Label]

BEYOND = 1 << 129  # greater than any address


def most_specific(networks: Mapping[Network, Label]) -> list[Span[Label]]:
    """``networks``, all of one IP version, as sorted, disjoint spans.

    nft's interval sets take no overlaps. Where networks overlap, the more specific one decides, so that 0.0.0.0/0 with
    NAT and 10.0.0.0/8 without mean what they say. Neighbouring spans alike are joined.
    """
    ordered = sorted((int(n.network_address), -int(n.broadcast_address), index) for index, n in enumerate(networks))
    labels = list(networks.values())
    spans: list[Span[Label]] = []
    around: list[tuple[int, Label]] = []  # last address and label of the networks around the position, outermost first
    position = 0

    def emit(last: int, label: Label) -> None:
        if last < position:
            return
        if spans and spans[-1][1] == position - 1 and spans[-1][2] == label:
            spans[-1] = (spans[-1][0], last, label)
        else:
            spans.append((position, last, label))

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
    return spans


def mapped(spans: Iterable[Span[tuple[Network, Network]]]) -> Iterator[tuple[Network, Network]]:
    """Pieces of networks that stand one to one for others: for each span, labelled with the whole of both, the pairs
    of equally long networks that it consists of."""
    for first, last, (here, there) in spans:
        address = ipaddress.IPv4Address if here.version == 4 else ipaddress.IPv6Address
        for piece in ipaddress.summarize_address_range(address(first), address(last)):
            offset = int(piece.network_address) - int(here.network_address)
            yield piece, ipaddress.ip_network((int(there.network_address) + offset, piece.prefixlen))
