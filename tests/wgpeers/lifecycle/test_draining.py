"""A host that is being emptied: its clients are told by their pings, some at a time, and are elsewhere at once."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client

from servers import services
from servers.models import Host, Server, ServerHost
from tests import attempts
from tests.admin_site import staff
from tests.conftest import Clock
from tests.connection_rows import live, many, messages
from tests.factories import Company, HostStandIn, add_host, revive, silence
from tests.protocol_client import NOW, Identity, make_request, open_answer, plaintext
from wgpeers import tasks
from wgpeers.lifecycle import draining
from wgpeers.models import Connection, State


@pytest.fixture
def other(company: Company) -> Host:
    """Another host of the server."""
    return add_host(company.server, "gate-2", address="192.0.2.2")


def drain(host: Host) -> None:
    services.drain(host)


def left(host: Host) -> int:
    return Connection.objects.filter(host=host).exclude(state=State.ENDED).count()


def ask(identity: Identity, method: str, now: int = NOW, **fields: Any) -> dict[str, Any]:
    request = make_request(identity, plaintext(timestamp=now, **fields), method=method, now=now)
    response = request.send()
    assert response.status_code == 200, response.content
    return open_answer(response.json(), identity, request.box_private_key)


def test_clients_go_in_groups_until_the_host_is_empty(company: Company, other: Host) -> None:
    many(company, 25)
    drain(company.host)
    sizes = []
    while left(company.host):
        sizes.append(draining.step(NOW))
    assert sizes == [10, 10, 5]
    assert draining.step(NOW) == 0
    assert set(Connection.objects.values_list("end_reason", flat=True)) == {"drained"}
    # Each is told so by its next ping: its peer is left there for as long.
    told = messages(company.host, "hostnet.remove_peers")
    assert {message["lingers"] for message in told} == {company.server.ping_interval + 3}
    assert sum(len(message["connections"]) for message in told) == 25


def test_a_large_host_is_emptied_in_larger_groups(company: Company, other: Host) -> None:
    rows = many(company, 4)
    for row in rows:
        same = {f.attname: getattr(row, f.attname) for f in row._meta.fields if f.name not in {"id", "public_id"}}
        parts = range(1000 * row.pk, 1000 * row.pk + 100)
        Connection.objects.bulk_create(Connection(**{**same, "host_part": part}) for part in parts)
    drain(company.host)
    assert draining.step(NOW) == 20


def test_a_client_moves_with_its_address_and_without_being_asked_again(
    company: Company, other: Host, fixed_clock: Clock
) -> None:
    """The code that it holds was used before, and its time is over."""
    attempts.ask(company.server, totp=True)
    user, identity = company.hire("alice")
    attempts.enrol(user, totp=True)
    code = attempts.code_at(NOW)
    with HostStandIn(company.host).running(), HostStandIn(other).running() as there:
        silence(other)
        first = ask(identity, "POST", password=code)
        assert first["allow"], first
        before = Connection.objects.get(state=State.OPEN)
        revive(other)
        drain(company.host)
        later = int(fixed_clock.advance(7200))
        assert ask(identity, "PUT", later, wg_public_key=before.wg_public_key)["status"] is True
        tasks.sweep()
        assert ask(identity, "PUT", later, wg_public_key=before.wg_public_key)["status"] is False
        second = ask(identity, "POST", later, password=code)
    assert second["allow"], second
    after = Connection.objects.get(state=State.OPEN)
    assert (after.host, after.address) == (other, before.address)
    assert [message["peer"]["connection"] for message in there.of("hostnet.add_peer")] == [after.public_id]


def test_a_draining_host_gets_no_new_clients(company: Company, other: Host) -> None:
    drain(company.host)
    with HostStandIn(other).running():
        for number in range(3):
            ask(company.hire(f"user-{number}")[1], "POST")
    assert left(company.host) == 0
    silence(other)
    assert make_request(company.hire("late")[1]).send().status_code == 503


@pytest.mark.parametrize("why", ["none", "silent", "draining", "disabled", "without a key"])
def test_nobody_is_sent_away_where_no_other_host_takes_them(company: Company, other: Host, why: str) -> None:
    many(company, 3)
    changes: dict[str, Any] = {
        "none": lambda: ServerHost.objects.filter(host=other).delete(),
        "silent": lambda: silence(other),
        "draining": lambda: drain(other),
        "disabled": lambda: Host.objects.filter(pk=other.pk).update(enabled=False),
        "without a key": lambda: ServerHost.objects.filter(host=other).update(public_key=""),
    }
    changes[why]()
    drain(company.host)
    assert draining.step(NOW) == 0
    assert left(company.host) == 3


def test_of_two_servers_the_one_that_has_another_host_moves(company: Company, other: Host) -> None:
    lab = Server.objects.create(name="Lab", network="10.20.0.0/24", wg_network="10.21.0.0/24", port=51821, started=True)
    ServerHost.objects.create(server=lab, host=company.host, public_key="k" * 44)
    user, _ = company.hire("alice")
    stays, goes = live(company, user, server=lab), live(company, user)
    drain(company.host)
    assert draining.step(NOW) == 1
    stays.refresh_from_db()
    goes.refresh_from_db()
    assert (stays.state, goes.state) == (State.OPEN, State.ENDED)


def test_a_host_that_is_not_heard_keeps_its_clients(company: Company, other: Host) -> None:
    """They could not be told, and its tunnels may run on."""
    many(company, 3)
    drain(company.host)
    silence(company.host)
    assert draining.step(NOW) == 0
    assert left(company.host) == 3


def test_an_admin_drains_a_host_sees_it_empty_and_takes_it_back(company: Company, other: Host) -> None:
    many(company, 2)
    browser = Client()
    staff(browser, superuser=True)
    page = f"/admin/servers/host/{company.host.pk}/"
    browser.post(f"{page}do/drain/")
    company.host.refresh_from_db()
    assert company.host.draining
    assert browser.get(f"{page}change/").context["page_state"] == ("warning", "draining: 2 left")
    (card,) = [card for card in browser.get("/admin/").context["cards"] if card["title"] == "Hosts up"]
    assert (card["value"], card["message"]) == ("2 / 2", "all of them")  # none of them is silent
    assert "It is being drained." in browser.get(f"{page}change/").content.decode()
    draining.step(NOW)
    assert browser.get(f"{page}change/").context["page_state"] == ("success", "drained: empty")
    assert "drained: empty" in browser.get("/admin/servers/host/").content.decode()
    browser.post(f"{page}do/take_clients/")
    assert browser.get(f"{page}change/").context["page_state"] == ("success", "alive")
