"""What hosts are told of clients that are on other hosts: by messages of their own, and by full states."""

from __future__ import annotations

from typing import Any

import pytest
import redis

from core.redis_store import redis_client
from servers.hostnet.state import Forward, Remote
from servers.models import ClientNetwork, Host, PortForward, Server, ServerHost
from tests.connection_rows import live, messages, queued
from tests.factories import Company, HostStandIn, add_host
from tests.protocol_client import NOW, Identity, make_request, plaintext
from wgpeers import tasks
from wgpeers.fleet import desired, remotes
from wgpeers.lifecycle import ending, reaper
from wgpeers.models import Connection, EndReason, State

SITE = "192.168.77.0/24"


@pytest.fixture
def second(company: Company) -> Host:
    return add_host(company.server, "gate-2", address="192.0.2.2")


@pytest.fixture
def third(company: Company) -> Host:
    return add_host(company.server, "gate-3", address="192.0.2.3")


def as_remote(row: Connection, **fields: Any) -> dict[str, Any]:
    assert row.server is not None
    assert row.host is not None
    said = {
        "connection": row.public_id,
        "version": row.version,
        "number": row.pk,
        "server": row.server.public_id,
        "host": row.host.public_id,
        "allowed_ips": (f"{row.address}/32",),
    }
    return said | fields


def told(host: Host) -> list[Any]:
    """What of others' clients waits in the host's queue: for each message what was added, or the ids that were
    removed."""
    found: list[Any] = []
    for message in messages(host):
        if "remotes" in message and "interfaces" not in message:
            found.append([{**each, "allowed_ips": tuple(each["allowed_ips"])} for each in message["remotes"]])
        elif set(message) == {"format", "connections"}:
            found.append(message["connections"])
    return found


def spread_tasks() -> int:
    return sum(task == "wgpeers.spread_remotes" for task, _ in queued())


def connect(identity: Identity, **fields: Any) -> Connection:
    assert make_request(identity, plaintext(**fields)).send().status_code == 200
    return Connection.objects.select_related("server", "host").filter(state=State.OPEN).latest("pk")


def end(*rows: Connection) -> None:
    found = Connection.objects.select_related("server").filter(pk__in=[row.pk for row in rows])
    assert ending.end(found, EndReason.ADMIN, NOW) == len(rows)


def test_a_connect_is_told_to_each_other_host_and_its_end_as_well(
    company: Company, host: HostStandIn, second: Host, third: Host
) -> None:
    _, identity = company.hire("alice")
    Host.objects.filter(pk__in=[second.pk, third.pk]).update(draining=True)  # so that it goes to the first
    row = connect(identity)
    assert spread_tasks() == 1
    assert told(second) == []  # the request itself tells nobody, however many there are
    tasks.spread_remotes(500)
    assert told(second) == told(third) == [[as_remote(row)]]
    end(row)
    tasks.spread_remotes(500)
    assert told(second) == told(third) == [[row.public_id]]
    assert host.of("hostnet.add_remotes") == host.of("hostnet.remove_remotes") == []


def test_many_at_once_are_one_message(company: Company, second: Host) -> None:
    rows = [live(company, company.hire(f"user-{number}")[0]) for number in range(30)]
    remotes.note([row.public_id for row in rows[:20]])
    remotes.note([row.public_id for row in rows[20:]])
    remotes.note([rows[0].public_id])
    assert spread_tasks() == 1
    assert remotes.spread() == 30
    ((message),) = told(second)
    assert sorted(each["connection"] for each in message) == sorted(row.public_id for row in rows)
    assert remotes.spread() == 0


def test_more_than_one_message_takes_are_several(company: Company, second: Host) -> None:
    rows = [live(company, company.hire(f"user-{number}")[0]) for number in range(7)]
    remotes.note([row.public_id for row in rows])
    assert remotes.spread(3) == 7
    assert sorted(len(message) for message in told(second)) == [1, 3, 3]


def test_what_is_told_is_true_when_it_is_told(company: Company, second: Host) -> None:
    """Who came and went in between has gone; whoever waits for its host is told of once it is open."""
    gone, waits = live(company, company.hire("a")[0]), live(company, company.hire("b")[0], state=State.PENDING)
    remotes.note([gone.public_id, waits.public_id, "nobody"])
    end(gone)
    remotes.spread()
    assert told(second) == [[gone.public_id]]


def test_a_server_with_one_host_tells_nobody(company: Company, host: HostStandIn) -> None:
    row = connect(company.hire("alice")[1])
    end(row)
    assert spread_tasks() == 0
    assert not redis_client().exists(remotes.CHANGED)


def test_clients_of_both_hosts_in_one_batch(company: Company, second: Host) -> None:
    here, there = live(company, company.hire("a")[0]), live(company, company.hire("b")[0], host=second)
    remotes.note([here.public_id, there.public_id])
    remotes.spread()
    # Each passes over its own.
    both = [as_remote(row) for row in (here, there)]
    for host in (company.host, second):
        (message,) = told(host)
        assert sorted(message, key=lambda each: str(each["number"])) == both


def test_hosts_of_another_server_hear_nothing(company: Company, second: Host) -> None:
    lab = Server.objects.create(name="Lab", network="10.20.0.0/24", wg_network="10.21.0.0/24", port=51821, started=True)
    elsewhere = add_host(lab, "gate-9", address="192.0.2.9")
    row = live(company, company.hire("alice")[0])
    remotes.note([row.public_id])
    remotes.spread()
    assert told(elsewhere) == []
    state = desired.state_of(elsewhere.pk)
    assert state is not None
    assert state.remotes == ()


def test_a_full_state_has_all_clients_of_the_other_hosts(company: Company, second: Host, third: Host) -> None:
    Host.objects.filter(pk=second.pk).update(version=70)
    Server.objects.update(dns_mapping=True)
    alice, bob = company.hire("alice")[0], company.hire("bob")[0]
    ClientNetwork.objects.create(server=company.server, user=bob, network=SITE, active=True)
    PortForward.objects.create(server=company.server, user=bob, port=80, last_port=81, to_port=8080)
    mine = live(company, alice)
    his = live(company, bob, host=second, version=69, device_name="laptop")
    waits = live(company, company.hire("carol")[0], host=third, state=State.PENDING)
    live(company, company.hire("dave")[0], host=second, state=State.ENDED)
    state = desired.state_of(company.host.pk)
    assert state is not None
    assert state.remotes == (
        Remote(
            his.public_id,
            69,
            his.pk,
            company.server.public_id,
            second.public_id,
            (f"{his.address}/32",),
            (SITE,),
            ("laptop.bob.acme.vpn", "bob.acme.vpn"),
            (Forward("tcp", 80, 81, 8080),),
        ),
        Remote(waits.public_id, 1, waits.pk, company.server.public_id, ""),
    )
    versions = dict(Host.objects.values_list("public_id", "version"))
    assert dict(state.others) == {each.public_id: versions[each.public_id] for each in (second, third)}
    assert [peer.connection for peer in state.interfaces[0].peers] == [mine.public_id]


def test_versions_of_other_hosts_are_read_before_their_clients(
    company: Company, second: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who connects in between is then newer than what the state says of its host, never older."""
    rows = remotes.on_others

    def connect_in_between(*arguments: Any) -> Any:
        Host.objects.filter(pk=second.pk).update(version=100)
        live(company, company.hire("late")[0], host=second, version=100)
        return rows(*arguments)

    monkeypatch.setattr(remotes, "on_others", connect_in_between)
    state = desired.state_of(company.host.pk)
    assert state is not None
    (late,) = state.remotes
    assert late.version > dict(state.others)[second.public_id]


def test_a_client_whose_host_no_longer_carries_its_server_is_there_until_it_has_ended(
    company: Company, second: Host
) -> None:
    """Were it left out before, hosts would take it for ended; and it is not, if its host is attached again at once."""
    row = live(company, company.hire("alice")[0], host=second)
    ServerHost.objects.get(host=second).delete()
    state = desired.state_of(company.host.pk)
    assert state is not None
    assert [each.connection for each in state.remotes] == [row.public_id]
    reaper.enforce(NOW)
    state = desired.state_of(company.host.pk)
    assert state is not None
    assert state.remotes == ()
    remotes.spread()
    assert told(company.host) == [[row.public_id]]


def test_a_network_that_passes_to_another_client_is_told_to_all_hosts(
    company: Company, second: Host, third: Host
) -> None:
    """By a new version each, so that no state that was read before it is taken after it."""
    alice, bob = company.hire("alice")[0], company.hire("bob")[0]
    for number, user in enumerate((alice, bob), start=1):
        ClientNetwork.objects.create(
            server=company.server, user=user, network=SITE, priority=number, active=number == 1
        )
    mine, _ = live(company, alice), live(company, bob, host=second)
    before = dict(Host.objects.values_list("pk", "version"))
    queued()
    end(mine)
    after = dict(Host.objects.values_list("pk", "version"))
    assert all(after[host] > before[host] for host in before)
    hosts = {company.host.pk, second.pk, third.pk}
    assert {arguments[0] for task, arguments in queued() if task == "wgpeers.converge"} == hosts
    state = desired.state_of(third.pk)
    assert state is not None
    assert [(each.host, each.networks) for each in state.remotes] == [(second.public_id, (SITE,))]


def test_without_redis_a_connection_ends_all_the_same(
    company: Company, second: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = live(company, company.hire("alice")[0])

    def away(*_: object) -> None:
        raise redis.ConnectionError

    monkeypatch.setattr(remotes, "redis_client", away)
    end(row)
    tasks.spread_remotes(5)


def test_the_sweep_tells_of_what_a_lost_task_left(company: Company, second: Host) -> None:
    row = live(company, company.hire("alice")[0])
    remotes.note([row.public_id])
    queued()
    tasks.sweep()
    assert told(second) == [[as_remote(row)]]
