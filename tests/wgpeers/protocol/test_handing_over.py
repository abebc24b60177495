"""web hands a connect over that would wait for somebody else's server, and the second pool goes on with it."""

from __future__ import annotations

import json

import pytest

from core.crypto import Secret
from core.redis_store import redis_client
from servers.models import ServerFactor
from tests.factories import Company, HostStandIn
from tests.protocol_client import NOW, make_request, open_answer
from users.factors.yubikey.enrolment import add_key
from users.models import Provider
from wgpeers.models import Decision


@pytest.mark.usefixtures("fixed_clock")
def test_web_hands_a_connect_over_that_would_wait_and_counts_it_once(company: Company) -> None:
    alice, identity = company.hire("alice")
    company.server.factors.all().delete()
    ServerFactor.objects.create(server=company.server, kind="yubikey")
    add_key(alice, "c" * 12)
    Provider.objects.create(
        kind="yubikey",
        name="keys",
        settings={"servers": "http://localhost:9/verify", "client_id": "1"},
        secrets=Secret.of(json.dumps({"secret_key": "a2V5"})),
    )
    request = make_request(identity, now=NOW)
    handed_over = request.send(WAIT_ELSEWHERE="yes")
    assert (handed_over.status_code, handed_over["X-Accel-Redirect"], handed_over.content) == (200, "@waiting", b"")
    assert not Decision.objects.exists()
    answered = request.send(HANDED_OVER="yes")
    assert "X-Accel-Redirect" not in answered
    assert Decision.objects.get().code == "factor_missing"
    assert redis_client().get(f"counts:connects:{alice.public_id}") == "1"


@pytest.mark.usefixtures("fixed_clock")
def test_web_keeps_a_connect_that_waits_for_nobody(company: Company, host: HostStandIn) -> None:
    _, identity = company.hire("alice")
    company.server.factors.all().delete()
    request = make_request(identity, now=NOW)
    kept = request.send(WAIT_ELSEWHERE="yes")
    assert "X-Accel-Redirect" not in kept
    assert open_answer(kept.json(), identity, request.box_private_key)["allow"] is True
