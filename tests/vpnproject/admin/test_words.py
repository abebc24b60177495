"""Names of things as people read them: plurals, and the path at the top of each page."""

from __future__ import annotations

import re
from typing import Any

import pytest
from django.apps import apps
from django.contrib.admin import site
from django.contrib.auth.models import Group as Role
from django.contrib.auth.models import User
from django.db.models import Model
from django.test import Client
from django.urls import reverse

from tests.admin_site import staff
from tests.connection_rows import live
from tests.factories import Company
from users.models import Organization, VpnUser

pytestmark = pytest.mark.django_db
# A word and its plural, of all that English makes otherwise than with an s.
IRREGULAR = {
    "wrong attempts": "wrong attempts",
    "wrong codes": "wrong codes",
    "job arguments": "job arguments",
    "mesh": "mesh",
    "link to another installation": "links to other installations",
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


def last_word(client: Client, page: str) -> str:
    heading = re.search(r"<h1.*?</h1>", client.get(page).content.decode(), re.S)
    assert heading
    return str(re.findall(r">([^<>]*?)</(?:a|span)>", re.sub(r"\s+", " ", heading[0]))[-1]).strip()


def test_a_page_on_which_something_is_added_says_what(client: Client) -> None:
    user = staff(client, superuser=True)
    request = client.get("/admin/").wsgi_request
    request.user = user
    pages = [page for page in site._registry.values() if page.has_add_permission(request)]
    assert len(pages) > 8
    names = {User: "administrator", Role: "role"}
    for page in pages:
        url = f"/admin/{page.opts.app_label}/{page.opts.model_name}/add/"
        assert last_word(client, url) == f"Add {names.get(page.model, page.opts.verbose_name)}"


def test_pages_of_administrators_and_roles_call_them_so(client: Client) -> None:
    """Users are those who connect."""
    staff(client, superuser=True)
    Role.objects.create(name="helpdesk")
    for url, one, several, model, name in (
        ("/admin/auth/user/", "administrator", "administrators", User, "username"),
        ("/admin/auth/group/", "role", "roles", Role, "name"),
    ):
        text = re.sub(r"\s+", " ", client.get(url).content.decode())
        assert f" 1 {one} " in text
        assert f"Add {one}" in text
        assert not re.search(r">[^<]*\b1 (user|group)\b", text)
        model._default_manager.create(**{name: "another"})
        assert f" 2 {several} " in re.sub(r"\s+", " ", client.get(url).content.decode())
    new = {"username": "dave", "password1": "a long passphrase 1", "password2": "a long passphrase 1"}
    added = client.post("/admin/auth/user/add/", {**new, "usable_password": "true"}, follow=True).content.decode()
    assert re.search(r"The administrator “<a [^>]*>dave</a>” was added", added)


def test_an_empty_list_says_whether_there_are_none_or_none_that_match(client: Client) -> None:
    staff(client, superuser=True)
    for page in site._registry.values():
        url = f"/admin/{page.opts.app_label}/{page.opts.model_name}/"
        answer = client.get(url)
        if answer.context["cl"].result_count:
            continue
        text = answer.content.decode()
        assert f"There are no {page.opts.verbose_name_plural} here yet." in text
        assert "yielded" not in text
        if page.search_fields:
            assert "Nothing here matches" in client.get(f"{url}?q=nothing").content.decode()


def test_names_stand_in_lists_as_people_look_for_them(client: Client) -> None:
    staff(client, superuser=True)
    acme = Organization.objects.create(name="acme")
    for name in ("bob", "Alice", "carol", "Dave"):
        VpnUser.objects.create(organization=acme, name=name)
    Organization.objects.create(name="Zebra")
    Organization.objects.create(name="Bolt")
    shown = client.get("/admin/users/organization/").context["cl"].result_list
    assert [row.name for row in shown] == ["acme", "Bolt", "Zebra"]
    people = client.get("/admin/users/vpnuser/").context["cl"].result_list
    assert [row.name for row in people] == ["Alice", "bob", "carol", "Dave"]
    # Column 1, the other way round; and the list to take away.
    people = client.get("/admin/users/vpnuser/?o=-1").context["cl"].result_list
    assert [row.name for row in people] == ["Dave", "carol", "bob", "Alice"]
    export: Any = client.get(reverse("admin:users_vpnuser_export_list"))
    file = b"".join(export.streaming_content).decode()
    assert re.findall(r"^acme,(\w+)", file, re.M) == ["Alice", "bob", "carol", "Dave"]


@pytest.mark.django_db(transaction=True)
def test_who_deletes_a_server_is_told_who_is_cut_off(client: Client, company: Company) -> None:
    staff(client, superuser=True)
    live(company, company.hire("alice")[0])
    server = company.server
    page = client.get(f"/admin/servers/server/{server.pk}/delete/").content.decode()
    assert re.search(r"Connections that are cut off:?\s*1", page)
    chosen = {"action": "delete_selected", "_selected_action": [server.pk]}
    page = client.post("/admin/servers/server/", chosen).content.decode()
    assert "Connections that are cut off: 1" in page
    assert not re.search(r"\b1 \w+s\b", page)
