"""Forwarded ports: what cannot work on a host is refused in words, wherever the clash comes from."""

from __future__ import annotations

from typing import Any

import pytest
from django.core.exceptions import ValidationError
from django.test import Client

from servers.hostnet.state import Forward
from servers.models import Host, PortForward, Server, ServerHost
from tests.admin_site import errors, send, staff
from tests.connection_rows import live
from tests.factories import Company, HostStandIn, add_host
from tests.protocol_client import NOW, make_request, plaintext
from users.models import Group, Organization, VpnUser
from wgpeers.fleet import desired
from wgpeers.lifecycle import ending
from wgpeers.models import EndReason


@pytest.fixture(autouse=True)
def alice(company: Company, settings: Any) -> VpnUser:
    settings.API_URLS = ["https://vpn.example.com", "https://192.0.2.1:8443"]
    settings.GATEWAY_PORT = 9790
    return company.hire("alice")[0]


@pytest.fixture
def bob(company: Company) -> VpnUser:
    return company.hire("bob")[0]


def forward(company: Company, user: VpnUser, port: int, **fields: Any) -> PortForward:
    return PortForward(**{"server": company.server, "user": user, "port": port} | fields)


def kept(row: PortForward) -> PortForward:
    row.full_clean()
    row.save()
    return row


def refused(row: Any) -> dict[str, list[str]]:
    with pytest.raises(ValidationError) as error:
        row.full_clean()
    return dict(error.value.message_dict)


def another(company: Company, *, beside: bool, **fields: Any) -> Server:
    """A second server of the same people, on the same host or on one of its own."""
    common = {"name": "Lab", "network": "10.20.0.0/24", "wg_network": "10.21.0.0/24", "port": 51821}
    server = Server.objects.create(**common | fields)
    server.organizations.add(company.organization)
    if beside:
        ServerHost.objects.create(server=server, host=company.host)
    else:
        add_host(server, f"gate-of-{server.name}", address="198.51.100.99")
    return server


@pytest.mark.parametrize(
    ("fields", "field", "words"),
    [
        ({"port": 0}, "port", "greater than or equal to 1"),
        ({"port": 65536}, "port", "less than or equal to 65535"),
        ({"port": 5000, "last_port": 70000}, "last_port", "less than or equal to 65535"),
        ({"port": 5000, "to_port": 70000}, "to_port", "less than or equal to 65535"),
        ({"port": 5000, "last_port": 4999}, "last_port", "from 5000 to 65535"),
        ({"port": 5000, "last_port": 6000}, "last_port", "At most 1000 ports in one range: up to 5999"),
        ({"port": 5000, "last_port": 5009, "to_port": 65527}, "to_port", "10 ports from 65527 on would go beyond"),
        ({"port": 51820, "protocol": "udp"}, "port", "UDP port 51820 is the WireGuard port of server Office"),
        ({"port": 51000, "last_port": 51900, "protocol": "both"}, "port", "the WireGuard port of server Office"),
        ({"port": 9790}, "port", "TCP port 9790 is where clients' pings arrive"),
        ({"port": 443}, "port", "TCP port 443 is where clients reach the API"),
        ({"port": 8000, "last_port": 8900, "protocol": "both"}, "port", "TCP port 8443 is where clients reach the API"),
    ],
)
def test_a_forward_that_cannot_work(
    company: Company, alice: VpnUser, fields: dict[str, Any], field: str, words: str
) -> None:
    problems = refused(forward(company, alice, **fields))
    assert any(words in text for text in problems[field]), problems
    assert not PortForward.objects.exists()


@pytest.mark.parametrize(
    "fields",
    [
        {"port": 1},
        {"port": 65535},
        {"port": 5000, "last_port": 5999, "protocol": "both"},
        {"port": 5000, "last_port": 5009, "to_port": 65526},
        {"port": 51820, "protocol": "tcp"},
        {"port": 443, "protocol": "udp"},
        {"port": 9790, "protocol": "udp"},
    ],
)
def test_a_forward_that_works(company: Company, alice: VpnUser, fields: dict[str, Any]) -> None:
    kept(forward(company, alice, **fields)).full_clean()


def test_without_api_urls_the_usual_port_is_taken(company: Company, alice: VpnUser, settings: Any) -> None:
    settings.API_URLS = []
    assert "TCP port 443" in refused(forward(company, alice, 443))["port"][0]
    forward(company, alice, 8443).full_clean()


CLASHES = [
    ({"port": 8080}, {"port": 8080}, True),
    ({"port": 8080}, {"port": 8080, "protocol": "both"}, True),
    ({"port": 8080, "protocol": "both"}, {"port": 8080, "protocol": "udp"}, True),
    ({"port": 8080}, {"port": 8080, "protocol": "udp"}, False),
    ({"port": 8000, "last_port": 8100}, {"port": 8100}, True),
    ({"port": 8000, "last_port": 8100}, {"port": 8101}, False),
    ({"port": 8050}, {"port": 8000, "last_port": 8100}, True),
    ({"port": 8000, "last_port": 8050}, {"port": 8050, "last_port": 8100}, True),
    ({"port": 8000, "last_port": 8049}, {"port": 8050, "last_port": 8100}, False),
    ({"port": 8000, "to_port": 80}, {"port": 8001, "to_port": 80}, False),
]


@pytest.mark.parametrize(("first", "second", "clash"), CLASHES)
@pytest.mark.parametrize("where", ["same server", "same host", "other host"])
def test_two_forwards_of_one_port_of_one_host(
    company: Company,
    alice: VpnUser,
    bob: VpnUser,
    first: dict[str, Any],
    second: dict[str, Any],
    clash: bool,
    where: str,
) -> None:
    kept(forward(company, alice, **first))
    server = company.server if where == "same server" else another(company, beside=where == "same host")
    row = forward(company, bob, **second, server=server)
    if clash and where != "other host":
        assert "is forwarded to alice on server Office, on the same host" in refused(row)["port"][0]
    else:
        kept(row).full_clean()


@pytest.mark.parametrize(("first", "second", "clash"), CLASHES)
def test_a_host_attached_later_is_checked(
    company: Company, alice: VpnUser, bob: VpnUser, first: dict[str, Any], second: dict[str, Any], clash: bool
) -> None:
    lab = another(company, beside=False)
    kept(forward(company, alice, **first))
    kept(forward(company, bob, **second, server=lab))
    attachment = ServerHost(server=lab, host=company.host)
    if clash:
        words = refused(attachment)["host"][0]
        assert "of bob" in words
        assert "of alice (server Office) would be the same port there" in words
    else:
        attachment.full_clean()


def test_a_wireguard_port_and_a_forward_do_not_come_together_on_a_host(company: Company, alice: VpnUser) -> None:
    lab = another(company, beside=False)
    kept(forward(company, alice, 51821, protocol="udp"))
    assert "UDP port 51821 is forwarded to alice there" in refused(ServerHost(server=lab, host=company.host))["host"][0]
    kept(forward(company, alice, 51830, protocol="udp", server=lab))
    lab.port = 51840
    lab.save()
    ServerHost.objects.create(server=lab, host=company.host)
    assert "WireGuard port of server Lab" in refused(forward(company, alice, 51840, protocol="udp"))["port"][0]
    lab.port = 51821
    assert "UDP port 51821 of host gate-1 is forwarded to alice" in refused(lab)["port"][0]


def test_a_server_whose_forward_takes_the_port_of_another_cannot_come_to_its_host(
    company: Company, alice: VpnUser
) -> None:
    lab = another(company, beside=False)
    kept(forward(company, alice, 51820, protocol="udp", server=lab))
    words = refused(ServerHost(server=lab, host=company.host))["host"][0]
    assert "UDP port 51820, forwarded to alice, is the WireGuard port of Office there" in words


def test_only_for_who_may_use_the_server(company: Company, alice: VpnUser) -> None:
    charlie = VpnUser.objects.create(organization=Organization.objects.create(name="Other"), name="charlie")
    assert "charlie may not use server Office" in refused(forward(company, charlie, 8080))["server"][0]
    row = kept(forward(company, alice, 8080))
    company.server.groups.add(Group.objects.create(name="staff"))
    # It stays, for when they get the server back, and does not stand in the way of other changes.
    row.comment = "her web server"
    row.full_clean()
    assert "may not use" in refused(forward(company, alice, 8081))["server"][0]


# The forms, where several rows are decided on together.


@pytest.fixture
def admin(client: Client) -> Client:
    staff(client, superuser=True)
    return client


def page(user: VpnUser) -> str:
    return f"/admin/users/vpnuser/{user.pk}/change/"


def row_of(server: Server, port: int, **fields: Any) -> dict[str, Any]:
    return {"server": server.pk, "protocol": "tcp", "port": port} | fields


def test_forwards_are_made_changed_and_deleted_on_a_users_page(admin: Client, company: Company, alice: VpnUser) -> None:
    rows = [row_of(company.server, 8080, to_port=80), row_of(company.server, 8081)]
    assert errors(send(admin, page(alice), _inline={"forwards": rows})) == {}
    assert list(PortForward.objects.values_list("port", "to_port")) == [(8080, 80), (8081, None)]
    # Two ports change places in one form: neither is refused for what the other one was.
    assert errors(send(admin, page(alice), **{"forwards-0-port": 8081, "forwards-1-port": 8080})) == {}
    assert list(PortForward.objects.order_by("pk").values_list("port", flat=True)) == [8081, 8080]
    # One is deleted and a new one takes its port.
    gone = {"forwards-0-DELETE": "on"}
    assert errors(send(admin, page(alice), **gone, _inline={"forwards": [row_of(company.server, 8080)]})) == {}
    assert sorted(PortForward.objects.values_list("port", flat=True)) == [8080, 8081]


def test_rows_of_one_form_that_clash_are_refused(admin: Client, company: Company, alice: VpnUser) -> None:
    lab = another(company, beside=True)
    rows = [row_of(company.server, 8000, last_port=8010), row_of(lab, 8010, protocol="both")]
    found = errors(send(admin, page(alice), _inline={"forwards": rows}))
    assert found == {"forwards-1-port": ["TCP 8000-8010 in this form is the same port of the same host."]}
    assert not PortForward.objects.exists()
    far = another(company, beside=False, name="Far", network="10.30.0.0/24", wg_network="10.31.0.0/24")
    rows[1]["server"] = far.pk
    assert errors(send(admin, page(alice), _inline={"forwards": rows})) == {}


def test_a_clash_with_another_users_forward_is_refused(
    admin: Client, company: Company, alice: VpnUser, bob: VpnUser
) -> None:
    kept(forward(company, bob, 8080))
    found = errors(send(admin, page(alice), _inline={"forwards": [row_of(company.server, 8080)]}))
    assert found == {"forwards-0-port": ["TCP 8080 is forwarded to bob on server Office, on the same host."]}


def test_only_servers_of_the_user_are_offered(admin: Client, company: Company, alice: VpnUser) -> None:
    hidden = Server.objects.create(name="Hidden", network="10.20.0.0/24", wg_network="10.21.0.0/24", port=51821)
    found = errors(send(admin, page(alice), _inline={"forwards": [row_of(hidden, 8080)]}))
    assert list(found) == ["forwards-0-server"]
    assert not PortForward.objects.exists()


def test_a_host_is_attached_in_the_form_only_without_a_clash(
    admin: Client, company: Company, alice: VpnUser, bob: VpnUser
) -> None:
    lab = another(company, beside=False)
    kept(forward(company, alice, 8080))
    kept(forward(company, bob, 8080, server=lab))
    url = f"/admin/servers/server/{lab.pk}/change/"
    found = errors(send(admin, url, _inline={"attachments": [{"host": company.host.pk}]}))
    assert list(found) == ["attachments-1-host"]
    url = f"/admin/servers/host/{company.host.pk}/change/"
    found = errors(send(admin, url, _inline={"attachments": [{"server": lab.pk}]}))
    assert list(found) == ["attachments-1-server"]
    assert lab.attachments.count() == 1


def forwards_at(host: Host) -> list[Forward]:
    state = desired.state_of(host.pk)
    assert state is not None
    return [each for interface in state.interfaces for peer in interface.peers for each in peer.forwards]


def test_a_forward_follows_its_user_from_host_to_host(company: Company, alice: VpnUser) -> None:
    kept(forward(company, alice, 8080, to_port=80))
    far = add_host(company.server, "gate-2")
    assert forwards_at(company.host) == forwards_at(far) == []
    first = live(company, alice)
    assert (forwards_at(company.host), forwards_at(far)) == ([Forward("tcp", 8080, 8080, 80)], [])
    ending.end([first], EndReason.ADMIN, NOW)
    live(company, alice, host=far)
    assert (forwards_at(company.host), forwards_at(far)) == ([], [Forward("tcp", 8080, 8080, 80)])


def test_a_connects_own_message_brings_its_forwards(company: Company, host: HostStandIn) -> None:
    """They are there before the client is answered, without waiting for a full state."""
    user, identity = company.hire("carol")
    kept(forward(company, user, 8080, protocol="both"))
    assert make_request(identity, plaintext()).send().status_code == 200
    (message,) = host.of("hostnet.add_peer")
    assert [each["protocol"] for each in message["peer"]["forwards"]] == ["tcp", "udp"]
