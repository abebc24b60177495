"""A session that ends is continued by a new key before it does: real clients, a real host, and no gap between them."""

from __future__ import annotations

import json
import time

import pytest

from servers.models import Server
from tests.host.test_end_to_end import World, running, world
from tests.host.test_net_client import FAR, send_everything
from tests.lab import ONE_TRY, Echo, Pinger
from tests.stack import WgPeer
from users.models import VpnUser
from wgpeers.models import Connection, EndReason, State

__all__ = ["running", "world"]
pytestmark = [pytest.mark.host, pytest.mark.django_db(transaction=True)]

SESSION = 40  # seconds: renewed 10 to 5 before it ends
# None, as long as both ends' WireGuard processes run in turn. A busy machine may run that of the old key a moment later
# than that of the new one, and what is within it then comes too late by the one and too early by the other. Of a gap,
# as there is without copies, each renewal has tens.
MOST_LOST = 6


def sessions_last(world: World, seconds: int) -> None:
    Server.objects.filter(pk=world.server.pk).update(session_timeout=seconds)


def renewals(peer: WgPeer) -> int:
    return int(peer.status().get("renewals", 0))


def ended(user: VpnUser) -> list[str]:
    rows = Connection.objects.filter(user=user, state=State.ENDED).order_by("pk")
    return list(rows.values_list("end_reason", flat=True))


@pytest.mark.long
@pytest.mark.parametrize("everything", [False, True], ids=["networks", "everything"])
def test_three_renewals_leave_no_gap_and_keep_the_address(world: World, everything: bool) -> None:
    if everything:
        send_everything(world)
    sessions_last(world, SESSION)
    user, peer = world.hire("alice")
    peer.up()
    status = world.wait(peer.connected)
    assert isinstance(status, dict)
    far = FAR if everything else world.lan.address
    first = world.live(user)
    assert first is not None
    host = world.stack.machine
    # What goes out, and what comes in by itself: another machine may open connections to clients.
    with Pinger(peer.machine, far, every=0.01) as out, Pinger(host, first.address, every=0.01) as back:
        world.wait(lambda: renewals(peer) >= 3)
    print(f"sent {out.sent} and {back.sent}, lost {out.lost} and {back.lost}")
    assert max(out.lost, back.lost) <= MOST_LOST, (out.lost_at, back.lost_at, peer.log.read_text())
    last = world.live(user)
    assert last is not None
    assert (last.address, last.host) == (first.address, first.host)
    keys = Connection.objects.filter(user=user).values_list("wg_public_key", flat=True)
    assert len(set(keys)) == len(keys) >= 4
    assert set(ended(user)) == {EndReason.REPLACED}
    shown = peer.status()
    assert shown["reconnects"] == 0
    assert shown["state"] == "connected"
    assert shown["public_key"] == last.wg_public_key
    # One key has one interface, one peer on the host, and one recovery file; nothing of the old ones is left.
    links = [each["ifname"] for each in json.loads(peer.machine.run("ip", "-j", "link").stdout)]
    assert [name for name in links if name.startswith("wgp")] == [shown["interface"]]
    assert len(list((peer.directory / "run").glob("*.recovery.json"))) == 1
    assert "netdev" not in peer.machine.run("nft", "list", "tables").stdout
    on_host = host.run("wg", "show", "all", "peers").stdout
    assert last.wg_public_key in on_host
    world.wait(lambda: sum(key in host.run("wg", "show", "all", "peers").stdout for key in keys) == 1)
    peer.end()
    left = peer.machine.run("sh", "-c", "ip -j link; ip rule; nft list tables").stdout
    assert "wgp" not in left
    assert "776" not in left


def test_a_renewal_that_is_refused_ends_nothing_before_the_session_does(world: World) -> None:
    sessions_last(world, SESSION)
    user, peer = world.hire("alice")
    peer.up()
    world.wait(peer.connected)
    world.server.factors.filter(kind="pin").delete()
    world.server.factors.create(kind="pin", mode="required")
    first = world.live(user)
    assert first is not None
    assert first.session_ends is not None
    with Echo(world.lan, world.lan.address, 7000):
        world.wait(lambda: "no new key" in peer.log.read_text())
        assert time.time() < first.session_ends.timestamp()
        world.reaches_lan(peer)
        said = peer.status()
        assert said["state"] == "connected"
        assert "wgpeer up" in said["message"]
    assert world.live(user) == first
    world.wait(lambda: world.live(user) is None)
    assert ended(user) == [EndReason.SESSION]
    peer.end()


def test_a_host_that_dies_during_a_renewal_is_connected_to_anew_when_it_is_back(world: World) -> None:
    """Its WireGuard is gone from one moment to the next, after it was asked for the new key and before that works."""
    sessions_last(world, SESSION)
    user, peer = world.hire("alice")
    peer.up()
    world.wait(peer.connected)
    worker = world.stack.worker
    assert worker is not None
    asked = peer.log.read_text().count("asking for a new key")
    world.wait(lambda: peer.log.read_text().count("asking for a new key") > asked)
    host = world.stack.machine
    name = host.run("wg", "show", "interfaces").stdout.split()[0]
    worker.kill()
    host.run("ip", "link", "del", name)
    world.stack.start_host(world.host.public_id)
    with Echo(world.lan, world.lan.address, 7000):
        world.wait(lambda: peer.machine.ask_tcp(world.lan.address, 7000, timeout=ONE_TRY) == b"10.50.0.1 hello")
    assert world.live(user) is not None
    peer.end()
