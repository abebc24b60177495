"""The host side's edges one by one, on the real thing: connection tracking, links, firewall, Redis."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest

from servers.hostnet.agent.channel import REPORTS_KEPT, Beat, Channel
from servers.hostnet.firewall.table import Firewall, FirewallError
from servers.hostnet.netlink import conntrack
from servers.hostnet.netlink.links import LinkError, Links
from servers.hostnet.observed import ObservedLink
from servers.hostnet.state import Interface, Route
from tests.lab import Lab, Machine, RedisServer
from tests.servers.hostnet.fakes import state_of

pytestmark = pytest.mark.host

TRACK = "table inet track { chain out { type filter hook output priority 0; ct state established accept; }; }"


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab() as lab:
        yield lab


@pytest.fixture(scope="module")
def host(lab: Lab) -> Machine:
    host = lab.add_host()
    lab.add_lan(host)
    return host


def tracked(host: Machine, family: str) -> str:
    return host.run("conntrack", "-L", "-f", family).stdout


def send_from(host: Machine, source: str, to: str, count: int) -> None:
    """One tracked connection for each of ``count`` ports."""
    with host.socket(source, socket.SOCK_DGRAM) as sender:
        sender.bind((source, 0))
        for port in range(count):
            sender.sendto(b"x", (to, 10_000 + port))


def test_connections_of_many_addresses_are_forgotten_in_one_pass(host: Machine) -> None:
    host.run("nft", "-f", "-", text=TRACK)
    released = [f"10.50.0.{number}" for number in range(100, 200)]
    for address in [*released, "10.50.0.99"]:
        host.ip("addr", "add", f"{address}/32", "dev", "lan50")
        send_from(host, address, "10.50.0.2", 20)
    host.ip("addr", "add", "2001:db8:50::7/128", "dev", "lan50", "nodad")
    for address in ("2001:db8:50::1", "2001:db8:50::7"):
        send_from(host, address, "2001:db8:50::2", 5)
    began = time.monotonic()
    assert host.call(lambda: conntrack.flush([*released, "2001:db8:50::7"])) == 2005
    print(f"2,005 of 2,030 entries forgotten in {time.monotonic() - began:.3f} s")
    assert tracked(host, "ipv4").count("src=10.50.0.99 ") == 20
    left = tracked(host, "ipv4")
    assert not any(f"src={address} " in left for address in released)
    assert "src=2001:db8:50::7 " not in tracked(host, "ipv6")
    assert tracked(host, "ipv6").count("src=2001:db8:50::1 ") == 5
    # An address that is only the destination counts as well: 10.50.0.2 is in every entry that is left.
    assert host.call(lambda: conntrack.flush(["10.50.0.2"])) == 20
    assert host.call(lambda: conntrack.flush(["10.50.0.2"])) == 0
    host.run("nft", "delete", "table", "inet", "track")


def test_links_are_read_as_they_were_set(host: Machine) -> None:
    host.ip("link", "add", "wgs3", "type", "bridge")  # any kind of link will do
    host.ip("link", "add", "wgx3", "type", "bridge")  # not ours

    def change() -> dict[str, ObservedLink]:
        links = Links()
        assert links.read() == {"wgs3": ObservedLink(False, 1500, frozenset(), group=0)}
        for address in ("10.9.0.9/24", "10.9.0.1/24", "fd01::1/64"):
            links.add_address("wgs3", address)
            links.add_address("wgs3", address)  # may be repeated
        links.bring_up("wgs3", 1420)
        links.remove_address("wgs3", "10.9.0.9/24")  # and not with it what was added after it
        return links.read()

    assert host.call(change) == {"wgs3": ObservedLink(True, 1420, frozenset({"10.9.0.1/24", "fd01::1/64"}))}
    host.call(lambda: Links().delete("wgs3"))
    host.call(lambda: Links().delete("wgs3"))
    assert host.call(lambda: Links().read()) == {}
    assert "wgx3" in host.ip("link")
    with pytest.raises(LinkError, match="wgs3: no such link"):
        host.call(lambda: Links().bring_up("wgs3", 1420))
    with pytest.raises(LinkError):
        host.call(lambda: Links().remove_address("wgx3", "10.9.0.1/24"))


def test_routing_ipv6_keeps_listening_for_the_hosts_own_router(host: Machine) -> None:
    def sysctl(name: str) -> str:
        return host.run("cat", f"/proc/sys/net/{name}").stdout.strip()

    assert sysctl("ipv6/conf/all/forwarding") == "0"
    assert sysctl("ipv6/conf/wan/accept_ra") == "1"
    host.call(lambda: Links().forward(ipv6=False))
    assert (sysctl("ipv4/ip_forward"), sysctl("ipv6/conf/all/forwarding")) == ("1", "0")
    host.call(lambda: Links().forward(ipv6=True))
    assert sysctl("ipv6/conf/all/forwarding") == "1"
    assert sysctl("ipv6/conf/wan/accept_ra") == "2"


def test_firewall_knows_when_somebody_changed_its_table(host: Machine) -> None:
    routes = (Route("0.0.0.0/0", True), Route("10.0.0.0/8", False), Route("::/0", True))
    red = Interface("wgs1", "red", 51820, ("10.9.0.1/24", "fd01::1/64"), 0, True, 360, routes, ())
    firewall = Firewall()

    def drifted() -> bool:
        return host.call(firewall.drift) == ["the nftables table was changed or removed"]

    host.call(lambda: firewall.guard(9790))
    guarded = host.run("nft", "list", "table", "inet", "wgvpn").stdout
    assert "dport 9790 drop" in guarded
    host.call(lambda: firewall.apply(state_of(red)))
    assert not drifted()
    # The next run leaves a table that is there as it is.
    applied = host.run("nft", "list", "table", "inet", "wgvpn").stdout
    host.call(lambda: Firewall().guard(9790))
    assert host.run("nft", "list", "table", "inet", "wgvpn").stdout == applied != guarded
    for change in ("add rule inet wgvpn forward accept", "flush set inet wgvpn wgs1_nat4", "delete table inet wgvpn"):
        host.run("nft", *change.split())
        assert drifted()
        host.call(lambda: firewall.apply(state_of(red)))
        assert not drifted()
        assert host.run("nft", "list", "table", "inet", "wgvpn").stdout == applied
    host.run("nft", "-f", "-", text="table inet other { chain c { accept; }; }")
    assert not drifted()
    host.call(firewall.remove)
    host.call(firewall.remove)
    assert "wgvpn" not in host.run("nft", "list", "tables").stdout
    assert "table inet other" in host.run("nft", "list", "tables").stdout


def test_table_that_nftables_refuses_leaves_the_old_one(host: Machine) -> None:
    firewall = Firewall()
    host.call(lambda: firewall.guard(9790))
    before = host.run("nft", "list", "table", "inet", "wgvpn").stdout
    with pytest.raises(FirewallError):
        host.call(lambda: firewall.apply(state_of(web_port=99_999)))
    assert host.run("nft", "list", "table", "inet", "wgvpn").stdout == before


def test_reports_wait_in_order_while_redis_is_away() -> None:
    with RedisServer() as redis:
        channel = Channel("h1", redis.url, "boot", clock=lambda: 5.0)
        channel.report("one", value=1)
        redis.kill()
        for number in range(250):
            channel.report("more", number=number)
        assert channel.beat() is Beat.UNREACHABLE
        channel.confirm([("host.h1:confirm:c1", "ok")])  # lost, and no error
        redis.start()
        channel.flush()
        texts: Any = redis.client().lrange("host.h1:reports", 0, -1)
        reports = [json.loads(text) for text in texts]
        assert reports == [{"kind": "more", "boot": "boot", "time": 5.0, "number": number} for number in range(250)]
        redis.client().rpush("host.h1:reports", *(["x"] * REPORTS_KEPT))
        channel.report("last")
        assert redis.client().llen("host.h1:reports") == REPORTS_KEPT


def test_heartbeat_notices_that_redis_forgot_or_another_run_beats() -> None:
    with RedisServer() as redis:
        first, second = (Channel("h1", redis.url, boot) for boot in ("one", "two"))
        assert [first.beat(peers=1), first.beat(peers=2)] == [Beat.FINE, Beat.FINE]
        ttl: Any = redis.client().ttl("host.h1:alive")
        assert 0 < ttl <= 10
        redis.client().flushall()
        assert [first.beat(), first.beat()] == [Beat.FORGOTTEN, Beat.FINE]
        assert second.beat() is Beat.FINE
        assert first.beat() is Beat.FORGOTTEN


def test_confirmation_does_not_stay_for_ever() -> None:
    with RedisServer() as redis:
        Channel("h1", redis.url, "boot").confirm([("host.h1:confirm:c1", "ok"), ("host.h1:confirm:c2", "error: x")])
        client = redis.client()
        assert client.lrange("host.h1:confirm:c1", 0, -1) == [b"ok"]
        ttl: Any = client.ttl("host.h1:confirm:c2")
        assert 0 < ttl <= 30
