"""A factor that asks somebody else's service: its form, its secrets, who is asked, and refusal where nobody can say."""

from __future__ import annotations

import json
from typing import Any, ClassVar

import pytest
from django import forms
from django.core.exceptions import ValidationError
from django.db.models import ProtectedError
from django.test import Client

from core.crypto import Secret
from servers.models import ServerFactor
from servers.policy import policy_of
from tests.admin_site import errors, messages, send, staff
from tests.attempts import an_attempt
from tests.factories import Company
from tests.protocol_client import NOW
from users.authorize import authorize
from users.factors import registry
from users.factors.base import Case, Denied, Factor, Outcome, Passed, TypedSecret
from users.factors.panels import NotDone
from users.factors.providers import ProviderConfig, ProviderForm, config_of
from users.factors.wanted import profile_flags
from users.models import Enrolment, FactorOverride, Provider, VpnUser

ADD = "/admin/users/provider/add/?kind=oracle"


class OracleForm(ProviderForm):
    address = forms.CharField(label="Address")
    patience = forms.IntegerField(label="Patience", initial=5, min_value=1)
    loud = forms.BooleanField(label="Loud", initial=True, required=False)
    answer = forms.CharField(label="Answer", widget=forms.PasswordInput)
    spare = forms.CharField(label="Spare answer", widget=forms.Textarea, required=False)
    secret_fields: ClassVar[frozenset[str]] = frozenset({"answer", "spare"})

    def clean(self) -> None:
        if self.cleaned_data.get("answer") == self.cleaned_data.get("address"):
            self.add_error("address", "An oracle does not say where it is.")


class Oracle(Factor):
    kind: ClassVar[str] = "oracle"
    label: ClassVar[str] = "Oracle"
    typed: ClassVar[TypedSecret | None] = TypedSecret()
    not_enrolled: ClassVar[str] = ""
    provider_form: ClassVar[type[ProviderForm] | None] = OracleForm
    can_be_tried: ClassVar[bool] = True
    here = True

    def missing(self) -> str:
        return "" if Oracle.here else "Install the package oracle."

    def enrolled(self, user: VpnUser, enrolment: Enrolment | None) -> bool:
        return True

    def check(self, case: Case, secret: str) -> Outcome:
        assert case.asked.provider is not None
        return Passed() if secret == case.asked.provider.secrets["answer"] else Denied()

    def try_out(self, provider: ProviderConfig) -> str:
        if provider.settings["address"] == "nowhere":
            raise NotDone("Nobody there.")
        return f"It answers at {provider.settings['address']}."


@pytest.fixture(autouse=True)
def oracle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry.FACTORS, "oracle", f"{__name__}.Oracle")
    registry.load.cache_clear()


@pytest.fixture
def alice(company: Company) -> VpnUser:
    ServerFactor.objects.all().delete()
    return company.hire("alice")[0]


def a_provider(name: str = "delphi", answer: str = "know thyself", kind: str = "oracle", **settings: Any) -> Provider:
    secrets = Secret.of(json.dumps({"answer": answer}))
    return Provider.objects.create(kind=kind, name=name, settings={"address": "delphi", **settings}, secrets=secrets)


def ask(company: Company, provider: Provider | None = None) -> ServerFactor:
    return ServerFactor.objects.create(server=company.server, kind="oracle", provider=provider)


def code(company: Company, user: VpnUser, said: str = "know thyself") -> str:
    return getattr(authorize(user, policy_of(company.server), an_attempt(said), NOW), "code", "allowed")


def test_the_only_provider_is_asked_and_of_several_the_one_that_is_named(company: Company, alice: VpnUser) -> None:
    first = a_provider()
    row = ask(company)
    assert (code(company, alice), code(company, alice, "42")) == ("allowed", "oracle_wrong")
    second = a_provider("deep thought", answer="42")
    # Who was asked before is asked still: a second one must lock nobody out.
    assert (code(company, alice), code(company, alice, "42")) == ("allowed", "oracle_wrong")
    assert ServerFactor.objects.get().provider == first
    row.provider = second
    row.save()
    assert (code(company, alice), code(company, alice, "42")) == ("oracle_wrong", "allowed")
    with pytest.raises(ProtectedError):
        second.delete()
    first.delete()


def test_without_a_provider_nobody_gets_in_and_profiles_can_still_be_made(company: Company, alice: VpnUser) -> None:
    FactorOverride.objects.create(user=alice, kind="oracle", state="required")
    assert code(company, alice) == "oracle_not_configured"
    assert profile_flags(alice, policy_of(company.server), NOW).password_mode is None


def test_what_is_stored_and_does_not_fit_any_more_refuses(company: Company, alice: VpnUser) -> None:
    provider = a_provider()
    ask(company)
    Provider.objects.filter(pk=provider.pk).update(settings={"address": "delphi", "patience": "none"})
    assert code(company, alice) == "oracle_not_configured"


def test_a_factor_that_is_not_installed_refuses_and_says_what_to_install(
    company: Company, alice: VpnUser, monkeypatch: pytest.MonkeyPatch, client: Client
) -> None:
    a_provider()
    row = ask(company)
    monkeypatch.setattr(Oracle, "here", False)
    assert code(company, alice) == "oracle_not_installed"
    with pytest.raises(ValidationError, match="Install the package oracle"):
        row.full_clean()
    staff(client, superuser=True)
    assert "not installed. Install the package oracle." in client.get("/admin/users/provider/add/").content.decode()


@pytest.mark.parametrize(
    "wrong",
    [
        {"kind": "palm"},
        {"kind": "pin"},
        {"patience": 0},
        {"address": ""},
        {"colour": "red"},
        {"answer": ""},
        {"address": "know thyself"},
    ],
    ids=str,
)
@pytest.mark.django_db
def test_what_its_factor_cannot_use_is_stored_by_no_door(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        a_provider(**wrong)
    assert not Provider.objects.exists()


def test_every_setting_has_a_value_and_no_secret_is_shown(db: None) -> None:
    config = config_of(a_provider(), OracleForm)
    assert config.settings == {"address": "delphi", "patience": 5, "loud": True}
    assert config.secrets == {"answer": "know thyself", "spare": ""}
    assert "thyself" not in repr(config)


@pytest.mark.django_db(transaction=True)
def test_a_page_adds_changes_and_tries_one_and_never_shows_its_secrets(client: Client, company: Company) -> None:
    staff(client, superuser=True)
    assert "?kind=oracle" in client.get("/admin/users/provider/add/").content.decode()
    assert set(errors(send(client, ADD, name="delphi", address="delphi"))) == {"answer"}
    assert set(errors(send(client, ADD, name="delphi", address="x", answer="x"))) == {"address"}
    assert errors(send(client, ADD, name="delphi", address="delphi", answer="know thyself", spare="nothing")) == {}
    provider = Provider.objects.get()
    page = f"/admin/users/provider/{provider.pk}/change/"
    assert errors(send(client, page, address="nowhere", loud=None)) == {}
    config = config_of(Provider.objects.get(), OracleForm)
    assert config.settings == {"address": "nowhere", "patience": 5, "loud": False}
    assert config.secrets == {"answer": "know thyself", "spare": "nothing"}
    assert errors(send(client, page, answer="too much")) == {}
    assert config_of(Provider.objects.get(), OracleForm).secrets == {"answer": "too much", "spare": "nothing"}

    seen = "".join(client.get(url).content.decode() for url in (page, page.replace("change", "history")))
    assert [text for text in ("too much", "know thyself", "nothing") if text in seen] == []
    assert "Nobody there." in messages(client, page.replace("change", "do/try_out"), {})
    stored = str(list(Provider.objects.values()))
    assert "too much" not in stored
    assert "delphi" in client.get("/admin/users/provider/").content.decode()


@pytest.mark.django_db(transaction=True)
def test_a_server_says_which_provider_it_asks(client: Client, company: Company) -> None:
    staff(client, superuser=True)
    page = f"/admin/servers/server/{company.server.pk}/change/"
    mine = f"factors-{[*registry.FACTORS].index('oracle')}"
    asked = {f"{mine}-mode": "required", "factors-0-mode": "off"}
    assert "There is no provider for Oracle yet" in str(errors(send(client, page, **asked)))
    first, second = a_provider(), a_provider("deep thought", answer="42")
    assert "say which one to ask" in str(errors(send(client, page, **asked)))
    assert errors(send(client, page, **asked | {f"{mine}-provider": second.pk})) == {}
    assert ServerFactor.objects.get(kind="oracle").provider == second
    assert errors(send(client, page, **{"factors-0-provider": first.pk})) == {}
    assert ServerFactor.objects.get().provider == first
