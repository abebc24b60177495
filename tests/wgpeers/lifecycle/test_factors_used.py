"""What a connect leaves of factors that passed: secrets used up whatever became of it, passes only if it succeeded."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from servers.models import Server, ServerHost
from tests.attempts import ask, code_at, enrol
from tests.factories import Company, HostStandIn
from tests.protocol_client import NOW, Identity, make_request, new_wg_key, open_answer, plaintext
from users.models import RememberedPass, VpnUser
from wgpeers.models import Decision

CODE = code_at(NOW)


@pytest.fixture
def alice(company: Company) -> tuple[VpnUser, Identity]:
    user, identity = company.hire("alice")
    ask(company.server, totp=True)
    Server.objects.update(factor_token_ttl=1000, reconnect_grace=1000)
    return enrol(user, totp=True), identity


def connect(identity: Identity, **fields: Any) -> str:
    """What was decided, as the log says it."""
    request = make_request(identity, plaintext(**{"token": "token-1"} | fields))
    response = request.send()
    if response.status_code != 200:
        return str(response.json()["error"])
    answer = open_answer(response.json(), identity, request.box_private_key)
    return "allowed" if answer["allow"] else Decision.objects.latest("pk").code


def remembered() -> list[str]:
    return sorted(RememberedPass.objects.values_list("kind", flat=True))


def test_a_connect_that_succeeded_is_remembered(alice: tuple[VpnUser, Identity], host: HostStandIn) -> None:
    assert connect(alice[1], password=CODE) == "allowed"
    assert remembered() == ["grace", "token"]
    assert connect(alice[1]) == "allowed"


def test_a_connect_that_no_host_confirmed_is_not_remembered_and_its_code_stays_used(
    alice: tuple[VpnUser, Identity], host: HostStandIn
) -> None:
    host.answer = "error"
    mine = new_wg_key()
    assert connect(alice[1], password=CODE, wg_public_key=mine) == "unconfirmed"
    assert remembered() == []
    host.answer = "ok"
    assert connect(alice[1]) == "factor_missing"  # the token stands for nothing
    assert connect(alice[1], password=CODE) == "totp_used"
    assert connect(alice[1], password=CODE, wg_public_key=mine) == "allowed"


def test_a_connect_that_was_refused_after_its_factors_passed_is_not_remembered(
    alice: tuple[VpnUser, Identity], host: HostStandIn
) -> None:
    Server.objects.update(keep_connected_device=True)
    assert connect(alice[1], password=CODE) == "allowed"
    RememberedPass.objects.all().delete()
    another = {"device_id": "device-2", "password": code_at(NOW + 30)}
    assert connect(alice[1], **another) == "device_connected"
    assert remembered() == []
    assert connect(alice[1], **another) == "totp_used"  # with another key


def test_an_answer_that_is_given_again_is_remembered_too(alice: tuple[VpnUser, Identity], host: HostStandIn) -> None:
    mine = new_wg_key()
    assert connect(alice[1], password=CODE, wg_public_key=mine) == "allowed"
    RememberedPass.objects.all().delete()
    assert connect(alice[1], password=CODE, wg_public_key=mine) == "allowed"
    assert Decision.objects.latest("pk").layers[-1] == ["connect", "given_again"]
    assert remembered() == ["grace", "token"]


def test_one_code_opens_one_server(company: Company, alice: tuple[VpnUser, Identity], host: HostStandIn) -> None:
    identity = alice[1]
    lab = Server.objects.create(
        name="Lab",
        network="10.18.0.0/24",
        wg_network="10.19.0.0/24",
        started=True,
        box_private_key=company.server.box_private_key,
        box_public_key=company.server.box_public_key,
    )
    lab.organizations.add(company.organization)
    ServerHost.objects.create(server=lab, host=company.host, public_key=new_wg_key())
    ask(lab, totp=True)
    elsewhere = dataclasses.replace(identity, server=lab.public_id)
    mine = new_wg_key()
    assert connect(identity, password=CODE, wg_public_key=mine) == "allowed"
    assert connect(elsewhere, password=CODE, wg_public_key=mine) == "totp_used"
