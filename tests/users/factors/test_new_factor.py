"""A new factor is a folder and a line in the registry: servers, users' pages, judging and profiles know it by that."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
from django.conf import LazySettings
from django.test import Client

from servers.models import ServerFactor
from servers.policy import policy_of
from tests.admin_site import errors, messages, send, staff
from tests.attempts import an_attempt, enrol
from tests.factories import Company
from tests.protocol_client import NOW
from users.authorize import authorize
from users.factors import registry
from users.factors.wanted import profile_flags
from users.models import VpnUser

HERE = Path(__file__).parent


@pytest.fixture
def alice(company: Company, settings: LazySettings, monkeypatch: pytest.MonkeyPatch) -> VpnUser:
    """With a PIN, where there are riddles."""
    monkeypatch.setitem(registry.FACTORS, "riddle", "tests.users.factors.riddle.factor.Riddle")
    # Templates of factors are found where their folders are; this one's lies elsewhere.
    templates: list[dict[str, Any]] = copy.deepcopy(settings.TEMPLATES)
    templates[0]["DIRS"].append(HERE)
    settings.TEMPLATES = templates
    return enrol(company.hire("alice")[0], "w0mbat")


def test_a_new_factor_is_everywhere(company: Company, alice: VpnUser, client: Client) -> None:
    staff(client, superuser=True)
    server = f"/admin/servers/server/{company.server.pk}/change/"
    # PIN is there, the others and the riddle could be.
    line = f"factors-{[*registry.FACTORS].index('riddle')}"
    asked = {f"{line}-mode": "required", f"{line}-if_unavailable": "skip", f"{line}-settings-language": "norse"}
    assert errors(send(client, server, **asked | {f"{line}-settings-loud": "on"})) == {}
    row = ServerFactor.objects.get(kind="riddle")
    assert (row.mode, row.if_unavailable) == ("required", "skip")
    assert row.settings == {"language": "norse", "loud": True, "hint": ""}
    assert "Norse" in client.get(server).content.decode()

    page, button = (f"/admin/users/vpnuser/{alice.pk}/{what}/" for what in ("change", "do/act_on_factor"))
    assert "Riddle: none yet" in client.get(page).content.decode()
    give = {"factor": "riddle", "action": "give"}
    assert "A riddle has an answer." in messages(client, button, give)
    assert authorize_code(company, alice, "w0mbatsphinx") == "riddle_not_enrolled"
    assert "Gave alice a riddle." in messages(client, button, give | {"answer": "sphinx"})
    assert "Riddle: given" in client.get(page).content.decode()
    assert "PIN + Riddle" in client.get("/admin/users/vpnuser/").content.decode()

    assert profile_flags(alice, policy_of(company.server), NOW).password_mode == "riddle_pin"
    assert authorize_code(company, alice, "w0mbatsphynx") == "riddle_wrong"
    verdict = authorize(alice, policy_of(company.server), an_attempt("w0mbatsphinx"), NOW)
    assert ("riddle", "in_norse") in verdict.layers


def authorize_code(company: Company, user: VpnUser, password: str) -> str:
    return getattr(authorize(user, policy_of(company.server), an_attempt(password), NOW), "code", "allowed")
