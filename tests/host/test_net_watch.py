"""What others take away from a host is back within moments, without any message: a real worker, real netlink events."""

from __future__ import annotations

import contextlib
import itertools
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from servers.hostnet.firewall import table as firewall_table
from servers.hostnet.firewall.table import Firewall
from servers.hostnet.netlink.events import NOTHING, Changed, Events
from tests.host.conftest import ONE, WEB_PORT, World
from tests.lab import Lab, Machine, Pinger, until
from tests.servers.hostnet.fakes import state_of

pytestmark = pytest.mark.host

TABLE = "inet wgvpn"


def table(host: Machine) -> str:
    return host.run("nft", "--stateless", "list", "table", *TABLE.split(), check=False).stdout


@pytest.fixture(scope="module")
def alice(world: World) -> Machine:
    alice = world.lab.add_client()
    world.connect(alice, "one", "alice", "10.9.0.11", "fd01::11", routes=["10.9.0.0/24", "fd01::/64"])
    return alice


@dataclass(frozen=True, slots=True)
class Damage:
    """``command`` is run on the host; ``words`` is how it is reported."""

    command: str
    words: str


DAMAGES = {
    "everything": Damage("nft flush ruleset", "nftables table"),
    "the table": Damage(f"nft delete table {TABLE}", "nftables table"),
    "a chain's rules": Damage(f"nft flush chain {TABLE} services", "nftables table"),
    "an element": Damage(f"nft delete element {TABLE} gateways4 {{ 10.9.0.1 }}", "nftables table"),
    "a rule more": Damage(f"nft insert rule {TABLE} services accept", "nftables table"),
    "an address": Damage("ip addr del 10.9.0.1/24 dev wgs1", "wgs1: address 10.9.0.1/24 was gone"),
    "an address, IPv6": Damage("ip addr del fd01::1/64 dev wgs1", "wgs1: address fd01::1/64 was gone"),
    "the link's state": Damage("ip link set wgs1 down", "wgs1: link down"),
    "the whole link": Damage("ip link del wgs1", "wgs1: the interface was gone"),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_what_somebody_takes_away_is_back_without_a_message(world: World, alice: Machine, damage: Damage) -> None:
    whole = table(world.host)
    world.host.run("sh", "-c", damage.command)
    report = world.control.report("repaired")
    assert damage.words in "\n".join(report["drift"])
    assert table(world.host) == whole
    assert alice.pings("10.9.0.1")
    assert alice.pings("fd01::1")
    assert world.send_full()["drift"] == []


def test_session_goes_on_while_the_table_is_put_back(world: World, alice: Machine) -> None:
    assert alice.pings("10.9.0.1")
    session, whole = world.session("alice"), table(world.host)
    with Pinger(alice, "10.9.0.1") as pinger:
        world.host.run("nft", "flush", "ruleset")
        world.control.report("repaired")
    assert table(world.host) == whole
    assert pinger.lost == 0
    assert world.goes_on("alice", session)


def test_it_is_put_back_also_while_redis_is_away(world: World, alice: Machine) -> None:
    whole = table(world.host)
    world.redis.kill()
    try:
        world.host.run("nft", "flush", "ruleset")
        until(lambda: table(world.host) == whole)
        assert alice.pings("10.9.0.1")
    finally:
        world.redis.start()
    assert "nftables table" in str(world.control.report("repaired")["drift"])
    world.greet()


def test_table_is_guarded_already_before_the_first_full_state(world: World) -> None:
    world.kill_worker()
    world.launch()
    world.control.report("hello")
    world.host.run("nft", "flush", "ruleset")
    shut = f"tcp dport {WEB_PORT} drop"
    until(lambda: shut in table(world.host))
    world.kill_worker()
    world.start_worker()


@contextlib.contextmanager
def somebody_deletes_it_again_and_again(host: Machine) -> Iterator[subprocess.Popen[bytes]]:
    quarrel = host.start("sh", "-c", f"while :; do nft delete table {TABLE} 2>/dev/null; sleep 0.1; done")
    try:
        yield quarrel
    finally:
        quarrel.kill()
        quarrel.wait()


def test_quarrel_is_said_and_costs_less_and_less(world: World) -> None:
    whole = table(world.host)
    with somebody_deletes_it_again_and_again(world.host):
        reports = [world.control.report("repaired")]
        while "contested" not in {each["code"] for each in reports[-1]["conditions"]}:
            reports.append(world.control.report("repaired"))
            assert len(reports) < 20
        waited = [later["time"] - earlier["time"] for earlier, later in itertools.pairwise(reports)]
        assert waited[-1] > 0.7  # it waits for 0.8 s by then, however quick it is
    until(lambda: table(world.host) == whole)


# The events alone, with the real kernel


def seen(host: Machine, events: Events) -> Changed:
    """In the host's network, since links have their names there."""
    return host.call(lambda: events.wait(0))


@pytest.fixture
def listening() -> Iterator[tuple[Machine, Firewall, Events]]:
    with Lab() as lab:
        host, firewall = lab.add_host(), Firewall()
        events = host.call(lambda: Events("wgvpn"))
        with contextlib.closing(events):
            host.call(lambda: firewall.apply(state_of(ONE, web_port=WEB_PORT)))
            assert seen(host, events) == Changed(table=True)
            yield host, firewall, events


def test_what_others_do_to_their_own_tables_and_links_wakes_nobody_but_for_addresses(
    listening: tuple[Machine, Firewall, Events],
) -> None:
    host, _, events = listening
    host.run("nft", "add", "table", "inet", "theirs")
    host.run("nft", "add", "chain", "inet", "theirs", "wgvpn")
    host.run("nft", "add", "table", "ip", "wgvpn")
    host.run("nft", "delete", "table", "inet", "theirs")
    host.ip("link", "add", "br7", "type", "bridge")
    assert seen(host, events) == NOTHING
    # But the host may have a network by it that we lead elsewhere.
    for change in ("addr add 192.0.2.1/24 dev br7", "addr del 192.0.2.1/24 dev br7", "link del br7"):
        host.ip(*change.split())
        assert seen(host, events) == Changed(host=True), change


def test_our_own_change_is_seen_once_and_looking_at_it_is_no_change(
    listening: tuple[Machine, Firewall, Events],
) -> None:
    host, firewall, events = listening
    host.call(lambda: firewall.apply(state_of(ONE, web_port=WEB_PORT + 1)))
    assert seen(host, events) == Changed(table=True)
    assert host.call(firewall.drift) == []
    assert seen(host, events) == NOTHING


def test_where_events_were_lost_everything_may_have_happened(listening: tuple[Machine, Firewall, Events]) -> None:
    host, _, events = listening
    elements = ", ".join(f"10.{number >> 8}.{number & 255}.1" for number in range(40_000))
    theirs = f"table inet theirs {{\nset many {{\ntype ipv4_addr\nelements = {{ {elements} }}\n}}\n}}\n"
    for _ in range(3):
        host.run("nft", "-f", "-", text=theirs)
        host.run("nft", "delete", "table", "inet", "theirs")
    assert seen(host, events) == Changed(table=True)
    assert seen(host, events) == NOTHING
    host.run("nft", "delete", "table", *TABLE.split())
    assert seen(host, events) == Changed(table=True)


def test_losses_of_our_links_are_seen_and_other_changes_of_them_are_not(
    listening: tuple[Machine, Firewall, Events],
) -> None:
    host, _, events = listening
    host.ip("link", "add", "wgs1", "type", "bridge")
    assert seen(host, events) == Changed(links=True)  # it is down
    host.ip("link", "set", "wgs1", "up")
    host.ip("addr", "add", "10.9.0.1/24", "dev", "wgs1")
    host.ip("addr", "add", "10.9.0.2/24", "dev", "wgs1")
    seen(host, events)
    host.ip("route", "add", "192.168.7.0/24", "dev", "wgs1", "proto", "158")
    assert seen(host, events) == NOTHING
    for loss in ("route del 192.168.7.0/24", "addr del 10.9.0.2/24 dev wgs1", "link set wgs1 down", "link del wgs1"):
        host.ip(*loss.split())
        assert seen(host, events) == Changed(links=True), loss


def test_what_somebody_did_before_the_table_was_listed_is_not_taken_for_ours(
    listening: tuple[Machine, Firewall, Events], monkeypatch: pytest.MonkeyPatch
) -> None:
    host, firewall, _ = listening
    damage = [("delete", "table", *TABLE.split()), ("flush", "chain", *TABLE.split(), "services")]

    def listed_too_late() -> str:
        if damage:
            host.run("nft", *damage.pop())
        return listing()

    listing = firewall_table._listing
    monkeypatch.setattr(firewall_table, "_listing", listed_too_late)
    host.call(lambda: firewall.apply(state_of(ONE, web_port=WEB_PORT + 1)))
    assert not damage
    assert host.run("nft", "list", "chain", *TABLE.split(), "services").stdout.count("accept") > 2
    assert host.call(firewall.drift) == []
    host.run("nft", "delete", "table", *TABLE.split())
    assert host.call(firewall.drift) != []
