"""What is not deleted while a server or a machine needs it, and why; see ``core.deletion.keeps``."""

from __future__ import annotations

from django.db.models import QuerySet

from core import deletion
from users.factors.registry import FACTORS, load
from users.models import FactorOverride, Group, Provider

from . import mesh
from .models import Host, Server, ServerFactor


def _named_groups(groups: QuerySet[Group]) -> list[str]:
    """A server that names a group lets in nobody else. Were its last one deleted, it would let in everybody."""
    naming = Server.objects.filter(groups__in=groups.order_by().values("pk")).distinct().order_by("name")
    return [f"Server {server} lets in only its groups: take the group off there first." for server in naming]


def _ways_to_redis(hosts: QuerySet[Host]) -> list[str]:
    words = "other machines reach the control side by way of it alone; remove their hosts first."
    return [f"Host {host}: {words}" for host in hosts if mesh.needed_by_others(host)]


def _asked_providers(providers: QuerySet[Provider]) -> list[str]:
    """Whoever is asked for a factor without a provider cannot connect any more."""
    reasons: list[str] = []
    for provider in providers:
        asked_by = ServerFactor.objects.filter(provider=provider)
        if not Provider.objects.filter(kind=provider.kind).exclude(pk__in=providers.order_by().values("pk")).exists():
            # It is what is asked where nobody says which.
            asked_by |= ServerFactor.objects.filter(kind=provider.kind, provider=None)
            exceptions = FactorOverride.objects.filter(kind=provider.kind, state=FactorOverride.State.REQUIRED)
            reasons += [
                f"{row.user} is always asked for it: take the exception off that user first."
                for row in exceptions.select_related("user")[: deletion.REASONS]
            ]
        label = load(provider.kind).label if provider.kind in FACTORS else provider.kind
        servers = asked_by.select_related("server").order_by("server__name")
        reasons += [
            f"Server {row.server} asks {provider} for {label}: have it ask another one, or none, first."
            for row in servers[: deletion.REASONS]
        ]
    return reasons


deletion.keeps(Group, _named_groups)
deletion.keeps(Host, _ways_to_redis)
deletion.keeps(Provider, _asked_providers)
