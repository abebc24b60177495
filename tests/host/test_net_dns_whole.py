"""Names from the admin's switch to an answer in the tunnel: the real client, the API, the host worker and unbound."""

from __future__ import annotations

import pytest

from tests.dnsclient import NOERROR, NXDOMAIN, Answer, lookup
from tests.host.test_end_to_end import World, running, world  # noqa: F401
from tests.lab import NEVER, ONE_TRY
from wgpeers.lifecycle import ending
from wgpeers.models import Connection, EndReason, State

pytestmark = [pytest.mark.host, pytest.mark.django_db(transaction=True)]


def test_a_users_name_follows_them_from_connect_to_end(world: World) -> None:  # noqa: F811
    user, peer = world.hire("José.García")
    _, other = world.hire("bob")
    peer.up()
    other.up()
    world.wait(other.connected)
    world.wait(peer.connected)
    connection = world.live(user)
    assert connection is not None
    name = f"jose-garcia.{world.organization.name.lower().replace(' ', '-')}.vpn"
    machine = other.machine
    here = Answer(NOERROR, frozenset({connection.address}))
    # Off, nobody answers. Switched on, the names of those who are connected are there without a new connect.
    assert lookup(machine, "10.9.0.1", name, timeout=NEVER) is None
    world.server.dns_mapping = True
    world.server.save()
    world.wait(lambda: lookup(machine, "10.9.0.1", name, timeout=ONE_TRY) == here)
    # Ended by an admin: gone.
    ended = Connection.objects.filter(pk=connection.pk)
    assert ending.end(ended, EndReason.ADMIN, connection.created.timestamp())
    world.wait(lambda: lookup(machine, "10.9.0.1", name, timeout=ONE_TRY) == Answer(NXDOMAIN))
    # Connected anew: there again.
    peer.end()
    peer.up()
    world.wait(lambda: Connection.objects.filter(user=user, state=State.OPEN).exists())
    anew = world.live(user)
    assert anew is not None
    there = Answer(NOERROR, frozenset({anew.address}))
    world.wait(lambda: lookup(machine, "10.9.0.1", name, timeout=ONE_TRY) == there)
    peer.end()
    other.end()
