"""What a server or a machine needs is deleted by no door, and each says why."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from django.apps import apps
from django.contrib.auth.models import User
from django.db.models import PROTECT, Model, ProtectedError
from django.test import Client

from core import deletion
from core.crypto import Secret
from core.models import Job
from core.tasks import run_job
from servers.models import ServerFactor
from tests.admin_site import messages, staff
from tests.factories import Company
from users.models import FactorOverride, Group, Provider

RADIUS = {"servers": "192.0.2.9"}


def a_provider(name: str = "office") -> Provider:
    return Provider.objects.create(
        kind="radius", name=name, settings=RADIUS, secrets=Secret.of(json.dumps({"shared_secret": "x" * 32}))
    )


def named_group(company: Company) -> Model:
    group = Group.objects.create(name="staff")
    company.server.groups.add(group)
    return group


def named_provider(company: Company) -> Model:
    provider = a_provider()
    a_provider("other")
    ServerFactor.objects.create(server=company.server, kind="radius", provider=provider)
    return provider


def only_provider(company: Company) -> Model:
    provider = a_provider()
    ServerFactor.objects.create(server=company.server, kind="radius")
    return provider


def provider_of_an_exception(company: Company) -> Model:
    user, _ = company.hire("Office clerk")
    FactorOverride.objects.create(user=user, kind="radius", state="required")
    return a_provider()


NEEDED: list[Callable[[Company], Model]] = [named_group, named_provider, only_provider, provider_of_an_exception]
needed = pytest.mark.parametrize("make", NEEDED, ids=lambda make: make.__name__)


def url(row: Model, rest: str = "") -> str:
    return f"/admin/{row._meta.app_label}/{row._meta.model_name}/{rest}"


def is_there(row: Model) -> bool:
    return type(row)._default_manager.filter(pk=row.pk).exists()


@needed
def test_a_page_says_why_before_anybody_tries_and_deletes_nothing(
    make: Callable[[Company], Model], client: Client, company: Company
) -> None:
    staff(client, superuser=True)
    row = make(company)
    page = url(row, f"{row.pk}/delete/")
    for answer in (client.get(page), client.post(page, {"post": "yes"})):
        assert answer.status_code == 200
        text = answer.content.decode()
        assert f"{row} cannot be deleted now" in text
        assert "Office" in text
        assert "first." in text
        assert "Yes, I" not in text
    assert is_there(row)


@needed
def test_the_list_says_why_and_deletes_nothing(
    make: Callable[[Company], Model], client: Client, company: Company
) -> None:
    staff(client, superuser=True)
    row = make(company)
    others = type(row)._default_manager.count()
    chosen = {"action": "delete_selected", "_selected_action": [row.pk], "post": "yes"}
    said = messages(client, url(row), chosen)
    assert "Office" in said
    assert "Deleted" not in said
    assert type(row)._default_manager.count() == others


@needed
def test_code_cannot_delete_it(make: Callable[[Company], Model], company: Company) -> None:
    row = make(company)
    with pytest.raises(ProtectedError):
        row.delete()
    with pytest.raises(ProtectedError):
        type(row)._default_manager.filter(pk=row.pk).delete()
    assert is_there(row)


@needed
def test_what_somebody_needs_since_a_job_began_stays_and_the_job_says_why(
    make: Callable[[Company], Model], company: Company, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deletion, "FEW", 0)
    row = make(company)
    root = User.objects.create_superuser("root")
    with monkeypatch.context() as patch:
        patch.setattr(deletion, "_keepers", {})
        job, reasons = deletion.delete(type(row)._default_manager.filter(pk=row.pk), "Delete it", root)
    assert (job is not None, reasons) == (True, [])
    assert job is not None
    run_job(job.pk)
    job = Job.objects.get()
    assert job.state == "done"
    assert "Office" in str(job.notes)
    assert is_there(row)


@needed
def test_it_goes_once_nobody_needs_it(make: Callable[[Company], Model], client: Client, company: Company) -> None:
    staff(client, superuser=True)
    row = make(company)
    company.server.groups.clear()
    FactorOverride.objects.all().delete()
    company.server.delete()
    assert client.post(url(row, f"{row.pk}/delete/"), {"post": "yes"}).status_code == 302
    assert not is_there(row)


@pytest.mark.django_db
def test_whatever_the_database_protects_has_words_for_it() -> None:
    protected: set[Any] = {
        field.related_model
        for model in apps.get_models()
        for field in model._meta.concrete_fields
        if getattr(field.remote_field, "on_delete", None) is PROTECT
    }
    assert Provider in protected
    assert protected <= deletion._keepers.keys()
