"""Each check says so when something is made wrong by hand, and says nothing of what is right."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from tests.protocol_client import new_wg_key

from .answers import History, all_wrong
from .invariants import ALWAYS, SETTLED, Reading, Row, broken, digest
from .record import Said

NOW = 1790000000.0
KEY, OTHER_KEY = new_wg_key(), new_wg_key()


def row(**changes: Any) -> Row:
    good = Row(
        name="c1",
        user="office-1",
        server="VPN",
        interface="wgs1",
        key=KEY,
        addresses=("10.9.0.2",),
        state="open",
        timeout=30,
        created=NOW - 60,
        opened=NOW - 59,
    )
    return dataclasses.replace(good, **changes)


def over(reason: str = "silent", **changes: Any) -> Row:
    return row(**{"state": "ended", "ended": NOW - 10, "due": NOW - 12, "reason": reason} | changes)


def right(*rows: Row) -> Reading:
    """All of it as it should be for these rows."""
    live = [each for each in rows if each.live]
    return Reading(
        now=NOW,
        rows=rows,
        peers={(each.interface, each.key): frozenset(f"{a}/32" for a in each.addresses) for each in live},
        deadlines={each.name: NOW + 25 for each in live},
        spent=frozenset(digest(each.key) for each in rows if each.reason != "unconfirmed"),
        held=frozenset(each.key for each in live),
    )


OTHER = row(name="c2", user="office-2", key=OTHER_KEY, addresses=("10.9.0.3", "fd09::3"))
GOOD = right(row(), dataclasses.replace(OTHER, addresses=("10.9.0.3",)), over(name="c0", key=new_wg_key()))


def test_nothing_is_said_of_what_is_right() -> None:
    assert broken(GOOD, SETTLED) == []
    # What was never confirmed may have a key that is offered again, and is not spent by it.
    assert broken(right(over("unconfirmed", name="c0", opened=None), row()), SETTLED) == []


def changed(**changes: Any) -> Reading:
    return dataclasses.replace(GOOD, **changes)


WRONG_AT_ANY_MOMENT = {
    "one_address_twice": right(row(), row(name="c2", key=OTHER_KEY)),
    "one_key_twice": right(row(), over(name="c0")),
    "allowed_and_not_spent": changed(spent=frozenset([digest(OTHER_KEY)])),
}
WRONG_IN_THE_END = {
    "peers_without_a_row": changed(peers=GOOD.peers | {("wgs1", new_wg_key()): frozenset()}),
    "rows_without_a_peer": changed(peers={}),
    "half_made": right(row(state="pending", opened=None)),
    "alive_without_permission": right(row(permitted=False)),
    "alive_though_silent": changed(held=frozenset([OTHER_KEY])),
    "deadlines_as_rows": changed(deadlines={"c1": NOW + 5}),
    "ended_without_all_of_it": right(over(due=None)),
}


@pytest.mark.parametrize("check", WRONG_AT_ANY_MOMENT)
def test_it_is_said_in_the_middle(check: str) -> None:
    assert [words for words in broken(WRONG_AT_ANY_MOMENT[check], ALWAYS) if words.startswith(check)]


@pytest.mark.parametrize("check", [*WRONG_AT_ANY_MOMENT, *WRONG_IN_THE_END])
def test_it_is_said_in_the_end(check: str) -> None:
    found = broken((WRONG_AT_ANY_MOMENT | WRONG_IN_THE_END)[check], SETTLED)
    assert [words for words in found if words.startswith(check)]


def test_every_check_is_shown_to_find_something() -> None:
    assert {check.__name__ for check in SETTLED} == {*WRONG_AT_ANY_MOMENT, *WRONG_IN_THE_END}


@pytest.mark.parametrize(
    ("reading", "words"),
    [
        (changed(peers={("wgs1", KEY): frozenset(["10.9.0.9/32"])}), "has 10.9.0.9/32"),
        (changed(peers={("wgs2", KEY): frozenset(["10.9.0.2/32"])}), "no peer on wgs1"),
        (changed(peers={("wgs1", KEY): frozenset(), ("wgs2", KEY): frozenset()}), "two interfaces"),
        (changed(deadlines=GOOD.deadlines | {"gone": NOW}), "deadline for gone"),
        (changed(deadlines=GOOD.deadlines | {"c1": NOW + 300}), "300 s from now"),
        (right(over(reason="")), "without a time or a reason"),
    ],
)
def test_what_else_is_wrong(reading: Reading, words: str) -> None:
    assert words in " ".join(broken(reading, SETTLED))


# What clients were told


def said(what: str, word: str, sent: float = NOW - 30, status: int = 200, **changes: Any) -> Said:
    client = changes.pop("client", "office-1")
    return Said(client, what, changes.pop("key", KEY), sent, sent + 0.1, status, word, **changes)


CONNECTED = said("connect", "allowed", NOW - 59, address="10.9.0.2")


def wrong(
    *told: Said, rows: tuple[Row, ...] = (row(),), lost: dict[str, list[float]] | None = None, **more: Any
) -> str:
    return " ".join(all_wrong(History(rows, told, more.pop("concerned", {}), **more), lost or {}))


def test_nothing_is_said_of_right_answers() -> None:
    assert wrong(CONNECTED, said("ping", "true"), said("old key", "key_spent", status=409)) == ""
    assert wrong(CONNECTED, said("used code", "refused")) == ""
    assert "wrong_answers" in wrong(CONNECTED, said("connect", "refused"))
    assert wrong(said("ping", "TimeoutError", status=0), said("ping", "store_down", status=503)) == ""
    assert wrong(CONNECTED, said("ping", "false", NOW - 5), rows=(over("admin"),)) == ""
    assert wrong(said("ping", "true", NOW - 40), rows=(over("silent"),)) == ""
    assert wrong(said("connect", "unauthorized", status=401), concerned={"office-1": ["delete"]}) == ""


@pytest.mark.parametrize(
    ("told", "rows", "check"),
    [
        (said("ping", "unauthorized", status=401), row(), "wrong_answers"),
        (said("ping", "internal", status=500), row(), "wrong_answers"),
        (said("connect", "internal", status=500), row(), "wrong_answers"),
        (said("connect", "refused"), row(), "wrong_answers"),
        (said("ping", "key_spent", status=409), row(), "wrong_answers"),
        (said("old key", "allowed"), row(), "wrong_answers"),
        (said("old key", "internal", status=500), row(), "wrong_answers"),
        (said("used code", "allowed"), row(), "wrong_answers"),
        (said("ping", "false"), row(), "told_it_is_over_too_early"),
        (said("ping", "false"), over("admin"), "told_it_is_over_too_early"),
        (said("ping", "false", key=OTHER_KEY), row(), "told_it_is_over_too_early"),
        (said("ping", "true"), over("admin", ended=NOW - 200), "told_it_is_open_too_late"),
        (said("ping", "true", key=OTHER_KEY), row(), "told_it_is_open_too_late"),
        (said("ping", "true"), row(opened=None), "told_it_is_open_too_late"),
        (said("connect", "allowed", key=OTHER_KEY), row(), "allowed_without_a_row"),
        (said("connect", "allowed", address="10.9.0.7"), row(), "allowed_without_a_row"),
        (said("ping", "true", NOW - 20), over("silent"), "revoked_though_it_pinged"),
        (said("ping", "true"), over("admin", user="steady-1"), "steady_ones_concerned"),
        (said("ping", "true", NOW - 11, client="steady-1"), over("replaced", user="steady-1"), "steady_ones_concerned"),
    ],
)
def test_each_wrong_answer_is_said(told: Said, rows: Row, check: str) -> None:
    assert check in wrong(told, rows=(rows,))


def test_a_steady_client_that_was_left_without_an_answer_may_begin_anew() -> None:
    silent = (over("replaced", user="steady-1"), row(name="c2", user="steady-1", key=OTHER_KEY))
    good = said("ping", "true", NOW - 50, client="steady-1")

    def again(sent: float) -> Said:
        return said("connect", "allowed", sent, client="steady-1", key=OTHER_KEY, address="10.9.0.2")

    assert wrong(good, again(NOW - 10), rows=silent) == ""
    # Whatever the server's clock says.
    early = (dataclasses.replace(silent[0], ended=NOW - 50, due=NOW - 50), silent[1])
    assert wrong(good, again(NOW - 10), rows=early) == ""
    assert "steady_ones_concerned" in wrong(good, again(NOW - 48), rows=silent)


def test_lost_packets_need_a_connection_that_ended() -> None:
    last = row(name="c2", key=OTHER_KEY, opened=NOW - 5, created=NOW - 6)
    assert "lost 1 packets" in wrong(lost={"office-1": [NOW - 30]})
    assert wrong(lost={"office-1": [NOW - 8]}, rows=(over("admin"), last)) == ""
    assert "lost 1 packets" in wrong(lost={"office-1": [NOW - 30]}, rows=(over("admin"), last))
    assert "lost 1 packets" in wrong(lost={"office-1": [NOW + 60]}, rows=(over("admin"), last))


def test_times_are_no_surer_than_the_clock_that_was_set() -> None:
    told = said("ping", "true", NOW - 20)
    assert "revoked_though_it_pinged" in wrong(told, rows=(over("silent"),))
    assert wrong(told, rows=(over("silent"),), clock_steps=60) == ""
