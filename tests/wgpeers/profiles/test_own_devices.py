"""Devices on the user's own page: a revoked one stays away until an administrator lets it in; connections are ended."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client

from core.clock import moment
from core.pace import Pace
from tests.admin_site import staff
from tests.conftest import Clock
from tests.factories import Company, HostStandIn
from tests.protocol_client import NOW, Identity
from tests.wgpeers.lifecycle.test_connect import STEPS, connect, live
from users.models import Device, RememberedPass, VpnUser
from wgpeers.lifecycle import devices
from wgpeers.models import Connection, Decision, EndReason

from .own_pages import OwnPage, said_by


@pytest.fixture
def device(company: Company) -> tuple[VpnUser, Identity]:
    return company.hire("alice")


def a_pass(user: VpnUser, device_id: str) -> RememberedPass:
    return RememberedPass.objects.create(
        user=user, scope="x", kind="token", device_id=device_id, device_name="", digest="", expires=moment(NOW + 99)
    )


def test_a_revoked_device_is_cut_off_and_comes_back_by_an_administrator_alone(
    company: Company, host: HostStandIn, device: tuple[VpnUser, Identity], client: Client
) -> None:
    user, identity = device
    assert connect(identity, device_id="a" * 32)["allow"]
    a_pass(user, "a" * 32), a_pass(user, "b" * 32)
    page = OwnPage(user)
    page.send("revoke_device", device="a" * 32)
    assert not live()
    row = Connection.objects.get()
    assert row.end_reason == EndReason.DEVICE_REVOKED
    assert host.of("host.remove_peers") or host.messages
    assert [each.device_id for each in RememberedPass.objects.all()] == ["b" * 32]
    refused = connect(identity, device_id="a" * 32)
    assert (refused["allow"], "revoked" in refused["reason"]) == (False, True)
    assert Decision.objects.filter(code="device_revoked", layer="account").exists()
    assert connect(identity, device_id="b" * 32)["allow"]  # the other one of theirs
    assert "Your administrator can let it in again" in page.text()

    staff(client, superuser=True)
    admin = f"/admin/users/vpnuser/{user.pk}"
    assert "Let it in again" in client.get(f"{admin}/change/").content.decode()
    client.post(f"{admin}/do/allow_device/", {"device": "a" * 32})
    assert connect(identity, device_id="a" * 32)["allow"]


@pytest.mark.parametrize(("module", "step"), STEPS, ids=lambda each: each if isinstance(each, str) else "")
def test_a_device_that_is_revoked_between_two_steps_of_its_connect_is_not_connected(
    host: HostStandIn, device: tuple[VpnUser, Identity], module: Any, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    user, identity = device
    assert connect(identity, device_id="a" * 32)["allow"]
    real = getattr(module, step)

    def revoke_first(*arguments: Any) -> Any:
        monkeypatch.setattr(module, step, real)
        devices.revoke(Device.objects.get(user=user), NOW)
        return real(*arguments)

    monkeypatch.setattr(module, step, revoke_first)
    assert connect(identity, device_id="a" * 32)["status"] == 503
    assert not live()


def test_a_revoked_device_is_not_forgotten_with_old_ones(device: tuple[VpnUser, Identity]) -> None:
    user, _ = device
    for number in range(devices.KEPT + 3):
        seen = moment(NOW + number)
        Device.objects.create(user=user, device_id=f"d{number}", first_seen=seen, last_seen=seen)
    devices.revoke(Device.objects.get(device_id="d0"), NOW)
    devices.prune(Pace())
    assert Device.objects.filter(device_id="d0").exclude(revoked=None).exists()
    assert Device.objects.filter(revoked=None).count() == devices.KEPT


def test_a_user_ends_a_connection_of_theirs(
    company: Company, host: HostStandIn, device: tuple[VpnUser, Identity], fixed_clock: Clock
) -> None:
    user, identity = device
    assert connect(identity)["allow"]
    (row,) = live()
    page = OwnPage(user)
    assert "Connected now" in page.text()
    assert said_by(page.send("end_connection", connection=row.public_id)) == "The connection is ended."
    row.refresh_from_db()
    assert row.end_reason == EndReason.BY_USER
    assert Decision.objects.filter(layer="own_page", code="by_user").exists()
    assert "had ended" in said_by(page.send("end_connection", connection=row.public_id))
    assert connect(identity)["allow"]  # as after an administrator's disconnecting
