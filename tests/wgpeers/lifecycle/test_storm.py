"""Everything at once: connects, sweeps, administrators. Nothing deadlocks or is half done, no address is shared."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from functools import partial

import pytest
from django.core.exceptions import ValidationError

from servers import addresses
from servers.models import Address, Host, Server
from tests.concurrency import together
from tests.connection_rows import with_fresh_marker
from tests.factories import Company, HostStandIn, add_host
from tests.protocol_client import NOW, Identity, make_request, plaintext
from users.models import VpnUser
from wgpeers.fleet import desired
from wgpeers.lifecycle import reaper
from wgpeers.lifecycle.reaper import enforce
from wgpeers.models import Connection, SpentKey, State

ROUNDS = 12


def connects(people: list[Identity], seed: int) -> Counter[str]:
    chance = random.Random(seed)
    said: Counter[str] = Counter()
    for _ in range(ROUNDS):
        fields = plaintext(device_id=f"device-{chance.randrange(3)}")
        answer = make_request(chance.choice(people), fields).send()
        said[answer.json().get("error", "answered")] += 1
    return said


def sweeps() -> Counter[str]:
    for number in range(ROUNDS):
        reaper.sweep(NOW + 29 + number % 2 * 400)
        enforce(NOW)
    return Counter()


def administers(company: Company, users: list[VpnUser], seed: int) -> Counter[str]:
    chance = random.Random(seed)

    def assign() -> None:
        try:
            addresses.assign(company.server, chance.choice(users), f"10.9.0.{chance.randrange(2, 20)}")
        except ValidationError:
            said["address taken"] += 1

    def disable_for_a_moment() -> None:
        user = chance.choice(users)
        for enabled in (False, True):
            VpnUser.objects.filter(pk=user.pk).update(enabled=enabled)
            enforce(NOW)

    said: Counter[str] = Counter()
    changes: list[Callable[[], object]] = [
        assign,
        disable_for_a_moment,
        lambda: Server.objects.get().save(),
        lambda: Host.objects.order_by("?")[0].save(),
        lambda: desired.state_of(company.host.pk),
    ]
    for _ in range(ROUNDS):
        chance.choice(changes)()
    return said


@pytest.mark.parametrize("multi_device", [True, False])
def test_a_storm_leaves_everything_in_order(company: Company, multi_device: bool) -> None:
    company.server.multi_device = multi_device
    company.server.save()
    second = add_host(company.server, "gate-2", address="192.0.2.2")
    hired = [company.hire(f"user-{number}") for number in range(5)]
    users, people = [user for user, _ in hired], [identity for _, identity in hired]
    with_fresh_marker()
    calls: list[Callable[[], Counter[str]]] = [partial(connects, people, seed) for seed in range(6)]
    calls += [sweeps, *(partial(administers, company, users, seed) for seed in range(3))]
    # The one host refuses, so that connections move on to the other while others end them.
    with HostStandIn(company.host, "error: no").running(), HostStandIn(second).running():
        done = together(calls)
    assert [error for error in done if isinstance(error, Exception)] == []
    said = sum((count for count in done if isinstance(count, Counter)), Counter[str]())
    assert set(said) <= {"answered", "unconfirmed", "in_progress", "key_spent", "address taken"}
    assert said["answered"]
    live = Connection.objects.exclude(state=State.ENDED)
    assert len({(row.server_id, row.host_part) for row in live}) == live.count()
    devices = Counter((row.user_id, row.device_id if multi_device else "") for row in live)
    assert set(devices.values()) <= {1}
    # A dynamic address is held by exactly those who are connected with one.
    held = set(Address.objects.filter(dynamic=True).exclude(user=None).values_list("host_part", "user"))
    static = set(Address.objects.filter(dynamic=False).exclude(user=None).values_list("host_part", "user"))
    in_use = {(row.host_part, row.user_id) for row in live}
    enforce(NOW)
    assert held <= in_use
    assert {(row.host_part, row.user_id) for row in Connection.objects.exclude(state=State.ENDED)} <= held | static
    never_allowed = Connection.objects.filter(end_reason="unconfirmed")
    assert not SpentKey.objects.filter(connection__in=never_allowed).exists()
