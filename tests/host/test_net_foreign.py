"""Other firewalls on a host: what they do to tunnels' packets, what is said of it, and opening them when told to."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import pytest

from tests.host.conftest import WEB_PORT, World
from tests.lab import NEVER, PYTHON, Echo, Machine, until
from tests.servers.hostnet.foreign.tables import DOCKER, FIREWALLD, HARMLESS, OWN, UFW, commands_in, listing, load

pytestmark = pytest.mark.host

SERVICE = 7000
ROUTES = ["10.9.0.0/24", "10.50.0.0/24", "10.52.0.0/24", "fd01::/64", "2001:db8:50::/64"]
ONLY_OURS = {"six": "table ip6 filter { chain FORWARD { type filter hook forward priority 0; policy drop; }; }"}
TABLES = {"docker": DOCKER, "ufw": UFW, "firewalld": FIREWALLD, "own": OWN, **ONLY_OURS}


@dataclass
class Scene:
    world: World
    alice: Machine
    lan: Machine  # a NAT route of server one
    plain: Machine  # a route without NAT

    def load(self, rules: str) -> str:
        """Only these rules besides ours; return how nft lists them."""
        host = self.world.host
        for line in host.run("nft", "list", "tables").stdout.splitlines():
            if line.startswith("table ") and line != "table inet wgvpn":
                host.run("nft", "delete", *line.split())
        if rules:
            load(host, rules)
        return listing(host)

    def full(self, *, insert_rules: bool) -> dict[str, Any]:
        """The report of a full state."""
        self.world.version += 1
        self.world.control.send(dataclasses.replace(self.world.state(), open_foreign_firewalls=insert_rules))
        report = self.world.control.report("applied", version=self.world.version)
        assert {each["code"] for each in report["conditions"]} <= {"foreign_firewall"}
        return report

    def expect(self, works: set[str]) -> None:
        """Wait until these packets get through and no others: of those that do, any may once be late."""
        until(lambda: self.works() == works)

    def works(self) -> set[str]:
        """What packets get through now, each on its own, new connections all."""
        alice, host = self.alice, self.world.host
        asked = {
            "v4": alice.ask_udp(self.lan.address, SERVICE, timeout=NEVER),
            "v6": alice.ask_udp(self.lan.address6, SERVICE, timeout=NEVER),
            "tcp": alice.ask_tcp(self.plain.address, SERVICE, timeout=NEVER),
            "to client": self.plain.ask_udp("10.9.0.11", SERVICE, timeout=NEVER),
            "gateway": alice.ask_tcp("10.9.0.1", WEB_PORT, timeout=NEVER),
        }
        found = {name for name, answer in asked.items() if answer is not None}
        # A stranger's packet to the WireGuard port: whether it comes in shows in what the rules counted.
        return found | ({"wireguard"} if self._comes_in(host) else set())

    def _comes_in(self, host: Machine) -> bool:
        """Whether the first packet of a stranger to the WireGuard port passes the whole input hook."""
        host.run("nft", "-f", "-", text=COUNTING)
        try:
            with self.world.lab.internet.socket(host.address, 2) as stranger:
                stranger.sendto(b"x", (host.address, 51820))
            until(lambda: self._counted(host, "came"))
            return self._counted(host, "stayed") > 0
        finally:
            host.run("nft", "delete", "table", "inet", "counting")

    @staticmethod
    def _counted(host: Machine, name: str) -> int:
        words = host.run("nft", "list", "counter", "inet", "counting", name).stdout.split()
        return int(words[words.index("packets") + 1])


# Before all others, and after all others that may drop.
COUNTING = """table inet counting {
	counter came { }
	counter stayed { }
	chain first { type filter hook input priority -500; udp dport 51820 ct state new counter name came; }
	chain last { type filter hook input priority 500; udp dport 51820 ct state new counter name stayed; }
}
"""
ALL = {"v4", "v6", "tcp", "to client", "gateway", "wireguard"}


@pytest.fixture(scope="module")
def scene(world: World) -> Iterator[Scene]:
    lab, host = world.lab, world.host
    host.ip("route", "replace", "default", "via", "2001:db8:1::fe")
    lan, plain = lab.add_lan(host, 50), lab.add_lan(host, 52, routed=True)
    alice = lab.add_client()
    world.connect(alice, "one", "a1", "10.9.0.11", "fd01::11", routes=ROUTES)
    with ExitStack() as stack:
        for where, address in (
            (lan, lan.address),
            (lan, lan.address6),
            (plain, plain.address),
            (alice, "10.9.0.11"),
            (host, "10.9.0.1"),
        ):
            stack.enter_context(Echo(where, address, WEB_PORT if where is host else SERVICE))
        yield Scene(world, alice, lan, plain)


@pytest.fixture(autouse=True)
def put_back(scene: Scene) -> Iterator[None]:
    yield
    scene.load("")
    scene.full(insert_rules=False)


def test_without_other_firewalls_all_of_it_works(scene: Scene) -> None:
    scene.load("")
    assert scene.full(insert_rules=False)["conditions"] == []
    scene.expect(ALL)


# What each of them drops of that.
DROPPED = {
    "docker": {"v4", "tcp", "to client"},
    "ufw": {"v4", "tcp", "to client", "gateway", "wireguard"},
    "firewalld": {"v4", "v6", "tcp", "to client", "gateway", "wireguard"},
    "own": {"v4", "v6", "tcp", "to client", "gateway", "wireguard"},
    "six": {"v6"},
}


@pytest.mark.parametrize("name", [*TABLES])
def test_what_is_dropped_is_reported_and_passes_only_when_told_so(scene: Scene, name: str) -> None:
    before = scene.load(TABLES[name])
    report = scene.full(insert_rules=False)
    shut, opened = (dataclasses.replace(scene.world.state(), open_foreign_firewalls=each) for each in (False, True))
    assert scene.world.ask_plan(shut) == {"lines": []}
    assert " of our rules first" in str(scene.world.ask_plan(opened)["lines"])
    scene.expect(ALL - DROPPED[name])
    said = " ".join(each["text"] for each in report["conditions"])
    assert all(command for each in report["conditions"] for command in commands_in(each["text"]))
    assert ("packets from clients" in said) == bool({"v4", "v6"} & DROPPED[name])
    assert ("packets to clients" in said) == bool({"to client", "v6"} & DROPPED[name])
    assert ("WireGuard packets" in said) == ("wireguard" in DROPPED[name])
    assert ("of the gateway" in said) == ("gateway" in DROPPED[name])
    assert listing(scene.world.host) == before  # looking changes nothing

    assert scene.full(insert_rules=True)["conditions"] == []
    scene.expect(ALL)
    after = listing(scene.world.host).splitlines()
    assert [line for line in after if 'comment "wgvpn"' not in line] == before.splitlines()
    assert len(after) > len(before.splitlines())

    assert scene.full(insert_rules=False)["conditions"] == report["conditions"]
    assert listing(scene.world.host) == before
    scene.expect(ALL - DROPPED[name])


@pytest.mark.parametrize("insert_rules", [False, True])
def test_a_table_that_does_not_concern_us_is_left_alone(scene: Scene, insert_rules: bool) -> None:
    before = scene.load(HARMLESS)
    assert scene.full(insert_rules=insert_rules)["conditions"] == []
    scene.expect(ALL)
    assert listing(scene.world.host) == before


def test_the_commands_that_are_named_let_packets_pass(scene: Scene) -> None:
    scene.load(OWN)
    for each in scene.full(insert_rules=False)["conditions"]:
        for command in commands_in(each["text"]):
            scene.world.host.run("sh", "-c", command)
    assert scene.full(insert_rules=False)["conditions"] == []
    scene.expect(ALL)


def test_a_reload_of_the_other_firewall_costs_at_most_one_full_state(scene: Scene) -> None:
    scene.load(DOCKER)
    scene.full(insert_rules=True)
    scene.load(DOCKER)
    scene.expect(ALL - DROPPED["docker"])
    assert scene.full(insert_rules=True)["conditions"] == []
    scene.expect(ALL)


def test_what_passes_others_is_still_ours_to_refuse(scene: Scene) -> None:
    """Our rule in another table is no way around our own."""
    scene.load(OWN)
    scene.full(insert_rules=True)
    assert scene.lan.ask_udp("10.9.0.11", SERVICE, timeout=NEVER) is None  # behind NAT: clients only ask
    with Echo(scene.world.host, "0.0.0.0", SERVICE + 1):
        assert scene.alice.ask_tcp("10.9.0.1", SERVICE + 1, timeout=NEVER) is None
    assert scene.world.lab.internet.ask_tcp(scene.world.host.address, WEB_PORT, timeout=NEVER) is None


def test_a_worker_that_starts_anew_takes_out_what_the_last_one_left(scene: Scene) -> None:
    before = scene.load(OWN)
    scene.full(insert_rules=True)
    scene.world.kill_worker()
    scene.world.launch()
    assert scene.world.greet()["conditions"] != []  # greeted without open_foreign_firewalls
    assert listing(scene.world.host) == before


def test_cleanup_leaves_nothing_of_ours(scene: Scene) -> None:
    """Last in this file: it takes down the tunnels."""
    world = scene.world
    before = scene.load(OWN)
    scene.full(insert_rules=True)
    assert "wgvpn" in listing(world.host)
    world.kill_worker()
    settings = [f"{key}={value}" for key, value in world.environment().items()]
    world.host.run("env", *settings, PYTHON, "-m", "servers.hostnet", "--cleanup")
    assert listing(world.host) == before
    assert "wgvpn" not in world.host.run("nft", "list", "ruleset").stdout
    world.launch()
    world.greet()
