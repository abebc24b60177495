"""What hosts and clients of linked servers are told."""

from __future__ import annotations

import json
from typing import Any

import pytest

from core import task_names
from core.redis_store import redis_client
from servers import mesh
from servers.hostnet.agent import decoding
from servers.hostnet.state import Interface, Link, Route, to_json
from servers.models import ClientNetwork, Host, MeshNode, Server, ServerHost, ServerLink
from servers.models import Route as RouteRow
from tests.connection_rows import live, messages, queued
from tests.factories import Company, HostStandIn, add_host, revive, silence
from tests.protocol_client import NOW, make_request, new_wg_key, open_answer, plaintext
from users.models import Organization, VpnUser
from wgpeers import tasks
from wgpeers.fleet import remotes
from wgpeers.fleet.desired import state_of
from wgpeers.lifecycle import ending
from wgpeers.models import Connection, EndReason


@pytest.fixture
def lab(company: Company) -> Company:
    """Another company on the same host, with a network behind its client Bob, and routes."""
    server = Server.objects.create(
        name="Lab", network="10.18.0.0/24", wg_network="10.19.0.0/24", port=51821, started=True,
        ipv6=True, network6="fd19::/64", dns_mapping=True, dns_zone="Lab",
    )  # fmt: skip
    organization = Organization.objects.create(name="Labs")
    server.organizations.add(organization)
    ServerHost.objects.create(server=server, host=company.host, public_key=new_wg_key())
    Server.objects.filter(pk=company.server.pk).update(ipv6=True, network6="fd09::/64", dns_mapping=True)
    company.server.refresh_from_db()
    found = Company(organization, server, company.host)
    user, _ = found.hire("bob")
    ClientNetwork.objects.create(server=server, user=user, network="10.77.0.0/24")
    RouteRow.objects.create(server=server, network="10.51.0.0/24", nat=False)
    RouteRow.objects.create(server=server, network="10.60.0.0/24", netmap="192.168.5.0/24")
    RouteRow.objects.create(server=server, network="0.0.0.0/0")
    RouteRow.objects.create(server=server, network="10.51.0.128/25", net_gateway=True)
    return found


def linked(company: Company, lab: Company, **fields: Any) -> ServerLink:
    return ServerLink.objects.create(first=company.server, second=lab.server, **fields)


def interface(host: Host, server: Server) -> Interface:
    state = state_of(host.pk)
    assert state is not None
    return next(each for each in state.interfaces if each.server == server.public_id)


def configuration(company: Company, user: str) -> dict[str, Any]:
    """What a new client is told."""
    _, identity = company.hire(user)
    request = make_request(identity, plaintext())
    answer = open_answer(request.send().json(), identity, request.box_private_key)
    assert answer["allow"] is True, answer
    told: dict[str, Any] = answer["configuration"]
    return told


def routes(company: Company, user: str, host: HostStandIn) -> dict[str, dict[str, Any]]:
    told = configuration(company, user)
    return {each["network"]: each for each in (*told["routes"], *told["routes6"])}


def test_each_server_of_a_host_is_told_of_the_other(company: Company, lab: Company) -> None:
    assert interface(company.host, company.server).links == ()
    linked(company, lab)
    office = interface(company.host, company.server)
    assert office.links == (
        Link(
            lab.server.public_id,
            lab.server.interface,
            ("10.19.0.0/24", "fd19::/64"),
            behind=("10.77.0.0/24",),
        ),
    )
    assert office.links[0].reached == ()
    # As its own clients reach them; what is for everything, or goes not through the tunnel, is no part of it.
    assert office.routes == (Route("10.51.0.0/25", False), Route("10.60.0.0/24", True, "", "192.168.5.0/24"))
    (back,) = interface(company.host, lab.server).links
    assert (back.server, back.networks) == (company.server.public_id, ("10.9.0.0/24", "fd09::/64"))
    # It is read by the host as it was written.
    state = state_of(company.host.pk)
    assert state is not None
    assert decoding.read(decoding.FULL_STATE, to_json(state), state.host) == state


def test_nat_and_names_and_clients_that_are_kept_apart(company: Company, lab: Company) -> None:
    link = linked(company, lab, masquerade=True, names=True)
    office = interface(company.host, company.server)
    assert [route.nat for route in office.routes] == [True, True]
    (there,) = office.links
    assert (there.masquerade, there.zone, there.clients) == (True, "lab", True)
    Server.objects.filter(pk=company.server.pk).update(inter_client=False, dns_mapping=False)
    for server in (company.server, lab.server):
        (found,) = interface(company.host, server).links
        assert (found.clients, found.zone) == (False, "")
    link.delete()
    assert interface(company.host, company.server).links == ()


def test_host_without_the_other_server_keeps_what_is_for_its_routes_from_its_own_ways_out(
    company: Company, lab: Company
) -> None:
    elsewhere = add_host(lab.server, "gate-2", address="192.0.2.2")
    ServerHost.objects.filter(server=lab.server, host=company.host).delete()
    linked(company, lab)
    office = interface(company.host, company.server)
    assert office.routes == ()
    (link,) = office.links
    plain, mapped = Route("10.51.0.0/25", False), Route("10.60.0.0/24", True, "", "192.168.5.0/24")
    assert (link.routed, link.via, link.reached) == ((plain, mapped), "", ())
    (back,) = interface(elsewhere, lab.server).links
    assert (back.routed, back.offered) == ((), (plain, mapped))


def test_what_does_not_run_is_not_linked(company: Company, lab: Company) -> None:
    linked(company, lab)
    queued()
    lab.server.started = False
    lab.server.save()
    assert interface(company.host, company.server).links == ()


def test_links_are_of_two_and_a_loop_of_three_joins_each_two(company: Company, lab: Company) -> None:
    third = Server.objects.create(
        name="Third", network="10.28.0.0/24", wg_network="10.29.0.0/24", port=51823, started=True
    )
    ServerHost.objects.create(server=third, host=company.host)
    linked(company, lab)
    ServerLink.objects.create(first=lab.server, second=third)

    def told(server: Server) -> list[str]:
        return sorted(link.interface for link in interface(company.host, server).links)

    assert told(company.server) == [lab.server.interface]
    assert told(third) == [lab.server.interface]
    ServerLink.objects.create(first=company.server, second=third)
    assert told(company.server) == sorted([lab.server.interface, third.interface])


def test_clients_are_told_what_a_link_leads_to(company: Company, lab: Company, host: HostStandIn) -> None:
    before = routes(company, "alice", host)
    assert set(before) == {"10.9.0.0/24", "fd09::/64"}
    linked(company, lab)
    found = routes(company, "anna", host)
    of_lab = {"10.19.0.0/24", "fd19::/64", "10.77.0.0/24", "10.51.0.0/25", "10.60.0.0/24"}
    assert set(found) == set(before) | of_lab
    assert {found[each]["next_hop"] for each in of_lab} == {"10.9.0.1", "fd09::1"}
    lab.server.started = False
    lab.server.save()
    assert set(routes(company, "axel", host)) == set(before)


def test_clients_are_told_of_routes_only_where_their_host_leads_to_them(
    company: Company, lab: Company, host: HostStandIn
) -> None:
    add_host(lab.server, "gate-2", address="192.0.2.2", alive=False)
    ServerHost.objects.filter(server=lab.server, host=company.host).delete()
    linked(company, lab)
    assert {"10.19.0.0/24", "10.77.0.0/24"} < set(found := routes(company, "alice", host))
    assert not {"10.51.0.0/25", "10.60.0.0/24"} & set(found)


def in_mesh(*hosts: Host) -> None:
    row = mesh.the_mesh()
    for number, host in enumerate(hosts, start=1):
        MeshNode.objects.create(host=host, host_part=number, public_key=new_wg_key())
    assert row.network


def test_routes_are_reached_by_a_host_that_is_heard_first_by_priority(
    company: Company, lab: Company, host: HostStandIn
) -> None:
    first = add_host(lab.server, "gate-2", address="192.0.2.2")
    second = add_host(lab.server, "gate-3", address="192.0.2.3", priority=2)
    add_host(lab.server, "gate-4", address="192.0.2.4")  # is in no mesh
    ServerHost.objects.filter(server=lab.server, host=company.host).delete()
    linked(company, lab)

    def via() -> str:
        return interface(company.host, company.server).links[0].via

    assert via() == ""
    in_mesh(company.host, first, second)
    assert via() == first.public_id
    silence(first)
    assert via() == second.public_id
    silence(second)
    assert via() == first.public_id
    revive(second)
    Host.objects.filter(pk=second.pk).update(enabled=False)
    assert via() == first.public_id
    # By what its own clients know of it, mapped or not.
    assert {"10.51.0.0/25", "10.60.0.0/24"} < set(routes(company, "alice", host))
    reached = interface(company.host, company.server).links[0].reached
    assert [(route.network, route.netmap) for route in reached] == [("10.51.0.0/25", ""), ("10.60.0.0/24", "")]


def test_when_the_host_of_a_way_falls_silent_the_others_are_told_at_once_and_once(
    company: Company, lab: Company, host: HostStandIn
) -> None:
    first = add_host(lab.server, "gate-2", address="192.0.2.2")
    second = add_host(lab.server, "gate-3", address="192.0.2.3", priority=2)
    ServerHost.objects.filter(server=lab.server, host=company.host).delete()
    in_mesh(company.host, first, second)

    def told() -> set[int]:
        queued()
        tasks.take_reports()
        return converged()

    assert told() == set()  # nothing is linked
    linked(company, lab)
    told()
    assert told() == set()
    silence(second)
    assert told() == set()  # no way leads by it
    silence(first)
    revive(second)
    assert told() == {company.host.pk}
    assert told() == set()
    # It is back, but its worker has just started and knows of nothing yet.
    redis_client().set(f"{first.queue}:alive", json.dumps({"boot": "b", "version": 0}), ex=60)
    assert told() == set()
    revive(first)
    assert told() == {company.host.pk}
    assert told() == set()


def test_clients_ask_for_the_names_of_the_other_zone_through_the_tunnel(
    company: Company, lab: Company, host: HostStandIn
) -> None:
    def domains(user: str) -> list[str]:
        told: list[str] = configuration(company, user)["routing_domains"]
        return told

    link = linked(company, lab)
    assert domains("alice") == ["vpn"]
    link.names = True
    link.save()
    assert domains("anna") == ["vpn", "lab"]


def converged() -> set[int]:
    return {arguments[0] for task, arguments in queued() if task == task_names.CONVERGE}


def test_all_hosts_of_both_are_told_of_a_link_and_of_what_becomes_of_either(company: Company, lab: Company) -> None:
    second = add_host(lab.server, "gate-2", address="192.0.2.2")
    ServerHost.objects.filter(server=lab.server, host=company.host).delete()
    stranger = Host.objects.create(name="stranger", public_address="192.0.2.9")
    both = {company.host.pk, second.pk}
    queued()

    def tells(change: Any) -> set[int]:
        change()
        return converged()

    lab.server.save()
    assert converged() == {second.pk}
    link = ServerLink(first=company.server, second=lab.server)
    assert tells(link.save) == both
    for row in (company.server, lab.server, RouteRow(server=lab.server, network="10.52.0.0/24")):
        assert tells(row.save) == both
    assert tells(RouteRow.objects.get(network="10.52.0.0/24").delete) == both
    assert tells(ClientNetwork.objects.get().delete) == both
    assert tells(ServerLink.objects.all().delete) == both
    lab.server.save()
    assert converged() == {second.pk}
    assert stranger.pk not in both


def told_of(host: Host) -> list[Any]:
    """Connections that the host was told of, and those of which it was told that they ended."""
    found: list[Any] = []
    for message in messages(host):
        if "remotes" in message and "interfaces" not in message:
            found.append([each["connection"] for each in message["remotes"]])
        elif set(message) == {"format", "connections"}:
            found.append(message["connections"])
    return found


def test_hosts_of_a_linked_server_know_its_clients_wherever_they_are(
    company: Company, lab: Company, host: HostStandIn
) -> None:
    second = add_host(lab.server, "gate-2", address="192.0.2.2", alive=False)
    ServerHost.objects.filter(server=lab.server, host=company.host).delete()
    link = linked(company, lab)
    request = make_request(company.hire("alice")[1], plaintext())
    assert request.send().status_code == 200
    alice = Connection.objects.get()
    tasks.spread_remotes(500)
    assert told_of(second) == [[alice.public_id]]
    state = state_of(second.pk)
    assert state is not None
    assert [each.server for each in state.remotes] == [company.server.public_id]
    bob = live(Company(lab.organization, lab.server, second), VpnUser.objects.get(name="bob"))
    state = state_of(company.host.pk)
    assert state is not None
    assert [(each.connection, each.networks) for each in state.remotes] == [(bob.public_id, ())]
    assert ending.end(Connection.objects.filter(pk=alice.pk).select_related("server"), EndReason.ADMIN, NOW) == 1
    tasks.spread_remotes(500)
    assert told_of(second) == [[alice.public_id]]
    # Unlinked, it is nobody else's business.
    link.delete()
    state = state_of(second.pk)
    assert state is not None
    assert state.remotes == ()
    remotes.note_ended([alice])
    assert remotes.spread() == 0
