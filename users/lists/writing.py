"""Everybody, as a list that a spreadsheet opens and ``reading`` reads."""

from __future__ import annotations

import codecs
import csv
import io
from collections.abc import Iterator

from django.db.models import QuerySet

from core.csv_cells import defuse
from users.models import VpnUser

from .reading import COLUMNS

AT_ONCE = 500


def write(users: QuerySet[VpnUser]) -> Iterator[bytes]:
    """The file piece by piece. It begins with the mark by which spreadsheets know UTF-8."""
    yield codecs.BOM_UTF8 + _lines([COLUMNS])
    rows = users.select_related("organization").prefetch_related("groups")
    some: list[tuple[str, ...]] = []
    for user in rows.iterator(chunk_size=AT_ONCE):
        groups = ",".join(sorted(group.name for group in user.groups.all()))
        some.append((user.organization.name, user.name, user.email, groups, "yes" if user.enabled else "no"))
        if len(some) == AT_ONCE:
            yield _lines(some)
            some = []
    yield _lines(some)


def _lines(rows: list[tuple[str, ...]]) -> bytes:
    text = io.StringIO()
    csv.writer(text).writerows([defuse(cell) for cell in row] for row in rows)
    return text.getvalue().encode()
