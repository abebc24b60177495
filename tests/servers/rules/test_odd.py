"""What is only odd is asked back, by every door, until somebody says that it is meant."""

from __future__ import annotations

from typing import Any

import pytest
from django.core.exceptions import ValidationError
from django.test import Client

from servers.models import ClientNetwork, Route, Server
from servers.rules.registry import OddError
from tests.admin_site import errors, send, staff
from tests.factories import Company
from tests.servers.admin.test_forms import ADD, GOOD

pytestmark = pytest.mark.django_db


def odd(row: Any) -> dict[str, list[str]]:
    """The codes of what is odd with it, by field."""
    try:
        row.full_clean(exclude=["box_private_key"])
    except ValidationError as error:
        return {
            field: [each.oddity.code for each in said if isinstance(each, OddError)]
            for field, said in error.error_dict.items()
        }
    return {}


@pytest.mark.parametrize(
    ("network", "code"),
    [
        ("10.101.0.0/24", None),
        ("172.25.0.0/20", None),
        ("192.168.77.0/24", None),
        ("10.96.0.0/12", "large_network"),
        ("8.8.8.0/24", "public_network"),
        ("11.0.0.0/24", "public_network"),
        ("172.32.0.0/24", "public_network"),
        ("100.64.0.0/16", "shared_address_space"),
        ("192.0.2.0/24", "documentation_network"),
        ("198.51.100.0/24", "documentation_network"),
        ("203.0.113.0/24", "documentation_network"),
        ("198.18.4.0/24", "benchmark_network"),
        ("192.168.0.0/24", "usual_home_network"),
        ("192.168.1.0/24", "usual_home_network"),
        ("192.168.1.64/26", "usual_home_network"),
        ("192.168.0.0/20", "usual_home_network"),
        ("172.17.0.0/16", "usual_home_network"),
        ("10.0.0.0/24", "usual_home_network"),
    ],
)
def test_a_tunnel_network_that_is_hardly_meant(network: str, code: str | None) -> None:
    length = network.partition("/")[2]
    virtual = "10.32.0.0/11" if length == "11" else f"10.112.0.0/{length}"
    server = Server(name="new", network=virtual, wg_network=network, port=52000)
    server.meant = {"large_network"} if code != "large_network" else set()
    found = odd(server)
    assert found.get("wg_network", []) == ([code] if code else [])


@pytest.mark.parametrize(
    ("network6", "code"),
    [("fd12:3456::/64", None), ("2a00:1:2:3::/64", "public_network"), ("2001:db8::/64", "documentation_network")],
)
def test_an_ipv6_network_that_is_hardly_meant(network6: str, code: str | None) -> None:
    server = Server(name="new", network="10.100.0.0/24", wg_network="10.101.0.0/24", ipv6=True, network6=network6)
    assert odd(server) == ({"network6": [code]} if code else {})


def test_who_means_it_says_so_once_and_only_for_that_network() -> None:
    server = Server(name="new", network="10.100.0.0/24", wg_network="8.8.8.0/24")
    assert odd(server) == {"wg_network": ["public_network"]}
    with pytest.raises(ValidationError):
        server.full_clean(exclude=["box_private_key"], meant=["large_network"])
    server.full_clean(exclude=["box_private_key"], meant=["public_network"])
    server.save()
    again = Server.objects.get()
    assert again.confirmed == ["public_network 8.8.8.0/24"]
    assert odd(again) == {}
    again.wg_network = "8.8.4.0/24"
    assert odd(again) == {"wg_network": ["public_network"]}


def test_a_mistake_cannot_be_meant() -> None:
    server = Server(name="new", network="10.100.0.0/24", wg_network="10.100.0.0/24")
    server.meant = {"cannot_work", "public_network"}
    with pytest.raises(ValidationError, match="overlaps the virtual network"):
        server.full_clean()


def test_a_route_into_another_servers_tunnel_is_asked_about_and_no_lan_then(company: Company) -> None:
    other = Server.objects.create(name="lab", network="10.18.0.0/24", wg_network="10.19.0.0/24", port=51821)
    route = Route(server=other, network="10.9.0.0/24")
    assert odd(route) == {"network": ["tunnel_of_another_server"]}
    route.full_clean(meant=["tunnel_of_another_server"])
    route.save()
    # The other server is not told now that its tunnel hides a LAN.
    company.server.full_clean()


def test_a_public_network_behind_a_client_is_asked_about(company: Company) -> None:
    user, _ = company.hire("alice")
    row = ClientNetwork(server=company.server, user=user, network="198.51.100.0/24")
    assert odd(row) == {"network": ["documentation_network"]}
    row.network = "8.8.8.0/24"
    assert odd(row) == {"network": ["public_network"]}
    row.network = "192.168.1.0/24"
    assert odd(row) == {}


def test_a_tunnel_within_the_route_of_another_server_is_asked_about(company: Company) -> None:
    Route.objects.create(server=company.server, network="10.0.0.0/8")
    Route.objects.create(server=company.server, network="0.0.0.0/0")
    server = Server(name="new", network="10.100.0.0/24", wg_network="10.101.0.0/24", port=52000)
    assert odd(server) == {"wg_network": ["within_route"]}


@pytest.fixture
def admin(client: Client) -> Client:
    staff(client, superuser=True)
    return client


def boxes(response: Any) -> list[str]:
    """Values of the boxes on the page; those that are ticked with a star."""
    page, found = response.content.decode(), []
    for part in page.split('type="checkbox" name="')[1:]:
        name, _, rest = part.partition('"')
        if name.rpartition("-")[2] == "meant":
            value, _, rest = rest.partition('value="')[2].partition('"')
            found.append(f"{name}={value}{'*' if rest.startswith(' checked') else ''}")
    return found


def test_the_form_asks_with_a_box_and_does_not_ask_again(admin: Client) -> None:
    asked = send(admin, ADD, **GOOD | {"wg_network": "8.8.8.0/24"})
    assert "8.8.8.0/24 is public" in errors(asked)["wg_network"][0]
    assert boxes(asked) == ["meant=public_network 8.8.8.0/24"]
    # Ticked, but something else is wrong: it stays ticked.
    ticked = {"wg_network": "8.8.8.0/24", "meant": "public_network 8.8.8.0/24"}
    asked = send(admin, ADD, **GOOD | ticked | {"port": 0})
    assert boxes(asked) == ["meant=public_network 8.8.8.0/24*"]
    assert set(errors(asked)) == {"port", "wg_network"}
    # Ticked for one network, and then another one is typed.
    asked = send(admin, ADD, **GOOD | ticked | {"wg_network": "8.8.4.0/24"})
    assert boxes(asked) == ["meant=public_network 8.8.4.0/24"]
    assert errors(send(admin, ADD, **GOOD | ticked)) == {}
    server = Server.objects.get()
    assert server.confirmed == ["public_network 8.8.8.0/24"]
    assert errors(send(admin, f"/admin/servers/server/{server.pk}/change/", mtu=1400)) == {}


def test_a_row_of_a_form_asks_for_itself(admin: Client, company: Company) -> None:
    lab = Server.objects.create(name="lab", network="10.18.0.0/24", wg_network="10.19.0.0/24", port=51821)
    page = f"/admin/servers/server/{lab.pk}/change/"
    row = {"network": "10.9.0.0/24", "nat": "on"}
    asked = send(admin, page, _inline={"routes": [row]})
    assert boxes(asked) == ["routes-0-meant=tunnel_of_another_server 10.9.0.0/24"]
    row |= {"meant": "tunnel_of_another_server 10.9.0.0/24"}
    asked = send(admin, page, port=0, _inline={"routes": [row]})
    assert boxes(asked) == ["routes-0-meant=tunnel_of_another_server 10.9.0.0/24*"]
    assert errors(send(admin, page, _inline={"routes": [row]})) == {}
    assert errors(send(admin, page, mtu=1400)) == {}


def test_what_is_odd_already_is_confirmed_with_the_box_alone(admin: Client) -> None:
    server = Server.objects.create(name="old", network="10.100.0.0/24", wg_network="8.8.8.0/24")
    page = f"/admin/servers/server/{server.pk}/change/"
    assert list(errors(send(admin, page))) == ["wg_network"]
    assert errors(send(admin, page, meant="public_network 8.8.8.0/24")) == {}
    assert errors(send(admin, page)) == {}


def test_all_mistakes_of_a_form_and_its_rows_are_said_at_once(admin: Client, company: Company) -> None:
    """IPv6 among them: each is right about itself, whatever else is wrong."""
    changes = {
        "name": "../etc", "network": "ten", "wg_network": "10.9.0.0/24", "ipv6": "on", "network6": "fd09::/96",
        "port": 0, "ping_timeout": 15, "dns_servers": "nine", "dns_tls_name": "a, b",
    }  # fmt: skip
    rows = {
        "attachments": [{"host": ""}],
        "routes": [{"network": "fd77::1/64"}, {"network": "192.168.3.0/24", "nat_interface": "eth 0", "netmap": "x"}],
        "split_domains": [{"domain": "a b", "dns_servers": "nine"}],
    }
    found = errors(send(admin, ADD, **GOOD | changes, _inline=rows))
    assert set(found) >= {
        "name", "network", "wg_network", "network6", "port", "ping_timeout", "dns_servers", "dns_tls_name",
        "routes-0-network", "routes-1-nat_interface", "routes-1-netmap", "split_domains-0-domain",
        "split_domains-0-dns_servers",
    }  # fmt: skip
