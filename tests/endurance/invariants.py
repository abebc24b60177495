"""What must hold, as pure functions: each returns in words what does not.

``always`` at every moment, ``settled`` once all is quiet. What clients were told is judged in ``answers``.
"""

from __future__ import annotations

import base64
import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

ENDED, OPEN, PENDING, UNCONFIRMED = "ended", "open", "pending", "unconfirmed"
# Seconds by which a deadline may seem to be later than a ping could have made it: two clocks are read.
ROUNDING = 2.0


@dataclass(frozen=True, slots=True)
class Row:
    """One connection as the database has it. Times are Unix seconds; ``permitted``: whether it could be made now."""

    name: str
    user: str
    server: str
    interface: str
    key: str
    addresses: tuple[str, ...]
    state: str
    timeout: float
    created: float
    opened: float | None = None
    ended: float | None = None
    due: float | None = None
    reason: str = ""
    permitted: bool = True

    @property
    def live(self) -> bool:
        return self.state != ENDED

    def __str__(self) -> str:
        return f"connection {self.name} of {self.user} ({self.state}{' ' + self.reason if self.reason else ''})"


@dataclass(frozen=True, slots=True)
class Reading:
    """What was read of the product at ``now``. ``peers``: allowed IPs by interface and key; ``deadlines`` by
    connection; ``spent``: digests of keys; ``held``: keys with which clients are connected, as they see it."""

    now: float
    rows: Sequence[Row]
    peers: dict[tuple[str, str], frozenset[str]] = field(default_factory=dict)
    deadlines: dict[str, float] = field(default_factory=dict)
    spent: frozenset[bytes] = frozenset()
    held: frozenset[str] = frozenset()

    @property
    def live(self) -> list[Row]:
        return [row for row in self.rows if row.live]


def digest(key: str) -> bytes:
    return hashlib.sha256(base64.b64decode(key)).digest()


def _twice(values: Iterable[object]) -> list[object]:
    return [value for value, count in Counter(values).items() if count > 1]


# At every moment


def one_address_twice(reading: Reading) -> Iterator[str]:
    held = [(row.server, address) for row in reading.live for address in row.addresses]
    for server, address in map(_pair, _twice(held)):
        yield f"{address} of server {server} is held by two live connections"


def _pair(value: object) -> tuple[object, object]:
    assert isinstance(value, tuple)
    return value[0], value[1]


def one_key_twice(reading: Reading) -> Iterator[str]:
    """What no host confirmed was never allowed, so its key may be offered again."""
    for key in _twice(row.key for row in reading.rows if row.reason != UNCONFIRMED):
        yield f"key {str(key)[:8]} is in two connections"
    for key in _twice(key for _, key in reading.peers):
        yield f"key {str(key)[:8]} is a peer of two interfaces"


def allowed_and_not_spent(reading: Reading) -> Iterator[str]:
    """``spent`` is read after the rows: the other way round, one made in between would seem to have none. One that
    still waits for its host may have been given up in between, and its key with it."""
    for row in reading.rows:
        if row.opened is not None and row.reason != UNCONFIRMED and digest(row.key) not in reading.spent:
            yield f"{row} was given its key, which is not spent"


# Once all is quiet


def peers_without_a_row(reading: Reading) -> Iterator[str]:
    live = {(row.interface, row.key): row for row in reading.live}
    whose = {row.key: row for row in reading.rows}
    for interface, key in reading.peers.keys() - live.keys():
        yield f"peer {key[:8]} is on {interface} without a live connection: {whose.get(key, 'nobody has that key')}"


def rows_without_a_peer(reading: Reading) -> Iterator[str]:
    for row in reading.live:
        allowed = reading.peers.get((row.interface, row.key))
        if allowed is None:
            yield f"{row} has no peer on {row.interface}"
        elif not {f"{address}/{128 if ':' in address else 32}" for address in row.addresses} <= allowed:
            yield f"the peer of {row} has {', '.join(sorted(allowed)) or 'no address'}"


def half_made(reading: Reading) -> Iterator[str]:
    for row in reading.live:
        if row.state == PENDING:
            yield f"{row} still waits for its host, after {reading.now - row.created:.0f} s"


def alive_without_permission(reading: Reading) -> Iterator[str]:
    for row in reading.live:
        if not row.permitted:
            yield f"{row} is live, though its user may not use the server now"


def alive_though_silent(reading: Reading) -> Iterator[str]:
    """Whoever has not pinged for the whole timeout is revoked; nobody but who pings is left once all is quiet."""
    for row in reading.live:
        if row.key not in reading.held:
            yield f"{row} is live, and no client has pinged with its key for long"


def deadlines_as_rows(reading: Reading) -> Iterator[str]:
    live = {row.name: row for row in reading.live}
    for name in live.keys() - reading.deadlines.keys():
        yield f"{live[name]} has no deadline"
    for name in reading.deadlines.keys() - live.keys():
        yield f"there is a deadline for {name}, which is not live"
    for name in live.keys() & reading.deadlines.keys():
        if reading.deadlines[name] > reading.now + live[name].timeout + ROUNDING:
            yield f"the deadline of {live[name]} is {reading.deadlines[name] - reading.now:.0f} s from now"


def ended_without_all_of_it(reading: Reading) -> Iterator[str]:
    for row in reading.rows:
        if not row.live and (row.ended is None or row.due is None or not row.reason):
            yield f"{row} has ended without a time or a reason"


Check = Callable[[Reading], Iterator[str]]
ALWAYS: tuple[Check, ...] = (one_address_twice, one_key_twice, allowed_and_not_spent)
SETTLED: tuple[Check, ...] = (
    *ALWAYS,
    peers_without_a_row,
    rows_without_a_peer,
    half_made,
    alive_without_permission,
    alive_though_silent,
    deadlines_as_rows,
    ended_without_all_of_it,
)


def broken(reading: Reading, checks: Iterable[Check]) -> list[str]:
    return [f"{check.__name__}: {words}" for check in checks for words in check(reading)]
