"""Which machines of the mesh reach each other: said by each with its heartbeats, shown to administrators, and by the
command on the machine itself. With the real command, WireGuard and Redis."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from django.conf import LazySettings
from django.db import connection
from django.test.utils import CaptureQueriesContext

from servers import heartbeats
from servers.hostnet.mesh.reach import LIMIT
from servers.models import Host
from tests.host.joined import Installation, Joined, installation

pytestmark = [pytest.mark.host, pytest.mark.long, pytest.mark.django_db(transaction=True)]


@pytest.fixture
def world(transactional_db: None, settings: LazySettings) -> Iterator[Installation]:
    with installation(settings) as world:
        yield world


def answers(one: Host, other: Host) -> bool | None:
    """What ``one`` says of its way to ``other``."""
    way = heartbeats.ways([one]).get(one.pk, {}).get(other.public_id)
    return way.answers if way is not None else None


def test_a_cut_link_is_seen_from_both_ends_and_nowhere_else_until_it_is_back(world: Installation) -> None:
    berlin, paris = world.add("Berlin"), world.add("Paris")
    world.join(berlin)
    world.join(paris)
    hosts = [world.control, berlin.host, paris.host]
    pairs = [(one, other) for one in hosts for other in hosts if one != other]
    world.wait(lambda: all(answers(*pair) for pair in pairs))
    with CaptureQueriesContext(connection) as queries:
        heartbeats.ways(hosts)
    assert len(queries) == 0
    for one, other in pairs:
        world.wait(lambda one=one, other=other: heartbeats.ways([one])[one.pk][other.public_id].received)
        way = heartbeats.ways([one])[one.pk][other.public_id]
        assert way.round_trip is not None
        assert 0 < way.round_trip < LIMIT
        assert way.handshake is not None
        assert way.sent > 0
    said = berlin.tell("status").stdout
    assert f"host {paris.host.public_id} answers in" in said

    cut = [(berlin.host, paris.host), (paris.host, berlin.host)]
    berlin.machine.run("nft", "add table ip cut; add chain ip cut in { type filter hook prerouting priority -400; }")
    berlin.machine.run("nft", f"add rule ip cut in ip saddr {paris.machine.address} drop")
    world.wait(lambda: all(answers(*pair) is False for pair in cut))
    assert all(answers(*pair) for pair in pairs if pair not in cut)
    command_says(berlin, f"host {paris.host.public_id} does not answer")
    command_says(berlin, f"host {world.control.public_id} answers in")

    berlin.machine.run("nft", "delete table ip cut")
    world.wait(lambda: all(answers(*pair) for pair in pairs))
    command_says(berlin, f"host {paris.host.public_id} answers in")


def command_says(added: Joined, words: str) -> None:
    assert words in added.tell("status").stdout
    assert added.status()["round_trips"].keys() == added.status()["machines"].keys()
