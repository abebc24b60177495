from __future__ import annotations

import pytest

from tests.lab import Lab

pytestmark = pytest.mark.host


def test_the_way_to_the_internet_stays_whoever_comes_to_it() -> None:
    with Lab() as lab:
        before = lab.internet.ip("-br", "link", "show", "br0").split()[2]
        for _ in range(10):
            lab.add_client()
        assert lab.internet.ip("-br", "link", "show", "br0").split()[2] == before
