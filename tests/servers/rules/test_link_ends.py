"""Where a link that OpenVPN carries can end: refused in words at every door, with nothing changed."""

from __future__ import annotations

from typing import Any

import pytest
from django.core.exceptions import ValidationError

from servers import mesh
from servers.link_keys import LinkKeys
from servers.models import Carrier, Host, PortForward, Server, ServerHost, ServerLink, ends_of
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
    assert ends_of(link) == (berlin, oslo)
    berlin.public_address = ""
    berlin.save()
    assert ends_of(ServerLink.objects.get()) == (oslo, berlin)
    oslo.public_address = ""
    oslo.save()
    assert ends_of(ServerLink.objects.get()) is None
    assert "needs a public address" in refused(link)


def test_each_server_is_on_one_host_and_they_differ(berlin: Host, oslo: Host) -> None:
    nowhere, here, beside, there = server(1, None), server(2, berlin), server(3, berlin), server(4, oslo)
    for other, words in ((nowhere, "is on 0 hosts"), (beside, "Both servers are on host Berlin")):
        assert words in refused(ServerLink(first=here, second=other, carrier=Carrier.OPENVPN))
    row = ServerLink(first=here, second=there, carrier=Carrier.OPENVPN, names=True)
    assert "Names of clients are known by WireGuard only" in refused(row)
    assert ServerLink.objects.count() == 0


def test_no_second_host_and_not_that_of_the_other_end(link: ServerLink, oslo: Host) -> None:
    third = Host.objects.create(name="Rome", public_address="198.51.100.3")
    assert "ends on one host" in refused(ServerHost(server=link.first, host=third))
    attachment = link.first.attachments.get()
    attachment.full_clean()  # it may be saved again
    attachment.host = oslo
    assert "carries the server at the other end" in refused(attachment)


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
