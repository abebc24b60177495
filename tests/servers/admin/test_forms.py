"""The forms refuse what cannot work, with a message at the field that must change."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client

from servers.models import Host, Route, Server, ServerHost
from tests.admin_site import errors, form_data, send, staff
from users.models import Organization, VpnUser

pytestmark = pytest.mark.django_db
ADD = "/admin/servers/server/add/"
GOOD = {"name": "new", "network": "10.100.0.0/24", "wg_network": "10.101.0.0/24", "port": 52000}


@pytest.fixture
def admin(client: Client) -> Client:
    staff(client, superuser=True)
    return client


@pytest.fixture
def office() -> Server:
    server = Server.objects.create(name="office", network="10.8.0.0/24", wg_network="10.9.0.0/24", port=51820)
    ServerHost.objects.create(server=server, host=Host.objects.create(name="h1", public_address="192.0.2.1"))
    return server


BLANK: dict[str, Any] = {}


def errors_of_new(admin: Client, **changes: Any) -> dict[str, list[str]]:
    """What is said of the form of a new server. It is opened once for all: whatever there is, it is shown the same."""
    if not BLANK:
        BLANK.update(form_data(admin.get(ADD)))
    data = BLANK | changes
    return errors(admin.post(ADD, {name: value for name, value in data.items() if value is not None}))


def url_of(obj: Any) -> str:
    return f"/admin/{obj._meta.app_label}/{obj._meta.model_name}/{obj.pk}/change/"


def test_a_server_with_a_host_and_a_route_is_created_in_one_form(admin: Client) -> None:
    host = Host.objects.create(name="h1", public_address="192.0.2.1")
    rows = {"attachments": [{"host": host.pk}], "routes": [{"network": "192.168.1.0/24", "nat": "on"}]}
    assert errors(send(admin, ADD, **GOOD, _inline=rows)) == {}
    server = Server.objects.get(name="new")
    assert (list(server.hosts.all()), server.routes.get().network) == ([host], "192.168.1.0/24")


@pytest.mark.parametrize(
    ("changes", "field", "words"),
    [
        ({"network": "10.8.0.0/16", "wg_network": "10.101.0.0/16"}, "network", "overlaps 10.8.0.0/24 of server office"),
        ({"network": "10.9.0.0/25", "wg_network": "10.101.0.0/25"}, "network", "overlaps 10.9.0.0/24 of server office"),
        ({"wg_network": "10.9.0.0/24"}, "wg_network", "overlaps 10.9.0.0/24 of server office"),
        ({"wg_network": "10.100.0.0/24"}, "wg_network", "overlaps the virtual network"),
        ({"wg_network": "10.101.0.0/25"}, "wg_network", "must be a /24"),
        ({"network": "10.100.0.0/29"}, "network", "too small"),
        ({"wg_network": "10.101.0.0/29"}, "wg_network", "too small"),
        ({"network": "10.100.0.0", "wg_network": "10.101.0.0/24"}, "network", "too small"),
        ({"network": "10.100.0.5/24"}, "network", "host bits set. Did you mean 10.100.0.0/24?"),
        ({"network": "10.100.0.0/33"}, "network", "not a network"),
        ({"network": "ten"}, "network", "not a network"),
        ({"network": ""}, "network", "required"),
        ({"network": "fd00::/64"}, "network", "an IPv4 one is needed"),
        ({"network": "127.0.0.0/24"}, "network", "cannot be used"),
        ({"network": "224.0.0.0/24"}, "network", "cannot be used"),
        ({"network": "0.0.0.0/24"}, "network", "cannot be used"),
        ({"ipv6": "on", "network6": "fd09::/96"}, "network6", "too small"),
        ({"network6": "nonsense"}, "network6", "not a network"),
        ({"port": 0}, "port", "greater than or equal to 1"),
        ({"port": 70000}, "port", "less than or equal to 65535"),
        ({"mtu": 100}, "mtu", "1280"),
        ({"dns_servers": "1.1.1.1, nine"}, "dns_servers", "not an IP address"),
        ({"search_domains": "exa mple"}, "search_domains", "not a domain name"),
        ({"dns_zone": "10"}, "dns_zone", "not a zone"),
        ({"dns_tls_name": "dns.example"}, "dns_tls_name", "Give the DNS servers"),
        ({"platforms": "linux, beos"}, "platforms", "not a platform"),
        ({"ping_timeout": 15}, "ping_timeout", "One lost ping"),
        ({"multi_device": True, "keep_connected_device": True}, "keep_connected_device", "Turn this off"),
        ({"name": "office"}, "name", "There is a server office already"),
        ({"name": "../etc"}, "name", "Use letters"),
    ],
)
def test_a_server_that_cannot_work_is_refused(
    admin: Client, office: Server, changes: dict[str, Any], field: str, words: str
) -> None:
    found = errors_of_new(admin, **(GOOD | changes))
    assert list(found) == [field]
    assert len(found[field]) == 1
    assert words in found[field][0]
    assert Server.objects.count() == 1


def test_a_network_is_kept_in_one_spelling(admin: Client) -> None:
    changes = {"wg_network": "10.101.0.0 255.255.255.0", "ipv6": "on", "network6": "FD09:0::/64"}
    assert errors(send(admin, ADD, **(GOOD | {"network": "10.100.0.0/255.255.255.0"} | changes))) == {}
    server = Server.objects.get(name="new")
    assert (server.network, server.wg_network, server.network6) == ("10.100.0.0/24", "10.101.0.0/24", "fd09::/64")


def test_a_new_server_cannot_take_a_port_that_its_host_uses(admin: Client, office: Server) -> None:
    rows = {"attachments": [{"host": Host.objects.get().pk}]}
    found = errors(send(admin, ADD, **(GOOD | {"port": 51820}), _inline=rows))
    assert found == {
        "attachments-0-host": [
            "UDP port 51820 is in use on host h1 by server office. Give one of them another WireGuard port."
        ]
    }
    assert not Server.objects.filter(name="new").exists()


def test_a_port_changed_together_with_a_new_host_is_checked_as_changed(admin: Client, office: Server) -> None:
    other = Server.objects.create(name="lab", network="10.18.0.0/24", wg_network="10.19.0.0/24", port=51821)
    rows = {"attachments": [{"host": Host.objects.get().pk}]}
    assert list(errors(send(admin, url_of(other), port=51820, _inline=rows))) == ["attachments-0-host"]
    assert errors(send(admin, url_of(other), port=51822, _inline=rows)) == {}
    # And now that it is attached, at the port itself.
    found = errors(send(admin, url_of(other), port=51820))
    assert found["port"] == ["UDP port 51820 is in use on host h1 by server office."]


def test_the_same_host_cannot_be_attached_twice(admin: Client, office: Server) -> None:
    host = Host.objects.get().pk
    found = errors(send(admin, ADD, **GOOD, _inline={"attachments": [{"host": host}, {"host": host}]}))
    assert "duplicate" in " ".join(" ".join(said) for said in found.values())
    found = errors(send(admin, url_of(office), _inline={"attachments": [{"host": host}]}))
    assert "duplicate" in " ".join(" ".join(said) for said in found.values())
    assert ServerHost.objects.count() == 1


def test_attaching_from_the_hosts_page_is_checked_too(admin: Client, office: Server) -> None:
    clash = Server.objects.create(name="lab", network="10.18.0.0/24", wg_network="10.19.0.0/24", port=51820)
    found = errors(send(admin, url_of(Host.objects.get()), _inline={"attachments": [{"server": clash.pk}]}))
    assert list(found) == ["attachments-1-server"]
    assert "UDP port 51820" in found["attachments-1-server"][0]


def test_two_servers_of_one_port_cannot_be_attached_to_a_new_host_at_once(admin: Client, office: Server) -> None:
    clash = Server.objects.create(name="lab", network="10.18.0.0/24", wg_network="10.19.0.0/24", port=51820)
    rows = {"attachments": [{"server": office.pk}, {"server": clash.pk}]}
    found = errors(send(admin, "/admin/servers/host/add/", name="h2", public_address="192.0.2.2", _inline=rows))
    assert list(found) == ["attachments-1-server"]
    assert "server office as well" in found["attachments-1-server"][0]
    assert not Host.objects.filter(name="h2").exists()


@pytest.mark.parametrize(
    ("network", "words"),
    [
        ("192.168.1.1/24", "Did you mean 192.168.1.0/24?"),
        ("10.9.0.0/24", "always routed"),
        ("10.9.0.128/25", "always routed"),
        ("fd00::/64", "has no IPv6"),
        ("127.0.0.0/8", "cannot be routed"),
        ("everything", "not a network"),
        ("", "required"),
    ],
)
def test_a_route_that_cannot_work_is_refused(admin: Client, office: Server, network: str, words: str) -> None:
    found = errors(send(admin, url_of(office), _inline={"routes": [{"network": network, "comment": "x"}]}))
    assert list(found) == ["routes-0-network"]
    assert len(found["routes-0-network"]) == 1
    assert words in found["routes-0-network"][0]


@pytest.mark.parametrize("again", ["fd0a::/64", "FD0A:0::/64"])
def test_the_same_route_in_another_spelling_is_found_out(admin: Client, office: Server, again: str) -> None:
    rows = [{"network": "fd0a::/64"}, {"network": again}]
    changes = {"ipv6": "on", "network6": "fd09::/64"}
    found = errors(send(admin, url_of(office), **changes, _inline={"routes": rows}))
    assert "duplicate" in " ".join(" ".join(said) for said in found.values())
    assert not Route.objects.exists()


def test_an_ipv6_network_nobody_chose_is_derived_and_follows(admin: Client, office: Server) -> None:
    def network6() -> str:
        return Server.objects.get(pk=office.pk).network6

    assert errors(send(admin, url_of(office), ipv6="on")) == {}
    assert network6() == "fd56:504e:a09::/64"
    assert errors(send(admin, url_of(office), network="10.18.0.0/24", wg_network="10.19.7.0/24")) == {}
    assert network6() == "fd56:504e:a13:700::/64"
    assert errors(send(admin, url_of(office), network6="fd09::/64")) == {}
    assert errors(send(admin, url_of(office), wg_network="10.20.0.0/24")) == {}
    assert network6() == "fd09::/64"
    assert errors(send(admin, url_of(office), network6="")) == {}
    assert network6() == "fd56:504e:a14::/64"


@pytest.mark.parametrize(
    ("rows", "refused"),
    [
        ([{"network": "10.50.0.0/24", "netmap": "192.168.1.0/25"}], {"routes-0-netmap": "It must be a /24"}),
        ([{"network": "10.0.0.0/8", "nat_interface": "eth1"}], {"routes-0-nat_interface": "NAT is off"}),
        (
            [{"network": "10.0.0.0/8", "net_gateway": "on", "netmap": "11.0.0.0/8"}],
            {"routes-0-netmap": "never reaches a host"},
        ),
        ([{"network": "10.0.0.0/8", "metric": 10000}], {"routes-0-metric": "less than or equal to 9999"}),
        (
            [{"network": "10.1.0.0/16", "net_gateway": "on"}, {"network": "10.1.2.0/24"}],
            {"routes-1-network": "does not go through the tunnel: nothing would remain"},
        ),
        (
            [{"network": "10.1.2.0/24"}, {"network": "10.1.0.0/16", "net_gateway": "on"}],
            {"routes-1-network": "Nothing would remain of the route to 10.1.2.0/24"},
        ),
        (
            [
                {"network": "10.50.0.0/24", "netmap": "192.168.1.0/24"},
                {"network": "10.50.0.128/25", "netmap": "192.168.2.0/25"},
            ],
            {"routes-1-network": "10.50.0.128/25 overlaps 10.50.0.0/24"},
        ),
    ],
)
def test_routes_that_do_not_go_together_are_refused(
    admin: Client, office: Server, rows: list[dict[str, Any]], refused: dict[str, str]
) -> None:
    found = errors(send(admin, url_of(office), _inline={"routes": rows}))
    assert list(found) == list(refused)
    for field, words in refused.items():
        assert words in found[field][0]
    assert not Route.objects.exists()


def test_routes_are_judged_as_the_form_leaves_them(admin: Client, office: Server) -> None:
    """One that goes, or is changed, in the same form stands in nobody's way any more."""
    rows = [{"network": "10.1.0.0/16", "net_gateway": "on"}, {"network": "172.16.0.0/12", "nat": "on"}]
    assert errors(send(admin, url_of(office), _inline={"routes": rows})) == {}
    narrower = {"routes-0-network": "10.1.0.0/24"}
    assert errors(send(admin, url_of(office), **narrower, _inline={"routes": [{"network": "10.1.1.0/24"}]})) == {}
    gone = {"routes-0-DELETE": "on"}
    assert errors(send(admin, url_of(office), **gone, _inline={"routes": [{"network": "10.1.0.0/25"}]})) == {}
    assert list(Route.objects.values_list("network", flat=True)) == ["10.1.0.0/25", "10.1.1.0/24", "172.16.0.0/12"]


def test_ipv6_cannot_go_while_a_route_needs_it(admin: Client, office: Server) -> None:
    rows = {"routes": [{"network": "fd0a::/64"}]}
    assert errors(send(admin, url_of(office), ipv6="on", network6="fd09::/64", _inline=rows)) == {}
    found = errors(send(admin, url_of(office), ipv6=None))
    assert found == {"routes-0-network": ["This server has no IPv6; turn it on first."]}


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"public_address": "", "public_address6": ""}, "public_address"),
        ({"public_address": "300.1.1.1"}, "public_address"),
        ({"public_address": "not a name"}, "public_address"),
        ({"public_address6": "192.0.2.1"}, "public_address6"),
        ({"name": "h1"}, "name"),
    ],
)
def test_a_host_that_cannot_be_reached_is_refused(
    admin: Client, office: Server, changes: dict[str, str], field: str
) -> None:
    found = errors(send(admin, "/admin/servers/host/add/", **({"name": "h2", "public_address": "192.0.2.2"} | changes)))
    assert list(found) == [field]


def test_a_users_name_is_unique_in_the_organization_whatever_its_case(admin: Client) -> None:
    one, two = Organization.objects.create(name="One"), Organization.objects.create(name="Two")
    VpnUser.objects.create(organization=one, name="alice")
    add = "/admin/users/vpnuser/add/"
    found = errors(send(admin, add, organization=one.pk, name="Alice"))
    assert found == {"name": ["There is a user alice already."]}
    assert errors(send(admin, add, organization=two.pk, name="Alice")) == {}
