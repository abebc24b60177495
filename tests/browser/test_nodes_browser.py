"""The first page says which control nodes there are and which one beats, on a wide screen and on a narrow one."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page, expect

from core import leases, nodes
from core.leases import Lease
from core.redis_store import redis_client
from tests.browser.test_admin_browser import complaints, page  # noqa: F401
from tests.factories import found

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]


@pytest.mark.parametrize("width", [1440, 390])
def test_control_nodes_are_named_and_the_one_that_beats_is_first(page: Page, width: int) -> None:  # noqa: F811
    found()
    for name in ("control-one", "control-two.example.com"):
        nodes.appear(redis_client(), name, name)
    assert Lease(leases.BEAT, 8.0, "control-two.example.com").hold()
    page.set_viewport_size({"width": width, "height": 900})
    page.reload()
    words = page.get_by_text("Control nodes: control-two.example.com (beats), control-one")
    expect(words).to_be_visible()
    box = words.bounding_box()
    assert box is not None
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= width
