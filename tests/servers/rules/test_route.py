"""Routes that cannot work are refused in words, at the field that must change; by the model, whoever makes them."""

from __future__ import annotations

from typing import Any

import pytest
from django.core.exceptions import ValidationError

from servers.models import ClientNetwork, Route, Server
from tests.factories import Company


@pytest.fixture(autouse=True)
def lab(company: Company) -> Server:
    """Another server, of others, elsewhere. The company's own has both families."""
    Server.objects.filter(pk=company.server.pk).update(ipv6=True, network6="fd09::/64")
    company.server.refresh_from_db()
    return Server.objects.create(
        name="Lab", network="10.20.0.0/24", wg_network="10.21.0.0/24", ipv6=True, network6="fd21::/64", port=51821
    )


def route(company: Company, network: str, **fields: Any) -> Route:
    return Route(server=company.server, network=network, **fields)


def kept(row: Route) -> Route:
    row.full_clean()
    row.save()
    return row


def refused(row: Any) -> dict[str, list[str]]:
    with pytest.raises(ValidationError) as error:
        row.full_clean()
    return dict(error.value.message_dict)


@pytest.mark.parametrize(
    ("fields", "field", "words"),
    [
        ({"network": ""}, "network", "cannot be blank"),
        ({"network": "everything"}, "network", "not a network"),
        ({"network": "10.9.0.0/24"}, "network", "always routed"),
        ({"network": "10.9.0.128/25"}, "network", "it needs no route"),
        ({"network": "fd09::/80"}, "network", "it needs no route"),
        ({"network": "10.9.0.0/25", "net_gateway": True}, "network", "cannot be left out"),
        ({"network": "192.168.1.1/24"}, "network", "Did you mean 192.168.1.0/24?"),
        ({"network": "2001:db8::1/64"}, "network", "Did you mean 2001:db8::/64?"),
        ({"network": "127.0.0.0/8"}, "network", "cannot be routed"),
        ({"network": "224.0.0.0/4"}, "network", "cannot be routed"),
        ({"network": "fe80::/10"}, "network", "cannot be routed"),
        ({"network": "ff00::/8"}, "network", "cannot be routed"),
        ({"network": "0.0.0.0/0", "net_gateway": True}, "network", "nothing would go through the tunnel"),
        ({"network": "::/0", "net_gateway": True}, "network", "nothing would go through the tunnel"),
        ({"network": "10.0.0.0/8", "net_gateway": True, "nat_interface": "eth0"}, "nat_interface", "leave this empty"),
        ({"network": "10.0.0.0/8", "net_gateway": True, "netmap": "11.0.0.0/8"}, "netmap", "leave this empty"),
        ({"network": "10.0.0.0/8", "nat": False, "nat_interface": "eth0"}, "nat_interface", "NAT is off"),
        ({"network": "10.0.0.0/8", "nat_interface": "eth 0"}, "nat_interface", "not the name of an interface"),
        ({"network": "10.0.0.0/8", "nat_interface": "wgs1"}, "nat_interface", "tunnels of ours"),
        ({"network": "10.0.0.0/8", "metric": 10000}, "metric", "less than or equal to 9999"),
        ({"network": "10.0.0.0/8", "metric": -1}, "metric", "greater than or equal to 0"),
        ({"network": "10.50.0.0/24", "netmap": "192.168.1.0/25"}, "netmap", "must be a /24 like 10.50.0.0/24"),
        ({"network": "10.50.0.0/24", "netmap": "192.168.1.7/24"}, "netmap", "Did you mean 192.168.1.0/24?"),
        ({"network": "10.50.0.0/24", "netmap": "lan"}, "netmap", "not a network"),
        ({"network": "10.50.0.0/24", "netmap": "fd00::/120"}, "netmap", "not of one family"),
        ({"network": "fd50::/64", "netmap": "10.0.0.0/8"}, "netmap", "not of one family"),
        ({"network": "0.0.0.0/0", "netmap": "0.0.0.0/0"}, "netmap", "cannot be mapped"),
        ({"network": "10.50.0.0/24", "netmap": "10.50.0.0/24"}, "netmap", "leave this empty"),
        ({"network": "10.50.0.0/24", "netmap": "127.0.1.0/24"}, "netmap", "cannot be routed"),
        ({"network": "10.0.0.0/8", "netmap": "11.0.0.0/8"}, "network", "tunnel network 10.9.0.0/24 of server Office"),
        (
            {"network": "10.21.0.0/25", "netmap": "192.168.1.0/25"},
            "network",
            "tunnel network 10.21.0.0/24 of server Lab",
        ),
        ({"network": "10.50.0.0/24", "netmap": "10.9.0.0/24"}, "netmap", "tunnel network 10.9.0.0/24 of server Office"),
        ({"network": "10.50.0.0/24", "netmap": "10.21.0.0/24"}, "netmap", "tunnel network 10.21.0.0/24 of server Lab"),
        ({"network": "fd50::/64", "netmap": "fd21::/64"}, "netmap", "tunnel network fd21::/64 of server Lab"),
    ],
)
def test_a_route_that_cannot_work(company: Company, fields: dict[str, Any], field: str, words: str) -> None:
    problems = refused(route(company, **fields))
    assert list(problems) == [field]
    assert any(words in text for text in problems[field]), problems


@pytest.mark.parametrize(
    ("fields", "network"),
    [
        ({"network": "0.0.0.0/0"}, "0.0.0.0/0"),
        ({"network": "::/0"}, "::/0"),
        ({"network": " 192.168.2.0/24 "}, "192.168.2.0/24"),
        ({"network": "192.168.2.0/255.255.255.0"}, "192.168.2.0/24"),
        ({"network": "FD50:0::/64", "nat": False}, "fd50::/64"),
        ({"network": "10.0.0.0/8", "nat_interface": "eth0.7", "metric": 9999}, "10.0.0.0/8"),
        ({"network": "10.50.0.0/24", "netmap": "192.168.1.0/24"}, "10.50.0.0/24"),
        ({"network": "fd50::/64", "netmap": "2001:db8::/64", "nat": False}, "fd50::/64"),
        ({"network": "10.0.0.0/8", "net_gateway": True}, "10.0.0.0/8"),
    ],
)
def test_a_route_that_works(company: Company, fields: dict[str, Any], network: str) -> None:
    assert kept(route(company, **fields)).network == network
    Route.objects.get().full_clean()


def test_without_ipv6_there_are_no_ipv6_routes(company: Company) -> None:
    company.server.ipv6 = False
    assert refused(route(company, "fd50::/64"))["network"] == ["This server has no IPv6; turn it on first."]


def test_nat_says_nothing_where_nothing_reaches_the_host(company: Company) -> None:
    assert kept(route(company, "10.0.0.0/8", net_gateway=True, nat=True)).nat is False


@pytest.mark.parametrize(
    ("first", "second", "field", "words"),
    [
        ({"network": "10.0.0.0/8"}, {"network": "10.0.0.0/8"}, "__all__", "has a route to this network already"),
        (
            {"network": "10.0.0.0/8", "net_gateway": True},
            {"network": "10.1.0.0/16"},
            "network",
            "10.1.0.0/16 lies within 10.0.0.0/8, which does not go through the tunnel",
        ),
        (
            {"network": "fd51::/64"},
            {"network": "fd51::/48", "net_gateway": True},
            "network",
            "Nothing would remain of the route to fd51::/64",
        ),
        (
            {"network": "10.50.0.0/24", "netmap": "192.168.1.0/24"},
            {"network": "10.50.0.0/25", "netmap": "192.168.2.0/25"},
            "network",
            "10.50.0.0/25 overlaps 10.50.0.0/24, which stands for 192.168.1.0/24",
        ),
        (
            {"network": "10.50.0.0/24", "netmap": "192.168.1.0/24"},
            {"network": "10.51.0.0/25", "netmap": "192.168.1.128/25"},
            "netmap",
            "192.168.1.128/25 overlaps 192.168.1.0/24, which clients know as 10.50.0.0/24 already",
        ),
        (
            {"network": "10.50.0.0/24", "netmap": "192.168.1.0/24"},
            {"network": "10.50.0.5/32"},
            "network",
            "10.50.0.5/32 lies within 10.50.0.0/24, which stands for 192.168.1.0/24",
        ),
        (
            {"network": "10.50.0.5/32"},
            {"network": "10.50.0.0/24", "netmap": "192.168.1.0/24"},
            "network",
            "10.50.0.5/32, a route of its own, lies within 10.50.0.0/24",
        ),
    ],
)
def test_routes_of_one_server_that_do_not_go_together(
    company: Company, first: dict[str, Any], second: dict[str, Any], field: str, words: str
) -> None:
    kept(route(company, **first))
    problems = refused(route(company, **second))
    assert list(problems) == [field]
    assert words in problems[field][0]


def test_routes_that_go_together(company: Company) -> None:
    for fields in (
        {"network": "0.0.0.0/0"},
        {"network": "::/0"},
        {"network": "10.0.0.0/8", "nat": False},
        {"network": "10.1.0.0/16", "net_gateway": True},
        {"network": "172.16.0.0/24", "netmap": "192.168.1.0/24"},
        {"network": "172.16.1.0/24", "netmap": "192.168.2.0/24"},
        # Not through the tunnel, a part of an alias; and a mapped network by its own addresses as well.
        {"network": "172.16.0.128/25", "net_gateway": True},
        {"network": "192.168.1.0/24"},
    ):
        kept(route(company, **fields))
    for row in Route.objects.all():
        row.full_clean()


def test_two_servers_may_have_the_same_alias(company: Company, lab: Server) -> None:
    kept(route(company, "10.50.0.0/24", netmap="192.168.1.0/24"))
    kept(Route(server=lab, network="10.50.0.0/24", netmap="192.168.1.0/24"))


def test_a_network_is_not_behind_hosts_and_behind_a_client(company: Company) -> None:
    alice, _ = company.hire("alice")
    ClientNetwork.objects.create(server=company.server, user=alice, network="192.168.7.0/24")
    assert "192.168.7.0/24 is behind alice" in refused(route(company, "192.168.7.0/24"))["network"][0]


def test_a_network_behind_a_client_goes_through_the_tunnel(company: Company) -> None:
    alice, _ = company.hire("alice")
    row = ClientNetwork(server=company.server, user=alice, network="192.168.7.0/24")
    hole = kept(route(company, "192.168.0.0/16", net_gateway=True))
    assert "192.168.7.0/24 lies within 192.168.0.0/16, which does not" in refused(row)["network"][0]
    hole.delete()
    row.save()
    problems = refused(route(company, "192.168.0.0/16", net_gateway=True))
    assert problems["network"] == ["Nothing would remain of 192.168.7.0/24 behind alice."]
    kept(route(company, "192.168.7.128/25", net_gateway=True))


def test_an_alias_is_no_network_behind_a_client(company: Company) -> None:
    alice, _ = company.hire("alice")
    row = ClientNetwork(server=company.server, user=alice, network="10.50.0.0/25")
    alias = kept(route(company, "10.50.0.0/24", netmap="192.168.1.0/24"))
    assert "10.50.0.0/25 overlaps 10.50.0.0/24, which stands for 192.168.1.0/24" in refused(row)["network"][0]
    alias.delete()
    row.save()
    problems = refused(route(company, "10.50.0.0/24", netmap="192.168.1.0/24"))
    assert problems["network"] == ["10.50.0.0/24 overlaps 10.50.0.0/25 behind alice; it cannot be mapped."]


def test_a_tunnel_network_does_not_come_where_a_client_network_is(company: Company, lab: Server) -> None:
    alice, _ = company.hire("alice")
    ClientNetwork.objects.create(server=company.server, user=alice, network="192.168.7.0/24")
    lab.wg_network = "192.168.7.0/24"
    assert "192.168.7.0/24 overlaps 192.168.7.0/24 behind alice" in refused(lab)["wg_network"][0]


@pytest.mark.parametrize("wg_network", ["10.50.0.0/24", "192.168.1.0/24"])
def test_a_tunnel_network_does_not_come_where_a_route_maps(company: Company, lab: Server, wg_network: str) -> None:
    kept(route(company, "10.50.0.0/24", netmap="192.168.1.0/24"))
    lab.wg_network = wg_network
    assert f"{wg_network} overlaps {wg_network}, which a route of server Office maps" in refused(lab)["wg_network"][0]


def test_an_ipv6_network_is_derived_where_none_was_chosen(company: Company, lab: Server) -> None:
    lab.network6 = ""
    lab.full_clean()
    assert lab.network6 == "fd56:504e:a15::/64"
    lab.save()
    lab.wg_network = "10.255.1.0/24"
    lab.full_clean()
    assert lab.network6 == "fd56:504e:aff:100::/64"
    lab.save()
    lab.network6, lab.wg_network = "fd99::/64", "10.23.0.0/24"
    lab.full_clean()
    assert lab.network6 == "fd99::/64"
    lab.save()
    lab.wg_network = "10.24.0.0/24"
    lab.full_clean()
    assert lab.network6 == "fd99::/64"


def test_code_that_asks_no_check_gets_an_ipv6_network_as_well(company: Company) -> None:
    made = {"network": "10.30.0.0/24", "wg_network": "10.31.0.0/24", "port": 51822}
    server = Server.objects.create(name="New", ipv6=True, **made)
    assert Server.objects.get(pk=server.pk).network6 == "fd56:504e:a1f::/64"
    Server.objects.filter(pk=server.pk).update(ipv6=False, network6="")
    server.refresh_from_db()
    server.ipv6 = True
    server.save(update_fields=["ipv6"])
    assert Server.objects.get(pk=server.pk).network6 == "fd56:504e:a1f::/64"
