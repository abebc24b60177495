"""Each statement of wgpeers.lifecycle.queries says and writes what the ORM would, on whichever database this runs."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable
from typing import Any

import pytest
from django.db import IntegrityError, models, transaction

from core.clock import moment
from servers import addresses
from servers.models import ClientNetwork, PortForward, Route, Server, ServerHost, ServerLink
from servers.policy import policy_of
from tests.connection_rows import live
from tests.factories import Company, add_host
from tests.protocol_client import NOW, new_wg_key
from users.models import Device, Group, VpnUser
from wgpeers.lifecycle import queries
from wgpeers.models import Connection, Decision, SpentKey, State


def values(row: models.Model | None) -> dict[str, Any]:
    """All columns, with their Python types: 1 and True are not the same here."""
    assert row is not None
    found = {field.attname: getattr(row, field.attname) for field in row._meta.concrete_fields}
    return {name: (type(value), value) for name, value in found.items()}


def all_values(rows: Iterable[models.Model]) -> list[dict[str, Any]]:
    return [values(row) for row in rows]


@pytest.fixture
def alice(company: Company) -> VpnUser:
    user, _ = company.hire("alice")
    return user


def test_user(company: Company, alice: VpnUser) -> None:
    found = queries.user(company.organization.public_id, alice.public_id)
    same = VpnUser.objects.select_related("organization").get(pk=alice.pk)
    assert values(found) == values(same)
    assert found is not None
    assert values(found.organization) == values(same.organization)
    assert not found._state.adding
    assert queries.user("f" * 24, alice.public_id) is None
    assert queries.user(company.organization.public_id, "f" * 24) is None


def test_server(company: Company) -> None:
    Server.objects.update(ipv6=True, network6="fd09::/64", multi_device=True, max_devices=3)
    assert values(queries.server(company.server.public_id)) == values(Server.objects.get())
    assert queries.server("f" * 24) is None


def test_extras(company: Company, alice: VpnUser) -> None:
    def extras() -> tuple[bool, ...]:
        return dataclasses.astuple(queries.extras(company.server.pk, alice.pk))

    bob, _ = company.hire("bob")
    assert extras() == (False, False, False, False, False)
    ClientNetwork.objects.create(server=company.server, user=bob, network="192.168.5.0/24")
    assert extras() == (False, False, True, False, False)
    add_host(company.server, "gate-2")
    ClientNetwork.objects.create(server=company.server, user=alice, network="192.168.6.0/24")
    PortForward.objects.create(server=company.server, user=bob, port=8080)
    assert extras() == (False, True, True, True, False)
    PortForward.objects.create(server=company.server, user=alice, port=8081)
    assert extras() == (True, True, True, True, False)
    other = Server.objects.create(name="Lab", network="10.20.0.0/24", wg_network="10.21.0.0/24", port=51821)
    ServerLink.objects.create(first=other, second=company.server)
    assert extras() == (True, True, True, True, True)


def test_for_ping(company: Company, alice: VpnUser) -> None:
    Server.objects.update(multi_device=True)
    first = live(company, alice)
    part = addresses.dynamic_address(company.server, alice).host_part
    second = live(company, alice, host_part=part, device_id="two")
    Connection.objects.create(**row_of(company, alice, host_part=99, state=State.PENDING))
    live(company, company.hire("bob")[0])
    ids = (company.organization.public_id, alice.public_id, company.server.public_id)
    server = Server.objects.get()
    credentials = (alice.sync_token.stored, alice.sync_secret.stored, alice.public_key, server.box_private_key.stored)
    expected = {
        (row.public_id, row.wg_public_key, row.address, server.ping_timeout, *credentials) for row in (first, second)
    }
    found = [tuple(map(str, row[:3])) + tuple(row[3:]) for row in queries.for_ping(*ids)]
    assert set(found) == expected


def test_attachments(company: Company) -> None:
    add_host(company.server, "gate-2")
    keyless, disabled = add_host(company.server, "gate-3"), add_host(company.server, "gate-4")
    ServerHost.objects.filter(host=keyless).update(public_key="")
    type(disabled).objects.filter(pk=disabled.pk).update(enabled=False, applied_at=moment(NOW))
    found = sorted(queries.attachments(company.server), key=lambda each: each.pk)
    rows = ServerHost.objects.select_related("host").filter(host__enabled=True).exclude(public_key="").order_by("pk")
    assert len(found) == 2
    assert all_values(found) == all_values(rows)
    assert all_values([each.host for each in found]) == all_values([each.host for each in rows])


def test_routes(company: Company) -> None:
    for network in ("192.168.2.0/24", "10.0.0.0/8", "192.168.1.0/24"):
        Route.objects.create(server=company.server, network=network, metric=7, net_gateway=network.startswith("10."))
    assert all_values(queries.routes(company.server)) == all_values(company.server.routes.all())


@pytest.mark.parametrize("change", ["user", "organization", "started", "wireguard", None])
def test_standing_is_that_of_this_moment(company: Company, alice: VpnUser, change: str | None) -> None:
    if change in {"user", "organization"}:
        row = alice if change == "user" else company.organization
        type(row)._default_manager.filter(pk=row.pk).update(enabled=False)
    elif change:
        Server.objects.update(**{change: False})
    assert queries.standing(alice, company.server).permitted is (change is None)


def test_standing_knows_the_static_address_only(company: Company, alice: VpnUser) -> None:
    assert queries.standing(alice, company.server) == queries.Standing(True, None, [])
    addresses.dynamic_address(company.server, alice)
    assert queries.standing(alice, company.server) == queries.Standing(True, None, [])
    static = addresses.static_address(company.server, alice)
    assert queries.standing(alice, company.server) == queries.Standing(True, static.host_part, [])
    assert queries.standing(VpnUser(pk=10**9), company.server) == queries.Standing(False, None, [])


def test_standing_has_the_live_connections(company: Company, alice: VpnUser) -> None:
    live(company, alice, session_ends=moment(NOW + 5), address6="fd09::2", client_address="2001:db8::1")
    live(company, alice, state=State.ENDED, host_part=50)
    live(company, company.hire("bob")[0])
    live(company, alice, state=State.PENDING, host_part=51)
    addresses.static_address(company.server, alice)
    found = queries.standing(alice, company.server).live
    assert len(found) == 2
    assert all_values(found) == all_values(Connection.objects.filter(user=alice).exclude(state=State.ENDED))


def row_of(company: Company, user: VpnUser, **fields: Any) -> dict[str, Any]:
    return {
        "user_id": user.pk,
        "user_name": "alice (Acme)",
        "server_id": company.server.pk,
        "host_id": company.host.pk,
        "device_id": "käse",
        "client_address": "2001:db8::1",
        "wg_public_key": new_wg_key(),
        "host_part": 5,
        "address": "10.9.0.5",
        "created": moment(NOW + 0.25),
        **fields,
    }


def test_a_connection_is_inserted_as_the_orm_would(company: Company, alice: VpnUser) -> None:
    ours = Connection(**row_of(company, alice))
    queries.insert_connection(ours)
    assert ours.pk
    ours.state = State(ours.state).value
    assert values(Connection.objects.get(pk=ours.pk)) == values(ours)
    theirs = Connection.objects.create(**row_of(company, alice, host_part=6))
    stored = values(Connection.objects.get(pk=theirs.pk))
    different = {"id", "public_id", "wg_public_key", "host_part"}
    assert {k: v for k, v in stored.items() if k not in different} == {
        k: v for k, v in values(ours).items() if k not in different
    }
    ours.version = 17
    queries.set_version(ours)
    assert dict(Connection.objects.values_list("pk", "version")) == {ours.pk: 17, theirs.pk: 0}


def test_constraints_hold(company: Company, alice: VpnUser) -> None:
    row = Connection(**row_of(company, alice))
    queries.insert_connection(row)
    with pytest.raises(IntegrityError), transaction.atomic():
        queries.insert_connection(Connection(**row_of(company, alice)))
    digest = hashlib.sha256(b"key").digest()
    queries.insert_spent_key(digest, row, NOW)
    with pytest.raises(IntegrityError), transaction.atomic():
        queries.insert_spent_key(digest, row, NOW)
    spent = SpentKey.objects.get()
    assert (bytes(spent.digest), spent.connection, spent.created) == (digest, row, moment(NOW))


@pytest.mark.parametrize("state", [State.PENDING, State.OPEN, State.ENDED])
def test_only_what_is_pending_is_opened(company: Company, alice: VpnUser, state: State) -> None:
    row = Connection.objects.create(**row_of(company, alice, state=state))
    other = Connection.objects.create(**row_of(company, alice, host_part=6))
    assert queries.open_pending(row, NOW + 1.5) is (state == State.PENDING)
    row.refresh_from_db()
    other.refresh_from_db()
    opened = (State.OPEN, moment(NOW + 1.5))
    assert (row.state, row.opened) == (opened if state == State.PENDING else (state, None))
    assert (other.state, other.opened) == (State.PENDING, None)


def test_a_device_keeps_when_it_was_first_seen(alice: VpnUser) -> None:
    def seen(now: float, **fields: Any) -> Device:
        times = {"first_seen": moment(now), "last_seen": moment(now)}
        return Device(user_id=alice.pk, device_id="laptop", **times, **fields)

    queries.note_device(seen(NOW, name="old", hostname="a", platform="linux", client_version="1"))
    first = Device.objects.get()
    changed = {"name": "new", "hostname": "b", "platform": "win", "client_version": "2", "last_address": "192.0.2.7"}
    queries.note_device(seen(NOW + 60, **changed))
    second = Device.objects.get()
    assert (second.pk, second.first_seen, second.last_seen) == (first.pk, moment(NOW), moment(NOW + 60))
    assert {name: getattr(second, name) for name in changed} == changed


def test_a_decision_is_inserted_as_the_orm_would(company: Company, alice: VpnUser) -> None:
    fields: dict[str, Any] = {
        "time": moment(NOW),
        "user_id": alice.pk,
        "user_name": "alice (Acme)",
        "server_id": company.server.pk,
        "server_name": "Acme",
        "address": "192.0.2.7",
        "allowed": True,
        "layer": "connect",
        "code": "allowed",
        "layers": [["envelope", "ok"], ["connect", "ok"]],
    }
    Decision.objects.create(**fields)
    queries.insert_decision(Decision(**fields))
    first, second = Decision.objects.order_by("pk")
    assert {**values(first), "id": 0} == {**values(second), "id": 0}
    assert Decision.objects.filter(layers__0__0="envelope").count() == 2


def test_the_policy(company: Company, django_assert_num_queries: Any) -> None:
    server = Server.objects.get()
    server.groups.add(Group.objects.create(name="staff"))
    server.factors.all().delete()
    rows = [("totp", "required", "skip", {}), ("palm", "optional", "refuse", {"a": [1, None], "ü": {"b": True}})]
    for kind, mode, if_unavailable, settings in rows:
        server.factors.create(kind=kind, mode=mode, if_unavailable=if_unavailable, settings=settings)
    with django_assert_num_queries(1):
        policy = policy_of(server)
    said = [(each.kind, each.mode, each.if_unavailable, each.settings) for each in policy.factors]
    assert said == list(server.factors.values_list("kind", "mode", "if_unavailable", "settings")) == sorted(rows)
    assert policy.organizations == set(server.organizations.values_list("pk", flat=True)) != set()
    assert policy.groups == set(server.groups.values_list("pk", flat=True)) != set()


def test_policy_pairs(company: Company) -> None:
    server = Server.objects.get()
    assert policy_of(server).organizations == set(server.organizations.values_list("pk", flat=True))
    assert policy_of(server).groups == set()
    server.groups.add(Group.objects.create(name="staff"))
    assert policy_of(server).groups == set(server.groups.values_list("pk", flat=True)) != set()
