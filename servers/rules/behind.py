"""Networks behind clients, and what routes of linked servers lead to, as a host has them: each leads to one place.

Clients' networks are in the routing tables of every host that carries their server or one that is linked with it. What
a route leads to a host sends to another one where it does not carry the route's server itself.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass

from servers import networks
from servers.models import ClientNetwork, Route, Server, ServerHost, with_linked
from servers.networks import Network


@dataclass(frozen=True, slots=True)
class Behind:
    """A network and the server (primary key) by whose clients or routes it is reached."""

    server: int
    network: Network
    words: str
    route: bool = False


def of(servers: Collection[int]) -> Iterator[Behind]:
    """All of these servers."""
    for row in ClientNetwork.objects.filter(server__in=servers).select_related("user").order_by("pk"):
        yield Behind(row.server_id, networks.parse(row.network), f"{row.network} behind {row.user}")
    routes = Route.objects.filter(server__in=servers, net_gateway=False).order_by("pk")
    for route in routes.exclude(network__in=("0.0.0.0/0", "::/0")):
        yield Behind(route.server_id, networks.parse(route.network), f"route {route.network}", route=True)


def clash(
    claims: Iterable[Behind],
    hosts: Collection[int],
    coming: Collection[int] = (),
    carried_too: int | None = None,
) -> tuple[Behind, Behind, Server] | None:
    """Which of ``claims`` one of the hosts (primary keys) cannot lead to, because it leads elsewhere by what it knows
    already; with that, and its server. ``coming`` are servers that are left out of what it knows; ``carried_too`` is
    one that the hosts are about to carry."""
    if not hosts:
        return None
    carried = _carried(hosts)
    near = with_linked({server for here in carried.values() for server in here})
    by_server = defaultdict(list)
    for each in of({server for every in near.values() for server in every}.difference(coming)):
        by_server[each.server].append(each)
    mine = list(claims)
    for host in hosts:
        here = carried[host] | ({carried_too} if carried_too is not None else set())
        known = {server for each in carried[host] for server in near[each]}
        if found := _met([each for each in mine if _by_mesh(each, here)], known, here, by_server):
            return (*found, Server.objects.get(pk=found[1].server))
    return None


def _carried(hosts: Collection[int]) -> defaultdict[int, set[int]]:
    found: defaultdict[int, set[int]] = defaultdict(set)
    for host, server in ServerHost.objects.filter(host__in=hosts).values_list("host", "server"):
        found[host].add(server)
    return found


def _by_mesh(each: Behind, carried: Collection[int]) -> bool:
    return not each.route or each.server not in carried


def _met(
    mine: Iterable[Behind], known: Iterable[int], carried: Collection[int], by_server: Mapping[int, list[Behind]]
) -> tuple[Behind, Behind] | None:
    theirs = [each for server in sorted(known) for each in by_server.get(server, ()) if _by_mesh(each, carried)]
    for one in mine:
        for other in theirs:
            if one.server != other.server and networks.overlaps(one.network, other.network):
                return one, other
    return None
