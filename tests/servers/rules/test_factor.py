"""Which factors a server cannot ask for."""

from __future__ import annotations

from typing import Any

import pytest
from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction

from servers.models import Server, ServerFactor
from servers.rules import factor as rules
from tests.admin_site import queued
from tests.factories import Company
from tests.users.factors import fake_factors
from users.factors import registry


@pytest.fixture
def server(company: Company) -> Server:
    company.server.factors.all().delete()
    return company.server


@pytest.mark.parametrize(
    ("fields", "field", "words"),
    [
        ({"kind": "palm"}, "kind", "palm is not installed here"),
        ({"kind": ""}, "kind", "cannot be blank"),
        ({"mode": "off"}, "mode", "not a valid choice"),
        ({"if_unavailable": "skip"}, "if_unavailable", "needs no provider"),
        ({"settings": {"shortest": 5}}, "settings", "cannot have these settings: Shortest PIN"),
        ({"settings": {"shortest": None}}, "settings", "cannot have these settings: Shortest PIN"),
        ({"settings": {"longest": 9}}, "settings", "no setting longest"),
        ({"settings": [8]}, "settings", "names with values"),
    ],
)
def test_what_cannot_be_asked_is_refused(server: Server, fields: dict[str, Any], field: str, words: str) -> None:
    with pytest.raises(ValidationError) as refused:
        ServerFactor(server=server, **{"kind": "pin"} | fields).full_clean()
    assert words in " ".join(refused.value.message_dict[field])


@pytest.mark.parametrize("said", [{}, {"shortest": 8}])
def test_what_is_left_out_of_the_settings_has_its_default(server: Server, said: dict[str, Any]) -> None:
    ServerFactor(server=server, kind="pin", settings=said).full_clean()
    ServerFactor(server=server, kind="totp").full_clean()


def test_two_texts_of_any_form_are_refused_in_words(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fake_factors.Words, "label", "Pass phrase")
    for kind, fake in fake_factors.TWO_TEXTS.items():
        monkeypatch.setitem(registry.FACTORS, kind, f"{fake.__module__}.{fake.__name__}")
    first = ServerFactor(server=server, kind="pin", mode="optional")
    first.full_clean()
    first.save()
    first.full_clean()
    ServerFactor(server=server, kind="totp").full_clean()
    second = ServerFactor(server=server, kind="words", mode="optional")
    with pytest.raises(ValidationError, match="typed for Pass phrase and PIN in one") as refused:
        second.full_clean()
    assert list(refused.value.message_dict) == ["mode"]
    # In one form: what is saved already counts as it is in the form.
    assert [row for row, _ in rules.together([first, second])] == [second]
    second.decided_with = [first.pk]  # type: ignore[attr-defined]
    second.full_clean()


def test_a_mode_that_means_nothing_is_not_stored(server: Server) -> None:
    for mode in ("off", ""):
        with pytest.raises(IntegrityError), transaction.atomic():
            ServerFactor.objects.create(server=server, kind="pin", mode=mode)


def test_a_factor_is_asked_once(server: Server) -> None:
    ServerFactor.objects.create(server=server, kind="pin")
    with pytest.raises(ValidationError, match="asks for this factor already"):
        ServerFactor(server=server, kind="pin").full_clean()


def test_people_are_looked_at_again_and_hosts_are_not_told(server: Server) -> None:
    version = server.hosts.get().version
    before = queued()
    ServerFactor.objects.create(server=server, kind="pin")
    server.factors.all().delete()
    assert queued()[len(before) :] == ["wgpeers.enforce"] * 2
    assert server.hosts.get().version == version
