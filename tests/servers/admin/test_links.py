"""Links between servers in the admin."""

from __future__ import annotations

import pytest
from django.contrib.admin.models import LogEntry
from django.test import Client

from core.task_names import CONVERGE
from servers.models import Host, Route, Server, ServerHost, ServerLink
from tests.admin_site import errors, send, staff
from tests.connection_rows import queued

pytestmark = pytest.mark.django_db(transaction=True)
LINKS = "/admin/servers/serverlink/"


@pytest.fixture
def admin(client: Client) -> Client:
    staff(client, superuser=True)
    return client


@pytest.fixture
def servers(admin: Client) -> list[Server]:
    """Each on a host of its own."""
    found = []
    for number, name in enumerate(("office", "lab"), start=1):
        networks = {"network": f"10.{number}.0.0/24", "wg_network": f"10.10{number}.0.0/24"}
        server = Server.objects.create(name=name, port=52000 + number, started=True, **networks)
        ServerHost.objects.create(
            server=server, host=Host.objects.create(name=f"h{number}", public_address="192.0.2.1")
        )
        found.append(server)
    queued()
    return found


def told() -> set[int]:
    return {arguments[0] for task, arguments in queued() if task == CONVERGE}


def test_a_link_is_made_changed_and_deleted_and_all_hosts_are_told(admin: Client, servers: list[Server]) -> None:
    office, lab = servers
    hosts = set(Host.objects.values_list("pk", flat=True))
    assert errors(send(admin, f"{LINKS}add/", first=lab.pk, second=office.pk)) == {}
    link = ServerLink.objects.get()
    assert (link.first, link.second) == (office, lab)
    assert told() == hosts
    page = f"{LINKS}{link.pk}/change/"
    assert errors(send(admin, page, masquerade="on")) == {}
    assert LogEntry.objects.latest("pk").get_change_message() == "Changed NAT (off → on)."
    assert told() == hosts
    for server, other in ((office, "lab"), (lab, "office")):
        shown = admin.get(f"/admin/servers/server/{server.pk}/change/").content.decode()
        assert f'href="{page}">{other}</a>' in shown
    assert admin.post(f"{LINKS}{link.pk}/delete/", {"post": "yes"}).status_code == 302
    assert not ServerLink.objects.exists()
    assert told() == hosts


def test_what_cannot_be_linked_is_refused_at_its_field(admin: Client, servers: list[Server]) -> None:
    office, lab = servers
    refused = errors(send(admin, f"{LINKS}add/", first=lab.pk, second=lab.pk))
    assert refused == {"second": ["A server cannot be linked to itself."]}
    refused = errors(send(admin, f"{LINKS}add/", first=lab.pk, second=office.pk, names="on"))
    assert set(refused) == {"names"}
    for server in servers:
        Route.objects.create(server=server, network="10.50.0.0/24")
    refused = errors(send(admin, f"{LINKS}add/", first=lab.pk, second=office.pk))
    assert "overlaps route 10.50.0.0/24 of server" in refused["second"][0]
    assert not ServerLink.objects.exists()
    Route.objects.filter(server=lab).delete()
    assert errors(send(admin, f"{LINKS}add/", first=lab.pk, second=office.pk)) == {}
    # And on the server's own page, whichever row comes later.
    rows = {"routes": [{"network": "10.50.0.0/25", "nat": "on"}]}
    answer = send(admin, f"/admin/servers/server/{lab.pk}/change/", _inline=rows)
    assert answer.status_code == 200
    assert "10.50.0.0/25 overlaps route 10.50.0.0/24 of server office" in answer.content.decode()
    assert not lab.routes.exists()


def test_a_server_that_is_deleted_takes_its_links_along_and_the_others_hosts_are_told(
    admin: Client, servers: list[Server]
) -> None:
    office, lab = servers
    ServerLink.objects.create(first=office, second=lab)
    queued()
    lab.delete()
    assert not ServerLink.objects.exists()
    assert told() == set(Host.objects.values_list("pk", flat=True))


def test_who_may_not_see_links_sees_none_on_a_servers_page(client: Client, servers: list[Server]) -> None:
    staff(client, "servers.view_server")
    assert "Linked servers" not in client.get(f"/admin/servers/server/{servers[0].pk}/change/").content.decode()
