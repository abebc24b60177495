"""Where a link that OpenVPN carries can end: refused in words at every door, with nothing changed."""

from __future__ import annotations

from typing import Any

import pytest
from django.core.exceptions import ValidationError

from servers import mesh
from servers.link_keys import LinkKeys
from servers.models import Carrier, Host, MeshNode, PortForward, Server, ServerHost, ServerLink, ends_of
from tests.protocol_client import new_wg_key
from users.models import Organization, VpnUser

pytestmark = pytest.mark.django_db
PORT = 1194


def server(number: int, host: Host | None) -> Server:
    networks = {"network": f"10.{number}.0.0/24", "wg_network": f"10.{100 + number}.0.0/24"}
    row = Server.objects.create(name=f"s{number}", port=52000 + number, **networks)
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
def link(berlin: Host, oslo: Host) -> ServerLink:
    row = ServerLink(first=server(1, berlin), second=server(2, oslo), carrier=Carrier.OPENVPN, port=PORT)
    row.full_clean()
    row.save()
    return row


def hosts(link: ServerLink) -> tuple[list[Host], ...]:
    """Where it can end: those of the side that listens first."""
    return tuple([row.host for row in rows] for rows in ends_of(link) or ())


def beside(server: Server, name: str, address: str = "", priority: int = 1) -> Host:
    """One more host of it, in the mesh as all of them are then."""
    host = Host.objects.create(name=name, public_address=address)
    ServerHost.objects.create(server=server, host=host, priority=priority)
    for each in server.hosts.filter(node=None):
        MeshNode.objects.create(host=each, host_part=mesh.free_host_part(mesh.the_mesh()), public_key=new_wg_key())
    return host


def refused(row: Any) -> str:
    with pytest.raises(ValidationError) as error:
        row.full_clean()
    return " ".join(error.value.messages)


def test_keys_are_made_with_it_kept_and_forgotten_with_openvpn(link: ServerLink) -> None:
    before = link.keys.reveal()
    keys = LinkKeys.from_text(before)
    assert (keys.server.peer, keys.client.peer) == (keys.client.name, keys.server.name)
    for secret in (keys.server.key, keys.client.key, keys.server.tls_crypt):
        assert secret not in repr(keys)
        assert secret not in ServerLink.objects.filter(pk=link.pk).values_list("keys", flat=True)[0].stored
    link.save()
    assert ServerLink.objects.get().keys.reveal() == before
    link.carrier = Carrier.MESH
    link.save()
    assert not ServerLink.objects.get().keys
    link.carrier = Carrier.OPENVPN
    link.save()
    assert ServerLink.objects.get().keys.reveal() != before


def test_the_end_with_a_public_address_listens(link: ServerLink, berlin: Host, oslo: Host) -> None:
    assert hosts(link) == ([berlin], [oslo])
    berlin.public_address = ""
    berlin.save()
    assert hosts(ServerLink.objects.get()) == ([oslo], [berlin])
    oslo.public_address = ""
    oslo.save()
    assert ends_of(ServerLink.objects.get()) is None
    assert "needs a public address" in refused(link)


def test_each_server_is_on_a_host_and_they_share_none(berlin: Host, oslo: Host) -> None:
    nowhere, here, near, there = server(1, None), server(2, berlin), server(3, berlin), server(4, oslo)
    for other, words in ((nowhere, "is on no host"), (near, "Both servers are on host Berlin")):
        assert words in refused(ServerLink(first=here, second=other, carrier=Carrier.OPENVPN))
    beside(near, "Paris", "198.51.100.7")
    assert "Both servers are on host Berlin" in refused(ServerLink(first=here, second=near, carrier=Carrier.OPENVPN))
    row = ServerLink(first=here, second=there, carrier=Carrier.OPENVPN, names=True)
    assert "Names of clients are known by WireGuard only" in refused(row)
    assert ServerLink.objects.count() == 0


def test_more_hosts_of_a_server_can_carry_it_but_none_of_the_other_end(
    link: ServerLink, berlin: Host, oslo: Host
) -> None:
    rome = beside(link.first, "Rome", "198.51.100.3", priority=2)
    link.full_clean()
    assert hosts(link) == ([berlin, rome], [oslo])
    link.first.attachments.filter(host=rome).update(priority=1)
    link.first.attachments.filter(host=berlin).update(priority=2)
    assert hosts(link) == ([rome, berlin], [oslo])
    attachment = link.first.attachments.get(host=berlin)
    attachment.full_clean()  # it may be saved again
    attachment.host = oslo
    assert "carries the server at the other end" in refused(attachment)
    # One that has not joined yet reaches nobody, and is reached by nobody.
    new = Host.objects.create(name="Ulm", public_address="198.51.100.4")
    ServerHost.objects.create(server=link.first, host=new)
    assert hosts(link) == ([rome, berlin], [oslo])


def test_the_side_listens_that_is_found_at_each_of_its_hosts(link: ServerLink, berlin: Host, oslo: Host) -> None:
    rome = beside(link.first, "Rome")
    assert hosts(link) == ([oslo], [berlin, rome])
    lima = beside(link.second, "Lima")
    assert hosts(link) == ([berlin], [oslo, lima])


def test_its_port_is_free_on_each_host_that_may_listen(link: ServerLink, berlin: Host) -> None:
    third = server(3, None)
    third.port = PORT
    third.save()
    rome = beside(third, "Rome", "198.51.100.3")
    assert "in use by server s3" in refused(ServerHost(server=link.first, host=rome))
    other = beside(link.first, "Ulm", "198.51.100.4")
    assert "that of the link between s1 and s2" in refused(ServerHost(server=third, host=other))


def test_a_host_leads_to_a_server_by_one_tunnel(link: ServerLink, berlin: Host, oslo: Host) -> None:
    near, paris = server(3, berlin), Host.objects.create(name="Paris", public_address="198.51.100.7")
    for carrier in Carrier:
        row = ServerLink(first=near, second=link.second, carrier=carrier, port=PORT + 1)
        assert "a host leads to a server by one tunnel" in refused(row)
    far = server(4, paris)
    ServerLink.objects.create(first=far, second=link.second)
    assert "a host leads to a server by one tunnel" in refused(ServerHost(server=far, host=berlin))
    assert "a host leads to a server by one tunnel" in refused(ServerHost(server=link.first, host=paris))
    # By WireGuard alone it may be by as many as there are.
    link.carrier = Carrier.MESH
    link.save()
    ServerLink(first=near, second=link.second).full_clean()
    ServerHost(server=far, host=berlin).full_clean()


def test_its_port_is_nobody_elses(link: ServerLink, berlin: Host, oslo: Host) -> None:
    link.full_clean()  # it may be saved again
    for port, words in ((52001, "in use by server s1"), (mesh.the_mesh().port, "that of the mesh")):
        link.port = port
        assert words in refused(link)
    link.port = 1023
    assert "greater than or equal to 1024" in refused(link)
    another = ServerLink(first=server(3, berlin), second=server(4, oslo), carrier=Carrier.OPENVPN, port=PORT)
    assert "that of the link between s1 and s2" in refused(another)
    another.port = PORT + 1
    another.full_clean()


def test_nobody_else_gets_its_port(link: ServerLink, berlin: Host) -> None:
    of_link = "that of the link between s1 and s2"
    first, row = link.first, mesh.the_mesh()
    first.port = row.port = PORT
    assert of_link in refused(first)
    assert of_link in refused(row)
    third = server(3, None)
    third.port = PORT
    third.full_clean()
    third.save()
    assert of_link in refused(ServerHost(server=third, host=berlin))
    organization = Organization.objects.create(name="Acme")
    link.first.organizations.add(organization)
    user = VpnUser.objects.create(organization=organization, name="alice")
    forward = PortForward(server=link.first, user=user, protocol="both", port=PORT - 4, last_port=PORT + 4)
    assert of_link in refused(forward)
    forward.protocol = "tcp"
    forward.full_clean()
