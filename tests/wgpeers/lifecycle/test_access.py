"""Connect, profile and revocation agree on who may use which server."""

from __future__ import annotations

from typing import Any

from django.db.models import QuerySet
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.django import TestCase

from core.clock import moment
from servers import access
from servers.models import Server
from servers.policy import policy_of
from tests.attempts import an_attempt
from tests.protocol_client import NOW
from users.authorize import Allowed, Denied, authorize
from users.models import Group, Organization, VpnUser
from wgpeers.models import Connection, State

ids = st.sets(st.integers(0, 2))
world = st.fixed_dictionaries(
    {
        "organizations": st.lists(st.booleans(), min_size=3, max_size=3),
        "users": st.lists(st.tuples(st.integers(0, 2), st.booleans(), ids), min_size=1, max_size=4),
        "servers": st.lists(st.tuples(ids, ids), min_size=1, max_size=3),
    }
)
ACCESS = {"user_disabled", "organization_disabled", "not_in_organization", "not_in_group"}


def build(drawn: dict[str, Any]) -> QuerySet[Connection]:
    """Everybody connected to every server."""
    groups = [Group.objects.create(name=f"group-{number}") for number in range(3)]
    organizations = [
        Organization.objects.create(name=f"org-{number}", enabled=enabled)
        for number, enabled in enumerate(drawn["organizations"])
    ]
    for number, (organization, enabled, member_of) in enumerate(drawn["users"]):
        user = VpnUser.objects.create(name=f"u{number}", organization=organizations[organization], enabled=enabled)
        user.groups.set([groups[each] for each in member_of])
    for number, (names, asks) in enumerate(drawn["servers"]):
        networks = {"network": f"10.{2 * number}.0.0/24", "wg_network": f"10.{2 * number + 1}.0.0/24"}
        server = Server.objects.create(name=f"s{number}", **networks)
        server.organizations.set([organizations[each] for each in names])
        server.groups.set([groups[each] for each in asks])
        for user in VpnUser.objects.all():
            Connection.objects.create(
                user=user, user_name=user.name, server=server, state=State.OPEN, device_id="d", created=moment(NOW),
                wg_public_key=f"{user.pk}-{server.pk}", host_part=2 + user.pk, address="10.0.0.1",
            )  # fmt: skip
    return Connection.objects.select_related("user__organization", "server")


class Access(TestCase):
    @settings(deadline=None)
    @given(world)
    def test_all_who_ask_get_the_same_answer(self, drawn: dict[str, Any]) -> None:
        connections = list(build(drawn))
        ended = set(Connection.objects.exclude(access.permitted()).values_list("pk", flat=True))
        for connection in connections:
            user, server = connection.user, connection.server
            assert user is not None
            assert server is not None
            verdict = authorize(user, policy_of(server), an_attempt(), NOW)
            assert isinstance(verdict, Allowed) or (isinstance(verdict, Denied) and verdict.code in ACCESS)
            has_profile = access.usable_by(user).filter(pk=server.pk).exists()
            assert (isinstance(verdict, Allowed), connection.pk not in ended) == (has_profile, has_profile)

    def test_who_is_gone_may_use_nothing(self) -> None:
        connections = build({"organizations": [True] * 3, "users": [(0, True, set())], "servers": [({0}, set())]})
        assert not connections.exclude(access.permitted()).exists()
        VpnUser.objects.all().delete()
        assert connections.exclude(access.permitted()).count() == 1
