"""Which networks a client is told to send through the tunnel, and which its host carries: the routes without what does
not go through the tunnel, and always the tunnel network."""

from __future__ import annotations

import ipaddress
from typing import Any

import pytest
from django.conf import LazySettings
from hypothesis import given
from hypothesis import strategies as st

from core import clock
from servers import networks, routing
from servers.models import ClientNetwork, Host, Route, Server
from tests.factories import Company, HostStandIn
from tests.protocol_client import make_request, new_wg_key, open_answer, plaintext
from wgpeers.fleet.desired import state_of
from wgpeers.models import Connection, State
from wgpeers.protocol import client_config


def net(text: str) -> networks.Network:
    return ipaddress.ip_network(text)


# Of 256 addresses, so that each can be looked at; and in the same shape at the other end of the address space.
FAMILIES = {4: ("10.7.0.0", 24, 32), 6: ("fd00::7:0", 120, 128)}


@st.composite
def parts(draw: st.DrawFn, version: int) -> networks.Network:
    base, shortest, longest = FAMILIES[version]
    prefix = draw(st.integers(shortest, longest))
    first = draw(st.integers(0, 255)) >> (longest - prefix) << (longest - prefix)
    return net(f"{ipaddress.ip_address(base) + first}/{prefix}")


@st.composite
def cases(draw: st.DrawFn) -> tuple[networks.Network, list[networks.Network]]:
    version = draw(st.sampled_from([4, 6]))
    return draw(parts(version)), draw(st.lists(parts(version), max_size=6))


def addresses(found: list[networks.Network]) -> list[Any]:
    return [address for network in found for address in network]


def holds(some: list[networks.Network], network: networks.Network) -> bool:
    return set(network) <= set(addresses(some))


@given(cases(), parts(4), parts(6))
def test_what_remains_is_exactly_the_rest(
    case: tuple[networks.Network, list[networks.Network]], other4: networks.Network, other6: networks.Network
) -> None:
    whole, holes = case
    elsewhere = other6 if whole.version == 4 else other4
    remains = networks.subtract(whole, [*holes, elsewhere])
    left = addresses(remains)
    assert len(left) == len(set(left)), "disjoint"
    assert set(left) == set(whole) - set(addresses(holes))
    assert left == sorted(left)
    # As few networks as can be: whatever two of them could be joined to holds something else.
    assert all(not holds(remains, network.supernet()) for network in remains if network.prefixlen)


@given(cases())
def test_a_mapped_piece_lies_where_its_alias_does(case: tuple[networks.Network, list[networks.Network]]) -> None:
    whole, holes = case
    real = net(f"{'192.168.5.0' if whole.version == 4 else '2001:db8::500'}/{whole.prefixlen}")
    for piece in networks.subtract(whole, holes):
        behind = networks.same_place(piece, whole, real)
        assert [int(a) - int(whole[0]) for a in piece] == [int(a) - int(real[0]) for a in behind]


@pytest.mark.parametrize(("everything", "hole"), [("0.0.0.0/0", "10.1.2.3/32"), ("::/0", "2001:db8::1/128")])
def test_one_address_out_of_everything(everything: str, hole: str) -> None:
    remains = networks.subtract(net(everything), [net(hole)])
    assert sum(network.num_addresses for network in remains) == net(everything).num_addresses - 1
    assert not any(network.overlaps(net(hole)) for network in remains)
    assert len(remains) == net(everything).max_prefixlen


def route(server: Server, network: str, **fields: Any) -> Route:
    row = Route(server=server, network=network, **fields)
    row.full_clean()
    row.save()
    return row


def told(company: Company) -> dict[str, Any]:
    user, _ = company.hire("alice")
    connection = Connection(user=user, server=company.server, host=company.host, state=State.OPEN, host_part=5)
    connection.created = clock.moment(clock.now())
    server = Server.objects.get(pk=company.server.pk)
    return client_config.build(
        connection, server, company.host, new_wg_key(), clock.now(), rows=list(server.routes.all())
    )


def names(entries: list[dict[str, Any]], net_gateway: bool = False) -> list[str]:
    return [entry["network"] for entry in entries if entry["net_gateway"] is net_gateway]


def carried(company: Company) -> list[tuple[str, bool, str]]:
    state = state_of(company.host.pk)
    assert state is not None
    return [(each.network, each.nat, each.netmap) for each in state.interfaces[0].routes]


def six(company: Company) -> None:
    company.server.ipv6 = True
    company.server.full_clean()
    company.server.save()


def test_without_routes_only_the_tunnel_network_is_pushed(company: Company) -> None:
    answer = told(company)
    assert answer["routes"] == [{"network": "10.9.0.0/24", "next_hop": "10.9.0.1", "metric": 0, "net_gateway": False}]
    assert answer["routes6"] == []
    assert carried(company) == []


def test_everything_goes_through_the_tunnel_in_both_families(company: Company) -> None:
    six(company)
    route(company.server, "0.0.0.0/0", metric=7)
    route(company.server, "::/0", nat=False)
    answer = told(company)
    assert names(answer["routes"]) == ["10.9.0.0/24", "0.0.0.0/0"]
    assert names(answer["routes6"]) == ["fd56:504e:a09::/64", "::/0"]
    assert [entry["metric"] for entry in answer["routes"]] == [0, 7]
    assert {entry["next_hop"] for entry in answer["routes6"]} == {"fd56:504e:a09::1"}
    assert carried(company) == [("0.0.0.0/0", True, ""), ("::/0", False, "")]


def test_what_does_not_go_through_the_tunnel_is_out_of_all_others_and_said_besides(company: Company) -> None:
    six(company)
    route(company.server, "0.0.0.0/0")
    route(company.server, "10.0.0.0/8", nat=False, metric=3)
    route(company.server, "fd00::/8")
    route(company.server, "10.1.0.0/16", net_gateway=True)
    route(company.server, "fd80::/9", net_gateway=True)
    answer = told(company)
    through = [net(text) for text in names(answer["routes"])]
    assert names(answer["routes"], net_gateway=True) == ["10.1.0.0/16"]
    assert not any(network.overlaps(net("10.1.0.0/16")) for network in through)
    assert names(answer["routes6"]) == ["fd56:504e:a09::/64", "fd00::/9"]
    assert names(answer["routes6"], net_gateway=True) == ["fd80::/9"]
    # Each piece once, and where both routes leave one, the longer route says how.
    assert len(through) == len(set(through))
    host = {net(network): nat for network, nat, _ in carried(company)}
    assert set(host) == set(through) - {net("10.9.0.0/24")} | {net("fd00::/9")}
    assert {nat for network, nat in host.items() if networks.within(network, net("10.0.0.0/8"))} == {False}
    assert {nat for network, nat in host.items() if not networks.within(network, net("10.0.0.0/8"))} == {True}
    metric = {net(entry["network"]): entry["metric"] for entry in answer["routes"]}
    assert (metric[net("10.0.0.0/16")], metric[net("128.0.0.0/1")]) == (3, 0)


def test_the_tunnel_network_is_never_taken_out(company: Company) -> None:
    route(company.server, "10.0.0.0/8", net_gateway=True)
    route(company.server, "0.0.0.0/0")
    found = names(told(company)["routes"])
    assert found[0] == "10.9.0.0/24"
    assert [text for text in found if net(text).overlaps(net("10.0.0.0/8"))] == ["10.9.0.0/24"]


def test_networks_behind_others_are_pushed_without_what_does_not_go_through(company: Company) -> None:
    bob, _ = company.hire("bob")
    ClientNetwork.objects.create(server=company.server, user=bob, network="192.168.7.0/24")
    route(company.server, "192.168.7.128/25", net_gateway=True)
    assert names(told(company)["routes"]) == ["10.9.0.0/24", "192.168.7.0/25"]


def test_clients_know_a_mapped_network_by_its_alias(company: Company) -> None:
    route(company.server, "10.50.0.0/24", netmap="192.168.1.0/24", nat=False)
    assert names(told(company)["routes"]) == ["10.9.0.0/24", "10.50.0.0/24"]
    assert carried(company) == [("10.50.0.0/24", False, "192.168.1.0/24")]


def test_a_hole_in_an_alias_is_a_hole_in_what_stands_behind_it(company: Company) -> None:
    route(company.server, "10.50.0.0/24", netmap="192.168.1.0/24")
    route(company.server, "10.50.0.0/25", net_gateway=True)
    assert carried(company) == [("10.50.0.128/25", True, "192.168.1.128/25")]


def test_routed_of_nothing_is_nothing() -> None:
    assert routing.routed([]) == []


@pytest.mark.parametrize(
    ("public", "sent_from", "expected"),
    [
        (("192.0.2.1", "2001:db8::1"), "198.51.100.7", "192.0.2.1"),
        (("192.0.2.1", "2001:db8::1"), "::ffff:198.51.100.7", "192.0.2.1"),
        (("192.0.2.1", "2001:db8::1"), "2001:db8::7", "[2001:db8::1]"),
        (("vpn.example.com", "2001:db8::1"), "2001:db8::7", "[2001:db8::1]"),
        (("192.0.2.1", ""), "2001:db8::7", "192.0.2.1"),
        (("", "2001:db8::1"), "198.51.100.7", "[2001:db8::1]"),
    ],
)
@pytest.mark.parametrize("by_proxy", [False, True])
def test_the_endpoint_is_of_the_family_by_which_the_client_came(
    company: Company,
    host: HostStandIn,
    settings: LazySettings,
    public: tuple[str, str],
    sent_from: str,
    expected: str,
    by_proxy: bool,
) -> None:
    Host.objects.update(public_address=public[0], public_address6=public[1])
    meta: dict[str, Any] = {"REMOTE_ADDR": sent_from}
    if by_proxy:
        settings.TRUSTED_PROXIES = ["192.0.2.99"]
        meta = {"REMOTE_ADDR": "192.0.2.99", "HTTP_X_FORWARDED_FOR": sent_from}
    _, alice = company.hire("alice")
    request = make_request(alice, plaintext())
    for _ in range(2):  # given anew, and a lost answer given again
        answer = open_answer(request.send(**meta).json(), alice, request.box_private_key)
        assert answer["configuration"]["hostname"] == expected
        request = make_request(alice, plaintext(wg_public_key=Connection.objects.get().wg_public_key))
