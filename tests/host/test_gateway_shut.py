"""Somebody removes our firewall, and no worker runs that could put it back: gateway web still answers tunnels alone."""

from __future__ import annotations

import pytest

from tests.host.test_end_to_end import World, running, world
from tests.lab import Machine
from tests.stack import GATEWAY_PORT
from wgpeers.lifecycle import liveness

pytestmark = [pytest.mark.host, pytest.mark.django_db(transaction=True)]

__all__ = ["running", "world"]

GATEWAY = "10.9.0.1"


def answer(machine: Machine, address: str) -> bytes | None:
    """What gateway web says to ``machine``, at once: empty where it hangs up, None where it cannot be reached."""
    return machine.ask_tcp(address, GATEWAY_PORT, b"GET / HTTP/1.0\r\n\r\n")


def test_pings_go_on_and_nobody_outside_is_answered_while_the_table_is_gone(world: World) -> None:
    user, peer = world.hire("alice")
    peer.up()
    world.wait(peer.connected)
    connection = world.live(user)
    assert connection is not None
    host = world.stack.machine
    neighbour = world.lab.add_client()
    neighbour.ip("route", "add", GATEWAY, "via", host.address)
    assert world.stack.worker is not None
    world.stack.worker.kill()
    host.run("nft", "flush", "ruleset")
    # Without the firewall he reaches the port by either address, which is why the next lines say something.
    assert [answer(neighbour, address) for address in (host.address, GATEWAY)] == [b"", b""]
    said = answer(peer.machine, GATEWAY)
    assert said is not None
    assert b" 404 " in said.split(b"\r\n")[0]
    before = liveness.deadlines([connection.public_id])
    world.wait(lambda: liveness.deadlines([connection.public_id]) != before)
    assert world.live(user) is not None
