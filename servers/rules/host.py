"""Which hosts cannot be."""

from __future__ import annotations

from collections.abc import Iterator

from servers.models import Host

from . import host_networks
from .registry import Mistake, rule, save_rule


@rule(Host)
def check(host: Host) -> Iterator[Mistake]:
    if not host.public_address and not host.public_address6:
        yield Mistake("public_address", "Give an IPv4 address, a name or an IPv6 address.")


@save_rule(Host, "public_address", "public_address6")
def not_in_a_tunnel(host: Host) -> Iterator[Mistake]:
    yield from host_networks.of_host(host)
