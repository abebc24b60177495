"""What is written down of refusals, and how little of it: a client that is refused comes again every 7 s."""

from __future__ import annotations

from typing import Any

import pytest
from django.conf import LazySettings

from core.clock import moment
from core.pace import Pace
from servers.models import Server
from tests.attack import connect
from tests.conftest import Clock
from tests.factories import Company, HostStandIn
from tests.protocol_client import NOW, Identity, make_request, new_wg_key, plaintext
from users.models import Device, VpnUser
from wgpeers.lifecycle import decisions, devices
from wgpeers.models import Connection, Decision


@pytest.fixture
def alice(company: Company, host: HostStandIn) -> Identity:
    return company.hire("alice")[1]


def attempt(identity: Identity, clock: Clock, *, address: str = "192.0.2.7", **fields: Any) -> int:
    now = int(clock.now)
    meta: dict[str, Any] = {"REMOTE_ADDR": address}
    return int(make_request(identity, plaintext(timestamp=now, **fields), now=now).send(**meta).status_code)


def rows() -> list[tuple[str, int]]:
    return list(Decision.objects.order_by("time", "pk").values_list("code", "count"))


def test_a_day_against_a_stopped_server_is_a_row_an_hour(company: Company, alice: Identity, fixed_clock: Clock) -> None:
    Server.objects.update(started=False)
    for _ in range(2 * 3600 // 300 + 1):
        assert attempt(alice, fixed_clock) == 429
        fixed_clock.advance(300)
    assert rows() == [("server_stopped", 12), ("server_stopped", 12), ("server_stopped", 1)]
    first = Decision.objects.order_by("time")[0]
    assert (first.time, first.last) == (moment(NOW), moment(NOW + 11 * 300))


def test_another_code_client_server_or_user_is_another_row(
    company: Company, alice: Identity, fixed_clock: Clock
) -> None:
    _, bob = company.hire("bob")
    Server.objects.update(started=False)
    for _ in range(3):
        attempt(alice, fixed_clock)
        attempt(alice, fixed_clock, address="192.0.2.8")
        attempt(alice, fixed_clock, device_name="another")
        attempt(bob, fixed_clock)
    assert sorted(rows()) == [("server_stopped", 3)] * 4
    Server.objects.update(started=True)
    VpnUser.objects.update(enabled=False)
    attempt(alice, fixed_clock)
    assert sorted(rows()) == [*[("server_stopped", 3)] * 4, ("user_disabled", 1)]


@pytest.mark.parametrize("sealed", [True, False])
def test_who_varies_what_they_send_fills_no_more_than_a_budget(
    company: Company, alice: Identity, fixed_clock: Clock, monkeypatch: pytest.MonkeyPatch, sealed: bool
) -> None:
    monkeypatch.setattr(decisions, "REFUSALS_PER_HOUR", 5)
    if sealed:
        VpnUser.objects.update(enabled=False)
    else:
        Server.objects.update(started=False)
    for number in range(20):
        attempt(alice, fixed_clock, device_name=f"device-{number}", address=f"192.0.2.{number}")
    assert len(rows()) == 5
    assert sum(count for _, count in rows()) == 20


def test_a_new_kind_of_refusal_is_written_whatever_the_budget(
    company: Company, alice: Identity, fixed_clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decisions, "REFUSALS_PER_HOUR", 0)
    Server.objects.update(started=False)
    attempt(alice, fixed_clock)
    Server.objects.update(started=True)
    VpnUser.objects.update(enabled=False)
    attempt(alice, fixed_clock)
    assert rows() == [("server_stopped", 1), ("user_disabled", 1)]


def test_what_is_allowed_is_a_row_each(alice: Identity, fixed_clock: Clock) -> None:
    for _ in range(3):
        connect(alice)
    assert [row for row in rows() if row[0] == "allowed"] == [("allowed", 1)] * 3


def test_a_stolen_profile_cannot_fill_the_database_with_connects(
    alice: Identity, fixed_clock: Clock, settings: LazySettings
) -> None:
    settings.CONNECTS_PER_HOUR = 10
    statuses = [attempt(alice, fixed_clock, device_id=f"device-{number}") for number in range(15)]
    assert statuses == [200] * 10 + [429] * 5
    assert Connection.objects.count() == 10
    assert rows()[-1] == ("too_many_requests", 5)


def test_devices_seen_long_ago_give_way_to_others(company: Company, alice: Identity, fixed_clock: Clock) -> None:
    _, bob = company.hire("bob")
    connect(bob)
    for number in range(devices.KEPT + 3):
        assert attempt(alice, fixed_clock, device_id=f"device-{number}", wg_public_key=new_wg_key()) == 200
        fixed_clock.advance(1)
    devices.prune(Pace())
    kept = set(Device.objects.filter(user__name="alice").values_list("device_id", flat=True))
    assert kept == {f"device-{number}" for number in range(3, devices.KEPT + 3)}
    assert Device.objects.filter(user__name="bob").count() == 1
