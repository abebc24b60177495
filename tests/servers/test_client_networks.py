"""Networks behind clients: what is refused, who serves one as connections come and go, and who is told."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction

from core.clock import moment
from servers.models import Address, ClientNetwork, PortForward, Route, Server, ServerHost
from tests.attack import connect
from tests.concurrency import together
from tests.conftest import Clock
from tests.connection_rows import live, messages, queued
from tests.factories import Company, HostStandIn, add_host, found
from tests.lab import NEVER
from tests.protocol_client import NOW, Identity, make_request, open_answer, plaintext
from users.models import VpnUser
from wgpeers import tasks
from wgpeers.fleet import desired, reports
from wgpeers.lifecycle import ending, site_failover
from wgpeers.models import Connection, EndReason, State

OFFICE = "192.168.77.0/24"
# What is queued after commit is queued only when there is one.
committed = pytest.mark.django_db(transaction=True)


@pytest.fixture
def company(db: None, fixed_clock: Clock) -> Company:
    return found()


@pytest.fixture
def alice(company: Company) -> VpnUser:
    return company.hire("alice")[0]


@pytest.fixture
def bob(company: Company) -> VpnUser:
    return company.hire("bob")[0]


def behind(user: VpnUser, network: str = OFFICE, priority: int = 1, **fields: Any) -> ClientNetwork:
    """A network behind ``user``, of the only server there is if no other is named."""
    fields.setdefault("server", Server.objects.get(name="Office"))
    return ClientNetwork(user=user, network=network, priority=priority, **fields)


def saved(row: ClientNetwork) -> ClientNetwork:
    row.full_clean()
    row.save()
    return row


def refused(row: Any) -> dict[str, list[str]]:
    with pytest.raises(ValidationError) as caught:
        row.full_clean()
    return caught.value.message_dict


def another_server(name: str = "Other", **fields: Any) -> Server:
    given = {"network": "10.20.0.0/24", "wg_network": "10.21.0.0/24", "port": 51821} | fields
    return Server.objects.create(name=name, **given)


def with_ipv6(company: Company) -> None:
    company.server.ipv6, company.server.network6 = True, "fd09::/64"
    company.server.save()


# What is refused


@pytest.mark.parametrize(
    ("network", "words"),
    [
        ("192.168.77.1/24", "Did you mean 192.168.77.0/24?"),
        ("office", "is not a network"),
        ("0.0.0.0/0", "Everything cannot be behind one client"),
        ("10.9.0.0/25", "overlaps 10.9.0.0/24, a network of this very server"),
        ("10.8.0.0/24", "overlaps 10.8.0.0/24, a network of this very server"),
        ("10.0.0.0/8", "a network of this very server"),
        ("127.0.0.0/8", "cannot be routed"),
        ("224.1.0.0/16", "cannot be routed"),
        ("169.254.0.0/16", "cannot be routed"),
        ("0.0.0.0/8", "cannot be routed"),
        ("fd77::/64", "has no IPv6"),
    ],
)
def test_a_network_that_cannot_be_behind_a_client(alice: VpnUser, network: str, words: str) -> None:
    assert words in refused(behind(alice, network))["network"][0]


@pytest.mark.parametrize(
    ("network", "words"),
    [
        ("fd77::1/64", "Did you mean fd77::/64?"),
        ("::/0", "Everything cannot be behind one client"),
        ("fd09::/80", "overlaps fd09::/64, a network of this very server"),
        ("fe80::/64", "cannot be routed"),
        ("ff05::/16", "cannot be routed"),
    ],
)
def test_an_ipv6_network_that_cannot_be_behind_a_client(
    company: Company, alice: VpnUser, network: str, words: str
) -> None:
    with_ipv6(company)
    assert words in refused(behind(alice, network))["network"][0]


def test_networks_are_kept_in_one_spelling(company: Company, alice: VpnUser) -> None:
    with_ipv6(company)
    assert saved(behind(alice, " 192.168.77.0/255.255.255.0 ")).network == OFFICE
    assert saved(behind(alice, "FD77:0::/64")).network == "fd77::/64"


def test_other_servers_networks_are_theirs(company: Company, alice: VpnUser) -> None:
    another_server()
    assert "overlaps 10.21.0.0/24 of server Other" in refused(behind(alice, "10.21.0.0/16"))["network"][0]


def test_a_new_server_cannot_take_addresses_that_are_behind_clients(company: Company, alice: VpnUser) -> None:
    saved(behind(alice))
    new = Server(name="New", network="10.20.0.0/24", wg_network=OFFICE)
    assert f"overlaps {OFFICE} behind alice, a client of server Office" in refused(new)["wg_network"][0]


def test_only_who_may_use_the_server_serves_networks_of_it(company: Company, alice: VpnUser) -> None:
    row = saved(behind(alice))
    company.server.organizations.clear()
    assert "may not use server Office" in refused(behind(alice, "192.168.88.0/24"))["server"][0]
    # What was made before is kept, for when the user gets the server back.
    row.comment = "kept"
    saved(row)


def test_what_the_hosts_route_is_not_behind_a_client_as_well(company: Company, alice: VpnUser) -> None:
    Route.objects.create(server=company.server, network=OFFICE)
    assert "has a route to 192.168.77.0/24" in refused(behind(alice))["network"][0]
    # The longer one decides, so parts of each other are clear.
    saved(behind(alice, "192.168.77.128/25"))
    saved(behind(alice, "192.168.0.0/16"))


def test_two_users_may_serve_one_network_but_not_parts_of_each_others(alice: VpnUser, bob: VpnUser) -> None:
    saved(behind(alice))
    saved(behind(bob, priority=2))
    for network in ("192.168.77.0/25", "192.168.0.0/16"):
        words = refused(behind(bob, network))["network"][0]
        assert f"{network} overlaps {OFFICE} behind " in words
        assert "must name it alike" in words
    saved(behind(bob, "192.168.78.0/24"))


def test_one_user_serves_a_network_once_and_no_two_with_one_priority(alice: VpnUser, bob: VpnUser) -> None:
    saved(behind(alice))
    assert "This user serves this network already." in str(refused(behind(alice, priority=2)))
    assert "Another user serves this network with this priority." in str(refused(behind(bob)))
    assert "priority" in refused(behind(bob, priority=0))
    assert "priority" in refused(behind(bob, priority=101))


def test_servers_that_share_a_host_share_its_routing_table(company: Company, alice: VpnUser) -> None:
    other = another_server()
    other.organizations.add(company.organization)
    saved(behind(alice))
    mine = saved(behind(alice, "192.168.0.0/16", server=other))
    words = refused(ServerHost(server=other, host=company.host))["host"][0]
    assert f"192.168.0.0/16 behind alice overlaps {OFFICE} behind alice, a client of server Office there" in words
    mine.delete()
    ServerHost.objects.create(server=other, host=company.host)
    words = refused(mine)["network"][0]
    assert f"overlaps {OFFICE} behind " in words
    assert "of server Office, which shares a host with this one" in words


@pytest.mark.parametrize(
    ("network", "probe", "port", "words"),
    [
        (OFFICE, "192.168.78.1", None, "192.168.78.1 is not in 192.168.77.0/24."),
        (OFFICE, "fd77::1", None, "is of the other family"),
        (OFFICE, "192.168.77.0", None, "first or last address"),
        (OFFICE, "192.168.77.255", 80, "first or last address"),
        ("fd77::/64", "fd77::", None, "first or last address"),
        ("192.168.77.9/32", "192.168.77.9", None, "would be the whole network"),
        (OFFICE, None, 80, "Give the address"),
    ],
)
def test_a_probe_address_that_proves_nothing(
    company: Company, alice: VpnUser, network: str, probe: str | None, port: int | None, words: str
) -> None:
    with_ipv6(company)
    row = behind(alice, network, probe_address=probe, probe_port=port)
    assert words in refused(row)["probe_address"][0]


@pytest.mark.parametrize("port", [0, 65536])
def test_a_probe_port_out_of_range(alice: VpnUser, port: int) -> None:
    assert "probe_port" in refused(behind(alice, probe_address="192.168.77.1", probe_port=port))


def test_each_gateway_needs_a_probe_address_of_its_own_and_is_told_why(alice: VpnUser, bob: VpnUser) -> None:
    saved(behind(alice, probe_address="192.168.77.1"))
    standby = behind(bob, priority=2, probe_address="192.168.77.1", probe_port=22)
    words = refused(standby)["probe_address"][0]
    assert "is the probe address of alice" in words
    assert "only so can one that failed be seen to be well again" in words
    standby.probe_address = "192.168.77.2"
    saved(standby)


def test_the_database_itself_lets_only_one_serve(alice: VpnUser, bob: VpnUser) -> None:
    for number, user in enumerate((alice, bob), 1):
        saved(behind(user, priority=number))
    ClientNetwork.objects.filter(user=alice).update(active=True)
    with pytest.raises(IntegrityError), transaction.atomic():
        ClientNetwork.objects.filter(user=bob).update(active=True)


# Who serves, as connections come and go


def serves() -> str:
    """The name of the user who serves OFFICE now."""
    row = ClientNetwork.objects.filter(network=OFFICE, active=True).select_related("user").first()
    return row.user.name if row else "nobody"


def converged() -> set[int]:
    return {arguments[0] for task, arguments in queued() if task == "wgpeers.converge"}


def end(connection: Connection, now: float) -> None:
    ending.end([connection], EndReason.ADMIN, now)


def test_primary_and_standby(company: Company, alice: VpnUser, bob: VpnUser) -> None:
    """The standby serves while the primary is away, and until it has been back for long enough."""
    saved(behind(alice))
    saved(behind(bob, priority=2))
    site_failover.elect_all(NOW)
    assert serves() == "nobody"
    live(company, bob, NOW)
    site_failover.elect_all(NOW)
    assert serves() == "bob"
    first = live(company, alice, NOW + 10)
    site_failover.elect_all(NOW + 39)
    assert serves() == "bob"
    site_failover.elect_all(NOW + 40)
    assert serves() == "alice"
    end(first, NOW + 50)
    assert serves() == "bob"


@committed
def test_a_connection_that_ends_hands_over_in_the_same_transaction(
    company: Company, alice: VpnUser, bob: VpnUser
) -> None:
    saved(behind(alice))
    saved(behind(bob, priority=2))
    far = add_host(company.server, "gate-2")
    mine, _ = live(company, alice), live(company, bob, host=far)
    site_failover.elect_all(NOW)
    far.refresh_from_db()
    before = far.version
    queued()
    end(mine, NOW + 1)
    assert serves() == "bob"
    far.refresh_from_db()
    assert far.version > before
    # The host of the one that is gone gets its removal, the other one a full state with the network in it.
    assert converged() == {far.pk}
    state = desired.state_of(far.pk)
    assert state is not None
    assert state.interfaces[0].peers[0].networks == (OFFICE,)


def test_an_end_of_which_nobody_took_the_network_leaves_it_to_nobody(company: Company, alice: VpnUser) -> None:
    saved(behind(alice))
    mine = live(company, alice)
    site_failover.elect_all(NOW)
    assert serves() == "alice"
    end(mine, NOW + 1)
    assert serves() == "nobody"


def test_of_several_devices_the_one_with_the_static_address_serves(company: Company, alice: VpnUser) -> None:
    company.server.multi_device = True
    company.server.save()
    saved(behind(alice))
    extra = Address.objects.create(server=company.server, host_part=77, user=alice, dynamic=True)
    second = live(company, alice, device_id="phone", host_part=extra.host_part)
    site_failover.elect_all(NOW)
    assert serves() == "nobody"
    first = live(company, alice)
    site_failover.elect_all(NOW)
    assert serves() == "alice"
    state = desired.state_of(company.host.pk)
    assert state is not None
    networks = {peer.connection: peer.networks for peer in state.interfaces[0].peers}
    assert networks == {first.public_id: (OFFICE,), second.public_id: ()}
    end(first, NOW + 1)
    assert serves() == "nobody"


def test_the_sweep_decides_too_also_while_redis_is_away(
    company: Company, alice: VpnUser, settings: Any, fixed_clock: Clock
) -> None:
    saved(behind(alice))
    live(company, alice)
    settings.REDIS_URL = "unix:///nowhere/redis.sock?db=0"
    tasks.sweep()
    assert serves() == "alice"


def test_nothing_is_written_or_sent_when_nothing_changes(
    company: Company, alice: VpnUser, django_assert_num_queries: Any
) -> None:
    with django_assert_num_queries(1):
        site_failover.elect_all(NOW)
    saved(behind(alice))
    live(company, alice)
    site_failover.elect_all(NOW)
    queued()
    with django_assert_num_queries(2) as queries:
        site_failover.elect_all(NOW + 10)
    assert all(query["sql"].startswith("SELECT") for query in queries.captured_queries)
    assert queued() == []


def test_a_server_whose_ipv6_was_turned_off_routes_none(company: Company, alice: VpnUser) -> None:
    with_ipv6(company)
    saved(behind(alice))
    saved(behind(alice, "fd77::/64", probe_address="fd77::1"))
    live(company, alice)
    site_failover.elect_all(NOW)
    seen = []
    for ipv6 in (True, False):
        company.server.ipv6 = ipv6
        company.server.save()
        state = desired.state_of(company.host.pk)
        assert state is not None
        (peer,) = state.interfaces[0].peers
        seen.append((peer.networks, len(peer.probes)))
    assert seen == [((OFFICE, "fd77::/64", "fd77::1/128"), 1), ((OFFICE,), 0)]


# Edits


def test_an_edited_row_is_decided_anew(company: Company, alice: VpnUser, bob: VpnUser) -> None:
    row = saved(behind(alice, probe_address="192.168.77.1"))
    other = saved(behind(bob, "192.168.88.0/24"))
    live(company, alice), live(company, bob)
    site_failover.elect_all(NOW)
    ClientNetwork.objects.update(probe_ok=True, probe_changed=moment(NOW))
    # To a network that somebody serves: without having it taken from them.
    row.refresh_from_db()
    row.network, row.probe_address, row.priority = other.network, "192.168.88.9", 2
    saved(row)
    row.refresh_from_db()
    assert (row.active, row.probe_ok, row.probe_changed) == (False, None, None)
    tasks.enforce()
    assert [each.user.name for each in ClientNetwork.objects.filter(active=True)] == ["bob"]
    # A comment changes nothing.
    other.refresh_from_db()
    other.comment = "warehouse"
    saved(other)
    other.refresh_from_db()
    assert (other.active, other.probe_ok) == (True, True)
    # Of another probe address nothing is known.
    other.probe_address = "192.168.88.8"
    saved(other)
    other.refresh_from_db()
    assert (other.active, other.probe_ok) == (True, None)


def test_a_form_that_was_open_meanwhile_takes_the_network_from_nobody(company: Company, alice: VpnUser) -> None:
    row = saved(behind(alice))
    late = ClientNetwork.objects.get(pk=row.pk)
    live(company, alice)
    site_failover.elect_all(NOW)
    late.comment = "late"
    late.save()
    assert serves() == "alice"


@committed
def test_a_deleted_row_leaves_its_network_to_the_standby(company: Company, alice: VpnUser, bob: VpnUser) -> None:
    row = saved(behind(alice))
    saved(behind(bob, priority=2))
    live(company, alice), live(company, bob)
    site_failover.elect_all(NOW)
    row.delete()
    assert ("wgpeers.enforce", []) in queued()
    tasks.enforce()
    assert serves() == "bob"


# What hosts report of probes


@pytest.fixture
def probed(company: Company, alice: VpnUser, bob: VpnUser) -> tuple[Connection, Connection]:
    """Alice serves OFFICE, Bob stands by; both are probed, and both have been there for long."""
    saved(behind(alice, probe_address="192.168.77.1"))
    saved(behind(bob, priority=2, probe_address="192.168.77.2", probe_port=22))
    both = live(company, alice, NOW - 1000), live(company, bob, NOW - 1000)
    site_failover.elect_all(NOW)
    assert serves() == "alice"
    queued()
    return both


def report(host: Any, connection: Connection, ok: Any, network: str = OFFICE, now: float = NOW) -> None:
    reports.take_report(host, {"kind": "probe", "connection": connection.public_id, "network": network, "ok": ok}, now)


@committed
def test_a_silent_gateway_loses_its_network_at_once_and_gets_it_back_after_a_while(
    company: Company, probed: tuple[Connection, Connection]
) -> None:
    mine, _ = probed
    report(company.host, mine, False)
    assert serves() == "bob"
    assert converged() == {company.host.pk}
    state = desired.state_of(company.host.pk)
    assert state is not None
    networks = [peer.networks for peer in state.interfaces[0].peers]
    # Its probe address stays with it, or it could never be seen to be well again.
    assert networks == [("192.168.77.1/32",), (OFFICE, "192.168.77.2/32")]
    report(company.host, mine, True, now=NOW + 60)
    assert serves() == "bob"
    # Said again, it is well since the same moment.
    report(company.host, mine, True, now=NOW + 80)
    site_failover.elect_all(NOW + 89)
    assert serves() == "bob"
    site_failover.elect_all(NOW + 90)
    assert serves() == "alice"


def test_the_while_is_a_setting(company: Company, probed: tuple[Connection, Connection], settings: Any) -> None:
    settings.NETWORK_HYSTERESIS = 3.0
    report(company.host, probed[0], False)
    report(company.host, probed[0], True, now=NOW + 1)
    site_failover.elect_all(NOW + 4)
    assert serves() == "alice"


def test_if_both_are_silent_it_stays_where_it_is(company: Company, probed: tuple[Connection, Connection]) -> None:
    report(company.host, probed[1], False)
    report(company.host, probed[0], False)
    assert serves() == "alice"


def test_a_report_is_believed_only_of_what_that_host_has(
    company: Company, probed: tuple[Connection, Connection]
) -> None:
    mine, other = probed
    stranger = add_host(company.server, "gate-2")
    report(stranger, mine, False)
    report(company.host, mine, False, network="192.168.88.0/24")
    assert not ClientNetwork.objects.exclude(probe_ok=None).exists()
    ended = live(company, company.hire("carol")[0])
    end(ended, NOW)
    report(company.host, ended, False)
    ended.public_id = "no such connection"
    report(company.host, ended, False)
    end(mine, NOW)
    report(company.host, mine, False)
    assert not ClientNetwork.objects.exclude(probe_ok=None).exists()
    report(company.host, other, True)
    assert ClientNetwork.objects.get(probe_ok=True).user.name == "bob"


def test_a_report_of_a_network_without_a_probe_address_changes_nothing(company: Company, alice: VpnUser) -> None:
    saved(behind(alice))
    report(company.host, live(company, alice), False)
    assert ClientNetwork.objects.get().probe_ok is None


@pytest.mark.parametrize("ok", [1, 0, None, "true", []])
def test_a_malformed_report_is_refused(company: Company, probed: tuple[Connection, Connection], ok: Any) -> None:
    with pytest.raises(reports.UNREADABLE):
        report(company.host, probed[0], ok)
    assert not ClientNetwork.objects.exclude(probe_ok=None).exists()


# A connect as a whole


def added(host: HostStandIn) -> dict[str, Any]:
    """The peer of the last message that added one."""
    peer: dict[str, Any] = host.of("hostnet.add_peer")[-1]["peer"]
    return peer


def configuration(identity: Identity, now: float = NOW) -> dict[str, Any]:
    request = make_request(identity, plaintext(timestamp=int(now)), now=int(now))
    answer: dict[str, Any] = open_answer(request.send().json(), identity, request.box_private_key)["configuration"]
    return answer


@committed
class TestConnects:
    def test_the_first_message_of_a_gateway_has_its_network(self, company: Company, host: HostStandIn) -> None:
        alice, identity = company.hire("alice")
        saved(behind(alice, probe_address="192.168.77.1"))
        queued()
        connect(identity)
        assert serves() == "alice"
        peer = added(host)
        assert peer["networks"] == [OFFICE, "192.168.77.1/32"]
        assert peer["probes"] == [{"network": OFFICE, "address": "192.168.77.1", "port": 0}]
        # Nobody else has lost anything, so no host needs more than that message.
        assert converged() == set()

    def test_a_reconnect_of_the_same_device_keeps_it(self, company: Company, host: HostStandIn) -> None:
        alice, identity = company.hire("alice")
        bob, other = company.hire("bob")
        saved(behind(alice))
        saved(behind(bob, priority=2))
        connect(identity)
        connect(other)
        assert "networks" not in added(host)
        connect(identity)
        assert added(host)["networks"] == [OFFICE]
        assert serves() == "alice"

    def test_a_primary_that_comes_back_waits(self, company: Company, host: HostStandIn, fixed_clock: Clock) -> None:
        alice, identity = company.hire("alice")
        bob, other = company.hire("bob")
        saved(behind(alice))
        saved(behind(bob, priority=2))
        connect(other)
        connect(identity)
        assert "networks" not in added(host)
        fixed_clock.advance(30)
        tasks.sweep()
        assert serves() == "alice"

    def test_a_primary_takes_it_at_once_from_a_silent_standby_whose_host_is_told(
        self, company: Company, host: HostStandIn
    ) -> None:
        alice, identity = company.hire("alice")
        bob, _ = company.hire("bob")
        saved(behind(alice))
        saved(behind(bob, priority=2, probe_address="192.168.77.2"))
        far = add_host(company.server, "gate-2", alive=False)
        report(far, live(company, bob, host=far), False)
        site_failover.elect_all(NOW)
        assert serves() == "bob"
        queued()
        connect(identity)
        assert added(host)["networks"] == [OFFICE]
        assert converged() == {far.pk}

    def test_a_connect_that_no_host_confirms_leaves_it_to_nobody(
        self, company: Company, host: HostStandIn, settings: Any
    ) -> None:
        settings.CONFIRM_TIMEOUT = NEVER
        host.answer = None
        alice, identity = company.hire("alice")
        saved(behind(alice))
        assert make_request(identity).send().status_code == 503
        assert Connection.objects.get().state == State.ENDED
        assert serves() == "nobody"

    def test_a_network_goes_to_whichever_host_its_gateway_is_on(self, company: Company, host: HostStandIn) -> None:
        alice, identity = company.hire("alice")
        saved(behind(alice))
        host.answer = "error: no"
        far = add_host(company.server, "gate-2")
        with HostStandIn(far).running() as other:
            assert configuration(identity)["public_key"] == ServerHost.objects.get(host=far).public_key
            assert added(other)["networks"] == [OFFICE]
        state = desired.state_of(company.host.pk)
        assert state is not None
        assert state.interfaces[0].peers == ()

    def test_other_clients_get_routes_and_the_gateway_links(self, company: Company, host: HostStandIn) -> None:
        with_ipv6(company)
        alice, identity = company.hire("alice")
        bob, other = company.hire("bob")
        saved(behind(alice))
        saved(behind(alice, "fd77::/64"))
        saved(behind(bob, "192.168.88.0/24"))
        saved(behind(bob, priority=2))
        expected = {
            "alice": (["10.9.0.0/24", "192.168.88.0/24"], ["fd09::/64"], [OFFICE], ["fd77::/64"]),
            "bob": (["10.9.0.0/24"], ["fd09::/64", "fd77::/64"], [OFFICE, "192.168.88.0/24"], []),
            "carol": (
                ["10.9.0.0/24", OFFICE, "192.168.88.0/24"],
                ["fd09::/64", "fd77::/64"],
                [],
                [],
            ),
        }
        identities = {"alice": identity, "bob": other, "carol": company.hire("carol")[1]}
        for name, who in identities.items():
            answer = configuration(who)
            routes = ([route["network"] for route in answer[key]] for key in ("routes", "routes6"))
            assert (*routes, answer["network_links"], answer["network_links6"]) == expected[name], name
            assert {route["next_hop"] for route in answer["routes"]} == {"10.9.0.1"}

    def test_who_has_neither_networks_nor_ports_is_asked_about_neither(
        self, company: Company, host: HostStandIn, django_assert_max_num_queries: Any
    ) -> None:
        alice, _ = company.hire("alice")
        saved(behind(alice))
        PortForward.objects.create(server=company.server, user=alice, port=8080)
        _, bob = company.hire("bob")
        with django_assert_max_num_queries(34) as queries:
            connect(bob)
        tables = ("servers_clientnetwork", "servers_portforward")
        asked = [query["sql"] for query in queries.captured_queries if any(table in query["sql"] for table in tables)]
        # Once together with the user, and once for what is pushed to every client.
        assert len(asked) == 2
        assert "EXISTS" in asked[0]
        assert "UPDATE" not in "".join(asked)
        assert "forwards" not in added(host)


def test_messages_of_the_end_reach_the_host_of_the_one_that_is_gone(company: Company, alice: VpnUser) -> None:
    saved(behind(alice))
    mine = live(company, alice)
    site_failover.elect_all(NOW)
    messages(company.host)
    end(mine, NOW + 1)
    assert [message["connections"] for message in messages(company.host, "hostnet.remove_peers")] == [[mine.public_id]]


@committed
def test_many_gateways_of_two_networks_come_and_go_at_the_same_moment(company: Company, host: HostStandIn) -> None:
    """Each in its own thread, sweeps and reports among them: somebody serves each network while anybody is there,
    nobody afterwards, and no two wait for each other."""
    hired = [company.hire(f"gateway {number}") for number in range(6)]
    for number, (user, _) in enumerate(hired, 1):
        for count, network in enumerate((OFFICE, "192.168.88.0/24")):
            # The two in another order each time, should locks be taken in the order of a user's rows.
            probe = f"{network.rpartition('.')[0]}.{number}"
            saved(behind(user, network, (number + count * 3) % 6 + 1, probe_address=probe))

    def sweep() -> None:
        site_failover.elect_all(NOW + 1)

    connects = [partial(configuration, identity) for _, identity in hired]
    assert not failures(together([*connects, sweep, sweep]))
    assert ClientNetwork.objects.filter(active=True).count() == 2
    rows = {row.user_id: row for row in Connection.objects.exclude(state=State.ENDED)}
    assert len(rows) == 6
    serving = ClientNetwork.objects.get(network=OFFICE, active=True)
    silent = partial(report, company.host, rows[serving.user_id], False)
    ends = [partial(end, row, NOW + 2) for user, row in rows.items() if user != serving.user_id]
    assert not failures(together([silent, sweep, *ends[1:]]))
    sweep()
    assert ClientNetwork.objects.filter(active=True).count() == 2
    assert not failures(together([ends[0], partial(end, rows[serving.user_id], NOW + 3), sweep]))
    assert not ClientNetwork.objects.filter(active=True).exists()


def failures(results: list[Any]) -> list[Exception]:
    return [result for result in results if isinstance(result, Exception)]


def test_hosts_know_every_network_that_clients_could_serve(company: Company, alice: VpnUser) -> None:
    """So that what is sent there while nobody serves it goes nowhere else."""
    saved(behind(alice))
    saved(behind(company.hire("bob")[0], priority=2))
    state = desired.state_of(company.host.pk)
    assert state is not None
    assert state.interfaces[0].behind == (OFFICE,)
