"""What each machine of the mesh says of its ways to the others."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

MOST = 10_000  # machines of one report; the first ones are read


@dataclass(frozen=True, slots=True)
class Reach:
    """One way, from who says it to another machine.

    ``answers``: whether that answers; None: nobody knows yet. Seconds: ``since``, for which this has been so;
    ``round_trip``, of the last answer; ``handshake``, since WireGuard's last one with it, None: there was none.
    Bytes: ``received`` from it and ``sent`` to it.
    """

    answers: bool | None = None
    since: float = 0.0
    round_trip: float | None = None
    handshake: float | None = None
    received: int = 0
    sent: int = 0


_NAMES = [each.name for each in fields(Reach)]


def reach_to_json(ways: Mapping[str, Reach]) -> str:
    """``ways`` by host."""
    return json.dumps({host: {name: getattr(way, name) for name in _NAMES} for host, way in ways.items()})


def reach_from_json(text: str) -> dict[str, Reach]:
    """A host is not trusted to write well: it is read as far as it makes sense."""
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    if not isinstance(data, dict):
        return {}
    return {host: _way(each) for host, each in list(data.items())[:MOST] if isinstance(each, dict)}


def _way(data: Mapping[str, Any]) -> Reach:
    answers = data.get("answers")
    return Reach(
        answers=answers if isinstance(answers, bool) else None,
        since=number(data.get("since")) or 0.0,
        round_trip=number(data.get("round_trip")),
        handshake=number(data.get("handshake")),
        received=int(number(data.get("received")) or 0),
        sent=int(number(data.get("sent")) or 0),
    )


def number(value: object) -> float | None:
    """None for what is no number, or none that a machine could have."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 2**62:
        return None
    return float(value)
