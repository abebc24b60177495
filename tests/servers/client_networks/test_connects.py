"""Connects of clients that have a network behind them, and what hosts and other clients are told."""

from __future__ import annotations

from functools import partial
from typing import Any

from servers.models import ClientNetwork, PortForward, ServerHost
from tests.attack import connect
from tests.concurrency import together
from tests.conftest import Clock
from tests.connection_rows import live, messages, queued
from tests.factories import Company, HostStandIn, add_host
from tests.lab import NEVER
from tests.protocol_client import NOW, Identity, make_request, open_answer, plaintext
from users.models import VpnUser
from wgpeers import tasks
from wgpeers.fleet import desired
from wgpeers.lifecycle import site_failover
from wgpeers.models import Connection, State

from .rows import OFFICE, behind, committed, converged, end, report, saved, serves, with_ipv6


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
        assert converged() == {company.host.pk, far.pk}

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


@committed
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
