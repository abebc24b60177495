"""The second factors on a server's page: a line for each, and a row only for what is asked for."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import Client

from servers.models import Server, ServerFactor
from tests.admin_site import errors, form_data, send, staff
from tests.factories import Company
from tests.users.factors import fake_factors
from users.factors import registry

ADD = "/admin/servers/server/add/"
GOOD = {"name": "new", "network": "10.100.0.0/24", "wg_network": "10.101.0.0/24", "port": 52000}


@pytest.fixture
def admin(client: Client, transactional_db: None) -> Client:
    staff(client, superuser=True)
    return client


def page_of(server: Server) -> str:
    return f"/admin/servers/server/{server.pk}/change/"


def rows(server: Server) -> dict[str, tuple[str, dict[str, Any]]]:
    return {row.kind: (row.mode, row.settings) for row in server.factors.all()}


def test_a_new_server_asks_for_pins_unless_it_is_told_not_to(admin: Client) -> None:
    assert errors(send(admin, ADD, **GOOD)) == {}
    server = Server.objects.get()
    assert rows(server) == {"pin": ("optional", {"shortest": 6})}
    other = {"name": "other", "network": "10.102.0.0/24", "wg_network": "10.103.0.0/24"}
    assert errors(send(admin, ADD, **GOOD | other | {"factors-0-mode": "off"})) == {}
    assert rows(Server.objects.get(name="other")) == {}


def test_factors_come_change_and_go(admin: Client, company: Company) -> None:
    page = page_of(company.server)
    assert errors(send(admin, page, **{"factors-1-mode": "required", "factors-0-settings-shortest": 8})) == {}
    assert rows(company.server) == {"pin": ("optional", {"shortest": 8}), "totp": ("required", {})}
    assert "8" in admin.get(page).context["inline_admin_formsets"][1].formset.forms[0].settings_form.as_p()
    assert errors(send(admin, page, **{"factors-0-mode": "required", "factors-1-mode": "off"})) == {}
    assert rows(company.server) == {"pin": ("required", {"shortest": 8})}


def test_a_form_that_changes_nothing_writes_nothing(admin: Client, company: Company) -> None:
    assert errors(send(admin, page_of(company.server), **{"factors-0-settings-shortest": 7})) == {}
    before = list(ServerFactor.objects.values())
    history = admin.get(f"/admin/servers/server/{company.server.pk}/history/").content.decode()
    assert errors(send(admin, page_of(company.server))) == {}
    assert list(ServerFactor.objects.values()) == before
    assert "settings" in history.lower()


@pytest.mark.parametrize(
    ("changes", "field", "words"),
    [
        ({"factors-0-settings-shortest": 5}, "factors-0-__all__", "see its settings"),
        ({"factors-0-settings-shortest": ""}, "factors-0-__all__", "see its settings"),
        ({"factors-0-mode": "sometimes"}, "factors-0-mode", "valid choice"),
        # A form that was cut off takes no factor off a server.
        ({"factors-0-mode": None}, "factors-0-mode", "required"),
        ({"factors-1-mode": None}, "factors-1-mode", "required"),
        ({"factors-1-kind": "palm", "factors-1-mode": "required"}, "factors-1-__all__", "not installed"),
        (
            {"factors-1-kind": "pin", "factors-1-mode": "required", "factors-1-settings-shortest": 6},
            "factors-1-__all__",
            "correct the duplicate",
        ),
    ],
)
def test_a_wrong_form_is_refused_and_changes_nothing(
    admin: Client, company: Company, changes: dict[str, Any], field: str, words: str
) -> None:
    before = rows(company.server)
    found = errors(send(admin, page_of(company.server), **changes))
    assert words in " ".join(found[field])
    assert rows(company.server) == before


def test_a_line_that_somebody_else_saved_meanwhile_is_no_second_one(admin: Client, company: Company) -> None:
    page = page_of(company.server)
    data = form_data(admin.get(page)) | {"factors-1-mode": "required"}
    ServerFactor.objects.create(server=company.server, kind="totp", mode="optional")
    said = errors(admin.post(page, data))
    assert "asks for this factor already" in repr(said)
    assert rows(company.server)["totp"] == ("optional", {})


def test_a_factor_that_is_not_installed_any_more_is_shown_and_can_be_taken_off(admin: Client, company: Company) -> None:
    company.server.factors.all().delete()
    ServerFactor.objects.create(server=company.server, kind="palm")
    page = page_of(company.server)
    assert "palm (not installed)" in admin.get(page).content.decode()
    assert "not installed here" in repr(errors(send(admin, page, mtu=1400)))
    assert errors(send(admin, page, **{"factors-0-mode": "off"})) == {}
    assert rows(company.server) == {}


def test_two_texts_are_refused_on_the_page(admin: Client, company: Company, monkeypatch: pytest.MonkeyPatch) -> None:
    words = fake_factors.Words
    monkeypatch.setitem(registry.FACTORS, "words", f"{words.__module__}.Words")
    mode = f"factors-{[*registry.FACTORS].index('words')}-mode"
    found = errors(send(admin, page_of(company.server), **{mode: "optional"}))
    assert "nobody could tell them apart" in " ".join(found[mode])
    assert list(rows(company.server)) == ["pin"]
    # In the place of the other it is no second one.
    assert errors(send(admin, page_of(company.server), **{"factors-0-mode": "off", mode: "optional"})) == {}
    assert list(rows(company.server)) == ["words"]


VIEW = ["servers.view_server", "servers.change_server", "servers.view_serverfactor"]


@pytest.mark.parametrize(
    ("more", "changes", "expected"),
    [
        ([], {"factors-0-mode": "off", "factors-1-mode": "required", "factors-1-kind": "totp"}, {"pin": "optional"}),
        (["add"], {"factors-1-mode": "required"}, {"pin": "optional", "totp": "required"}),
        (["change"], {"factors-0-mode": "required"}, {"pin": "required"}),
        (["change"], {"factors-0-mode": "off"}, {"pin": "optional"}),
        (["change", "delete"], {"factors-0-mode": "off"}, {}),
    ],
)
def test_who_may_do_what(
    client: Client, company: Company, more: list[str], changes: dict[str, Any], expected: dict[str, str]
) -> None:
    staff(client, *VIEW, *(f"servers.{what}_serverfactor" for what in more))
    page = page_of(company.server)
    assert "of users who have it" in client.get(page).content.decode()
    send(client, page, **changes)
    assert dict(company.server.factors.values_list("kind", "mode")) == expected
