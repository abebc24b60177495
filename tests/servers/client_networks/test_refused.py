"""Which networks cannot be behind a client."""

from __future__ import annotations

import pytest
from django.db import IntegrityError, transaction

from servers.models import ClientNetwork, Route, Server, ServerHost
from tests.factories import Company
from users.models import VpnUser

from .rows import OFFICE, another_server, behind, refused, saved, with_ipv6


@pytest.mark.parametrize(
    ("network", "words"),
    [
        ("192.168.77.1/24", "Did you mean 192.168.77.0/24?"),
        ("office", "is not a network"),
        ("0.0.0.0/0", "Everything cannot be behind one client"),
        ("10.9.0.0/25", "overlaps 10.9.0.0/24, a network of this very server"),
        ("10.8.0.0/24", "overlaps 10.8.0.0/24, a network of this very server"),
        ("10.0.0.0/8", "a network of this very server"),
        ("127.0.0.0/8", "cannot be routed"),
        ("224.1.0.0/16", "cannot be routed"),
        ("169.254.0.0/16", "cannot be routed"),
        ("0.0.0.0/8", "cannot be routed"),
        ("fd77::/64", "has no IPv6"),
    ],
)
def test_a_network_that_cannot_be_behind_a_client(alice: VpnUser, network: str, words: str) -> None:
    assert words in refused(behind(alice, network))["network"][0]


@pytest.mark.parametrize(
    ("network", "words"),
    [
        ("fd77::1/64", "Did you mean fd77::/64?"),
        ("::/0", "Everything cannot be behind one client"),
        ("fd09::/80", "overlaps fd09::/64, a network of this very server"),
        ("fe80::/64", "cannot be routed"),
        ("ff05::/16", "cannot be routed"),
    ],
)
def test_an_ipv6_network_that_cannot_be_behind_a_client(
    company: Company, alice: VpnUser, network: str, words: str
) -> None:
    with_ipv6(company)
    assert words in refused(behind(alice, network))["network"][0]


def test_networks_are_kept_in_one_spelling(company: Company, alice: VpnUser) -> None:
    with_ipv6(company)
    assert saved(behind(alice, " 192.168.77.0/255.255.255.0 ")).network == OFFICE
    assert saved(behind(alice, "FD77:0::/64")).network == "fd77::/64"


def test_other_servers_networks_are_theirs(company: Company, alice: VpnUser) -> None:
    another_server()
    assert "overlaps 10.21.0.0/24 of server Other" in refused(behind(alice, "10.21.0.0/16"))["network"][0]


def test_a_new_server_cannot_take_addresses_that_are_behind_clients(company: Company, alice: VpnUser) -> None:
    saved(behind(alice))
    new = Server(name="New", network="10.20.0.0/24", wg_network=OFFICE)
    assert f"overlaps {OFFICE} behind alice, a client of server Office" in refused(new)["wg_network"][0]


def test_only_who_may_use_the_server_serves_networks_of_it(company: Company, alice: VpnUser) -> None:
    row = saved(behind(alice))
    company.server.organizations.clear()
    assert "may not use server Office" in refused(behind(alice, "192.168.88.0/24"))["server"][0]
    # What was made before is kept, for when the user gets the server back.
    row.comment = "kept"
    saved(row)


def test_what_the_hosts_route_is_not_behind_a_client_as_well(company: Company, alice: VpnUser) -> None:
    Route.objects.create(server=company.server, network=OFFICE)
    assert "has a route to 192.168.77.0/24" in refused(behind(alice))["network"][0]
    # The longer one decides, so parts of each other are clear.
    saved(behind(alice, "192.168.77.128/25"))
    saved(behind(alice, "192.168.0.0/16"))


def test_two_users_may_serve_one_network_but_not_parts_of_each_others(alice: VpnUser, bob: VpnUser) -> None:
    saved(behind(alice))
    saved(behind(bob, priority=2))
    for network in ("192.168.77.0/25", "192.168.0.0/16"):
        words = refused(behind(bob, network))["network"][0]
        assert f"{network} overlaps {OFFICE} behind " in words
        assert "must name it alike" in words
    saved(behind(bob, "192.168.78.0/24"))


def test_one_user_serves_a_network_once_and_no_two_with_one_priority(alice: VpnUser, bob: VpnUser) -> None:
    saved(behind(alice))
    assert "This user serves this network already." in str(refused(behind(alice, priority=2)))
    assert "Another user serves this network with this priority." in str(refused(behind(bob)))
    assert "priority" in refused(behind(bob, priority=0))
    assert "priority" in refused(behind(bob, priority=101))


def test_servers_that_share_a_host_share_its_routing_table(company: Company, alice: VpnUser) -> None:
    other = another_server()
    other.organizations.add(company.organization)
    saved(behind(alice))
    mine = saved(behind(alice, "192.168.0.0/16", server=other))
    words = refused(ServerHost(server=other, host=company.host))["host"][0]
    assert f"192.168.0.0/16 behind alice overlaps {OFFICE} behind alice, a client of server Office there" in words
    mine.delete()
    ServerHost.objects.create(server=other, host=company.host)
    words = refused(mine)["network"][0]
    assert f"overlaps {OFFICE} behind " in words
    assert "of server Office, which shares a host with this one" in words


@pytest.mark.parametrize(
    ("network", "probe", "port", "words"),
    [
        (OFFICE, "192.168.78.1", None, "192.168.78.1 is not in 192.168.77.0/24."),
        (OFFICE, "fd77::1", None, "is of the other family"),
        (OFFICE, "192.168.77.0", None, "first or last address"),
        (OFFICE, "192.168.77.255", 80, "first or last address"),
        ("fd77::/64", "fd77::", None, "first or last address"),
        ("192.168.77.9/32", "192.168.77.9", None, "would be the whole network"),
        (OFFICE, None, 80, "Give the address"),
    ],
)
def test_a_probe_address_that_proves_nothing(
    company: Company, alice: VpnUser, network: str, probe: str | None, port: int | None, words: str
) -> None:
    with_ipv6(company)
    row = behind(alice, network, probe_address=probe, probe_port=port)
    assert words in refused(row)["probe_address"][0]


@pytest.mark.parametrize("port", [0, 65536])
def test_a_probe_port_out_of_range(alice: VpnUser, port: int) -> None:
    assert "probe_port" in refused(behind(alice, probe_address="192.168.77.1", probe_port=port))


def test_each_gateway_needs_a_probe_address_of_its_own_and_is_told_why(alice: VpnUser, bob: VpnUser) -> None:
    saved(behind(alice, probe_address="192.168.77.1"))
    standby = behind(bob, priority=2, probe_address="192.168.77.1", probe_port=22)
    words = refused(standby)["probe_address"][0]
    assert "is the probe address of alice" in words
    assert "only so can one that failed be seen to be well again" in words
    standby.probe_address = "192.168.77.2"
    saved(standby)


def test_the_database_itself_lets_only_one_serve(alice: VpnUser, bob: VpnUser) -> None:
    for number, user in enumerate((alice, bob), 1):
        saved(behind(user, priority=number))
    ClientNetwork.objects.filter(user=alice).update(active=True)
    with pytest.raises(IntegrityError), transaction.atomic():
        ClientNetwork.objects.filter(user=bob).update(active=True)
