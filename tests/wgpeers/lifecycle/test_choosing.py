"""Which host a client is sent to, over HTTP, with stand-ins for the hosts."""

from __future__ import annotations

import contextlib
import math
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
from django.conf import LazySettings
from django.core.exceptions import ValidationError

from core.redis_store import redis_client
from servers import heartbeats, mesh
from servers.hostnet.state.reach import Reach, reach_to_json
from servers.hostnet.state.version import FORMAT
from servers.models import ClientRegion, Host, Server, ServerHost
from tests.concurrency import together
from tests.conftest import Clock
from tests.connection_rows import live
from tests.factories import Company, HostStandIn, add_host, revive, silence
from tests.lab import until
from tests.protocol_client import NOW, Identity, make_request, open_answer, plaintext
from tests.servers.test_joining import new_key
from vpnproject.behind_front import waited
from wgpeers.lifecycle import choosing, obstacles, turns
from wgpeers.models import Connection, SpentKey, State


@contextlib.contextmanager
def standing_in(*hosts: Host) -> Iterator[list[HostStandIn]]:
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(HostStandIn(host).running()) for host in hosts]


def send(identity: Identity, *, to: str = "", source: str = "198.51.100.7", now: int = NOW, **fields: Any) -> Any:
    """One connect as the response; ``to`` is what the client believes to be the address of the API."""
    request = make_request(identity, plaintext(timestamp=now, **fields), now=now)
    response = request.send(HTTP_HOST=to or "vpn.example.com", REMOTE_ADDR=source)
    response.opened = (
        open_answer(response.json(), identity, request.box_private_key) if response.status_code == 200 else {}
    )
    return response


def landed(identity: Identity, **options: Any) -> str:
    """The host that one connect got to, by name."""
    response = send(identity, **options)
    assert response.status_code == 200, response.content
    assert response.opened["allow"], response.opened
    row = Connection.objects.filter(state=State.OPEN).latest("pk")
    assert row.host is not None
    assert response.opened["configuration"]["hostname"] == row.host.public_address
    return row.host.name


def test_clients_go_where_the_fewest_are_for_the_weight(company: Company) -> None:
    heavy = add_host(company.server, "gate-2", address="192.0.2.2", weight=3)
    with standing_in(company.host, heavy):
        where = Counter(landed(company.hire(f"user-{number}")[1]) for number in range(12))
    assert where == {"gate-1": 3, "gate-2": 9}


def test_hosts_of_a_greater_priority_stand_by(company: Company) -> None:
    second = add_host(company.server, "gate-2", address="192.0.2.2", priority=2)
    with standing_in(company.host, second):
        assert {landed(company.hire(f"user-{number}")[1]) for number in range(5)} == {"gate-1"}
        assert obstacles.of_host(second, 0) == [
            "For Office it stands by, with priority 2, while gate-1 can take clients."
        ]
        silence(company.host)
        assert landed(company.hire("late")[1]) == "gate-2"
        assert obstacles.of_host(second, 1) == []


@pytest.mark.parametrize(
    "to", ["192.0.2.2", "192.0.2.2:8443", "[2001:db8::2]", "[2001:db8::2]:8443", "GATE-3.example.com"]
)
def test_the_host_that_was_asked_comes_first(company: Company, to: str, settings: LazySettings) -> None:
    settings.API_URLS = ["https://192.0.2.1", "https://vpn.example.com"]
    second = add_host(company.server, "gate-2", address="192.0.2.2", public_address6="2001:db8::2", priority=9)
    third = add_host(company.server, "gate-3", address="gate-3.example.com", priority=9)
    _, identity = company.hire("alice")
    with standing_in(company.host, second, third):
        assert landed(identity, to=to) == ("gate-3" if "GATE" in to else "gate-2")
        assert landed(identity, to="vpn.example.com") == "gate-1"


def test_to_ask_the_one_host_where_the_api_answers_is_to_ask_for_none(company: Company, settings: LazySettings) -> None:
    """Else the others would never get a client."""
    settings.API_URLS = ["https://192.0.2.1"]
    second = add_host(company.server, "gate-2", address="192.0.2.2")
    with standing_in(company.host, second):
        where = Counter(landed(company.hire(f"user-{number}")[1], to="192.0.2.1") for number in range(6))
    assert where == {"gate-1": 3, "gate-2": 3}


@pytest.mark.parametrize("to", ["192.0.2.9", "", "[", "]:[", ":", "a" * 3000, "192.0.2.1.", "192.0.2.2, 192.0.2.1"])
def test_asking_for_something_else_is_asking_for_nothing(company: Company, to: str) -> None:
    """The header is proven by nobody."""
    other = Server.objects.create(name="Lab", network="10.20.0.0/24", wg_network="10.21.0.0/24", port=51821)
    add_host(other, "gate-9", address="192.0.2.9")
    with standing_in(company.host):
        assert landed(company.hire("alice")[1], to=to or "x") == "gate-1"


def test_a_host_that_was_asked_and_is_silent_is_left_for_another(company: Company) -> None:
    add_host(company.server, "gate-2", address="192.0.2.2", alive=False)
    with standing_in(company.host):
        assert landed(company.hire("alice")[1], to="192.0.2.2") == "gate-1"


def test_a_device_is_not_sent_where_it_is_connected_still(company: Company) -> None:
    """Whichever link failed, it may be that host's. Its other devices say nothing of that."""
    second = add_host(company.server, "gate-2", address="192.0.2.2", priority=2)
    _, identity = company.hire("alice")
    with standing_in(company.host, second):
        where = [landed(identity, device_id="laptop") for _ in range(4)]
        assert where == ["gate-1", "gate-2", "gate-1", "gate-2"]
        Server.objects.update(multi_device=True)
        assert landed(identity, device_id="phone") == "gate-1"
        # Where there is no other, the same one is better than none.
        silence(company.host)
        assert [landed(identity, device_id="laptop") for _ in range(2)] == ["gate-2", "gate-2"]


def test_clients_of_a_region_go_to_its_hosts_first(company: Company) -> None:
    Host.objects.update(region="us")
    europe = add_host(company.server, "gate-2", address="192.0.2.2", region="eu")
    for network, region in (("198.51.100.0/24", "us"), ("198.51.100.128/25", "eu"), ("2001:db8:7::/48", "eu")):
        row = ClientRegion(network=network, region=region)
        row.full_clean()
        row.save()
    for number in range(6):  # so many that the others would be taken
        live(company, company.hire(f"there-{number}")[0], host=europe)
    with standing_in(company.host, europe):
        assert landed(company.hire("a")[1], source="198.51.100.200") == "gate-2"
        assert landed(company.hire("b")[1], source="2001:db8:7::9") == "gate-2"
        assert landed(company.hire("c")[1], source="198.51.100.7") == "gate-1"
        assert landed(company.hire("d")[1], source="203.0.113.7") == "gate-1"  # nobody knows from where


@pytest.mark.parametrize("network", ["198.51.100.1/24", "nowhere", "", "10.0.0.0/33"])
def test_a_network_of_clients_that_is_none_is_refused(company: Company, network: str) -> None:
    with pytest.raises(ValidationError) as caught:
        ClientRegion(network=network, region="eu").full_clean()
    assert list(caught.value.message_dict) == ["network"]
    with pytest.raises(ValidationError):
        ClientRegion(network="10.0.0.0/8", region="Eu West").full_clean()


def test_a_full_host_takes_nobody_and_full_hosts_say_so(company: Company) -> None:
    Host.objects.update(max_clients=2)
    company.host.refresh_from_db()
    second = add_host(company.server, "gate-2", address="192.0.2.2", max_clients=1)
    with standing_in(company.host, second):
        where = Counter(landed(company.hire(f"user-{number}")[1]) for number in range(3))
        assert where == {"gate-1": 2, "gate-2": 1}
        response = send(company.hire("late")[1])
    assert (response.status_code, response.json()["error"]) == (429, "server_full")
    assert 20 <= int(response["Retry-After"]) <= 60
    assert SpentKey.objects.count() == 3
    assert obstacles.of_host(second, 1) == ["It has 1 clients, and takes 1 at most."]


def test_a_host_that_does_not_confirm_is_left_within_the_request_and_asked_last_from_then_on(
    company: Company, fixed_clock: Clock
) -> None:
    """So that those who come after a host has died do not each wait for it."""
    Host.objects.update(weight=1000)
    second = add_host(company.server, "gate-2", address="192.0.2.2")
    with HostStandIn(company.host, "error: no").running() as broken, standing_in(second):
        assert [landed(company.hire(f"user-{number}")[1]) for number in range(4)] == ["gate-2"] * 4
        assert len(broken.of("hostnet.add_peer")) == 1
        # Asked for or not; and if it is the only one that is left, it is asked.
        assert landed(company.hire("asks")[1], to="192.0.2.1") == "gate-2"
        silence(second)
        assert send(company.hire("late")[1]).json()["error"] == "unconfirmed"
        assert len(broken.of("hostnet.add_peer")) == 2
        revive(second)
        broken.answer = "ok"
        fixed_clock.advance(choosing.AVOIDED)
        assert landed(company.hire("much later")[1], now=int(fixed_clock.now)) == "gate-1"


def test_where_no_host_takes_clients_the_answer_says_when_to_come_again(company: Company) -> None:
    _, identity = company.hire("alice")
    silence(company.host)
    response = send(identity)
    assert (response.status_code, response.json()["error"]) == (503, "no_host")
    assert 1 <= int(response["Retry-After"]) <= 10
    assert not Connection.objects.exists()


def test_a_host_is_given_no_clients_four_seconds_after_its_last_heartbeat(company: Company) -> None:
    """Before it counts as down."""
    redis_client().delete(f"{company.host.queue}:fresh")
    assert send(company.hire("alice")[1]).status_code == 503
    assert obstacles.of_host(company.host, 0) == ["Its worker was not heard for 4 seconds."]
    silence(company.host)
    assert obstacles.of_host(company.host, 0)[0].startswith("No machine has joined as this host")
    mesh.control_node(company.host)
    assert obstacles.of_host(company.host, 0) == ["Its worker was never started."]
    company.host.boot = "b"
    assert "Its worker is silent" in obstacles.of_host(company.host, 0)[0]


def test_of_a_silent_host_it_is_said_whether_its_machine_answers_the_others(company: Company) -> None:
    host, other = company.host, add_host(company.server, "gate-2", address="192.0.2.2")
    for each in (host, other):
        mesh.control_node(each)
        mesh.note_key(each, new_key())
    silence(host)
    host.boot = "b"

    def words(answers: bool | None) -> str:
        redis_client().set(heartbeats.reach_key(other), reach_to_json({host.public_id: Reach(answers)}))
        return obstacles.of_host(host, 0)[0]

    assert "does the worker run?" in words(True)
    assert "no other machine of the mesh reaches it" in words(False)
    assert "it is down, or cannot reach Redis" in words(None)


def test_a_worker_that_is_heard_may_refuse_and_that_is_said(company: Company) -> None:
    host = company.host
    for said, words in ((f'{{"speaks": {FORMAT - 1}}}', "of an older release"), ('{"version": 0}', "has just started")):
        redis_client().set(heartbeats.key(host), said)
        assert words in obstacles.of_host(host, 0)[0]
    redis_client().set(heartbeats.key(host), f'{{"speaks": {FORMAT}, "version": 7}}')
    assert obstacles.of_host(host, 0) == []


def test_of_regions_it_is_said_whose_clients_go_elsewhere_first(company: Company) -> None:
    europe = add_host(company.server, "gate-2", address="192.0.2.2", region="eu")
    assert obstacles.of_host(company.host, 0) == []  # no client is known to be there
    for network in ("198.51.100.0/24", "2001:db8:7::/48"):
        ClientRegion.objects.create(network=network, region="eu")
    assert obstacles.of_host(company.host, 0) == ["For Office clients of region eu go to gate-2 first."]
    assert obstacles.of_host(europe, 0) == []
    silence(europe)
    assert obstacles.of_host(company.host, 0) == []


def test_why_a_host_takes_no_clients_is_said_for_each_server(company: Company) -> None:
    host = company.host
    assert obstacles.of_host(host, 5) == []
    Server.objects.update(started=False)
    assert obstacles.of_host(host, 5) == ["Office is stopped."]
    Server.objects.update(started=True)
    ServerHost.objects.update(public_key="")
    assert obstacles.of_host(host, 5) == ["It has not made its key for Office yet."]
    ServerHost.objects.all().delete()
    assert obstacles.of_host(host, 5) == ["No server is attached to it."]
    host.enabled, host.draining = False, True
    host.conditions = [{"code": "firewall_failed", "severity": "error", "text": "nft: no"}]
    assert [words.split()[2] for words in obstacles.of_host(host, 5)] == ["disabled.", "being", "firewall_failed,"]


def test_one_request_does_not_try_a_hundred_hosts(company: Company) -> None:
    hosts = [company.host, *(add_host(company.server, f"gate-{number}") for number in range(2, 9))]
    _, identity = company.hire("alice")
    with contextlib.ExitStack() as stack:
        broken = [stack.enter_context(HostStandIn(host, "error: no").running()) for host in hosts]
        assert send(identity).json()["error"] == "unconfirmed"
    assert sum(len(each.of("hostnet.add_peer")) for each in broken) == choosing.MOST


@pytest.mark.parametrize(
    ("ago", "counts"),
    [(0.5, True), (30.0, True), (299.0, True), (-50.0, False), (3600.0, False), (-3600.0, False), (math.nan, False)],
)
def test_a_request_has_waited_for_what_is_possible_and_a_clock_that_was_set_counts_as_nothing(
    ago: float, counts: bool
) -> None:
    found = waited(str(time.clock_gettime(time.CLOCK_REALTIME) - ago))
    assert (found >= ago) if counts else found == 0.0
    assert (waited(""), waited("soon")) == (0.0, 0.0)


@pytest.mark.parametrize(("seconds", "late"), [(0.0, False), (24.9, False), (25.1, True)])
def test_a_request_that_waited_too_long_for_its_turn_is_told_to_come_again(
    company: Company, seconds: float, late: bool
) -> None:
    """Before anything is looked at: nothing of it costs the others anything."""
    _, identity = company.hire("alice")
    request = make_request(identity, plaintext())
    with standing_in(company.host):
        response = request.send(WAITED=str(seconds))
        assert response.status_code == (503 if late else 200)
        if late:
            assert (response.json()["error"], 1 <= int(response["Retry-After"]) <= turns.LONGEST) == ("busy", True)
            assert request.send().status_code == 200  # not even its nonce was used


def test_those_who_are_told_to_come_again_do_not_all_come_in_the_same_second() -> None:
    assert len({choosing.pause(choosing.LATER) for _ in range(1000)}) == 41


def test_a_device_that_comes_to_two_hosts_at_once_is_on_one_of_them(company: Company, settings: LazySettings) -> None:
    settings.API_URLS = ["https://192.0.2.1", "https://192.0.2.2"]
    second = add_host(company.server, "gate-2", address="192.0.2.2")
    _, identity = company.hire("alice")
    with standing_in(company.host, second) as hosts:
        calls = [partial(send, identity, to=f"192.0.2.{1 + number % 2}") for number in range(6)]
        answers: list[Any] = together(calls)
        assert not [answer for answer in answers if isinstance(answer, Exception)]
        (winner,) = Connection.objects.exclude(state=State.ENDED)
        gone = {row.public_id: row.host_id for row in Connection.objects.filter(state=State.ENDED)}

        def told() -> dict[str, int]:
            """Who was taken off which host, be it with a message that put another one there."""
            return {
                each: host.host.pk
                for host in hosts
                for message in (*host.of("hostnet.remove_peers"), *host.of("hostnet.add_peer"))
                for each in message.get("connections", message.get("replaces", ()))
            }

        until(lambda: told().items() >= gone.items())
    # Whoever was told "allowed" has the one address; who was overtaken gets a 5xx and tries again.
    allowed = [each for each in answers if each.status_code == 200]
    assert {each.opened["configuration"]["address"] for each in allowed} == {f"{winner.address}/24"}
    assert all(each.status_code == 503 for each in answers if each not in allowed)
    assert winner.public_id not in told()
