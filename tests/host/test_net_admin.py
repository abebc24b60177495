"""What an administrator saves in a form is so on the running host soon after, and nobody's session notices."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from django.test import Client

from tests.admin_site import errors, send, staff
from tests.host.test_end_to_end import World, running, world  # noqa: F401
from tests.lab import HANGING, NEVER, ONE_TRY, Echo, Machine
from tests.stack import WgPeer
from wgpeers.models import Connection

pytestmark = [pytest.mark.host, pytest.mark.django_db(transaction=True)]

SERVICE = 7000


@contextmanager
def stream(machine: Machine, address: str) -> Iterator[socket.socket]:
    """A TCP connection that stays open."""
    with machine.socket("0.0.0.0", socket.SOCK_STREAM) as held:
        held.settimeout(HANGING)
        held.connect((address, SERVICE))
        yield held


def goes_on(held: socket.socket) -> bool:
    held.sendall(b"still here")
    return b"still here" in held.recv(1000)


def test_forms_reach_running_hosts_and_no_session_ends(world: World, client: Client) -> None:  # noqa: F811
    staff(client, superuser=True)
    user, peer = world.hire("alice")
    _, other = world.hire("bob")
    for each in (peer, other):
        each.up()
        world.wait(each.connected)
    first = world.live(user)
    assert first is not None
    users_page = f"/admin/users/vpnuser/{user.pk}/change/"
    servers_page = f"/admin/servers/server/{world.server.pk}/change/"
    outside = world.lab.internet
    public = world.stack.machine.address

    def forwarded(port: int) -> bool:
        return outside.ask_tcp(public, port, timeout=ONE_TRY) is not None

    with (
        Echo(world.lan, world.lan.address, SERVICE),
        Echo(peer.machine, "0.0.0.0", SERVICE),
        stream(peer.machine, world.lan.address) as held,
    ):
        assert goes_on(held)
        assert outside.ask_tcp(public, 8080, timeout=NEVER) is None
        row = {"server": world.server.pk, "protocol": "both", "port": 8080, "to_port": SERVICE}
        assert errors(send(client, users_page, _inline={"forwards": [row]})) == {}
        world.wait(lambda: forwarded(8080))
        assert errors(send(client, users_page, **{"forwards-0-port": 8081})) == {}
        world.wait(lambda: forwarded(8081) and not forwarded(8080))
        # Refused, and nothing is changed.
        assert list(errors(send(client, users_page, **{"forwards-0-port": 9790}))) == ["forwards-0-port"]
        world.wait(lambda: forwarded(8081))
        assert errors(send(client, users_page, **{"forwards-0-DELETE": "on"})) == {}
        world.wait(lambda: not forwarded(8081))
        assert goes_on(held)

        mine, theirs = first.address, _address(other)
        assert peer.machine.pings(theirs)
        assert errors(send(client, servers_page, inter_client=None)) == {}
        world.wait(lambda: not peer.machine.pings(theirs, timeout=NEVER))
        assert not other.machine.pings(mine, timeout=NEVER)
        rows = [{"network": "192.168.88.0/24", "metric": 5}, {"network": "10.60.0.0/24", "netmap": "10.61.0.0/24"}]
        assert errors(send(client, servers_page, _inline={"routes": rows})) == {}
        world.wait(lambda: "10.61.0.0" in world.stack.machine.run("nft", "list", "table", "inet", "wgvpn").stdout)
        assert goes_on(held)
        # All the while it was one connection with one key.
        assert world.live(user) == first
        assert Connection.objects.filter(user=user).count() == 1
        assert peer.connected()
        gone = {f"routes-{number}-DELETE": "on" for number in range(3)}
        assert errors(send(client, servers_page, **gone)) == {}
        world.wait(lambda: peer.machine.ask_tcp(world.lan.address, SERVICE, timeout=NEVER) is None)
        assert peer.machine.pings("10.9.0.1")
        assert world.live(user) == first
    peer.end()
    other.end()


def _address(peer: WgPeer) -> str:
    status = peer.connected()
    assert isinstance(status, dict)
    return str(status["address"]).partition("/")[0]
