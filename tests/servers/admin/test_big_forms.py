from __future__ import annotations

import pytest
from django.test import Client
from django.urls import reverse

from servers.models import Route
from tests.admin_site import errors, send, staff
from tests.factories import Company

pytestmark = pytest.mark.django_db


def test_a_server_with_hundreds_of_routes_can_be_saved(client: Client, company: Company) -> None:
    staff(client, superuser=True)
    page = reverse("admin:servers_server_change", args=[company.server.pk])
    networks = [f"172.{16 + number // 256}.{number % 256}.0/24" for number in range(300)]
    assert errors(send(client, page, _inline={"routes": [{"network": network} for network in networks]})) == {}
    before = Route.objects.filter(server=company.server).count()
    assert before >= 300
    # All of them are in the form now, each with all its fields.
    assert errors(send(client, page, _inline={"routes": [{"network": "172.30.0.0/24"}]})) == {}
    assert Route.objects.filter(server=company.server).count() == before + 1
