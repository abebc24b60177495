"""The page that shows who reaches whom: who may see it, and what it says where little is known."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from core.redis_store import redis_client
from servers import heartbeats
from servers.hostnet.state.reach import Reach, reach_to_json
from servers.models import Host, MeshNode
from tests.admin_site import staff
from tests.conftest import Clock
from tests.servers.test_joining import new_key

pytestmark = pytest.mark.django_db(transaction=True)


def machine(name: str) -> Host:
    host = Host.objects.create(name=name, public_address="198.51.100.1")
    MeshNode.objects.create(host=host, host_part=MeshNode.objects.count() + 1, public_key=new_key())
    return host


def say(host: Host, **ways: Reach) -> None:
    redis_client().set(heartbeats.reach_key(host), reach_to_json(ways))


def page(client: Client) -> str:
    return client.get(reverse("admin:servers_host_who_reaches_whom")).content.decode()


def test_only_who_may_see_hosts_sees_it(client: Client, fixed_clock: Clock) -> None:
    address = reverse("admin:servers_host_who_reaches_whom")
    assert client.get(address).status_code == 302
    staff(client, "users.view_vpnuser")
    assert client.get(address).status_code == 403
    User.objects.all().delete()
    staff(client, "servers.view_host")
    assert client.get(address).status_code == 200


def test_what_is_known_is_shown_and_what_is_not_is_not_called_fine(client: Client, fixed_clock: Clock) -> None:
    staff(client, superuser=True)
    assert "No two machines are in the mesh yet" in page(client)
    berlin, paris = machine("Berlin"), machine("Paris")
    shown = page(client)
    assert "all reach all" not in shown
    assert "Berlin says nothing of its ways" in shown
    say(berlin, **{paris.public_id: Reach(answers=True, round_trip=0.0123, handshake=33.0)})
    say(paris, **{berlin.public_id: Reach(answers=True, round_trip=0.0004)})
    shown = page(client)
    assert "all reach all" in shown
    assert "Berlin to Paris: 12 ms" in shown
    assert "Paris to Berlin: 0.4 ms" in shown
    say(paris, **{berlin.public_id: Reach(answers=False, since=12)})
    shown = page(client)
    assert "Paris gets no answer from Berlin, though Berlin gets answers from Paris." in shown
    assert "1 way between machines is cut" in client.get("/admin/").content.decode()
    assert "no answer for 12 s" in client.get(f"/admin/servers/host/{paris.pk}/change/").content.decode()


def test_hosts_may_write_what_they_like(client: Client, fixed_clock: Clock) -> None:
    staff(client, superuser=True)
    berlin, paris = machine("Berlin"), machine("<b>Paris")
    redis_client().set(heartbeats.reach_key(berlin), '{"<script>": {"answers": false}, "x": [1]}')
    redis_client().set(heartbeats.reach_key(paris), "nonsense")
    shown = page(client)
    assert "<script>" not in shown.partition('id="reach"')[2].partition("</table>")[0]
    assert "<b>Paris" not in shown


def test_it_costs_as_many_queries_with_twenty_machines_as_with_three(client: Client, fixed_clock: Clock) -> None:
    staff(client, superuser=True)

    def cost() -> int:
        with CaptureQueriesContext(connection) as queries:
            page(client)
        return len(queries)

    for number in range(3):
        machine(f"host {number}")
    few = cost()
    for number in range(3, 20):
        machine(f"host {number}")
    assert cost() == few
