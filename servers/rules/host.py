"""Which hosts cannot be."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator

from servers.models import Host

from . import host_networks
from .registry import Mistake, rule, save_rule

ADDRESSES = ("public_address", "public_address6")


@rule(Host)
def check(host: Host) -> Iterator[Mistake]:
    if not host.public_address and not host.public_address6:
        yield Mistake("public_address", "Give an IPv4 address, a name or an IPv6 address.")
    yield from _of_others(host)


def _of_others(host: Host) -> Iterator[Mistake]:
    """Two machines at one address: clients and the other machines of the mesh would reach whichever answers."""
    others = Host.objects.exclude(pk=host.pk).order_by("pk")
    taken = {_spelled(getattr(other, field)): other for other in others for field in ADDRESSES}
    for field in ADDRESSES:
        address = getattr(host, field)
        if address and (other := taken.get(_spelled(address))):
            yield Mistake(field, f"{address} is the address of host {other}.")


def _spelled(address: str) -> str:
    """The one spelling of an address or a name."""
    try:
        return str(ipaddress.ip_address(address))
    except ValueError:
        return address.lower().rstrip(".")


@save_rule(Host, "public_address", "public_address6")
def not_in_a_tunnel(host: Host) -> Iterator[Mistake]:
    yield from host_networks.of_host(host)
