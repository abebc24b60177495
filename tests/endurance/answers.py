"""What clients were told, judged by the rows of the connections as they were in the end."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from .invariants import ENDED, Row
from .plan import STEADY
from .record import Said

# Seconds for which an ended connection's pings may still be answered as if it were open: a process of gateway web
# remembers what it has read for so long, if the end could not be told to it because whoever ended it was killed.
REMEMBERED = 75.0
# A connection is ended as silent no sooner than its timeout after the last good ping. So many seconds of pings may have
# been lost after they were answered: they wait in a process of gateway web while Redis is away, and die with it.
LOST_PINGS = 15.0
# Between the moment that is written down for an end, or an answer, and when it happened.
ROUNDING = 1.0

# Which answers a connect may get from whom nothing concerns. The third is a lost answer's key, offered again.
TRY_AGAIN = {"in_progress", "no_host", "unconfirmed", "store_down", "unavailable"}
KEY_IS_GONE = {"key_spent"}
# What is offered by somebody else, and what is said where it is allowed.
STOLEN = {
    "old key": "a key that was allowed before is allowed again",
    "used code": "a code that passed before passes again, for another device and key",
}
# What makes each further answer right.
EXPLAINED_BY = {
    "server_stopped": {"stop server"},
    "refused": {
        *("disable", "take from group", "other device", "delete", "revoke device"),
        *("step clock", "used code", "old key"),  # of those whose codes are of a time
    },
    "unauthorized": {"delete"},
}


@dataclass(frozen=True, slots=True)
class History:
    """``concerned``: what was done, by client, to it, its group or its server. ``clock_steps``: all of them together,
    in seconds; times of the product are not surer than that."""

    rows: Sequence[Row]
    said: Sequence[Said]
    concerned: Mapping[str, Collection[str]]
    clock_steps: float = 0.0


def by_key(rows: Sequence[Row]) -> dict[str, Row]:
    """The row that was allowed, should one with the same key have been given up before."""
    return {row.key: row for row in sorted(rows, key=lambda row: row.opened is not None)}


def wrong_answers(history: History) -> Iterator[str]:
    """A fault of the server's is a 5xx that it has a word for, never a 4xx and never an exception."""
    for each in history.said:
        who = f"{each.client} at {each.sent:.1f}"
        concerned = {*history.concerned.get(each.client, ()), each.what}
        if each.what in STOLEN and each.word == "allowed":
            yield f"{who}: {STOLEN[each.what]} ({each.key[:8]})"
        elif not _explained(each, concerned):
            yield f"{who}: a {each.what} was answered {each.status} {each.word}"


def _explained(said: Said, concerned: Collection[str]) -> bool:
    if said.status == 0:  # no answer at all
        return True
    good = {"true", "false"} if said.what == "ping" else {"allowed"}
    if said.word in good | TRY_AGAIN or (said.what != "ping" and said.word in KEY_IS_GONE):
        return True
    return bool(EXPLAINED_BY.get(said.word, set()) & set(concerned))


def told_it_is_over_too_early(history: History) -> Iterator[str]:
    rows = by_key(history.rows)
    for each in history.said:
        row = rows.get(each.key)
        if each.word != "false" or each.what != "ping":
            continue
        if row is None:
            yield f"{each.client}: told that a connection is over that never was ({each.key[:8]})"
        elif row.ended is None or row.ended > each.answered + ROUNDING + history.clock_steps:
            yield f"{each.client} at {each.sent:.1f}: told that {row} is over, while it was open"


def told_it_is_open_too_late(history: History) -> Iterator[str]:
    rows = by_key(history.rows)
    for each in history.said:
        row = rows.get(each.key)
        if each.word != "true":
            continue
        if row is None or row.opened is None:
            yield f"{each.client}: a ping is good for a key that was never open ({each.key[:8]})"
        elif row.ended is not None and each.sent > row.ended + REMEMBERED + history.clock_steps:
            late = each.sent - row.ended
            yield f"{each.client} at {each.sent:.1f}: a ping was good {late:.0f} s after the end of {row}"


def allowed_without_a_row(history: History) -> Iterator[str]:
    rows = by_key(history.rows)
    for each in history.said:
        if each.word != "allowed" or each.what != "connect":
            continue
        row = rows.get(each.key)
        if row is None or row.opened is None:
            yield f"{each.client}: allowed with key {each.key[:8]}, of which no connection was open"
        elif each.address not in row.addresses:
            yield f"{each.client}: told the address {each.address}; {row} has {', '.join(row.addresses)}"


def revoked_though_it_pinged(history: History) -> Iterator[str]:
    good: defaultdict[str, float] = defaultdict(float)
    for each in history.said:
        if each.word == "true":
            good[each.key] = max(good[each.key], each.sent)
    for row in history.rows:
        last = good.get(row.key)
        if row.state != ENDED or row.reason != "silent" or last is None or row.due is None:
            continue
        if row.due < last + row.timeout - LOST_PINGS - history.clock_steps:
            yield f"{row}: ended as silent as of {row.due:.1f}, though it had pinged at {last:.1f}"


def steady_ones_concerned(history: History) -> Iterator[str]:
    """Nobody did anything to them: their connections end by silence alone, which the check above judges."""
    for row in history.rows:
        if row.user in STEADY and row.state == ENDED and row.reason not in {"silent", "unconfirmed"}:
            # With the next one, after no answer for the whole timeout: it then begins anew by itself.
            if row.reason == "replaced" and _silence_before(row, history.said):
                continue
            yield f"{row} ended, and nothing concerned it"


def _silence_before(row: Row, said: Sequence[Said]) -> bool:
    """By its client's clock alone, which nobody sets: from the last good answer to the next connect."""
    mine = [each for each in said if each.client == row.user]
    last = max((each.sent for each in mine if each.key == row.key and each.word in {"true", "allowed"}), default=0.0)
    begun = [each.sent for each in mine if each.what == "connect" and each.sent > last]
    return bool(begun) and min(begun) - last >= row.timeout - LOST_PINGS


def packets_lost(lost: Mapping[str, Sequence[float]], history: History) -> Iterator[str]:
    """Whoever is connected loses no packet, whatever else dies: the tunnel is WireGuard's alone. Only from the last
    sign of life of a connection that ended until its client had a new one is there nothing to send through."""
    for name, moments in lost.items():
        rows = sorted((row for row in history.rows if row.user == name and row.opened), key=lambda row: row.created)
        gaps = [_gap(row, rows[number + 1 :]) for number, row in enumerate(rows) if row.ended is not None]
        sure = history.clock_steps
        unexplained = [each for each in moments if not any(begin - sure <= each <= end + sure for begin, end in gaps)]
        if unexplained:
            yield f"{name} lost {len(unexplained)} packets that nothing explains, the first at {unexplained[0]:.1f}"


def _gap(row: Row, later: Sequence[Row]) -> tuple[float, float]:
    # The client's new interface, and the first handshake, which is repeated after five seconds.
    opened = later[0].opened if later else None
    assert row.ended is not None
    return row.ended - ROUNDING, opened + 20.0 if opened is not None else float("inf")


def longest_without_an_answer(said: Sequence[Said], what: str) -> float:
    """Seconds for which no request of the kind was answered by the server itself, though some were sent. Nobody judges
    it: how long a program takes to start is the machine's doing."""
    longest, last = 0.0, None
    for each in sorted((each for each in said if each.what == what), key=lambda each: each.answered):
        last = each.sent if last is None else last
        longest = max(longest, each.answered - last)
        if each.status and each.word != "unavailable":
            last = each.answered
    return longest


def all_wrong(history: History, lost: Mapping[str, Sequence[float]]) -> list[str]:
    checks = (
        wrong_answers,
        told_it_is_over_too_early,
        told_it_is_open_too_late,
        allowed_without_a_row,
        revoked_though_it_pinged,
        steady_ones_concerned,
    )
    found = [f"{check.__name__}: {words}" for check in checks for words in check(history)]
    return found + [f"packets_lost: {words}" for words in packets_lost(lost, history)]
