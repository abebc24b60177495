"""Links to other installations: what cannot be is refused in words at every door, whichever of two comes last."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction

from core.clock import now
from servers import link_files, mesh, outside_links, routing
from servers.hostnet.state.host_networks import HostNetwork, Kind, host_networks_to_json
from servers.link_files import LinkFileError
from servers.models import (
    Carrier,
    ClientNetwork,
    Host,
    Mesh,
    MeshNode,
    OutsideLink,
    PortForward,
    Route,
    Server,
    ServerHost,
    ServerLink,
    end_of_outside,
)
from tests.protocol_client import new_wg_key
from users.models import Organization, VpnUser

pytestmark = pytest.mark.django_db
THEIRS = "10.60.0.0/16"


def server(number: int, host: Host | None, **fields: Any) -> Server:
    networks = {"network": f"10.{number}.0.0/24", "wg_network": f"10.{100 + number}.0.0/24"}
    row = Server.objects.create(name=f"s{number}", port=52000 + number, **networks, **fields)
    if host is not None:
        ServerHost.objects.create(server=row, host=host)
    return row


@pytest.fixture
def berlin(db: None) -> Host:
    return Host.objects.create(name="Berlin", public_address="198.51.100.1")


@pytest.fixture
def oslo(db: None) -> Host:
    return Host.objects.create(name="Oslo", public_address="198.51.100.2")


@pytest.fixture
def office(berlin: Host) -> Server:
    return server(1, berlin)


def link(office: Server, **fields: Any) -> OutsideLink:
    given = {"name": "Acme", "ours": office.wg_network, "theirs": THEIRS, **fields}
    return OutsideLink(server=office, **given)


def saved(row: Any) -> Any:
    row.full_clean()
    row.save()
    return row


def refused(row: Any) -> dict[str, list[str]]:
    with pytest.raises(ValidationError) as error:
        row.full_clean()
    return dict(error.value.message_dict)


def words(row: Any) -> str:
    return " ".join(each for every in refused(row).values() for each in every)


def behind(of: Server, network: str) -> ClientNetwork:
    organization, _ = Organization.objects.get_or_create(name="Acme")
    of.organizations.add(organization)
    user, _ = VpnUser.objects.get_or_create(organization=organization, name="alice")
    return ClientNetwork(server=of, user=user, network=network)


WRONG: dict[str, tuple[dict[str, Any], str, str]] = {
    "nothing offered": ({"ours": ""}, "ours", "This field cannot be blank."),
    "not the server's": ({"ours": "10.9.9.0/24"}, "ours", "is none of server s1's networks that can be offered"),
    "nothing there": ({"theirs": ""}, "theirs", "This field cannot be blank."),
    "no network": ({"theirs": "office"}, "theirs", "is not a network"),
    "everything": ({"theirs": "0.0.0.0/0"}, "theirs", "Name the networks that are."),
    "loopback": ({"theirs": "127.0.0.0/8"}, "theirs", "cannot be routed"),
    "IPv6 without": ({"theirs": "fd19::/64"}, "theirs", "has no IPv6; turn it on first"),
    "twice": ({"theirs": f"{THEIRS}, 10.60.1.0/24"}, "theirs", "which is named as well"),
    "our own": ({"theirs": "10.101.0.0/16"}, "theirs", "the tunnel network of server s1 here"),
    "where they listen": (
        {"listens": False, "addresses": "203.0.113.9", "theirs": "203.0.113.0/24"},
        "theirs",
        "the tunnel would go through itself",
    ),
    "where another host is": ({"theirs": "192.0.2.0/24"}, "theirs", "192.0.2.7, the public address of host Paris"),
    "no address": ({"listens": False}, "addresses", "Say where they listen."),
    "a broken address": ({"listens": False, "addresses": "a b"}, "addresses", "neither an IPv4 address nor a name"),
    "a broken IPv6 address": ({"listens": False, "addresses": "fd00::g"}, "addresses", "is not an IPv6 address"),
    "a low port": ({"port": 1023}, "port", "greater than or equal to 1024"),
    "a server's port": ({"port": 52001}, "port", "is in use by server s1"),
    "a small MTU": ({"mtu": 1000}, "mtu", "from 1280 to 9000"),
}


@pytest.mark.parametrize(("fields", "field", "said"), WRONG.values(), ids=WRONG)
def test_what_cannot_be_is_refused_at_its_field(office: Server, fields: dict[str, Any], field: str, said: str) -> None:
    Host.objects.create(name="Paris", public_address="192.0.2.7")
    assert said in " ".join(refused(link(office, **fields))[field])


def test_it_ends_on_whichever_host_of_its_server_can_be_found(office: Server, berlin: Host, oslo: Host) -> None:
    nowhere = server(2, None)
    assert "Server s2 is on no host" in words(link(nowhere))
    row = saved(link(office))
    saved(ServerHost(server=office, host=oslo))
    for part, host in enumerate((berlin, oslo), 1):
        MeshNode.objects.create(host=host, host_part=part, public_key=new_wg_key())
    file = link_files.read(outside_links.make_file(row, now()).encode(), row.keys_made)
    assert file.addresses == ("198.51.100.1", "198.51.100.2")
    Host.objects.filter(pk=berlin.pk).update(public_address="")
    row.full_clean()
    assert [each.host for each in end_of_outside(row)] == [oslo]
    Host.objects.filter(pk=oslo.pk).update(public_address="")
    assert refused(OutsideLink.objects.get())["listens"] == [
        "No host of server s1 has a public address at which it could be found."
    ]
    saved(link(office, name="Other", theirs="10.70.0.0/16", listens=False, addresses="vpn.example.com"))


Make = Callable[[Server, str], Any]
MAKE: dict[str, Make] = {
    "route": lambda of, network: Route(server=of, network=network),
    "mapped": lambda of, network: Route(server=of, network="10.250.0.0/24", netmap=network),
    "client network": behind,
}
LEFT_OUT: dict[str, Make] = {
    "left out": lambda of, network: Route(server=of, network=network, net_gateway=True)
}  # for its own clients
PLACES = ("itself", "on its host", "linked with it")


@pytest.mark.parametrize(("what", "place"), [*itertools.product(MAKE, PLACES), ("left out", "itself")])
def test_what_its_host_leads_to_elsewhere_is_refused_whichever_comes_last(
    office: Server, berlin: Host, oslo: Host, what: str, place: str
) -> None:
    other = office if place == "itself" else server(2, berlin if place == "on its host" else oslo)
    if place == "linked with it":
        saved(ServerLink(first=office, second=other))
    row = saved((MAKE | LEFT_OUT)[what](other, "10.60.7.0/24"))
    assert "10.60.7.0/24" in " ".join(refused(link(office))["theirs"])
    row.delete()
    saved(link(office))
    assert "which is reached by the link of server s1 to Acme" in words((MAKE | LEFT_OUT)[what](other, "10.60.7.0/24"))


def test_whoever_comes_near_later_with_such_a_network_is_refused(office: Server, berlin: Host, oslo: Host) -> None:
    saved(link(office))
    far = server(2, oslo)
    saved(Route(server=far, network="10.60.7.0/24"))  # apart from all of it
    assert "which is reached by the link" in words(ServerLink(first=office, second=far))
    ServerHost.objects.filter(server=far).delete()
    assert "which is reached by the link" in words(ServerHost(server=far, host=berlin))
    saved(ServerHost(server=far, host=oslo))
    # And a link that comes along with its server.
    ServerHost.objects.filter(server=office).delete()
    assert "at the other end of the link to Acme, overlaps route 10.60.7.0/24" in words(
        ServerHost(server=office, host=oslo)
    )


def test_tunnels_the_mesh_and_another_link_have_other_networks(office: Server, berlin: Host, oslo: Host) -> None:
    saved(link(office))
    taken = Server(name="s3", network="10.3.0.0/24", wg_network="10.60.3.0/24", port=52003)
    assert "which is reached by the link" in words(taken)
    row = mesh.the_mesh()
    row.network = "10.60.0.0/20"
    assert "which is reached by the link" in words(row)
    Mesh.objects.update(network="10.61.0.0/20")
    beside = server(2, berlin)
    assert "10.61.0.0/20, the network of the mesh" in words(link(office, name="Mesh", theirs="10.61.3.0/24", port=1195))
    assert "which is reached by the link" in words(link(beside, name="Same", port=1195))
    saved(link(server(4, oslo), name="Same"))  # on a host of its own


def test_what_its_host_has_itself_is_not_there(office: Server, berlin: Host) -> None:
    own = [HostNetwork(Kind.ATTACHED, "10.60.5.0/24", "eth1"), HostNetwork(Kind.ADDRESS, "10.60.5.1/32", "eth1")]
    Host.objects.filter(pk=berlin.pk).update(networks=host_networks_to_json(own))
    assert "10.60.0.0/16 overlaps 10.60.5.0/24" in words(link(office))


def test_its_port_is_its_own_on_that_host(office: Server, berlin: Host, oslo: Host) -> None:
    saved(link(office, port=1200))
    assert "is that of the link to Acme" in words(link(server(2, berlin), name="Two", theirs="10.70.0.0/16", port=1200))
    organization = Organization.objects.create(name="Org")
    office.organizations.add(organization)
    user = VpnUser.objects.create(organization=organization, name="bob")
    assert "is that of the link to Acme" in words(
        PortForward(server=office, user=user, port=1190, last_port=1210, protocol="udp")
    )
    taken = server(5, oslo)
    taken.port = 1200
    taken.save()
    assert "is that of the link to Acme" in words(ServerHost(server=taken, host=berlin))
    taken.delete()
    row = mesh.the_mesh()
    row.port = 1200
    assert "is that of the link to Acme" in words(row)
    between = ServerLink(first=server(6, berlin), second=server(7, oslo), carrier=Carrier.OPENVPN, port=1200)
    assert "is that of the link to Acme" in words(between)
    saved(link(server(8, oslo), name="Elsewhere", port=1200, listens=False, addresses="192.0.2.1"))


def test_a_file_that_was_made_here_or_imported_already_is_refused(office: Server, oslo: Host) -> None:
    made = saved(link(office))
    text = outside_links.make_file(made, now()).encode()
    file = link_files.read(text, made.keys_made)
    with pytest.raises(LinkFileError, match="was made here, for the link to Acme"):
        outside_links.refuse_known(file)
    there = server(2, oslo)
    with pytest.raises(LinkFileError, match="was made here"):
        outside_links.from_file(file, there, "Us", [there.wg_network], masquerade=False, now=now())
    made.delete()
    # The maker's own networks are not at another end either.
    row = outside_links.from_file(file, there, "Us", [there.wg_network], masquerade=False, now=now())
    assert "the tunnel network of server s1 here" in words(row)
    Server.objects.filter(pk=office.pk).delete()
    saved(row)
    with pytest.raises(LinkFileError, match="has been imported already: it is the link to Us"):
        outside_links.refuse_known(file)
    again = OutsideLink(server=there, name="Again", ours=there.wg_network, theirs="10.70.0.0/16", link_id=file.link)
    with pytest.raises(IntegrityError), transaction.atomic():
        again.save()
    with pytest.raises(LinkFileError, match="The other installation made this link"):
        outside_links.make_file(row, now())


def test_a_new_file_ends_the_one_before_and_another_role_ends_both(office: Server) -> None:
    row = saved(link(office))
    assert not row.works
    first = link_files.read(outside_links.make_file(row, now()).encode(), row.keys_made)
    assert row.works
    assert (first.listens, first.addresses, first.theirs, first.ours) == (
        False,
        ("198.51.100.1",),
        ("10.101.0.0/24",),
        (THEIRS,),
    )
    stored = OutsideLink.objects.values_list("keys", flat=True).get().stored
    for secret in (first.keys.key, outside_links.keys_of(row).key, first.keys.tls_crypt):
        assert secret not in stored
    assert first.keys.key != outside_links.keys_of(row).key  # the other side's is nowhere but in the file
    second = link_files.read(outside_links.make_file(row, now()).encode(), row.keys_made)
    assert second.link != first.link
    assert second.keys.authority != first.keys.authority
    row.listens, row.addresses = False, "vpn.example.com"
    row.save(update_fields=["listens", "addresses"])
    row = OutsideLink.objects.get()
    assert (row.works, row.addresses) == (False, "vpn.example.com")


def test_what_can_be_offered_is_what_clients_of_the_server_reach(office: Server) -> None:
    saved(behind(office, "10.77.0.0/24"))
    for fields in (
        {"network": "10.50.0.0/24"},
        {"network": "0.0.0.0/0"},
        {"network": "10.51.0.0/24", "net_gateway": True},
        {"network": "10.52.0.0/24", "netmap": "192.168.5.0/24"},
    ):
        Route.objects.create(server=office, **fields)
    assert routing.offered(office) == {
        "10.101.0.0/24": "clients",
        "10.77.0.0/24": "behind alice",
        "10.50.0.0/24": "route",
        "10.52.0.0/24": "mapped route",  # not what stands behind it
    }
