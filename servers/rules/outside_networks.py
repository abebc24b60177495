"""Networks of other installations, as hosts have them: at an end of a link to one, they are sent there, whoever sends.
So nothing else that the host leads to, or that is reached by it, may meet them; only ``0.0.0.0/0`` and ``::/0`` may lie
around."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from servers import networks
from servers.models import OutsideLink
from servers.networks import Network


def on_hosts(hosts: Collection[int], network: Network, apart_from: OutsideLink | None = None) -> str | None:
    """What of those that are reached by one of the hosts (primary keys) ``network`` meets."""
    ends = OutsideLink.objects.filter(server__attachments__host__in=hosts).distinct()
    if apart_from is not None:
        ends = ends.exclude(pk=apart_from.pk)
    return _met(network, ends.select_related("server")) if hosts else None


def anywhere(network: Network) -> str | None:
    return _met(network, OutsideLink.objects.select_related("server"))


def _met(network: Network, links: Iterable[OutsideLink]) -> str | None:
    for link in links:
        for each in link.their_networks:
            if networks.overlaps(network, each):
                return f"{network} overlaps {each}, which is reached by the link of server {link.server} to {link}."
    return None
