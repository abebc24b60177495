"""Which servers cannot be linked, and what a linked server cannot have.

A client of a server reaches that server's networks and those of every server linked with it. So all of these must
differ, also those of two servers that are linked with the same third one. ``0.0.0.0/0`` and ``::/0`` alone may lie
around others: they are no network of the link's.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from django.core.exceptions import ValidationError

from servers import networks
from servers.models import ClientNetwork, Route, Server, ServerLink, hosts_of, hosts_of_linked, linked_with
from servers.networks import Network
from servers.routing import tunnel_networks

from . import behind, host_networks, link_ends, outside_networks
from .registry import Finding, Mistake, rule


@dataclass(frozen=True, slots=True)
class Claim:
    """A network that a server says something about. ``left_out``: that it does not go through the tunnel."""

    network: Network
    words: str
    left_out: bool = False


@rule(ServerLink)
def check(link: ServerLink) -> Iterator[Finding]:
    first, second = (getattr(link, field, None) for field in ("first", "second"))
    if not isinstance(first, Server) or not isinstance(second, Server):
        return  # missing, which the field says by itself
    if first.pk == second.pk:
        yield Mistake("second", "A server cannot be linked to itself.")
        return
    if ServerLink.objects.filter(first=first, second=second).exclude(pk=link.pk).exists():
        yield Mistake("second", "These two servers are linked already.")
        return
    if message := _clash(link, first, second):
        yield Mistake("second", message)
    yield from _nameless(link, first, second)
    yield from link_ends.of_link(link)


def _nameless(link: ServerLink, first: Server, second: Server) -> Iterator[Mistake]:
    for server in (first, second) if link.names else ():
        if not server.dns_mapping:
            yield Mistake("names", f"Clients of server {server} have no names: turn names for clients on there first.")


def _clash(link: ServerLink, first: Server, second: Server) -> str | None:
    """What each of the two would meet at the other, at those that the other is linked with, and on its hosts."""
    for mine, other in ((first, second), (second, first)):
        met = [other, *(each for each in _linked(other, link) if each.pk != mine.pk)]
        for claim in claims(mine):
            if clash := _met(claim, met):
                return f"{claim.words[0].upper()}{claim.words[1:]} of server {mine} overlaps {clash}"
        if message := _met_outside(mine, other) or host_networks.at_linked(mine, other) or _behind_two(mine, other):
            return message
    return None


def _met_outside(mine: Server, other: Server) -> str | None:
    """Whether a host of the other leads to another installation by what the one has."""
    hosts = list(other.attachments.values_list("host", flat=True))
    found = (outside_networks.on_hosts(hosts, claim.network) for claim in claims(mine))
    return next((each for each in found if each), None)


def _behind_two(mine: Server, other: Server) -> str | None:
    """Whether a host of the one leads already elsewhere to what the other has."""
    hosts = list(mine.attachments.values_list("host", flat=True))
    if met := behind.clash(behind.of([other.pk]), hosts, [other.pk]):
        claim, known, where = met
        return (
            f"{claim.words[0].upper()}{claim.words[1:]} of server {other} overlaps {known.words} of server {where}: a "
            f"host of server {mine} would lead to both."
        )
    return None


def elsewhere(claim: behind.Behind) -> str | None:
    """Why a server cannot have one more network behind it, for what its hosts, or those of linked servers, lead to.
    What its routes lead to its own hosts send out by themselves."""
    hosts = hosts_of_linked(claim.server) if claim.route else hosts_of(claim.server)
    if met := behind.clash([claim], hosts, [claim.server]):
        _, known, where = met
        return (
            f"{claim.network} overlaps {known.words} of server {where}, which shares a host with this one, or with one "
            "that it is linked with."
        )
    return None


def _linked(server: Server, apart_from: ServerLink) -> list[Server]:
    rows = ServerLink.objects.exclude(pk=apart_from.pk).select_related("first", "second")
    return [*(row.second for row in rows.filter(first=server)), *(row.first for row in rows.filter(second=server))]


def taken(server: Server, network: Network, *, left_out: bool = False) -> str | None:
    """Why a server cannot have ``network``, for the servers that it is linked with and those that these are."""
    near = linked_with(server)
    reached = {each.pk: each for each in (*near, *(far for each in near for far in linked_with(each)))}
    reached.pop(server.pk, None)
    clash = _met(Claim(network, str(network), left_out), reached.values())
    if clash:
        return f"{network} overlaps {clash}"
    return outside_networks.on_hosts(hosts_of(server.pk), network) if server.pk else None


def _met(claim: Claim, others: Iterable[Server]) -> str | None:
    """What it meets, and what follows."""
    for other in others:
        for met in claims(other):
            if networks.overlaps(claim.network, met.network) and not (claim.left_out and met.left_out):
                return f"{met.words} of server {other}. Clients of linked servers reach both, so they must differ."
    return None


def claims(server: Server) -> list[Claim]:
    found = [Claim(network, f"tunnel network {network}") for network in tunnel_networks([server])]
    for route in Route.objects.filter(server=server).exclude(network__in=("0.0.0.0/0", "::/0")):
        what = "what does not go through the tunnel," if route.net_gateway else "route"
        found += _claims([route.network], what, left_out=route.net_gateway)
        found += _claims([route.netmap], f"what stands behind {route.network},")
    rows = ClientNetwork.objects.filter(server=server).order_by("network").values_list("network", flat=True)
    return found + _claims(rows.distinct(), "client network")


def _claims(texts: Iterable[str], what: str, *, left_out: bool = False) -> list[Claim]:
    found = []
    for text in texts:
        try:
            network = networks.parse(text)
        except ValidationError:
            continue  # none, or wrong, which its own rule has said
        found.append(Claim(network, f"{what} {network}", left_out))
    return found
