"""What cannot work is refused in words, at the field that must change."""

from __future__ import annotations

import re
from typing import Any

import pytest
from django.core.exceptions import ValidationError
from hypothesis import given
from hypothesis import strategies as st

from servers import networks
from servers.access import servers_of
from servers.models import Address, Host, Server, ServerHost
from servers.policy import policy_of
from tests.attempts import ask
from tests.conftest import Clock
from tests.factories import Company, add_host, found
from users.factors.base import AskedFactor
from users.models import Group, Organization, VpnUser


@pytest.fixture
def company(db: None, fixed_clock: Clock) -> Company:
    return found()


def refused(obj: Any) -> dict[str, list[str]]:
    with pytest.raises(ValidationError) as error:
        obj.full_clean()
    return dict(error.value.message_dict)


def another(**changes: Any) -> Server:
    return Server(**{"name": "Lab", "network": "10.20.0.0/24", "wg_network": "10.21.0.0/24"} | changes)


@pytest.mark.parametrize(
    ("changes", "field", "words"),
    [
        ({"network": "10.20.0.5/24"}, "network", "Did you mean 10.20.0.0/24?"),
        ({"network": "lab"}, "network", "'lab' is not a network"),
        ({"network": "fd09::/64"}, "network", "an IPv4 one is needed"),
        ({"network": "10.20.0.0/29", "wg_network": "10.21.0.0/29"}, "network", "too small"),
        ({"network": "10.0.0.0/7"}, "network", "a /8 is the most"),
        ({"network": "127.0.0.0/24"}, "network", "cannot be used"),
        ({"network": "224.0.0.0/24"}, "network", "cannot be used"),
        ({"network": "169.254.1.0/24"}, "network", "cannot be used"),
        ({"network": "240.0.0.0/24"}, "network", "cannot be used"),
        ({"network": "0.0.0.0/8"}, "network", "cannot be used"),
        ({"wg_network": "10.20.0.0/24"}, "wg_network", "overlaps the virtual network"),
        ({"wg_network": "10.21.0.0/16"}, "wg_network", "It must be a /24"),
        ({"wg_network": "10.9.0.0/24"}, "wg_network", "overlaps 10.9.0.0/24 of server Office"),
        (
            {"network": "10.8.0.128/25", "wg_network": "10.21.0.0/25"},
            "network",
            "overlaps 10.8.0.0/24 of server Office",
        ),
        ({"ipv6": True, "network6": "fd09::/65"}, "network6", "a /64 is the least"),
        ({"ipv6": True, "network6": "fe80::/64"}, "network6", "cannot be used"),
        ({"ipv6": True, "network6": "10.0.0.0/8"}, "network6", "an IPv6 one is needed"),
        ({"ping_interval": 10, "ping_timeout": 19}, "ping_timeout", "at least twice"),
        ({"multi_device": True, "keep_connected_device": True}, "keep_connected_device", "Turn this off"),
        ({"mtu": 1000}, "mtu", "from 1280 to 9000"),
        ({"dns_servers": "1.1.1.1, dns"}, "dns_servers", "'dns' is not an IP address"),
        ({"search_domains": "ok.example.com, -bad"}, "search_domains", "'-bad' is not a domain name"),
        ({"search_domains": "10.0.0.1"}, "search_domains", "'10.0.0.1' is not a domain name"),
        ({"routing_domains": "a b"}, "routing_domains", "'a b' is not a domain name"),
        ({"dns_zone": "v pn"}, "dns_zone", "'v pn' is not a zone"),
        ({"dns_zone": ".vpn"}, "dns_zone", "is not a zone"),
        ({"dns_zone": "10"}, "dns_zone", "'10' is not a zone"),
        ({"dns_zone": "vpn.10"}, "dns_zone", "is not a zone"),
        ({"dns_zone": "x" * 64}, "dns_zone", "is not a zone"),
        ({"dns_zone": ""}, "dns_zone", "cannot be blank"),
        ({"dns_zone": "office.Local"}, "dns_zone", "has a meaning of its own"),
        ({"dns_zone": "localhost"}, "dns_zone", "has a meaning of its own"),
        ({"dns_zone": "in-addr.arpa"}, "dns_zone", "has a meaning of its own"),
        ({"dns_tls_name": "dns.example"}, "dns_tls_name", "Give the DNS servers"),
        ({"dns_servers": "1.1.1.1", "dns_tls_name": "a.example, b.example"}, "dns_tls_name", "One name"),
        ({"platforms": "linux, amiga"}, "platforms", "'amiga' is not a platform"),
        ({"port": 0}, "port", "greater than or equal to 1"),
    ],
)
def test_a_server_that_cannot_work(company: Company, changes: dict[str, Any], field: str, words: str) -> None:
    problems = refused(another(**changes))
    assert any(words in text for text in problems[field]), problems


def test_a_server_that_works(company: Company) -> None:
    another(
        ipv6=True, network6="fd09::/64", mtu=1420, dns_servers="1.1.1.1, fd00::1", platforms="linux, win"
    ).full_clean()
    company.server.full_clean()


def test_a_network_cannot_shrink_below_who_is_in_it(company: Company) -> None:
    alice, _ = company.hire("alice")
    Address.objects.create(server=company.server, host_part=100, user=alice)
    Address.objects.create(server=company.server, host_part=200)  # free: nobody's
    company.server.network, company.server.wg_network = "10.8.0.0/26", "10.9.0.0/26"
    assert "alice has host part 100" in refused(company.server)["wg_network"][0]
    company.server.network, company.server.wg_network = "10.8.0.0/25", "10.9.0.0/25"
    company.server.full_clean()


def test_two_servers_on_one_host_need_two_ports(company: Company) -> None:
    other = another()
    other.save()
    problems = refused(ServerHost(server=other, host=company.host))
    assert "UDP port 51820 is in use on host gate-1 by server Office" in problems["host"][0]
    other.port = 51821
    other.save()
    ServerHost.objects.create(server=other, host=company.host)
    other.port = 51820
    assert "UDP port 51820 is in use" in refused(other)["port"][0]
    elsewhere = another(name="Far", network="10.30.0.0/24", wg_network="10.31.0.0/24")
    elsewhere.save()
    add_host(elsewhere, "gate-2")
    elsewhere.full_clean()


def test_dns_that_works(company: Company) -> None:
    for zone in ("vpn", "vpn.example.com", "v4.internal"):
        another(dns_mapping=True, dns_zone=zone).full_clean()
    another(dns_servers="1.1.1.1, 2606:4700::1111", dns_tls_name="one.example", routing_domains="corp").full_clean()


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"public_address": "300.1.1.1"}, "public_address"),
        ({"public_address": "1.2.3"}, "public_address"),
        ({"public_address": "under_score.example.com"}, "public_address"),
        ({"public_address": "vpn.example.com\n"}, "public_address"),
        ({"public_address6": "1.2.3.4"}, "public_address6"),
        ({}, "public_address"),
    ],
)
def test_a_host_nobody_can_reach(db: None, fields: dict[str, str], field: str) -> None:
    assert field in refused(Host(name="gate-9", **fields))


@pytest.mark.parametrize("fields", [{"public_address": "vpn.example.com"}, {"public_address6": "2001:db8::1"}])
def test_a_host_that_can_be_reached(db: None, fields: dict[str, str]) -> None:
    Host(name="gate-9", **fields).full_clean()


@pytest.mark.parametrize(
    "fields",
    [
        {"public_address": "VPN.example.com"},
        {"public_address": "192.0.2.77"},
        {"public_address6": "2001:DB8:0::77"},
        {"public_address": "192.0.2.1", "public_address6": "2001:db8::77"},
    ],
)
def test_a_host_at_the_address_of_another(db: None, fields: dict[str, str]) -> None:
    Host.objects.create(name="names", public_address="vpn.example.com")
    numbers = Host.objects.create(name="numbers", public_address="192.0.2.77", public_address6="2001:db8::77")
    wrong = refused(Host(name="gate-9", **fields))
    assert [*wrong] == [[*fields][-1]]
    assert " is the address of host n" in str(wrong)
    numbers.full_clean()  # its own


@pytest.mark.parametrize("name", ["", " ", "a/b", "a\x00", "-a", "../x", "x" * 65, "a\u202eb", "a<b", ";a"])
def test_names_that_could_do_harm_in_files_or_certificates(db: None, name: str) -> None:
    assert "name" in refused(Organization(name=name))


@pytest.mark.parametrize("name", [" lead", "a\nb", "a\n", "a\r\n\tb"])
def test_a_name_is_one_line_however_it_is_given(db: None, name: str) -> None:
    Organization.objects.create(name=name)
    assert re.fullmatch(r"\w+( \w)?", Organization.objects.get().name)


@given(st.integers(8, 28), st.data())
def test_a_part_and_its_address_are_one_and_the_same(prefix: int, data: st.DataObject) -> None:
    network = f"10.0.0.0/{prefix}"
    host_part = data.draw(st.integers(2, 2 ** (32 - prefix) - 2))
    text = networks.address(network, host_part)
    assert networks.host_part_of(network, text) == host_part
    assert networks.with_length(network, host_part) == f"{text}/{prefix}"
    assert host_part <= networks.last_host_part(networks.parse4(network))
    networks.virtual_network(network)


def test_a_user_is_offered_the_servers_they_may_use(company: Company) -> None:
    alice, _ = company.hire("alice")
    staff = Group.objects.create(name="staff")
    only_staff = another()
    only_staff.save()
    only_staff.organizations.add(company.organization)
    only_staff.groups.add(staff, Group.objects.create(name="boss"))
    strangers = another(name="Far", network="10.30.0.0/24", wg_network="10.31.0.0/24")
    strangers.save()
    assert set(servers_of(alice)) == {company.server}
    alice.groups.add(staff)
    assert sorted(server.name for server in servers_of(alice)) == ["Lab", "Office"]


def test_the_policy_says_what_the_server_asks(company: Company) -> None:
    staff = Group.objects.create(name="staff")
    server = company.server
    server.groups.add(staff)
    server.platforms = "linux, mac"
    ask(server, "required", totp=True)
    server.factor_token_ttl, server.reconnect_grace = 60, 90
    server.save()
    policy = policy_of(Server.objects.get())
    assert policy.organizations == {company.organization.pk}
    assert policy.groups == {staff.pk}
    assert policy.platforms == {"linux", "mac"}
    assert policy.factors == (AskedFactor("pin"), AskedFactor("totp"))
    assert (policy.server, policy.token_ttl, policy.grace) == (server.public_id, 60, 90)
    ask(server, "optional")
    assert policy_of(server).factors == (AskedFactor("pin", "optional"),)
    ask(server)
    assert policy_of(server).factors == ()


def test_two_users_of_one_name_differ_by_more_than_case(company: Company) -> None:
    company.hire("alice")
    assert refused(VpnUser(organization=company.organization, name="Alice"))
    VpnUser(organization=Organization.objects.create(name="Other"), name="alice").full_clean()
