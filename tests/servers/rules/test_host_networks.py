"""No tunnel takes the place of a network that a host has itself, whichever door it comes by."""

from __future__ import annotations

from typing import Any

import pytest
from django.core.exceptions import ValidationError
from django.test import Client

from servers import services
from servers.models import ClientNetwork, Host, Route, Server, ServerHost
from tests.admin_site import errors, messages, send, staff
from tests.connection_rows import many
from tests.factories import Company, add_host

pytestmark = pytest.mark.django_db
OWN = [
    ["address", "192.168.50.10/32", "eth0"],
    ["address", "198.51.100.7/32", "ppp0"],
    ["attached", "192.168.50.0/24", "eth0"],
    ["attached", "2001:db8:7::/64", "eth0"],
    ["router", "172.30.0.1/32", "eth1"],
]
COLLIDING = {
    "192.168.50.0/24": "192.168.50.0/24 on eth0 of host gate-1",
    "192.168.50.128/25": "192.168.50.0/24 on eth0 of host gate-1",
    "192.168.0.0/17": "192.168.50.0/24 on eth0 of host gate-1",
    "172.30.0.0/24": "172.30.0.1 (router) on eth1 of host gate-1",
    "192.0.2.0/24": "192.0.2.1, the public address of host gate-1",
    "198.51.100.0/24": "198.51.100.7 (address) on ppp0 of host gate-1",
}
ODD = ["usual_home_network", "documentation_network", "public_network", "large_network", "within_route"]


@pytest.fixture
def host(company: Company) -> Host:
    Host.objects.update(networks=OWN)
    company.host.refresh_from_db()
    return company.host


@pytest.fixture
def admin(client: Client) -> Client:
    staff(client, superuser=True)
    return client


def page_of(row: Any) -> str:
    return f"/admin/servers/{row._meta.model_name}/{row.pk}/change/"


def moved(server: Server, network: str) -> Server:
    """``server`` with that tunnel network, whatever anybody says."""
    length = network.partition("/")[2]
    Server.objects.filter(pk=server.pk).update(wg_network=network, network=f"10.64.0.0/{length}")
    server.refresh_from_db()
    return server


@pytest.mark.parametrize(("network", "words"), COLLIDING.items())
def test_a_network_of_the_host_is_no_tunnel_network_by_any_door(
    admin: Client, company: Company, host: Host, network: str, words: str
) -> None:
    server, length = company.server, network.partition("/")[2]
    boxes = {"meant": [f"{code} {network}" for code in ODD]}
    # The form.
    said = errors(send(admin, page_of(server), wg_network=network, network=f"10.64.0.0/{length}", **boxes))
    assert list(said) == ["wg_network"]
    assert words in said["wg_network"][0]
    # Code that checks, and code that does not.
    server.wg_network, server.network = network, f"10.64.0.0/{length}"
    with pytest.raises(ValidationError) as refused:
        server.full_clean(meant=ODD)
    assert list(refused.value.message_dict) == ["wg_network"]
    with pytest.raises(ValidationError):
        server.save()
    with pytest.raises(ValidationError):
        server.save(update_fields=["wg_network"])
    # One that has it already, and is to come to this host: a row, of either page, and code.
    lab = Server.objects.create(name="lab", network=f"10.64.0.0/{length}", wg_network=network, port=51999)
    for page, row, field in ((page_of(lab), {"host": host.pk}, "host"), (page_of(host), {"server": lab.pk}, "server")):
        said = errors(send(admin, page, _inline={"attachments": [row]}, **boxes))
        said = {name: texts for name, texts in said.items() if " checked>" not in texts[0]}  # what was meant
        assert [name.rpartition("-")[2] for name in said] == [field]
        assert words in next(iter(said.values()))[0]
    with pytest.raises(ValidationError):
        ServerHost.objects.create(server=lab, host=host)
    assert Server.objects.get(pk=server.pk).wg_network == "10.9.0.0/24"
    assert not lab.attachments.exists()


def test_an_ipv6_network_of_the_host_is_none_either(company: Company, host: Host) -> None:
    company.server.ipv6, company.server.network6 = True, "2001:db8:7::/64"
    with pytest.raises(ValidationError, match=r"2001:db8:7::/64 on eth0") as refused:
        company.server.full_clean(meant=ODD)
    assert list(refused.value.message_dict) == ["network6"]


def test_a_server_whose_network_its_host_has_meanwhile_is_not_started(
    admin: Client, company: Company, host: Host
) -> None:
    server = moved(company.server, "192.168.50.0/24")
    services.stop(server)  # which is always possible
    with pytest.raises(ValidationError, match=r"overlaps 192.168.50.0/24 on eth0"):
        services.start(server)
    assert "was not started. 192.168.50.0/24 overlaps" in messages(admin, page_of(server).replace("change", "do/start"))
    server.refresh_from_db()
    assert not server.started


def test_a_running_server_can_be_changed_otherwise_and_taken_off_that_host(
    admin: Client, company: Company, host: Host
) -> None:
    server = moved(company.server, "192.168.50.0/24")
    server.mtu = 1400
    server.save()
    data = {"attachments-0-DELETE": "on"}
    assert errors(send(admin, page_of(host), **data)) == {}
    assert errors(send(admin, page_of(server), meant=[f"{code} 192.168.50.0/24" for code in ODD])) == {}


def test_the_networks_of_other_hosts_say_nothing(company: Company, host: Host) -> None:
    lab = Server.objects.create(name="lab", network="10.64.0.0/24", wg_network="192.168.50.0/24", port=51999)
    add_host(lab, "gate-2", address="192.0.2.2")
    lab.full_clean()


def test_a_hosts_public_address_is_in_no_tunnel_of_its(admin: Client, company: Company) -> None:
    said = errors(send(admin, page_of(company.host), public_address="10.9.0.77"))
    assert said == {"public_address": ["10.9.0.77 is in 10.9.0.0/24, a tunnel network of server Office on this host."]}
    company.host.public_address = "10.9.0.77"
    with pytest.raises(ValidationError):
        company.host.save()


@pytest.mark.parametrize(
    ("network", "refused"),
    [
        ("192.168.50.0/24", True),
        ("192.168.50.64/26", True),
        ("192.168.0.0/16", False),  # the host keeps its own, longer route
        ("172.30.0.0/24", False),
        ("192.168.77.0/24", False),
    ],
)
def test_a_lan_of_the_host_is_not_behind_a_client(company: Company, host: Host, network: str, refused: bool) -> None:
    user, _ = company.hire("alice")
    row = ClientNetwork(server=company.server, user=user, network=network)
    if not refused:
        row.full_clean()
        row.save()
        return
    with pytest.raises(ValidationError, match=r"the host has it itself") as said:
        row.full_clean()
    assert list(said.value.message_dict) == ["network"]
    with pytest.raises(ValidationError):
        row.save()


def test_a_network_that_a_client_comes_from_is_not_behind_a_client(company: Company) -> None:
    (connection,) = many(company, 1)
    type(connection).objects.update(client_address="203.0.113.77")
    user, _ = company.hire("alice")
    row = ClientNetwork(server=company.server, user=user, network="203.0.113.0/24")
    with pytest.raises(ValidationError, match=r"holds 203.0.113.77, from where"):
        row.full_clean(meant=ODD)
    with pytest.raises(ValidationError):
        row.save()
    type(connection).objects.update(state="ended")
    row.full_clean(meant=ODD)


@pytest.mark.parametrize(
    ("routed", "network", "refused"),
    [
        ("192.168.44.0/24", "192.168.44.0/24", True),
        ("192.168.44.0/24", "192.168.32.0/20", True),
        ("192.168.44.0/24", "192.168.45.0/24", False),
        ("0.0.0.0/0", "192.168.44.0/24", False),
    ],
)
def test_a_lan_that_another_server_routes_to_is_no_tunnel_network(
    company: Company, routed: str, network: str, refused: bool
) -> None:
    Route.objects.create(server=company.server, network=routed)
    lab = Server(name="lab", network=f"10.64.0.0/{network[-2:]}", wg_network=network, port=51999)
    if not refused:
        lab.full_clean(exclude=["box_private_key"])
        return
    with pytest.raises(ValidationError, match=rf"would hide {routed}, to which server Office has a route"):
        lab.full_clean(exclude=["box_private_key"])
