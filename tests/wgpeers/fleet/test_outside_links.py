"""What hosts and clients of servers that are linked with another installation are told."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from core.task_names import CONVERGE
from servers import outside_links
from servers.hostnet.agent import decoding
from servers.hostnet.state import HostState, Link, Route, to_json
from servers.models import ClientNetwork, OutsideLink, Server
from servers.models import Route as RouteRow
from tests.connection_rows import queued
from tests.factories import Company, HostStandIn
from tests.protocol_client import NOW, make_request, open_answer, plaintext
from wgpeers.fleet.desired import state_of


@pytest.fixture
def link(company: Company) -> OutsideLink:
    """Of the company's server, with clients, a network behind Bob and a route to offer."""
    Server.objects.filter(pk=company.server.pk).update(ipv6=True, network6="fd09::/64", inter_client=False)
    company.server.refresh_from_db()
    user, _ = company.hire("bob")
    ClientNetwork.objects.create(server=company.server, user=user, network="10.77.0.0/24")
    ClientNetwork.objects.create(server=company.server, user=user, network="10.78.0.0/24")
    RouteRow.objects.create(server=company.server, network="10.53.0.0/24", nat=False)
    RouteRow.objects.create(server=company.server, network="10.54.0.0/24")
    row = OutsideLink(
        server=company.server, name="Acme", ours="10.9.0.0/24, 10.77.0.0/24, 10.53.0.0/24",
        theirs="10.19.0.0/24, fd19::/64", masquerade=True, mtu=1400,
    )  # fmt: skip
    row.full_clean()
    row.save()
    return row


def state(company: Company) -> HostState:
    found = state_of(company.host.pk)
    assert found is not None
    assert decoding.read(decoding.FULL_STATE, to_json(found), found.host) == found
    return found


def links(company: Company) -> tuple[Link, ...]:
    return state(company).interfaces[0].links


def routes(company: Company, name: str) -> set[str]:
    """What a new client is told."""
    _, identity = company.hire(name)
    request = make_request(identity, plaintext())
    told: dict[str, Any] = open_answer(request.send().json(), identity, request.box_private_key)["configuration"]
    return {each["network"] for each in (*told["routes"], *told["routes6"])}


def test_its_host_gets_our_end_once_there_is_a_file(company: Company, link: OutsideLink) -> None:
    assert links(company) == ()
    outside_links.make_file(link, NOW)
    (told,) = links(company)
    keys = outside_links.keys_of(OutsideLink.objects.get())
    assert told.openvpn is not None
    assert (told.openvpn.device, told.openvpn.listens, told.openvpn.port) == (f"wgo{2 * link.pk + 1}", True, 1194)
    assert (told.openvpn.key, told.openvpn.peer, told.openvpn.mtu) == (keys.key, keys.peer, 1400)
    assert (told.server, told.interface, told.outside) == (link.link_id, "", True)
    assert told.networks == ("10.19.0.0/24", "fd19::/64")
    assert told.shown == ("10.9.0.0/24", "10.77.0.0/24", "10.53.0.0/24")
    assert told.offered == (Route("10.53.0.0/24", False),)
    # Clients who are kept apart from each other are offered all the same, since that was said.
    assert (told.masquerade, told.clients) == (True, True)
    assert keys.key not in repr(state(company))


def test_a_host_takes_no_such_link_that_could_be_here_or_shows_everything(company: Company, link: OutsideLink) -> None:
    outside_links.make_file(link, NOW)
    whole = state(company)
    (told,) = whole.interfaces[0].links
    for wrong in (
        dataclasses.replace(told, interface="wgs1"),
        dataclasses.replace(told, openvpn=None),
        dataclasses.replace(told, outside=False),
        dataclasses.replace(told, shown=("0.0.0.0/0",)),
        dataclasses.replace(told, networks=("::/0",)),
        dataclasses.replace(told, server="a/b"),
    ):
        interface = dataclasses.replace(whole.interfaces[0], links=(wrong,))
        with pytest.raises(decoding.BadMessage):
            decoding.read(decoding.FULL_STATE, to_json(dataclasses.replace(whole, interfaces=(interface,))), whole.host)


def test_what_is_not_the_servers_any_more_is_not_shown(company: Company, link: OutsideLink) -> None:
    outside_links.make_file(link, NOW)
    company.server.client_networks.filter(network="10.77.0.0/24").delete()
    company.server.routes.filter(network="10.53.0.0/24").delete()
    (told,) = links(company)
    assert (told.shown, told.offered) == (("10.9.0.0/24",), ())


def test_clients_reach_the_other_side_where_that_may_know_of_them(
    company: Company, link: OutsideLink, host: HostStandIn
) -> None:
    assert not {"10.19.0.0/24", "fd19::/64"} & routes(company, "before")
    outside_links.make_file(link, NOW)
    assert "10.19.0.0/24" in (told := routes(company, "alice"))
    assert "fd19::/64" not in told  # our IPv6 network is not offered
    OutsideLink.objects.update(ours="10.9.0.0/24, fd09::/64")
    assert {"10.19.0.0/24", "fd19::/64"} <= routes(company, "carol")
    OutsideLink.objects.update(ours="10.53.0.0/24")
    assert not {"10.19.0.0/24", "fd19::/64"} & routes(company, "dave")


def test_a_mapped_route_is_offered_by_the_addresses_that_clients_know(company: Company, link: OutsideLink) -> None:
    RouteRow.objects.create(server=company.server, network="10.60.0.0/24", netmap="192.168.5.0/24", nat=False)
    link.ours = "10.60.0.0/24"
    link.full_clean()
    link.save()
    outside_links.make_file(link, NOW)
    (told,) = links(company)
    assert told.shown == ("10.60.0.0/24",)
    assert told.offered == (Route("10.60.0.0/24", False, "", "192.168.5.0/24"),)


def test_every_change_and_its_end_is_told_to_the_host(company: Company, link: OutsideLink) -> None:
    outside_links.make_file(link, NOW)
    for change in (lambda: link.save(update_fields=["masquerade"]), lambda: link.delete()):
        queued()
        change()
        assert (CONVERGE, company.host.pk) in {(task, *arguments[:1]) for task, arguments in queued()}
    assert links(company) == ()


def test_a_server_that_stops_has_no_such_link(company: Company, link: OutsideLink) -> None:
    outside_links.make_file(link, NOW)
    company.server.refresh_from_db()
    company.server.started = False
    company.server.save()
    assert state(company).interfaces == ()
