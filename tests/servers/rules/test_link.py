"""Which servers cannot be linked, and what linked ones cannot have: refused in words by every door, with nothing
changed."""

from __future__ import annotations

import ipaddress
import itertools
from collections.abc import Callable
from typing import Any

import pytest
from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.django import TestCase

from servers.hostnet.state.host_networks import HostNetwork, Kind, host_networks_to_json
from servers.models import ClientNetwork, Host, Route, Server, ServerHost, ServerLink, linked_with
from servers.rules import link as rules
from users.models import Organization, VpnUser

pytestmark = pytest.mark.django_db


def server(number: int, **fields: Any) -> Server:
    networks = {"network": f"10.{number}.0.0/24", "wg_network": f"10.{100 + number}.0.0/24"}
    return Server.objects.create(name=f"s{number}", port=52000 + number, **{**networks, **fields})


@pytest.fixture
def office(db: None) -> Server:
    return server(1)


@pytest.fixture
def lab(db: None) -> Server:
    return server(2)


def linked(first: Server, second: Server, **fields: Any) -> ServerLink:
    row = ServerLink(first=first, second=second, **fields)
    row.full_clean()
    row.save()
    return row


def refused(row: Any) -> dict[str, list[str]]:
    with pytest.raises(ValidationError) as error:
        row.full_clean()
    return dict(error.value.message_dict)


def behind(of: Server, network: str, name: str = "alice") -> ClientNetwork:
    organization, _ = Organization.objects.get_or_create(name="Acme")
    of.organizations.add(organization)
    user, _ = VpnUser.objects.get_or_create(organization=organization, name=name)
    return ClientNetwork(server=of, user=user, network=network)


def test_a_pair_has_no_order(office: Server, lab: Server) -> None:
    row = linked(lab, office)
    assert (row.first, row.second) == (office, lab)
    for pair in ((office, lab), (lab, office)):
        assert refused(ServerLink(first=pair[0], second=pair[1])) == {
            "second": ["These two servers are linked already."]
        }
    row.full_clean()  # it may be saved again
    assert linked_with(lab) == [office]


def test_two_who_link_the_same_pair_at_once_are_told_by_the_database(office: Server, lab: Server) -> None:
    linked(office, lab)
    for pair in ((office, lab), (lab, office)):
        with pytest.raises(IntegrityError), transaction.atomic():
            ServerLink(first=pair[0], second=pair[1]).save()
    with pytest.raises(IntegrityError), transaction.atomic():
        ServerLink(first=lab, second=lab).save()


def test_no_server_is_linked_to_itself(office: Server) -> None:
    assert refused(ServerLink(first=office, second=office)) == {"second": ["A server cannot be linked to itself."]}


def test_a_loop_of_links_is_three_links(office: Server, lab: Server) -> None:
    """A link joins its two servers and no others, so nothing goes round."""
    third = server(3)
    linked(office, lab)
    linked(lab, third)
    assert linked_with(office) == [lab]
    linked(third, office)
    assert {each.pk for each in linked_with(office)} == {lab.pk, third.pk}


Give = Callable[[Server, str], Any]
GIVE: dict[str, Give] = {
    "route": lambda of, network: Route(server=of, network=network),
    "client network": behind,
    "mapped": lambda of, network: Route(server=of, network="10.250.0.0/24", netmap=network),
    "left out": lambda of, network: Route(server=of, network=network, net_gateway=True),
}
MEET = [
    pair
    for pair in itertools.product(GIVE, repeat=2)
    if pair != ("left out", "left out") and pair != ("mapped", "mapped")
]


@pytest.mark.parametrize(("mine", "theirs"), MEET)
def test_what_both_have_is_refused_whichever_comes_last(office: Server, lab: Server, mine: str, theirs: str) -> None:
    first, second = GIVE[mine](office, "10.50.0.0/24"), GIVE[theirs](lab, "10.50.0.0/24")
    first.full_clean()
    first.save()
    link = linked(office, lab)
    (message,) = itertools.chain(*refused(second).values())
    assert "10.50.0.0/24" in message
    assert "server s1" in message
    # And the other way round.
    link.delete()
    second.full_clean()
    second.save()
    (message,) = refused(ServerLink(first=office, second=lab))["second"]
    assert "10.50.0.0/24" in message
    assert not ServerLink.objects.exists()


INSIDE = [*itertools.product(sorted(GIVE.keys() - {"mapped"}), ["10.102.0.0/24", "10.102.0.0/25", "10.102.0.0/16"])]


@pytest.mark.parametrize(("what", "network"), [*INSIDE, ("mapped", "10.102.0.0/24")])
def test_nothing_meets_the_other_ones_tunnel(office: Server, lab: Server, what: str, network: str) -> None:
    row = GIVE[what](office, network)
    row.save()
    (message,) = refused(ServerLink(first=office, second=lab))["second"]
    assert network in message
    row.delete()
    linked(office, lab)
    assert any("10.102.0.0/24" in each for each in itertools.chain(*refused(GIVE[what](office, network)).values()))


def test_a_tunnel_network_that_moves_into_the_other_ones_route(office: Server, lab: Server) -> None:
    Route.objects.create(server=office, network="10.64.0.0/12")
    linked(office, lab)
    lab.wg_network = "10.65.0.0/24"
    (message,) = refused(lab)["wg_network"]
    assert message.startswith("10.65.0.0/24 overlaps route 10.64.0.0/12 of server s1.")
    lab.wg_network, lab.ipv6, lab.network6 = "10.102.0.0/24", True, "fd77:1::/64"
    lab.full_clean()
    Route(server=office, network="fd77::/16").save()
    assert refused(lab).keys() == {"network6"}


def test_everything_may_lie_around(office: Server, lab: Server) -> None:
    Route.objects.create(server=office, network="0.0.0.0/0")
    Route.objects.create(server=lab, network="0.0.0.0/0")
    Route.objects.create(server=lab, network="10.50.0.0/24")
    linked(office, lab)


def test_two_that_are_linked_with_the_same_third_one_differ_too(office: Server, lab: Server) -> None:
    third = server(3)
    for of in (office, third):
        Route.objects.create(server=of, network="10.50.0.0/24")
    linked(office, lab)
    (message,) = refused(ServerLink(first=lab, second=third))["second"]
    assert message.startswith("Route 10.50.0.0/24 of server s")
    assert "overlaps route 10.50.0.0/24 of server s" in message
    third.routes.all().delete()
    linked(lab, third)
    (message,) = refused(Route(server=third, network="10.50.0.0/25"))["network"]
    assert "of server s1" in message
    # At a fourth one, three links away, nobody sees both.
    fourth = server(4)
    linked(third, fourth)
    Route(server=fourth, network="10.50.0.0/24").full_clean()


def test_what_a_host_of_the_other_has_itself(office: Server, lab: Server) -> None:
    host = Host.objects.create(name="gate", public_address="192.0.2.1")
    ServerHost.objects.create(server=lab, host=host)

    def has(*networks: str) -> None:
        own = [HostNetwork(Kind.ATTACHED, network, "eth1") for network in networks]
        Host.objects.filter(pk=host.pk).update(networks=host_networks_to_json(own))

    has("10.101.0.0/16")
    (message,) = refused(ServerLink(first=office, second=lab))["second"]
    assert "10.101.0.0/24 of server s1 overlaps" in message
    has("10.77.0.0/16")
    row = behind(office, "10.77.5.0/24")
    row.save()
    (message,) = refused(ServerLink(first=office, second=lab))["second"]
    assert message.startswith("10.77.5.0/24 behind a client of server s1 is in")
    row.delete()
    linked(office, lab)
    assert "network" in refused(behind(office, "10.77.5.0/24"))


def test_a_host_leads_to_one_network_of_a_kind_whatever_is_linked(office: Server, lab: Server) -> None:
    """Office's host would lead to Lab's clients as well: what is behind these cannot be what is behind those of
    another server there, nor of one that that one is linked with."""
    host = Host.objects.create(name="gate", public_address="192.0.2.1")
    neighbour, far = server(3), server(4)
    for each in (office, neighbour):
        ServerHost.objects.create(server=each, host=host)
    linked(neighbour, far)
    behind(lab, "10.77.0.0/24").save()
    for of, name in ((neighbour, "nora"), (far, "fred")):
        row = behind(of, "10.77.0.128/25", name)
        row.save()
        (message,) = refused(ServerLink(first=office, second=lab))["second"]
        assert "10.77.0.0/24 behind alice" in message
        row.delete()
        link = linked(office, lab)
        (message,) = refused(behind(of, "10.77.0.128/25", name))["network"]
        assert "of server s2, which shares a host with this one, or with one that it is linked with" in message
        link.delete()
    # Neither does a server come to a host where another one like that is.
    linked(office, lab)
    elsewhere = Host.objects.create(name="gate-2", public_address="192.0.2.2")
    fifth = server(5)
    ServerHost.objects.create(server=fifth, host=elsewhere)
    behind(fifth, "10.77.0.0/24", "fiona").save()
    (message,) = refused(ServerHost(server=office, host=elsewhere))["host"]
    assert "10.77.0.0/24 behind alice" in message


def test_what_routes_lead_to_is_sent_to_one_host(office: Server, lab: Server) -> None:
    """A host that does not carry the other server sends to a host of that one what its routes lead to."""
    host, far = (Host.objects.create(name=name, public_address="192.0.2.1") for name in ("gate", "far"))
    neighbour, third = server(3), server(4)
    for each in (office, neighbour):
        ServerHost.objects.create(server=each, host=host)
    ServerHost.objects.create(server=lab, host=far)
    linked(neighbour, third)
    Route.objects.create(server=lab, network="10.50.0.0/24")
    for row in (
        behind(neighbour, "10.50.0.0/25", "nora"),
        behind(third, "10.50.0.0/25", "theo"),
        Route(server=third, network="10.50.0.0/24"),
    ):
        row.save()
        (message,) = refused(ServerLink(first=office, second=lab))["second"]
        assert message.startswith("Route 10.50.0.0/24 of server s2 overlaps")
        row.delete()
        link = linked(office, lab)
        (message,) = refused(row)["network"]
        assert "overlaps route 10.50.0.0/24 of server s2" in message
        link.delete()
    # What the host itself carries it sends out by itself, for clients of that server alone.
    Route.objects.create(server=neighbour, network="10.50.0.0/24")
    linked(office, lab)
    Route(server=neighbour, network="10.50.0.0/25").full_clean()


def test_names_need_names_on_both(office: Server, lab: Server) -> None:
    Server.objects.filter(pk=office.pk).update(dns_mapping=True)
    row = ServerLink(first=Server.objects.get(pk=office.pk), second=lab, names=True)
    assert refused(row) == {"names": ["Clients of server s2 have no names: turn names for clients on there first."]}
    Server.objects.update(dns_mapping=True)
    linked(*Server.objects.order_by("pk"), names=True)


NETWORKS = [f"10.50.{third}.0/{length}" for third in (0, 64) for length in (18, 24)]


class AnyOrder(TestCase):
    # Few and long: what is wrong takes two links and two routes in the right order, which short ones hardly ever have.
    @settings(max_examples=30)
    @given(
        st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3), st.sampled_from(NETWORKS)), min_size=10, max_size=16)
    )
    def test_whatever_is_allowed_no_client_reaches_an_address_at_two_servers(
        self, steps: list[tuple[int, int, str]]
    ) -> None:
        """Each step links two servers, or where they are the same gives that one a route, if the rules allow it."""
        servers = [server(number) for number in range(1, 5)]
        for first, second, network in steps:
            row: Any = (
                Route(server=servers[first], network=network)
                if first == second
                else ServerLink(first=servers[first], second=servers[second])
            )
            try:
                row.full_clean()
            except ValidationError:
                continue
            row.save()
        for each in servers:
            near = [each, *linked_with(each)]
            for one, other in itertools.combinations(near, 2):
                for mine, theirs in itertools.product(rules.claims(one), rules.claims(other)):
                    assert not ipaddress.ip_network(mine.network).overlaps(ipaddress.ip_network(theirs.network))
