"""Names of connected clients: who has which, whoever else there is, and what clients are told of them."""

from __future__ import annotations

import re
from typing import Any

import pytest
from django.core.exceptions import ValidationError
from django.utils import timezone
from hypothesis import given
from hypothesis import strategies as st

from servers import names
from servers.hostnet.state import DNS_NAME, Dns, Split
from servers.models import Host, Server, SplitDomain
from tests.factories import Company, found
from tests.protocol_client import VECTORS, new_wg_key
from users.models import Device, Organization, VpnUser
from wgpeers.fleet import desired, peers
from wgpeers.models import Connection, State
from wgpeers.protocol import client_config

LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


@pytest.fixture
def company(db: None) -> Company:
    company = found()
    Server.objects.update(dns_mapping=True)
    company.server.refresh_from_db()
    return company


def user(organization: Organization, name: str) -> VpnUser:
    return VpnUser.objects.create(organization=organization, name=name, public_key=VECTORS["user_public_key"])


def connect(company: Company, user: VpnUser, device: str, name: str, host_part: int) -> Connection:
    return Connection.objects.create(
        user=user,
        user_name=user.name,
        server=company.server,
        host=company.host,
        state=State.OPEN,
        device_id=device,
        device_name=name,
        wg_public_key=new_wg_key(),
        host_part=host_part,
        address=f"10.9.0.{host_part}",
        created=timezone.now(),
    )


def note_device(user: VpnUser, device: str, name: str) -> None:
    now = timezone.now()
    Device.objects.create(user=user, device_id=device, name=name, first_seen=now, last_seen=now)


def given_names(company: Company, *connections: Connection) -> list[tuple[str, ...]]:
    return [peer.names for peer in peers.peers_of(company.server, connections)]


# Labels


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("Alice", "alice"),
        ("alice smith", "alice-smith"),
        ("a.b@c+d_e", "a-b-c-d-e"),
        ("-- laptop --", "laptop"),
        ("José Ångström", "jose-angstrom"),
        ("Straße", "strasse"),
        ("Łódź", "lodz"),
        ("İstanbul", "istanbul"),
        ("H₂O", "h2o"),
        ("юля", "xn--" + "юля".encode("punycode").decode()),
        ("", "unnamed"),
        ("...", "unnamed"),
        ("x" * 70, "x" * 63),
        ("x" * 62 + " y", "x" * 62),
        ("жук" * 40, "unnamed"),
    ],
)
def test_a_name_becomes_a_label(name: str, label: str) -> None:
    assert names.label(name) == label


@given(st.text(max_size=140))
def test_whatever_the_name_the_label_is_valid_and_is_its_own_label(name: str) -> None:
    label = names.label(name)
    assert LABEL.fullmatch(label)
    assert names.label(label) == label or label.startswith("xn--")
    assert names.is_label(label) or label.startswith("xn--")


NEAR = st.lists(st.sampled_from(["jose", "José", "JOSE", "jo se", "jo-se", "jose-2", "jose 2", "", "!", "unnamed"]))


@given(st.one_of(NEAR, st.lists(st.text(max_size=70))), st.integers(24, 63))
def test_no_two_have_the_same_label_and_it_is_the_same_every_time(texts: list[str], longest: int) -> None:
    rows = dict(enumerate(texts))
    labels = names.distinct(rows, longest)
    assert len(set(labels.values())) == len(rows)
    assert all(LABEL.fullmatch(label) and len(label) <= longest for label in labels.values())
    assert names.distinct(rows, longest) == labels
    for key, label in labels.items():
        if label != names.cut(names.label(rows[key]), longest):
            # It gave way to somebody, and not to nobody.
            assert names.cut(names.label(rows[key]), longest) in set(labels.values()) - {label}


@given(st.lists(st.text(max_size=20)), st.text(max_size=20))
def test_who_comes_later_takes_no_reduced_name_from_anybody(texts: list[str], later: str) -> None:
    before = names.distinct(dict(enumerate(texts)))
    after = names.distinct(dict(enumerate([*texts, later])))
    if not names.is_label(later):
        assert {key: after[key] for key in before} == before


def test_a_label_as_it_stands_is_not_taken_by_a_reduced_name() -> None:
    assert names.distinct({1: "José", 2: "jose", 3: "JOSÉ"}) == {1: "jose-2", 2: "jose", 3: "jose-3"}


# Users and organizations


def test_a_users_name_has_user_organization_and_zone(company: Company) -> None:
    alice = user(company.organization, "Alice Smith")
    assert names.of_user(company.server, alice) == "alice-smith.acme.vpn"
    company.server.dns_zone = "Clients.Example.COM"
    assert names.of_user(company.server, alice) == "alice-smith.acme.clients.example.com"
    assert names.plain_of_user(company.server, alice) == "alice-smith.acme.clients.example.com"


def test_two_users_whose_names_become_one_label_are_told_apart(company: Company) -> None:
    first, second = user(company.organization, "jo se"), user(company.organization, "jo.se")
    assert names.of_user(company.server, first) == "jo-se.acme.vpn"
    assert names.of_user(company.server, second) == "jo-se-2.acme.vpn"
    assert names.plain_of_user(company.server, second) == "jo-se.acme.vpn"
    other = Organization.objects.create(name="Other")
    company.server.organizations.add(other)
    assert names.of_user(company.server, user(other, "jo_se")) == "jo-se.other.vpn"


def test_two_organizations_whose_names_become_one_label_are_told_apart(company: Company) -> None:
    twin = Organization.objects.create(name="Acmé")
    company.server.organizations.add(twin)
    assert names.of_user(company.server, user(company.organization, "alice")) == "alice.acme.vpn"
    assert names.of_user(company.server, user(twin, "alice")) == "alice.acme-2.vpn"
    company.server.organizations.remove(company.organization)
    assert names.of_user(company.server, VpnUser.objects.get(organization=twin)) == "alice.acme.vpn"


def test_the_longest_names_still_fit(company: Company) -> None:
    Organization.objects.update(name="o" * 64)
    Server.objects.update(dns_zone="z" * 49 + "." + "z" * 50, multi_device=True)
    company.server.refresh_from_db()
    long = user(company.organization, "u" * 64)
    both = [connect(company, long, f"d{host_part}", "d" * 128, host_part) for host_part in (5, 6)]
    (name, of_user), (another, _) = given_names(company, *both)
    assert len(name) <= 253
    assert DNS_NAME.fullmatch(name)
    assert name != another
    assert len(another) <= 253
    assert name.endswith(f".{of_user}")


# Devices


def test_a_connection_has_its_devices_and_its_users_name(company: Company) -> None:
    alice = user(company.organization, "alice")
    connection = connect(company, alice, "d1", "My Laptop", 5)
    assert given_names(company, connection) == [("my-laptop.alice.acme.vpn", "alice.acme.vpn")]


def test_two_devices_of_one_user_are_told_apart_and_keep_their_names(company: Company) -> None:
    Server.objects.update(multi_device=True)
    company.server.refresh_from_db()
    alice = user(company.organization, "alice")
    for device in ("d1", "d2"):
        note_device(alice, device, "laptop")
    second, first = connect(company, alice, "d2", "laptop", 5), connect(company, alice, "d1", "laptop", 6)
    names_of = [("laptop-2.alice.acme.vpn", "alice.acme.vpn"), ("laptop.alice.acme.vpn", "alice.acme.vpn")]
    assert given_names(company, second, first) == names_of
    # One after the other, as they connect, it is the same.
    assert given_names(company, second) == names_of[:1]
    assert given_names(company, first) == names_of[1:]
    # A device that connects for the first time has no row yet.
    third = connect(company, alice, "d0", "laptop", 7)
    assert given_names(company, third) == [("laptop-3.alice.acme.vpn", "alice.acme.vpn")]


def test_with_one_device_at_a_time_a_new_device_has_the_plain_name(company: Company) -> None:
    alice = user(company.organization, "alice")
    note_device(alice, "d1", "laptop")
    assert given_names(company, connect(company, alice, "d2", "laptop", 5))[0][0] == "laptop.alice.acme.vpn"


def test_connections_of_a_deleted_user_have_no_name(company: Company) -> None:
    alice = user(company.organization, "alice")
    connection = connect(company, alice, "d1", "laptop", 5)
    alice.delete()
    connection.refresh_from_db()
    assert given_names(company, connection) == [()]


# What it costs


def test_without_names_for_clients_a_connect_costs_no_query_more(
    company: Company, django_assert_num_queries: Any
) -> None:
    connection = connect(company, user(company.organization, "a b"), "d1", "laptop", 5)
    with django_assert_num_queries(3):
        on = peers.peers_of(company.server, [connection], has_forwards=False, has_networks=False)
    company.server.dns_mapping = False
    with django_assert_num_queries(0):
        off = peers.peers_of(company.server, [connection], has_forwards=False, has_networks=False)
    assert (on[0].names, off[0].names) == (("laptop.a-b.acme.vpn", "a-b.acme.vpn"), ())


def test_many_connections_cost_few_queries(company: Company, django_assert_max_num_queries: Any) -> None:
    Server.objects.update(multi_device=True, wg_network="10.32.0.0/16")
    company.server.refresh_from_db()
    count = 3000
    people = VpnUser.objects.bulk_create(
        VpnUser(organization=company.organization, name=f"user {number}") for number in range(count)
    )
    rows = Connection.objects.bulk_create(
        Connection(
            user=person,
            server=company.server,
            device_id="d",
            device_name="Laptop",
            wg_public_key="k",
            host_part=host_part,
            address=f"10.32.{host_part // 256}.{host_part % 256}",
            created=timezone.now(),
        )
        for host_part, person in enumerate(people, start=2)
    )
    with django_assert_max_num_queries(2 + 2 * -(-count // names.AT_ONCE)):
        found = peers.peers_of(company.server, rows, has_forwards=False, has_networks=False)
    assert [peer.names[0] for peer in found] == [f"laptop.user-{number}.acme.vpn" for number in range(count)]


# What hosts and clients are told


def test_host_is_told_zone_servers_and_split_domains(company: Company) -> None:
    Server.objects.update(dns_zone="VPN.example", dns_servers="1.1.1.1, fd00::1", dns_tls_name="dns.example")
    SplitDomain.objects.create(server=company.server, domain="Corp.Example", dns_servers="10.0.0.1, 10.0.0.2")
    alice = user(company.organization, "alice")
    connect(company, alice, "d1", "laptop", 5)
    state = desired.state_of(company.host.pk)
    assert state is not None
    splits = (Split("corp.example", ("10.0.0.1", "10.0.0.2")),)
    assert state.interfaces[0].dns == Dns("vpn.example", ("1.1.1.1", "fd00::1"), "dns.example", splits)
    assert state.interfaces[0].peers[0].names == ("laptop.alice.acme.vpn.example", "alice.acme.vpn.example")
    Server.objects.update(dns_mapping=False)
    state = desired.state_of(company.host.pk)
    assert state is not None
    assert state.interfaces[0].dns is None
    assert state.interfaces[0].peers[0].names == ()


def told(company: Company, **fields: object) -> tuple[list[str], list[str], list[str]]:
    Server.objects.update(**fields)
    company.server.refresh_from_db()
    alice = VpnUser.objects.first() or user(company.organization, "alice")
    connection = Connection.objects.first() or connect(company, alice, "d1", "laptop", 5)
    host = Host.objects.get()
    answer = client_config.build(connection, company.server, host, "key", 0.0, rows=[])
    return answer["dns_servers"], answer["search_domains"], answer["routing_domains"]


def test_clients_ask_the_gateway_where_there_are_names_for_them(company: Company) -> None:
    SplitDomain.objects.create(server=company.server, domain="corp.example", dns_servers="10.0.0.1")
    fields: dict[str, object] = {
        "dns_servers": "1.1.1.1",
        "search_domains": "corp.example",
        "routing_domains": "lab.example, vpn",
    }
    expected = (["10.9.0.1"], ["corp.example"], ["lab.example", "vpn", "corp.example"])
    assert told(company, **fields) == expected
    both = (["10.9.0.1", "fd09::1"], *expected[1:])
    assert told(company, ipv6=True, network6="fd09::/64") == both


def test_clients_ask_the_servers_dns_servers_otherwise(company: Company) -> None:
    SplitDomain.objects.create(server=company.server, domain="corp.example", dns_servers="10.0.0.1")
    assert told(company, dns_mapping=False, dns_servers="1.1.1.1", routing_domains="lab.example") == (
        ["1.1.1.1"],
        [],
        ["lab.example"],
    )


@pytest.mark.parametrize(
    ("domain", "servers", "field", "words"),
    [
        ("corp.example, other.example", "10.0.0.1", "domain", "not one domain name"),
        ("vpn", "10.0.0.1", "domain", "zone of this server's own names"),
        ("x.VPN", "10.0.0.1", "domain", "zone of this server's own names"),
        ("corp.example", " , ", "dns_servers", "at least one address"),
        ("corp.example", "dns.corp.example", "dns_servers", "not an IP address"),
        ("-corp", "10.0.0.1", "domain", "not a domain name"),
    ],
)
def test_split_domains_that_cannot_work_are_refused(
    company: Company, domain: str, servers: str, field: str, words: str
) -> None:
    with pytest.raises(ValidationError) as refused:
        SplitDomain(server=company.server, domain=domain, dns_servers=servers).full_clean()
    assert words in str(refused.value.message_dict[field])


def test_split_domains_that_work_are_taken_in_lower_case(company: Company) -> None:
    split = SplitDomain(server=company.server, domain="Corp.Example", dns_servers="10.0.0.1, fd00::1")
    split.full_clean()
    assert split.domain == "corp.example"
    SplitDomain(server=company.server, domain="notvpn", dns_servers="10.0.0.1").full_clean()
