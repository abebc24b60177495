"""What a list may be filtered by: nothing by which it could be read what the list does not show."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
from django.contrib.admin import site
from django.db import models
from django.test import Client

from tests.admin_site import staff
from tests.attempts import enrol
from tests.factories import Company, found

PAGES = sorted(site._registry.values(), key=lambda page: page.opts.label_lower)
LOOKUPS = ("", "__exact", "__regex", "__startswith", "__gt", "__in", "__isnull", "__contains")


def paths(model: type[models.Model], depth: int = 2) -> list[str]:
    """Every column of a model, and of those that it is related to."""
    found: list[str] = []
    for field in model._meta.get_fields():
        found.append(field.name)
        if depth and field.is_relation and field.related_model not in (None, model):
            related: Any = field.related_model
            found += [f"{field.name}__{rest}" for rest in paths(related, depth - 1)]
    return found


@pytest.fixture
def company(db: None) -> Company:
    return found()


def shown(page: Any, request: Any) -> set[str]:
    """What the page's filters stand for, and what links of other pages need."""
    filters = [each[0] if isinstance(each, tuple) else each for each in page.get_list_filter(request)]
    allowed = {str(getattr(each, "parameter_name", each)) for each in filters}
    return allowed | {each.partition("__")[0] for each in getattr(page, "further_lookups", ())}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.opts.label_lower))
def test_a_list_is_filtered_by_its_own_filters_only(
    page: Any, client: Client, company: Company, rf: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The same for every look-up of one request; thousands are asked for here.
    monkeypatch.setattr(page, "_of_filters", cache(page._of_filters))
    request = rf.get("/")
    request.user = staff(client, superuser=True)
    for path in paths(page.model):
        for how in LOOKUPS:
            if page.lookup_allowed(path + how, "x", request):
                assert path.partition("__")[0] in shown(page, request), path + how
                assert how in {"", "__exact", "__isnull"}, path + how


def test_who_may_only_look_cannot_read_a_hash_letter_by_letter(client: Client, company: Company) -> None:
    enrol(company.hire("alice")[0], "w0mbat")
    staff(client, "users.view_vpnuser")
    for query in ("pin_hash__regex=^a", "sync_secret__startswith=g", "organization__name__regex=x", "email__gt=a"):
        response = client.get(f"/admin/users/vpnuser/?{query}")
        assert response.status_code in {302, 400}, query
        assert "alice" not in response.content.decode()


@pytest.mark.parametrize(
    ("path", "query"),
    [
        ("users/vpnuser", "enabled__exact=1"),
        ("users/vpnuser", "organization__id__exact={organization}"),
        ("servers/server", "started__exact=1"),
        ("servers/portforward", "user__id__exact=1"),
        ("servers/portforward", "server__id__exact={server}"),
        ("servers/clientnetwork", "server__id__exact={server}"),
        ("wgpeers/connection", "show=ended&user__id__exact=1"),
        ("wgpeers/decision", "what=refused&layer=envelope&code=clock"),
        ("wgpeers/decision", "time_from_0=2026-01-01&time_from_1=00:00:00&time_to_0=2026-01-02&time_to_1=00:00:00"),
        ("auth/user", "is_superuser__exact=1"),
    ],
)
def test_the_filters_themselves_and_the_links_still_work(
    client: Client, company: Company, path: str, query: str
) -> None:
    staff(client, superuser=True)
    query = query.format(organization=company.organization.pk, server=company.server.pk)
    assert client.get(f"/admin/{path}/?{query}").status_code == 200
