"""Every code that a decision can have says in a sentence what happened, and what to do."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.test import Client

from core.crypto import Secret
from tests.admin_site import staff
from tests.attack import connect
from tests.attempts import TOTP_SECRET, ask, code_at, enrol
from tests.conftest import Clock
from tests.factories import Company, HostStandIn
from tests.lab import PROJECT
from tests.protocol_client import NOW, make_request, plaintext
from users.factors.registry import FACTORS, load
from users.factors.totp.factor import FAR_STEPS, why_wrong
from wgpeers.admin.decisions import CODES
from wgpeers.lifecycle.codes import SENTENCES, explain
from wgpeers.models import Decision, EndReason
from wgpeers.protocol.errors import SEALED, STATUS

RAISED = {"Refusal", "SealedRefusal"}
JUDGED = {"Denied", "Unavailable", "Pending"}


def calls(names: set[str], *where: Path) -> Iterator[tuple[Path, ast.Call]]:
    for directory in where:
        for path in [directory] if directory.is_file() else sorted(directory.rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call) and getattr(node.func, "id", getattr(node.func, "attr", "")) in names:
                    yield path, node


def texts(nodes: list[ast.expr]) -> list[str]:
    return [node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)]


def test_every_refusal_in_the_code_has_a_sentence() -> None:
    raised = {texts(call.args[:1])[0] for _, call in calls(RAISED, PROJECT / "wgpeers")}
    assert raised >= {"clock", "no_host", "other_device"}
    assert raised <= SENTENCES.keys()
    assert {*STATUS, *SEALED, *EndReason.values} <= {str(code) for code in SENTENCES}


def test_every_verdict_in_the_code_has_a_sentence() -> None:
    judge = PROJECT / "users" / "factors" / "judge.py"
    said = {code for _, call in calls({"Denied"}, judge) for code in texts(call.args[1:2])}
    account = ast.parse((PROJECT / "users" / "authorize.py").read_text())
    returned = [node.value for node in ast.walk(account) if isinstance(node, ast.Return)]
    said |= {code for value in returned if isinstance(value, ast.Tuple) for code in texts(value.elts[:1])}
    assert said >= {"factors_inseparable", "user_disabled", "platform_not_allowed"}
    assert said <= SENTENCES.keys()


@pytest.mark.parametrize("kind", FACTORS)
def test_every_outcome_of_a_factor_has_a_sentence(kind: str) -> None:
    found = {code for _, call in calls(JUDGED, PROJECT / "users" / "factors" / kind) for code in texts(call.args[:1])}
    assert found <= load(kind).all_sentences().keys()


def test_every_code_that_can_be_filtered_by_has_a_sentence() -> None:
    for code in CODES:
        sentence = explain(code)
        assert re.fullmatch(r"[A-Z].*[.?]", sentence), code
    assert explain("palm_not_installed")
    assert explain("of_another_release") == ""


def test_the_clocks_offset_is_in_the_sentence(
    client: Client, company: Company, host: HostStandIn, fixed_clock: Clock
) -> None:
    alice = company.hire("alice")[1]
    late = make_request(alice, plaintext(timestamp=NOW - 5000), now=NOW - 5000)
    assert late.send().status_code == 408
    decision = Decision.objects.get()
    assert "The client's clock is 5000 s behind; 600 s is the most." in explain(decision.code, decision.detail)
    staff(client, superuser=True)
    shown = client.get(f"/admin/wgpeers/decision/{decision.pk}/change/").content.decode()
    assert "clock is 5000 s behind" in shown
    assert "clock is too far off" in client.get("/admin/wgpeers/decision/").content.decode()


def test_a_phones_clock_that_is_off_is_said_to_administrators_alone(
    company: Company, host: HostStandIn, fixed_clock: Clock
) -> None:
    user, alice = company.hire("alice")
    enrol(user, totp=True)
    ask(company.server, totp=True)
    assert connect(alice, password=code_at(NOW - 240))[1]["reason"] == "Second factor refused"
    decision = Decision.objects.get()
    assert decision.code == "totp_clock"
    assert "(Some 4 min 0 s behind.)" in explain(decision.code, decision.detail)


@pytest.mark.parametrize(
    ("seconds", "code"),
    [(-60, "clock"), (60, "clock"), (-FAR_STEPS * 30, "clock"), (-(FAR_STEPS + 2) * 30, "wrong"), (86400, "wrong")],
)
def test_a_code_is_looked_for_some_minutes_around(seconds: int, code: str) -> None:
    assert why_wrong(Secret.of(TOTP_SECRET), code_at(NOW + seconds), NOW).code == code
