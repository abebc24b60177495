"""Names of things as people read them: plurals, and the path at the top of each page."""

from __future__ import annotations

import re

import pytest
from django.apps import apps
from django.contrib.admin import site
from django.contrib.auth.models import Group as Role
from django.contrib.auth.models import User
from django.db.models import Model
from django.test import Client

from tests.admin_site import staff
from users.models import Organization

pytestmark = pytest.mark.django_db
# A word and its plural, of all that English makes otherwise than with an s.
IRREGULAR = {
    "wrong attempts": "wrong attempts",
    "wrong codes": "wrong codes",
    "job arguments": "job arguments",
    "mesh": "mesh",
}


def plural(word: str) -> str:
    if word in IRREGULAR:
        return IRREGULAR[word]
    if re.search(r"[^aeiou]y$", word):
        return word[:-1] + "ies"
    return word + ("es" if re.search(r"(s|x|z|ch|sh)$", word) else "s")


@pytest.mark.parametrize("model", apps.get_models(), ids=lambda model: model._meta.label)
def test_every_models_plural_is_english(model: type[Model]) -> None:
    options = model._meta
    assert str(options.verbose_name_plural) == plural(str(options.verbose_name))
    assert str(options.verbose_name) == str(options.verbose_name).strip().lower()


def test_every_inlines_plural_is_english(client: Client) -> None:
    staff(client, superuser=True)
    request = client.get("/admin/").wsgi_request
    for page in site._registry.values():
        for inline in page.get_inline_instances(request):
            assert not re.search(r"ss\b(?<!address)|[^aeiou]ys\b", str(inline.verbose_name_plural)), inline


def path_of(client: Client, page: str) -> list[str]:
    """The words in the path at the top."""
    heading = re.search(r"<h1.*?</h1>", client.get(page).content.decode(), re.S)
    assert heading
    return [text.strip() for text in re.findall(r"<a [^>]*>(.*?)</a>", heading[0], re.S)]


def test_the_path_has_the_names_of_the_side_bar_and_of_the_rows_as_they_are_spelled(client: Client) -> None:
    staff(client, superuser=True)
    acme = Organization.objects.create(name="acme & sons")
    page = f"/admin/users/organization/{acme.pk}/change/"
    assert path_of(client, page) == ["People", "Organizations", "acme &amp; sons"]
    carol, role = User.objects.create_user("carol", is_staff=True), Role.objects.create(name="helpdesk")
    assert path_of(client, f"/admin/auth/user/{carol.pk}/change/") == ["This site", "Administrators", "carol"]
    assert path_of(client, f"/admin/auth/group/{role.pk}/change/") == ["This site", "Roles", "helpdesk"]
    assert path_of(client, "/admin/auth/user/") == ["This site", "Administrators"]
    assert path_of(client, "/admin/wgpeers/decision/") == ["Connections", "Decisions"]
