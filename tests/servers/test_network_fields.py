"""Every field that takes a network takes it in every spelling, however long, and keeps one."""

from __future__ import annotations

from typing import Any

import pytest
from django.apps import apps
from django.db import models

from servers import networks
from servers.fields import LONGEST, NetworkField, NetworksField
from servers.models import Server

KINDS = (NetworkField, NetworksField)
FIELDS = [
    field
    for model in apps.get_models()
    for field in model._meta.get_fields()
    if isinstance(field, KINDS) or (isinstance(field, models.CharField) and "network" in field.name)
]
MASKED = [
    ("10.0.0.0/255.255.255.0", "10.0.0.0/24"),
    ("10.0.0.0 255.255.255.0", "10.0.0.0/24"),
    (" 10.0.0.0  /  24 ", "10.0.0.0/24"),
    ("192.168.100.100 255.255.255.255", "192.168.100.100/32"),
    ("FD00:0000:0000:0000:0000:0000:0000:0000/64", "fd00::/64"),
    ("fd00:0000:0000:0000:0000:0000:255.255.255.255/128", "fd00::ffff:ffff/128"),
]


def test_there_are_such_fields_and_all_are_of_one_kind() -> None:
    servers = {"network", "wg_network", "network6", "netmap", "trusted_networks"}
    assert {field.name for field in FIELDS} == servers | {"ours", "theirs"}
    assert [str(field) for field in FIELDS if not isinstance(field, KINDS)] == []


@pytest.mark.parametrize("field", FIELDS, ids=str)
@pytest.mark.parametrize(("typed", "kept"), MASKED)
def test_a_network_fits_in_every_spelling(field: Any, typed: str, kept: str) -> None:
    assert len(typed) <= LONGEST
    assert field.formfield().clean(typed) == kept
    row = field.model(**{field.name: typed})
    row.normalize()
    assert field.clean(getattr(row, field.name), row) == kept


def test_of_several_networks_each_has_its_one_spelling() -> None:
    typed = " 10.0.0.0/255.255.255.0,FD00::0/64 , 10.1.0.0 255.255.0.0,"
    assert Server._meta.get_field("trusted_networks").formfield().clean(typed) == "10.0.0.0/24, fd00::/64, 10.1.0.0/16"


@pytest.mark.parametrize(
    "typed", ["10.0.0.0 24 8", "10.0.0.0//24", "/24", "10.0.0.0 255.0.255.0", "10.0.0.0/-1", "", " "]
)
def test_what_is_no_network_stays_as_it_was_typed(typed: str) -> None:
    assert networks.spelled(typed) == typed
