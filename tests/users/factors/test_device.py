"""Registered devices: a key that signs, somebody who confirms it, and an end for good when it is revoked."""

from __future__ import annotations

from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from django.test import Client

from core import clock, task_names
from tests.admin_site import messages, staff
from tests.attempts import ask, enrol
from tests.conftest import Clock
from tests.factories import Company, HostStandIn
from tests.protocol_client import NOW, Identity, device_signed, make_request, open_answer, plaintext
from users.factors.device import enrolment
from users.models import DeviceKey, VpnUser, WrongAttempts
from wgpeers.lifecycle import connect as way
from wgpeers.lifecycle import reaper
from wgpeers.models import Connection, Decision, State
from wgpeers.profiles import content

KEY = ec.generate_private_key(ec.SECP256R1())
OTHER = ec.generate_private_key(ec.SECP256R1())
ID = "0b7c9e5f4a8d4e0f9a1b2c3d4e5f6071"  # as the test client calls its device


@pytest.fixture
def alice(company: Company) -> Identity:
    company.server.factors.all().delete()
    company.server.factors.create(kind="device", settings={"most": 2})
    return company.hire("alice")[1]


def user() -> VpnUser:
    return VpnUser.objects.get(name="alice")


def connect(identity: Identity, key: ec.EllipticCurvePrivateKey | None = KEY, **says: Any) -> dict[str, Any]:
    request = device_signed(identity, key, **says) if key else make_request(identity, plaintext(**says))
    return open_answer(request.send().json(), identity, request.box_private_key)


def confirmed(identity: Identity, key: ec.EllipticCurvePrivateKey = KEY, **says: Any) -> DeviceKey:
    waiting = connect(identity, key, **says)["reg_key"]
    row = DeviceKey.objects.get(reg_key=waiting)
    assert enrolment.confirm(row, clock.now())
    return row


def last_code() -> str:
    return Decision.objects.latest("pk").code


def test_an_unknown_device_is_told_its_key_and_let_in_once_somebody_confirmed_it(
    alice: Identity, host: HostStandIn
) -> None:
    told = connect(alice)
    assert (told["allow"], told["reason"], told["configuration"]) == (False, None, None)
    assert len(told["reg_key"]) == 9
    assert not Connection.objects.exists()
    assert connect(alice)["reg_key"] == told["reg_key"]
    row = DeviceKey.objects.get()
    assert (row.device_id, row.platform, row.confirmed) == (ID, "linux", None)
    enrolment.confirm(row, NOW)
    assert connect(alice)["allow"]
    assert connect(alice, OTHER)["reg_key"] != told["reg_key"]


def test_a_key_that_is_only_named_is_none(alice: Identity, host: HostStandIn) -> None:
    confirmed(alice)
    named = device_signed(alice, KEY)
    box = make_request(alice, plaintext(device_key="AAAA"))
    assert named.body["device_signature"]
    assert not open_answer(box.send().json(), alice, box.box_private_key)["allow"]
    assert last_code() == "device_unsigned"
    answer = connect(alice, None)
    assert not answer["allow"]
    assert "signs nothing" in answer["reason"]


def test_a_key_counts_for_its_own_user_and_device(alice: Identity, company: Company, host: HostStandIn) -> None:
    confirmed(alice)
    assert not connect(alice, device_id="another")["allow"]
    assert last_code() == "device_other_device"
    bob = company.hire("bob")[1]
    assert "reg_key" in connect(bob)


@pytest.mark.parametrize("state", ["open", "pending"])
def test_who_is_revoked_is_out_at_once_and_for_good(alice: Identity, host: HostStandIn, state: str) -> None:
    row = confirmed(alice)
    assert connect(alice)["allow"]
    Connection.objects.update(state=state)
    enrolment.revoke(row, NOW + 1)
    assert reaper.enforce(NOW + 1) == 1
    assert not connect(alice)["allow"]
    assert last_code() == "device_key_revoked"
    assert enrolment.confirm(row, NOW + 2) is False
    # Another key of the same device may be confirmed, and what it opens then is left alone.
    confirmed(alice, OTHER)


def test_a_new_key_of_a_revoked_device_is_not_ended_by_the_old_one(
    alice: Identity, host: HostStandIn, fixed_clock: Clock
) -> None:
    enrolment.revoke(confirmed(alice), NOW)
    fixed_clock.advance(1)
    row = DeviceKey.objects.create(
        user=user(), fingerprint="x", device_id=ID, reg_key="A", created=clock.moment(NOW), confirmed=clock.moment(NOW)
    )
    assert row.revoked is None
    live = Connection(state=State.OPEN, user=user(), device_id=ID, wg_public_key="k" * 44, host_part=9)
    live.server, live.created = user().organization.servers.get(), clock.moment(NOW + 1)
    live.host = live.server.hosts.get()
    live.address = "10.9.0.9"
    live.save()
    user().addresses.create(server=live.server, host_part=9)
    assert reaper.enforce(NOW + 1) == 0


def test_revoked_between_judging_and_opening_is_refused_in_the_transaction(
    alice: Identity, host: HostStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = confirmed(alice)
    begin = way._begin

    def and_revoke(*arguments: Any) -> Any:
        found = begin(*arguments)
        enrolment.revoke(row, NOW)
        return found

    monkeypatch.setattr(way, "_begin", and_revoke)
    request = device_signed(alice, KEY)
    assert request.send().status_code >= 400
    assert not Connection.objects.filter(state=State.OPEN).exists()


def test_revoking_has_everybody_looked_at_again(
    alice: Identity, host: HostStandIn, django_capture_on_commit_callbacks: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[str] = []
    row = confirmed(alice)
    monkeypatch.setattr(enrolment, "after_commit", lambda name, *_: sent.append(name))
    enrolment.revoke(row, NOW)
    enrolment.revoke(row, NOW)
    assert sent == [task_names.ENFORCE]


def test_there_are_only_so_many(alice: Identity, host: HostStandIn) -> None:
    confirmed(alice, device_id="one")
    first = confirmed(alice, OTHER, device_id="two")
    third = ec.generate_private_key(ec.SECP256R1())
    assert not connect(alice, third, device_id="three")["allow"]
    assert last_code() == "device_too_many"
    enrolment.revoke(first, NOW)
    assert "reg_key" in connect(alice, third, device_id="three")


def test_those_that_wait_are_few_and_the_oldest_goes(alice: Identity) -> None:
    for number in range(enrolment.WAITING + 3):
        enrolment.register(user(), f"key {number}", f"device {number}", "", "linux", NOW + number)
    kept = set(DeviceKey.objects.values_list("device_id", flat=True))
    assert kept == {f"device {number}" for number in range(3, enrolment.WAITING + 3)}


def test_only_who_passed_the_rest_gets_a_place_and_nothing_stands_for_the_device(
    alice: Identity, company: Company, host: HostStandIn
) -> None:
    ask(company.server, "required")
    company.server.factors.create(kind="device")
    enrol(user(), "w0mbat")
    assert "reg_key" not in connect(alice, password="wrong one")
    assert not DeviceKey.objects.exists()
    type(company.server).objects.update(factor_token_ttl=1000, reconnect_grace=1000, trusted_networks="127.0.0.0/8")
    assert "reg_key" in connect(alice, password="w0mbat", token="token-1")
    enrolment.confirm(DeviceKey.objects.get(), NOW)
    type(company.server).objects.update(trusted_networks="")
    assert connect(alice, password="w0mbat", token="token-1")["allow"]
    assert connect(alice, token="token-1")["allow"]
    assert not connect(alice, None, token="token-1")["allow"]
    assert last_code() == "device_unsigned"
    assert not connect(alice, None, password="w0mbat")["allow"]
    assert not connect(alice, OTHER, token="token-1")["allow"]
    type(company.server).objects.update(trusted_networks="127.0.0.0/8")
    assert connect(alice)["allow"]
    assert connect(alice, password="typed all the same")["allow"]
    assert not connect(alice, None)["allow"]


def test_an_unsigned_connect_is_no_guess(alice: Identity, host: HostStandIn) -> None:
    for _ in range(12):
        connect(alice, None)
    assert not WrongAttempts.objects.exists()


def test_the_profile_says_that_the_device_must_sign(alice: Identity, company: Company) -> None:
    assert '"device_auth": true' in content.full(user(), company.server)


@pytest.mark.django_db(transaction=True)
def test_an_administrator_confirms_renames_and_revokes_on_the_users_page(
    alice: Identity, client: Client, host: HostStandIn
) -> None:
    staff(client, superuser=True)
    reg_key = connect(alice)["reg_key"]
    page = f"/admin/users/vpnuser/{user().pk}"
    assert reg_key in client.get(f"{page}/change/").content.decode()
    row = DeviceKey.objects.get()

    def press(action: str, **fields: Any) -> str:
        return messages(client, f"{page}/do/act_on_factor/", {"factor": "device", "action": action, **fields})

    assert "does not wait" in press("confirm", key=row.pk, reg_key="A2B3-C4D5")
    assert "is not here any more" in press("confirm", key=row.pk + 1, reg_key=reg_key)
    assert "Confirmed the device" in press("confirm", key=row.pk, reg_key=reg_key)
    assert connect(alice)["allow"]
    assert "at most 128" in press("rename", key=row.pk, name=" ")
    assert "to heron" in press("rename", key=row.pk, name=" heron ")
    assert "Revoked the device heron" in press("revoke", key=row.pk)
    assert not connect(alice)["allow"]
    assert "revoked" in client.get(f"{page}/change/").content.decode()
