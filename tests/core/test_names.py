"""Names as people write and read them."""

from __future__ import annotations

import unicodedata
from typing import Any

import pytest
from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction
from hypothesis import given
from hypothesis import strategies as st

from core.names import KEY_LENGTH, LENGTH, composed, key_of, name_validator
from servers.models import Host, Server
from tests.factories import Company
from users.models import Group, Organization, VpnUser

LETTERS = st.text(st.characters(categories=("L", "M", "N", "Zs")), max_size=LENGTH)


@pytest.mark.parametrize(
    "name",
    ["O'Brien", "Zoë", "Jean-Luc", "李雷", "हिन्दी", "Ünal", "al.ice+1@example.com", "Łukasz", "עברית", "7 Zwerge"],
)
def test_names_of_people_are_names(name: str) -> None:
    name_validator(composed(name))


@pytest.mark.parametrize(
    "name", ["", " ", "../x", "-x", "'x", "a/b", "a\nb", "a\0", "a<b", "\u0301a", "a\u202eb", "a,b", "a;b"]
)
def test_what_would_not_fit_into_a_file_or_a_list_is_no_name(name: str) -> None:
    with pytest.raises(ValidationError):
        name_validator(name)


@given(LETTERS)
def test_however_it_is_written_it_is_one_name(text: str) -> None:
    for form in ("NFC", "NFD"):
        written = unicodedata.normalize(form, text)
        assert composed(written) == composed(text)
        assert key_of(written) == key_of(text) == key_of(f"  {text} ")
    assert composed(composed(text)) == composed(text)
    assert key_of(key_of(text)) == key_of(text)


@given(LETTERS)
def test_a_key_fits_its_column(text: str) -> None:
    assert len(key_of(text)) <= KEY_LENGTH


@pytest.mark.parametrize(
    ("one", "other"), [("Straße", "STRASSE"), ("Ünal", "ÜNAL"), ("u\u0308nal", "Ünal"), ("a  b", "A b")]
)
def test_equal_to_people_is_equal(one: str, other: str) -> None:
    assert key_of(one) == key_of(other)


@pytest.mark.django_db
@pytest.mark.parametrize("model", [Organization, Group, Host, Server])
def test_two_that_are_equal_but_for_capitals_are_refused_by_every_door(company: Company, model: type[Any]) -> None:
    fields: dict[type[Any], dict[str, str]] = {
        Host: {"public_address": "192.0.2.9"},
        Server: {"network": "10.77.0.0/24", "wg_network": "10.78.0.0/24"},
    }
    more = fields.get(model, {})
    model.objects.create(name="Größe", **more)
    with pytest.raises(ValidationError) as refused:
        model(name="GRO\u0308SSE", **more).full_clean()
    assert "Größe already" in " ".join(refused.value.messages)
    with pytest.raises(IntegrityError), transaction.atomic():
        model.objects.create(name="GRÖSSE", **{key: value.replace("7", "9") for key, value in more.items()})


@pytest.mark.django_db
def test_a_user_is_one_by_name_in_an_organization_alone(company: Company) -> None:
    VpnUser.objects.create(organization=company.organization, name="Zoe\u0308")
    assert VpnUser.objects.get(name="Zoë").name == "Zoë"
    with pytest.raises(ValidationError, match="already"):
        VpnUser(organization=company.organization, name="ZOË").full_clean()
    other = Organization.objects.create(name="Other")
    VpnUser(organization=other, name="ZOË").full_clean()


@pytest.mark.django_db
@pytest.mark.parametrize("way", ["save", "only the name", "update"])
def test_a_new_name_has_a_new_key_by_every_way(company: Company, way: str) -> None:
    row = Organization.objects.create(name="Old")
    if way == "update":
        Organization.objects.filter(pk=row.pk).update(name="New")
    else:
        row.name = "New"
        row.save(update_fields=["name"] if way == "only the name" else None)
    row.refresh_from_db()
    assert (row.name, row.name_key) == ("New", "new")
