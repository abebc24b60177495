"""A test that commits leaves the database as it found it."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import Permission, User
from django.core.management import call_command
from django.db import connection

from tests import emptying
from tests.factories import found

pytestmark = pytest.mark.django_db(transaction=True)


def counts() -> dict[str, int]:
    """How many rows each table has that has any."""
    with connection.cursor() as cursor:
        numbers = {}
        for name in connection.introspection.table_names():
            cursor.execute(f"SELECT COUNT(*) FROM {connection.ops.quote_name(name)}")  # noqa: S608
            numbers[name] = cursor.fetchone()[0]
    return {name: number for name, number in numbers.items() if number and not name.startswith("sqlite_")}


def fill() -> None:
    found().hire("alice")
    admin = User.objects.create(username="admin")
    admin.user_permissions.set(Permission.objects.all()[:3])
    assert len(counts()) > 10


def test_it_leaves_what_djangos_own_way_leaves() -> None:
    fill()
    emptying.empty()
    ours = counts()
    fill()
    call_command("flush", interactive=False, verbosity=0)
    assert ours == counts()
    assert {"auth_permission", "django_content_type", "django_migrations"} == set(ours)


def test_what_a_test_changed_of_the_rest_is_mended_too() -> None:
    before, kept = counts(), emptying.kept_rows()
    Permission.objects.filter(codename__startswith="view").delete()
    Permission.objects.filter(codename="add_user").update(name="?")
    emptying.leave(kept)
    assert counts() == before
    assert emptying.kept_rows() == kept
