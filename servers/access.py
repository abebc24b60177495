"""Who may use a server: an enabled user of an enabled organization that the server names, who is in one of the
server's groups if it has any.

Profiles and revocation ask these conditions of the database. A connect judges the same by the values in ``policy``,
which it has read anyway, and says which of them refused; a property test holds the three equal.
"""

from __future__ import annotations

from django.db.models import Exists, OuterRef, Q, QuerySet
from django.db.models.expressions import Combinable

from users.models import VpnUser

from .models import Server

Reference = OuterRef | int


def _lets_in(user: Reference, organization: Reference, server: Reference) -> Combinable | Q:
    """Whether organization and groups let a user in; each by primary key, or by where the outer query has it."""
    organizations = Server.organizations.through.objects.filter(server=server, organization=organization)
    groups = Server.groups.through.objects.filter(server=server)
    shared = VpnUser.groups.through.objects.filter(vpnuser=user, group__servers=server)
    return Q(Exists(organizations)) & (~Exists(groups) | Exists(shared))


def servers_of(user: VpnUser) -> QuerySet[Server]:
    """The servers that the user may use, as far as organization and groups say."""
    return Server.objects.filter(_lets_in(user.pk, user.organization_id, OuterRef("pk")))


def usable_by(user: VpnUser) -> QuerySet[Server]:
    """The servers that the user may use now: none for who is disabled."""
    return servers_of(user) if user.enabled and user.organization.enabled else Server.objects.none()


def permitted() -> Combinable | Q:
    """A condition on rows with ``user`` and ``server``: whether that user may use that server now. A user who is gone
    may use none."""
    enabled = Q(user__enabled=True, user__organization__enabled=True)
    return enabled & Q(_lets_in(OuterRef("user"), OuterRef("user__organization"), OuterRef("server")))
