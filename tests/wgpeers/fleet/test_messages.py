"""What hosts are told, when, and with which version."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from django.conf import LazySettings
from django.db import transaction

from core import task_queue
from core.redis_store import redis_client
from servers import changes
from servers.hostnet import state
from servers.models import Host, Route, Server, ServerHost
from tests.connection_rows import live, messages, queued
from tests.factories import Company, HostStandIn, add_host
from tests.lab import NEVER, until
from tests.protocol_client import NOW, make_request, plaintext
from users.models import Organization
from wgpeers import tasks
from wgpeers.fleet import desired
from wgpeers.lifecycle import ending
from wgpeers.models import Connection, EndReason, SpentKey, State


def version(host: Host) -> int:
    return int(Host.objects.values_list("version", flat=True).get(pk=host.pk))


@pytest.fixture(autouse=True)
def nothing_queued(company: Company) -> None:
    queued()


SAVES: list[Callable[[Company], Any]] = [
    lambda company: company.host.save(),
    lambda company: company.server.save(),
    lambda company: Route.objects.create(server=company.server, network="192.168.1.0/24"),
    lambda company: ServerHost.objects.get().save(),
    lambda company: ServerHost.objects.get().delete(),
    lambda company: company.server.save(update_fields=["started"]),
]


@pytest.mark.parametrize("save", SAVES)
def test_a_change_raises_the_version_and_converges_after_commit(
    company: Company, save: Callable[[Company], Any]
) -> None:
    before = version(company.host)
    with transaction.atomic():
        save(company)
        assert queued() == []
        assert version(company.host) == before + 1
    # A server that was stopped, or a host detached, ends connections as well.
    assert queued() == [("wgpeers.converge", [company.host.pk]), ("wgpeers.enforce", [])]
    assert version(company.host) == before + 1


@pytest.mark.parametrize("save", SAVES)
def test_a_change_that_is_rolled_back_tells_nobody(company: Company, save: Callable[[Company], Any]) -> None:
    before = version(company.host)
    with contextlib.suppress(RuntimeError), transaction.atomic():
        save(company)
        raise RuntimeError
    assert queued() == []
    assert version(company.host) == before


def test_a_route_that_goes_is_a_change_too(company: Company) -> None:
    route = Route.objects.create(server=company.server, network="192.168.1.0/24")
    queued()
    before = version(company.host)
    route.delete()
    assert queued() == [("wgpeers.converge", [company.host.pk]), ("wgpeers.enforce", [])]
    assert version(company.host) == before + 1


def test_a_change_of_two_hosts_is_told_to_both_and_to_no_third(company: Company) -> None:
    second, third = add_host(company.server, "gate-2"), Host.objects.create(name="gate-3", public_address="192.0.2.3")
    queued()
    before = version(third)
    company.server.save()
    converged = [("wgpeers.converge", [company.host.pk]), ("wgpeers.converge", [second.pk])]
    assert sorted(queued()) == [*converged, ("wgpeers.enforce", [])]
    assert version(third) == before


def test_an_old_copy_of_a_host_does_not_take_its_version_back(company: Company) -> None:
    stale = Host.objects.get()
    for _ in range(5):
        changes.bump_versions([stale.pk])
    Host.objects.update(boot="boot-5")
    before = version(stale)
    stale.name = "renamed"
    stale.save()
    fresh = Host.objects.get()
    assert (fresh.version, fresh.boot, fresh.name) == (before + 1, "boot-5", "renamed")


def test_with_the_broker_away_saving_works_and_is_logged(
    company: Company, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from vpnproject import celery_app

    broken = Celery("broken", set_as_current=False, broker=f"redis+socket://{tmp_path}/nobody.sock?virtual_host=0")
    for name in ("broker_transport_options", "task_publish_retry", "task_publish_retry_policy"):
        broken.conf[name] = celery_app.conf[name]
    monkeypatch.setattr(task_queue, "current_app", broken)
    company.server.name = "Renamed"
    company.server.save()
    assert not task_queue.enqueue("wgpeers.enforce")
    assert Server.objects.get().name == "Renamed"
    assert "could not queue wgpeers.converge" in caplog.text


def test_the_full_state_says_what_the_database_says(company: Company) -> None:
    server, host = company.server, company.host
    server.ipv6, server.network6, server.mtu, server.inter_client = True, "fd09::/64", 1400, False
    server.save()
    Route.objects.create(server=server, network="192.168.1.0/24", nat=False)
    Host.objects.update(boot="boot-2")
    alice, bob, carol = (company.hire(name)[0] for name in ("alice", "bob", "carol"))
    opened = live(company, alice, version=3, address6="fd09::2")
    pending = live(company, bob, state=State.PENDING, version=4)
    live(company, carol, state=State.ENDED)
    elsewhere = add_host(server, "gate-2")
    dave = live(company, company.hire("dave")[0], host=elsewhere, version=2)
    peers = (
        state.Peer(opened.public_id, 3, opened.wg_public_key, ("10.9.0.2/32", "fd09::2/128")),
        state.Peer(pending.public_id, 4, pending.wg_public_key, ("10.9.0.3/32",)),
    )
    interface = state.Interface(
        name=f"wgs{server.pk}",
        server=server.public_id,
        port=51820,
        addresses=("10.9.0.1/24", "fd09::1/64"),
        mtu=1400,
        inter_client=False,
        ping_timeout=360,
        routes=(state.Route("192.168.1.0/24", False),),
        peers=peers,
    )
    remote = state.Remote(dave.public_id, 2, dave.pk, server.public_id, elsewhere.public_id, ("10.9.0.5/32",))
    assert desired.state_of(host.pk) == state.HostState(
        host.public_id,
        version(host),
        "boot-2",
        9790,
        (interface,),
        remotes=(remote,),
        others=((elsewhere.public_id, version(elsewhere)),),
    )


@pytest.mark.parametrize(
    "change",
    [
        lambda company: Server.objects.update(started=False),
        lambda company: Server.objects.update(wireguard=False),
        lambda company: Host.objects.update(enabled=False),
        lambda company: ServerHost.objects.all().delete(),
    ],
)
def test_what_does_not_run_is_not_in_the_state(company: Company, change: Callable[[Company], Any]) -> None:
    live(company, company.hire("alice")[0])
    change(company)
    wanted = desired.state_of(company.host.pk)
    assert wanted is not None
    assert wanted.interfaces == ()


def test_converging_a_host_that_is_gone_is_nothing() -> None:
    assert desired.state_of(10**9) is None
    tasks.converge(10**9)


def test_a_host_that_is_deleted_is_told_to_take_everything_down(company: Company) -> None:
    Host.objects.update(boot="boot-2")
    live(company, company.hire("alice")[0])
    queue, public_id, before = company.host.queue, company.host.public_id, version(company.host)
    company.host.delete()
    (said,) = [arguments for name, arguments in queued() if name == "wgpeers.dismiss"]
    assert (said[0], said[1] > before, said[2]) == (public_id, True, "boot-2")
    tasks.dismiss(*said)
    (wanted,) = messages(Host(public_id=public_id), "hostnet.full_state")
    assert state.host_state_from_json(wanted) == state.HostState(public_id, said[1], "boot-2", 9790, ())
    assert queue == f"host.{public_id}"


def test_the_version_of_a_state_is_read_before_its_rows(company: Company, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connect that commits in between is newer than the state that has it, never older."""
    user, _ = company.hire("alice")
    rows = desired._connections

    def connect_in_between(host: Host) -> Any:
        changes.bump_versions([host.pk])
        live(company, user, version=version(host))
        return rows(host)

    monkeypatch.setattr(desired, "_connections", connect_in_between)
    wanted = desired.state_of(company.host.pk)
    assert wanted is not None
    (peer,) = wanted.interfaces[0].peers
    assert peer.version > wanted.version


def test_a_connects_message_carries_the_version_of_its_change(company: Company, host: HostStandIn) -> None:
    before = version(company.host)
    make_request(company.hire("alice")[1], plaintext()).send()
    (message,) = host.of("hostnet.add_peer")
    row = Connection.objects.get()
    assert message["peer"]["version"] == row.version == version(company.host) == before + 1
    assert message["confirm"] == f"host.{company.host.public_id}:confirm:{row.public_id}"
    assert message["server"] == company.server.public_id


def test_a_refused_connect_changes_no_version(company: Company, host: HostStandIn) -> None:
    user, identity = company.hire("alice")
    user.enabled = False
    user.save()
    before = version(company.host)
    make_request(identity, plaintext()).send()
    assert version(company.host) == before
    assert host.of("hostnet.add_peer") == []


@pytest.mark.parametrize("answer", [None, "error: no", "nonsense"])
def test_a_host_that_does_not_confirm_is_told_to_remove_the_peer(
    company: Company, settings: LazySettings, answer: str | None
) -> None:
    if answer is None:
        settings.CONFIRM_TIMEOUT = NEVER
    with HostStandIn(company.host, answer).running() as host:
        response = make_request(company.hire("alice")[1], plaintext()).send()
        until(lambda: host.of("hostnet.add_peer"))
    assert response.status_code >= 500
    row = Connection.objects.get()
    assert (row.state, row.end_reason) == (State.ENDED, "unconfirmed")
    assert not SpentKey.objects.exists()
    (added,) = host.of("hostnet.add_peer")
    removals = [*host.of("hostnet.remove_peers"), *messages(company.host, "hostnet.remove_peers")]
    assert [removal["connections"] for removal in removals] == [[row.public_id]]
    assert removals[0]["version"] > added["peer"]["version"]


def test_waiting_for_a_slow_host_is_not_taken_for_a_hung_store(settings: LazySettings) -> None:
    for patience in (0.05, 1.0, 60.0):
        settings.CONFIRM_TIMEOUT = patience
        assert redis_client().connection_pool.connection_kwargs["socket_timeout"] > patience


def test_the_next_host_is_tried_in_the_same_request(company: Company) -> None:
    second = add_host(company.server, "gate-2", address="192.0.2.2")
    user, identity = company.hire("alice")
    # The first is the less busy one, and refuses.
    live(company, company.hire("bob")[0], host=second)
    with HostStandIn(company.host, "error: no").running() as refuses, HostStandIn(second).running() as takes:
        response = make_request(identity, plaintext()).send()
        assert response.status_code == 200
    row = Connection.objects.get(user=user)
    assert (row.state, row.host) == (State.OPEN, second)
    (taken,) = takes.of("hostnet.add_peer")
    assert taken["peer"]["version"] == row.version == version(second)
    removals = [*refuses.of("hostnet.remove_peers"), *messages(company.host, "hostnet.remove_peers")]
    assert [removal["connections"] for removal in removals] == [[row.public_id]]
    assert removals[0]["version"] > refuses.of("hostnet.add_peer")[0]["peer"]["version"]


def test_ends_of_one_call_are_told_to_each_host_in_one_message(company: Company) -> None:
    second = add_host(company.server, "gate-2")
    here = [live(company, company.hire(f"here-{n}")[0]) for n in range(3)]
    there = [live(company, company.hire(f"there-{n}")[0], host=second) for n in range(2)]
    assert ending.end([*here, *there], EndReason.ADMIN, NOW) == 5
    assert [message["connections"] for message in messages(company.host)] == [[row.public_id for row in here]]
    assert [message["connections"] for message in messages(second)] == [[row.public_id for row in there]]


def test_a_disabled_organization_is_told_only_when_it_is_saved_for_good(company: Company) -> None:
    organization = Organization.objects.get()
    organization.enabled = False
    with contextlib.suppress(RuntimeError), transaction.atomic():
        organization.save()
        raise RuntimeError
    assert queued() == []


def test_only_json_is_taken_and_sent() -> None:
    from vpnproject import celery_app as app

    assert app.conf.accept_content == ["json"]
    assert (app.conf.task_serializer, app.conf.result_serializer) == ("json", "json")
    with pytest.raises(Exception, match="not JSON serializable"):
        task_queue.enqueue("wgpeers.enforce", object())


def test_every_scheduled_task_exists_and_keys_have_a_queue_of_their_own() -> None:
    from vpnproject import celery_app as app

    app.loader.import_default_modules()
    entries = app.conf.beat_schedule.values()
    assert {entry["task"] for entry in entries} <= set(app.tasks)
    assert all(entry["options"]["expires"] <= max(2, entry["schedule"].seconds) for entry in entries)
    queued("keys")
    task_queue.enqueue("users.make_user_key", 1)
    task_queue.enqueue("wgpeers.enforce")
    assert [name for name, _ in queued("keys")] == ["users.make_user_key"]
    assert [name for name, _ in queued()] == ["wgpeers.enforce"]
