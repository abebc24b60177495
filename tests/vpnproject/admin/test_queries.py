"""A list costs as many queries with 30 rows as with 3."""

from __future__ import annotations

import pytest
from django.db import connection as database
from django.test import Client
from django.test.utils import CaptureQueriesContext

from core import clock
from core.crypto import Secret
from servers.models import ClientNetwork, Host, OutsideLink, PortForward, Route, Server, ServerHost, ServerLink
from tests.admin_site import staff
from users.models import Device, Group, Organization, VpnUser
from wgpeers.models import Connection, Decision, State

pytestmark = pytest.mark.django_db
LISTS = [
    "/admin/",
    "/admin/users/vpnuser/",
    "/admin/users/organization/",
    "/admin/users/group/",
    "/admin/servers/server/",
    "/admin/servers/host/",
    "/admin/servers/serverlink/",
    "/admin/servers/outsidelink/",
    "/admin/servers/portforward/",
    "/admin/servers/clientnetwork/",
    "/admin/wgpeers/connection/",
    "/admin/wgpeers/connection/?show=ended",
    "/admin/wgpeers/decision/",
]
# The dashboard and the busiest list, with session, login and permissions.
MOST = 20


def grow(start: int, end: int) -> None:
    now, before = clock.moment(clock.now()), None
    for number in range(start, end):
        organization = Organization.objects.create(name=f"org {number}")
        group = Group.objects.create(name=f"group {number}")
        user = VpnUser.objects.create(organization=organization, name="alice")
        user.groups.add(group)
        Device.objects.create(user=user, device_id="d", first_seen=now, last_seen=now)
        host = Host.objects.create(name=f"host {number}", public_address="192.0.2.1")
        networks = {"network": f"10.8.{number}.0/24", "wg_network": f"10.9.{number}.0/24"}
        server = Server.objects.create(name=f"server {number}", started=True, **networks)
        if before is not None:
            ServerLink.objects.create(first=before, second=server)
        before = server
        ours, theirs = networks["wg_network"], f"10.60.{number}.0/24"
        OutsideLink.objects.create(
            server=server, name=f"link {number}", ours=ours, theirs=theirs, keys=Secret.of("keys")
        )
        server.organizations.add(organization)
        server.groups.add(group)
        ServerHost.objects.create(server=server, host=host)
        Route.objects.create(server=server, network="192.168.0.0/24")
        PortForward.objects.create(server=server, user=user, port=8080)
        ClientNetwork.objects.create(server=server, user=user, network="192.168.7.0/24")
        for host_part, state in ((2, State.OPEN), (3, State.ENDED)):
            Connection.objects.create(
                user=user, user_name="alice", server=server, host=host, state=state, host_part=host_part, device_id="d",
                address=f"10.9.{number}.{host_part}", wg_public_key="k" * 44, created=now, ended=now, opened=now,
            )  # fmt: skip
        Decision.objects.create(time=now, user=user, user_name="alice", server=server, layer="connect", code="allowed")


def cost(client: Client, page: str) -> int:
    with CaptureQueriesContext(database) as queries:
        assert client.get(page).status_code == 200
    return len(queries)


def test_the_number_of_rows_does_not_change_the_number_of_queries(client: Client) -> None:
    staff(client, superuser=True)
    grow(0, 3)
    few = {page: cost(client, page) for page in LISTS}
    grow(3, 30)
    assert {page: cost(client, page) for page in LISTS} == few
    assert max(few.values()) <= MOST, few
