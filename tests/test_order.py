"""The order in which files of tests are begun."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests import order

A_FILE = st.tuples(st.booleans(), st.floats(0, 300))


def begun(files: list[tuple[bool, float]]) -> list[tuple[bool, float, float]]:
    """Of each file in its order: whether it waits, its seconds, its place."""
    waits = {str(number): kind for number, (kind, _) in enumerate(files)}
    seconds = {str(number): took for number, (_, took) in enumerate(files)}
    found = order.places(waits, seconds)
    assert found.keys() == waits.keys()
    return [
        (waits[path], max(seconds[path], order.A_MOMENT), found[path]) for path in sorted(found, key=found.__getitem__)
    ]


@given(st.lists(A_FILE, max_size=30))
def test_of_either_kind_the_longest_is_begun_first_and_its_seconds_are_spread_evenly(
    files: list[tuple[bool, float]],
) -> None:
    for kind, end in ((True, order.LAST_THAT_WAITS), (False, 1.0)):
        mine = [(took, place) for waits, took, place in begun(files) if waits is kind]
        assert [took for took, _ in mine] == sorted((took for took, _ in mine), reverse=True)
        total, before = sum(took for took, _ in mine), 0.0
        for took, place in mine:
            assert place == pytest.approx(end * before / total)
            before += took


def test_the_longest_of_both_kinds_are_begun_at_once() -> None:
    places = order.places({"a": True, "b": False, "c": False}, {"a": 50, "b": 100, "c": 3})
    assert (places["a"], places["b"]) == (0, 0)
    assert places["c"] > 0.9


def test_a_measurement_changes_what_was_measured_and_drops_what_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = tmp_path / "seconds.json"
    monkeypatch.setattr(order, "TABLE", table)
    table.write_text(json.dumps({"conftest.py": 7, "tests/order.py": 8, "tests/conftest.py": 9, "tests/gone.py": 9}))
    order.write({"tests/order.py": 4.26, "tests/conftest.py": 0.5, "manage.py": 90.0})
    assert json.loads(table.read_text()) == {"conftest.py": 7, "manage.py": 90.0, "tests/order.py": 4.3}


def test_whatever_the_table_names_is_there() -> None:
    assert {path for path in order.known() if not (order.ROOT / path).exists()} == set()
    assert len(order.known()) > 20
