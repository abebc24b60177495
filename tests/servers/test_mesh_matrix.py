"""Who reaches whom in the mesh, put together from what each machine says; pure."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servers.hostnet.state.reach import Reach
from servers.mesh_matrix import cut_ways, matrix, troubles, unreached
from servers.models import Host

BERLIN, PARIS, OSLO, ROME = (
    Host(pk=number, public_id=f"id{number}", name=name)
    for number, name in enumerate(("Berlin", "Paris", "Oslo", "Rome"), 1)
)
HOSTS = [BERLIN, PARIS, OSLO, ROME]
Ways = dict[int, dict[str, Reach]]


def everybody(*, but: tuple[Host, ...] = ()) -> Ways:
    """All say that all answer, ``but`` those who say nothing."""
    return {
        one.pk: {other.public_id: Reach(answers=True, round_trip=0.01) for other in HOSTS if other != one}
        for one in HOSTS
        if one not in but
    }


def cut(ways: Ways, one: Host, other: Host) -> None:
    ways[one.pk][other.public_id] = Reach(answers=False, since=40)


def test_where_all_reach_all_nothing_is_wrong() -> None:
    rows = matrix(HOSTS, everybody())
    assert troubles(rows) == []
    assert cut_ways(rows) == 0
    assert [[cell and cell.answers for cell in row.cells] for row in rows] == [
        [None if one == other else True for other in HOSTS] for one in HOSTS
    ]


def test_a_link_that_is_cut_is_said_once_for_both_ends() -> None:
    ways = everybody()
    cut(ways, BERLIN, PARIS)
    cut(ways, PARIS, BERLIN)
    rows = matrix(HOSTS, ways)
    assert troubles(rows) == ["Berlin and Paris do not reach each other."]
    assert cut_ways(rows) == 2


def test_a_way_that_is_cut_in_one_direction_is_said_so() -> None:
    ways = everybody()
    cut(ways, PARIS, BERLIN)
    assert troubles(matrix(HOSTS, ways)) == ["Paris gets no answer from Berlin, though Berlin gets answers from Paris."]


def test_a_machine_that_nobody_reaches_is_said_once_and_no_link_of_its() -> None:
    ways = everybody(but=(OSLO,))
    for each in (BERLIN, PARIS, ROME):
        cut(ways, each, OSLO)
    rows = matrix(HOSTS, ways)
    assert unreached(rows) == [OSLO]
    assert troubles(rows) == ["No other machine reaches Oslo: it is off, or its link is cut."]


def test_a_worker_that_is_silent_on_a_machine_that_answers_is_said_so() -> None:
    ways = everybody(but=(OSLO,))
    assert troubles(matrix(HOSTS, ways)) == [
        "Oslo says nothing of its ways: its worker is silent, or of an older release."
    ]
    cut(ways, BERLIN, OSLO)
    assert troubles(matrix(HOSTS, ways))[0] == "Berlin gets no answer from Oslo."


def test_of_a_machine_that_has_just_joined_nothing_is_known_yet() -> None:
    ways = everybody()
    ways[BERLIN.pk] = {}
    rows = matrix(HOSTS, ways)
    assert [cell and cell.answers for cell in rows[0].cells] == [None] * 4
    assert troubles(rows) == []


@pytest.mark.parametrize("count", [0, 1])
def test_fewer_than_two_machines_have_no_ways(count: int) -> None:
    rows = matrix(HOSTS[:count], {})
    assert cut_ways(rows) == 0
    assert unreached(rows) == []


SAID = st.sampled_from([Reach(True), Reach(False), Reach(None)])


@given(
    st.dictionaries(
        st.sampled_from([1, 2, 3, 4]), st.dictionaries(st.sampled_from(["id1", "id2", "id3", "id4", "gone"]), SAID)
    )
)
def test_every_cut_way_is_said_and_nothing_else_is(ways: Ways) -> None:
    rows = matrix(HOSTS, ways)
    words = " ".join(troubles(rows))
    for row in rows:
        for cell in row.cells:
            if cell is not None and cell.cut:
                assert row.host.name in words or cell.to.name in words
    assert bool(cut_ways(rows) or any(not row.says for row in rows)) == bool(words)
