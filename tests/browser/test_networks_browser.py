"""An administrator types networks that are odd, and says of one that it is meant, in a browser."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page, expect

from servers.models import Host, Route, Server, ServerHost

from .test_admin_browser import complaints, page

__all__ = ["complaints", "page"]
pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]

LAN = [
    ["address", "192.168.50.10/32", "eth0"],
    ["attached", "192.168.50.0/24", "eth0"],
    ["router", "192.168.50.1/32", "eth0"],
]


def test_an_odd_network_is_asked_back_beside_its_field_and_not_again(page: Page) -> None:
    Server.objects.create(name="office", network="10.8.0.0/24", wg_network="10.9.0.0/24", port=51821)
    page.goto(page.url.rstrip("/") + "/servers/server/add/")
    page.fill("[name=name]", "lab")
    page.fill("[name=network]", "10.30.0.0 255.255.255.0")
    page.fill("[name=wg_network]", "192.168.1.0/24")
    page.locator("[name=ipv6]").check(force=True)
    page.fill("[name=network6]", "2a00:1:2:3::/64")
    page.get_by_role("button", name="Save", exact=True).click()
    box = page.locator("[name=meant][value='usual_home_network 192.168.1.0/24']")
    expect(box).to_be_visible()
    expect(page.locator("[name=meant][value='public_network 2a00:1:2:3::/64']")).to_be_visible()
    box.check()
    page.get_by_role("button", name="Save", exact=True).click()
    # The other one is still asked, and what was ticked is as it was.
    expect(box).to_be_checked()
    page.fill("[name=network6]", "")
    page.get_by_role("button", name="Save", exact=True).click()
    expect(page.get_by_text("was added successfully")).to_be_visible()
    server = Server.objects.get(name="lab")
    assert (server.network, server.confirmed) == ("10.30.0.0/24", ["usual_home_network 192.168.1.0/24"])


def test_a_row_asks_beside_its_field_and_a_hosts_networks_are_shown(page: Page) -> None:
    office = Server.objects.create(name="office", network="10.8.0.0/24", wg_network="10.9.0.0/24", port=51821)
    lab = Server.objects.create(name="lab", network="10.18.0.0/24", wg_network="10.19.0.0/24")
    host = Host.objects.create(name="gate-1", public_address="203.0.113.5", networks=LAN)
    ServerHost.objects.create(server=office, host=host)
    Route.objects.create(server=lab, network="10.9.0.0/24")
    admin = page.url.rstrip("/")
    page.goto(f"{admin}/servers/server/{lab.pk}/change/")
    page.get_by_role("button", name="Save", exact=True).click()
    box = page.locator("[name=routes-0-meant]")
    expect(box).to_be_visible()
    box.check()
    page.get_by_role("button", name="Save", exact=True).click()
    expect(page.get_by_text("was changed successfully")).to_be_visible()
    assert Route.objects.get().confirmed == ["tunnel_of_another_server 10.9.0.0/24"]
    page.goto(f"{admin}/servers/host/{host.pk}/change/")
    expect(page.get_by_text("192.168.50.0/24 on eth0")).to_be_visible()
    page.goto(f"{admin}/servers/server/{office.pk}/change/")
    page.fill("[name=wg_network]", "192.168.50.0/24")
    page.get_by_role("button", name="Save", exact=True).click()
    expect(page.get_by_text("192.168.50.0/24 overlaps 192.168.50.0/24 on eth0 of host gate-1")).to_be_visible()
