"""What the front is told of the mesh's networks: read with care, since it becomes a part of its configuration."""

from __future__ import annotations

import pytest

from core import front_networks
from core.redis_store import redis_client


def test_what_was_said_is_read() -> None:
    assert front_networks.said(redis_client()) is None
    for networks in (("fd00::/64",), ("10.77.0.0/24", "fd00::/64"), ()):
        front_networks.say(redis_client(), networks)
        assert front_networks.said(redis_client()) == networks


@pytest.mark.parametrize(
    "text", ["nonsense", "null", "7", '["10.77.0.0/24; include /etc/passwd"]', '["10.77.0.1/24"]', "[[]]", "[" * 9999]
)
def test_what_is_no_network_never_becomes_configuration(text: str) -> None:
    redis_client().set("front:networks", text)
    assert front_networks.said(redis_client()) is None
