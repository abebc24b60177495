"""Names as records, and what unbound is told: nothing here starts one. tests/host/test_net_dns.py does."""

from __future__ import annotations

import dataclasses
import ipaddress
import re
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servers.hostnet.dns import config, control, resolvers, unbound
from servers.hostnet.dns.control import DnsError
from servers.hostnet.dns.records import Changes, Record, Records, line
from servers.hostnet.state import Dns, HostCondition, Interface, Link, Peer, Severity, Split
from tests.lab import until
from tests.servers.hostnet.fakes import state_of

ZONE = Dns("vpn", (), "", ())


def interface(dns: Dns | None = ZONE, *peers: Peer, addresses: tuple[str, ...] = ("10.9.0.1/24",)) -> Interface:
    return Interface("wgs1", "one", 51820, addresses, 0, False, 360, (), peers, dns=dns)


def peer(connection: str, names: Sequence[str], *addresses: str) -> Peer:
    return Peer(connection, 1, "", tuple(f"{a}/{128 if ':' in a else 32}" for a in addresses), names=tuple(names))


# Records


def test_a_peer_has_all_its_names_in_both_families_and_one_back() -> None:
    changes = Records().change([], [peer("a", ["Laptop.alice.vpn", "alice.vpn"], "10.9.0.5", "fd01::5")])
    assert changes.removed == []
    assert set(changes.lines()) == {
        "laptop.alice.vpn. 1 IN A 10.9.0.5",
        "alice.vpn. 1 IN A 10.9.0.5",
        "5.0.9.10.in-addr.arpa. 1 IN PTR laptop.alice.vpn.",
        "laptop.alice.vpn. 1 IN AAAA fd01::5",
        "alice.vpn. 1 IN AAAA fd01::5",
        f"{ipaddress.ip_address('fd01::5').reverse_pointer}. 1 IN PTR laptop.alice.vpn.",
    }


def test_a_peer_without_names_has_no_records() -> None:
    assert not Records().change([], [peer("a", [], "10.9.0.5")])


def test_what_two_devices_share_stays_with_the_other_one() -> None:
    records = Records()
    one, two = peer("a", ["x.alice.vpn", "alice.vpn"], "10.9.0.5"), peer("b", ["y.alice.vpn", "alice.vpn"], "10.9.0.6")
    records.change([], [one, two])
    changes = records.change([one], [])
    assert set(changes.removed) == {"x.alice.vpn.", "alice.vpn.", "5.0.9.10.in-addr.arpa."}
    assert changes.lines() == ["alice.vpn. 1 IN A 10.9.0.6"]


def test_what_stays_as_it_was_is_not_said_again() -> None:
    records = Records()
    one, two = peer("a", ["x.alice.vpn", "alice.vpn"], "10.9.0.5"), peer("b", ["y.bob.vpn", "bob.vpn"], "10.9.0.6")
    records.change([], [one, two])
    assert not records.replace([two, one])
    assert not records.change([one], [one])
    # The same device with a new key: another connection with its address and names.
    assert not records.change([one], [peer("c", one.names, "10.9.0.5")])


CONNECTIONS = st.sampled_from("abcd")
PEERS = st.builds(
    lambda connection, names, parts: peer(connection, names, *(f"10.9.0.{part}" for part in parts)),
    CONNECTIONS,
    st.lists(st.sampled_from(["x.alice.vpn", "alice.vpn", "y.alice.vpn", "bob.vpn"]), max_size=2, unique=True),
    st.lists(st.integers(2, 5), min_size=1, max_size=2, unique=True),
)
BATCH = st.tuples(st.booleans(), st.lists(CONNECTIONS), st.lists(PEERS, unique_by=lambda each: each.connection))


@given(st.lists(BATCH))
def test_whatever_comes_and_goes_the_resolver_has_what_the_peers_have(
    batches: list[tuple[bool, list[str], list[Peer]]],
) -> None:
    records, peers = Records(), dict[str, Peer]()
    resolver: set[Record] = set()
    for whole, gone, new in batches:
        if whole:
            peers = {each.connection: each for each in new}
            changes = records.replace(new)
        else:
            off = [peers.pop(each) for each in dict.fromkeys(gone) if each in peers]
            altered = [peers[each.connection] for each in new if each.connection in peers]
            peers |= {each.connection: each for each in new}
            changes = records.change([*off, *altered], new)
        resolver = {record for record in resolver if record[0] not in changes.removed}
        assert not resolver & set(changes.added)
        resolver |= set(changes.added)
        assert resolver == set(records.all())
        assert resolver == set(Records().replace(peers.values()).added)


# The configuration


def configured(dns: Dns, *resolvers: str, addresses: tuple[str, ...] = ("10.9.0.1/24", "fd01::1/64")) -> list[str]:
    text = config.text(interface(dns, addresses=addresses), dns, Path("/run/x.ctl"), resolvers)
    return [line.strip() for line in text.splitlines()]


def forwarded(lines: list[str]) -> list[list[str]]:
    return [part.split("\n")[1:] for part in "\n".join(lines).split("forward-zone:")[1:]]


def test_it_listens_on_the_gateways_and_answers_their_networks() -> None:
    lines = configured(ZONE)
    assert [line for line in lines if line.startswith("interface")] == ["interface: 10.9.0.1", "interface: fd01::1"]
    allowed = ["access-control: 10.9.0.0/24 allow", "access-control: fd01::/64 allow"]
    assert [line for line in lines if line.startswith("access-control")] == allowed


def test_everything_is_forwarded_plainly_or_over_tls_and_splits_plainly() -> None:
    splits = (Split("corp.example", ("10.0.0.1", "fd00::1")),)
    corp = ['name: "corp.example."', "forward-addr: 10.0.0.1", "forward-addr: fd00::1"]
    plain = forwarded(configured(Dns("vpn", ("1.1.1.1",), "", splits), "192.0.2.1"))
    assert [[line for line in zone if line] for zone in plain] == [corp, ['name: "."', "forward-addr: 1.1.1.1"]]
    tls = forwarded(configured(Dns("vpn", ("1.1.1.1",), "one.example", splits)))
    over_tls = ['name: "."', "forward-tls-upstream: yes", "forward-addr: 1.1.1.1@853#one.example"]
    assert [[line for line in zone if line] for zone in tls] == [corp, over_tls]


def test_without_servers_the_hosts_own_are_asked_but_never_ourselves() -> None:
    zones = forwarded(configured(ZONE, "10.9.0.1", "192.0.2.1", "fd01::1"))
    assert [[line for line in zone if line] for zone in zones] == [['name: "."', "forward-addr: 192.0.2.1"]]
    assert forwarded(configured(ZONE, "10.9.0.1")) == []


def test_names_of_linked_servers_are_answered_here_and_their_clients_get_no_answers(tmp_path: Path) -> None:
    links = (
        Link("two", "wgs2", ("10.19.0.0/24",), zone="lab"),
        Link("three", "wgs3", ("10.29.0.0/24",), zone="vpn"),
        Link("four", "wgs4", ("10.39.0.0/24",)),
        Link("five", "wgs5", ("10.49.0.0/24",), zone="corp.example"),
    )
    dns = Dns("vpn", (), "", (Split("corp.example", ("10.0.0.53",)),))
    linked = dataclasses.replace(interface(dns), links=links)
    lines = [each.strip() for each in config.text(linked, dns, tmp_path / "ctl", []).splitlines()]
    static = {each.split('"')[1] for each in lines if each.endswith("static")}
    reverse = {f"0.{second}.10.in-addr.arpa." for second in (9, 19, 29, 49)}
    assert static == {"vpn.", "lab."} | reverse
    assert lines.count('local-zone: "vpn." static') == 1
    # What is looked up elsewhere goes on being so.
    assert 'local-zone: "corp.example." transparent' in lines
    assert [each for each in lines if each.startswith("access-control")] == ["access-control: 10.9.0.0/24 allow"]


def test_a_split_domain_is_looked_up_even_where_unbound_would_answer_by_itself() -> None:
    lines = configured(Dns("vpn", (), "", (Split("test", ("10.0.0.1",)),)))
    assert 'local-zone: "test." transparent' in lines
    assert 'local-zone: "vpn." static' in lines


@pytest.mark.parametrize(
    ("network", "zones"),
    [
        ("10.9.0.0/24", ["0.9.10.in-addr.arpa"]),
        ("10.0.0.0/8", ["10.in-addr.arpa"]),
        ("10.9.2.0/23", ["2.9.10.in-addr.arpa", "3.9.10.in-addr.arpa"]),
        ("10.9.0.16/28", [f"{n}.0.9.10.in-addr.arpa" for n in range(16, 32)]),
        ("fd01::/64", ["0.0.0.0.0.0.0.0.0.0.0.0.1.0.d.f.ip6.arpa"]),
        ("fd01::/63", [f"{n}.0.0.0.0.0.0.0.0.0.0.0.1.0.d.f.ip6.arpa" for n in (0, 1)]),
    ],
)
def test_reverse_zones_hold_a_network_and_no_other(network: str, zones: list[str]) -> None:
    assert config.reverse_zones(network) == zones


@given(st.integers(8, 28), st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1))
def test_an_address_is_in_the_reverse_zones_of_its_own_network_only(length: int, one: int, two: int) -> None:
    network = ipaddress.ip_network((one, length), strict=False)
    zones = config.reverse_zones(str(network))
    for address in (ipaddress.IPv4Address(one), ipaddress.IPv4Address(two)):
        inside = any(f".{address.reverse_pointer}".endswith(f".{zone}") for zone in zones)
        assert inside is (address in network)


def test_the_hosts_resolvers_are_read_and_nothing_else_gets_through(tmp_path: Path) -> None:
    file = tmp_path / "resolv.conf"
    file.write_text(
        "# nameserver 192.0.2.9\nnameserver 192.0.2.1\nnameserver\t2001:db8::1  \nnameserver fe80::1%eth0\n"
        'nameserver 1.2.3\nnameserver 192.0.2.2 # why\nnameserver 192.0.2.3"\nsearch example.org\n'
    )
    assert config.host_resolvers(file) == ["192.0.2.1", "2001:db8::1", "fe80::1%eth0"]
    assert config.host_resolvers(tmp_path / "none") == []


def test_debians_apparmor_profile_allows_the_paths() -> None:
    rules = {}
    for rule in Path("/etc/apparmor.d/usr.sbin.unbound").read_text().splitlines():
        if found := re.fullmatch(r"(?:owner )?(/\S+) ([rw]+),", rule.strip()):
            pattern = (
                re.escape(found[1].replace("/{,etc/unbound/}", "/")).replace(r"\*\*", ".*").replace(r"\*", "[^/]*")
            )
            rules[pattern] = found[2]
    allowed = {
        path: "".join(letters for pattern, letters in rules.items() if re.fullmatch(pattern, str(path)))
        for path in (unbound.configuration_path("wgs12"), unbound.socket_path("wgs12"))
    }
    assert "r" in allowed[unbound.configuration_path("wgs12")]
    assert "w" in allowed[unbound.socket_path("wgs12")]


# Where it cannot work


def test_without_unbound_the_report_says_so_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("CONFIGURATIONS", "SOCKETS"):
        monkeypatch.setattr(unbound, name, tmp_path / name)
    monkeypatch.setattr(unbound, "PROGRAM", tmp_path / "unbound")
    followed = resolvers.Resolvers()
    followed.apply(state_of(interface()))
    assert followed.conditions() == [
        HostCondition("dns_failed", Severity.ERROR, "wgs1: no DNS for clients: unbound is not installed")
    ]
    # Nor does a change raise anything, or one of an interface that has no names.
    followed.change(interface(), [], [peer("a", ["alice.vpn"], "10.9.0.5")])
    followed.change(interface(None), [], [peer("a", ["alice.vpn"], "10.9.0.5")])
    followed.apply(state_of(interface(None)))
    until(lambda: followed.conditions() == [])
    followed.stop()
    assert not (tmp_path / "CONFIGURATIONS").exists()


def test_a_resolver_that_does_not_answer_is_an_error_in_words(tmp_path: Path) -> None:
    with pytest.raises(DnsError, match=r"does not answer on .*none.ctl \(No such file"):
        control.add(tmp_path / "none.ctl", ["alice.vpn. 1 IN A 10.9.0.5"])
    assert not control.reachable(tmp_path / "none.ctl")


def test_nothing_to_say_asks_nothing(tmp_path: Path) -> None:
    control.add(tmp_path / "none.ctl", Changes().lines())
    control.remove(tmp_path / "none.ctl", [])


def test_a_record_is_written_as_in_a_zone_file() -> None:
    assert line(("alice.vpn.", ("A", "10.9.0.5"))) == "alice.vpn. 1 IN A 10.9.0.5"
