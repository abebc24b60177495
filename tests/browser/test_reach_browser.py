"""Who reaches whom in the mesh, with 1, 3 and 20 machines, on a wide screen and on a narrow one."""

from __future__ import annotations

from typing import Any

import pytest
from django.urls import reverse
from playwright.sync_api import Page, expect

from core.redis_store import redis_client
from servers import heartbeats, mesh
from servers.hostnet.state.reach import Reach, reach_to_json
from servers.models import Host, MeshNode
from tests.servers.test_joining import new_key
from tests.servers.test_vitals import beat

from .test_admin_browser import complaints, page

__all__ = ["complaints", "page"]
pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]

NAMES = ["berlin", "paris", "a-host-with-quite-a-long-name.example.com", *(f"gate-{number}" for number in range(4, 21))]


def machines(count: int) -> list[Host]:
    """As many hosts in the mesh; the first two do not reach each other, and the last one is silent."""
    mesh.the_mesh()
    hosts = [
        Host.objects.create(name=name, public_address=f"198.51.100.{number}", boot="b")
        for number, name in enumerate(NAMES[:count], 1)
    ]
    for part, host in enumerate(hosts, 1):
        MeshNode.objects.create(host=host, host_part=part, public_key=new_key(), control=part == 1)
    for one in hosts if count < 3 else hosts[:-1]:
        beat(one, load=0.2, peers=3, worker="0.1.0")
        ways = {other.public_id: way(one, other, hosts) for other in hosts if other != one}
        redis_client().set(heartbeats.reach_key(one), reach_to_json(ways))
    return hosts


def way(one: Host, other: Host, hosts: list[Host]) -> Reach:
    if {one, other} == {*hosts[:2]}:
        return Reach(answers=False, since=75, handshake=190.0)
    far = hosts.index(one) + hosts.index(other)
    return Reach(True, 600.0, 0.0003 * far**2, float(7 * far), 10**6 * far, 3 * 10**7)


@pytest.mark.parametrize("count", [1, 3, 20])
@pytest.mark.parametrize("width", [1440, 390])
def test_a_cut_link_is_seen_in_words_and_in_both_cells(page: Page, live_server: Any, width: int, count: int) -> None:
    hosts = machines(count)
    admin = page.url.rstrip("/")
    page.set_viewport_size({"width": width, "height": 900})
    if width > 1000:  # on a narrow screen it is in a menu
        page.goto(f"{admin}/servers/host/")
        page.get_by_role("link", name="Who reaches whom").first.click()
    else:
        page.goto(f"{live_server.url}{reverse('admin:servers_host_who_reaches_whom')}")
    if count == 1:
        expect(page.get_by_text("No two machines are in the mesh yet")).to_be_visible()
        return
    expect(page.locator("#troubles")).to_contain_text("berlin and paris do not reach each other")
    cells = page.locator("#reach td", has_text="cut")
    expect(cells).to_have_count(2)
    expect(cells.first).to_contain_text("75 s")
    # The page itself is never wider than the screen: only the table scrolls, and keeps its names.
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.locator("#reach tbody tr").last.locator("td").last.scroll_into_view_if_needed()
    names = page.locator("#reach tbody th").first.bounding_box()
    assert names is not None
    assert 0 <= names["x"] < width / 2
    page.goto(f"{admin}/servers/host/{hosts[0].pk}/change/")
    expect(page.get_by_text("no answer for 75 s").first).to_be_visible()
    page.goto(f"{admin}/")
    expect(page.get_by_text("2 ways between machines are cut")).to_be_visible()
