"""A link to another installation, made and imported by a person, on a wide screen and on a narrow one."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from core.clock import moment, now
from servers import link_keys
from servers.link_files import LinkFile, read
from servers.models import Host, MeshNode, OutsideLink, Route, Server, ServerHost, ServerLink
from tests.protocol_client import new_wg_key

from .test_admin_browser import complaints, page

__all__ = ["complaints", "page"]
pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]


def servers() -> list[Server]:
    found = []
    for number, name in enumerate(("Office", "Laboratory"), start=1):
        networks = {"network": f"10.{number}.0.0/24", "wg_network": f"10.10{number}.0.0/24"}
        row = Server.objects.create(name=name, port=52000 + number, ipv6=True, started=True, **networks)
        host = Host.objects.create(name=f"gate-{number}", public_address=f"198.51.100.{number}")
        ServerHost.objects.create(server=row, host=host)
        Route.objects.create(server=row, network=f"10.5{number}.0.0/24")
        found.append(row)
    second = Host.objects.create(name="gate-3", public_address="198.51.100.3")
    ServerHost.objects.create(server=found[0], host=second, priority=2)
    for part, host in enumerate(Host.objects.all(), 1):
        MeshNode.objects.create(host=host, host_part=part, public_key=new_wg_key())
    ServerLink.objects.create(first=found[0], second=found[1])
    return found


def fits(page: Page, width: int, name: str) -> None:
    """The page is never wider than the screen. With SCREENSHOTS in the environment it is kept there."""
    assert page.evaluate("document.documentElement.scrollWidth") <= width, name
    if where := os.environ.get("SCREENSHOTS"):
        page.screenshot(path=Path(where) / f"{name}-{width}.png", full_page=True)


@pytest.mark.parametrize("width", [1440, 390])
def test_a_link_is_made_its_file_is_downloaded_and_another_ones_is_imported(
    page: Page, live_server: Any, width: int, tmp_path: Path
) -> None:
    office, lab = servers()
    admin = page.url.rstrip("/")
    page.set_viewport_size({"width": width, "height": 900})
    page.goto(f"{admin}/servers/outsidelink/add/")
    page.fill("#id_name", "Acme")
    page.select_option("#id_server", label="Office")
    page.get_by_label("10.101.0.0/24 (clients)").check()
    page.get_by_label("10.51.0.0/24 (route)").check()
    page.fill("#id_theirs", "10.60.0.0/16, 10.70.0.0/24")
    fits(page, width, "add")
    page.get_by_role("button", name="Save", exact=True).click()
    expect(page.get_by_text("no link file made yet")).to_be_visible()
    link = OutsideLink.objects.get()
    page.goto(f"{admin}/servers/outsidelink/{link.pk}/change/")
    expect(page.get_by_text("gate-1 or gate-3 listens")).to_be_visible()
    fits(page, width, "made")
    with page.expect_download() as download:
        page.get_by_role("button", name="Make a link file").click()
    raw = Path(download.value.path()).read_bytes()
    assert download.value.suggested_filename == "link-Acme.txt"
    assert read(raw, moment(now())).theirs == ("10.101.0.0/24", "10.51.0.0/24")
    page.goto(f"{admin}/servers/outsidelink/import/")
    fits(page, width, "import")
    path = tmp_path / "theirs.txt"
    path.write_bytes(raw)
    page.set_input_files("input[type=file]", path)
    page.get_by_role("button", name="Look at it").click()
    expect(page.locator("#problem")).to_contain_text("was made here, for the link to Acme")
    fits(page, width, "refused")
    keys = link_keys.make(moment(now())).client
    theirs, ours = ("10.80.0.0/16", "fd80::/64"), (lab.wg_network,)
    path.write_text(LinkFile("ab12", False, ("vpn.example.com", "192.0.2.77"), 1200, 0, theirs, ours, keys).to_text())
    page.set_input_files("input[type=file]", path)
    page.get_by_role("button", name="Look at it").click()
    expect(page.locator("#reached")).to_contain_text("10.80.0.0/16")
    expect(page.get_by_label("10.102.0.0/24 (clients)")).to_be_checked()
    fits(page, width, "shown")
    page.fill("[name=name]", "Partner")
    page.get_by_role("button", name="Link", exact=True).click()
    expect(page.get_by_text("Partner is linked")).to_be_visible()
    fits(page, width, "imported")
    page.goto(f"{admin}/servers/outsidelink/")
    expect(page.get_by_text("Partner").first).to_be_visible()
    fits(page, width, "list")
    between = ServerLink.objects.get()
    page.goto(f"{admin}/servers/serverlink/{between.pk}/change/")
    fits(page, width, "server-link")
    page.select_option("#id_carrier", label="OpenVPN")
    page.fill("#id_port", "1300")
    page.get_by_role("button", name="Save", exact=True).click()
    expect(page.get_by_text("OpenVPN, UDP port 1300")).to_be_visible()
    page.goto(f"{admin}/servers/serverlink/{between.pk}/change/")
    expect(page.get_by_text("gate-1 listens; should it die: gate-3")).to_be_visible()
    fits(page, width, "server-link-openvpn")
    page.goto(f"{admin}/servers/server/{office.pk}/change/")
    expect(page.get_by_text("another installation").first).to_be_visible()
