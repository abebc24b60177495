"""Which kinds of jobs there are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from core.models import Job
from core.pace import Room


@dataclass(frozen=True, slots=True)
class Step:
    """One part of the work. ``place``: where the next one begins, None when nothing is left. ``done``: how many items
    this part dealt with. ``notes``: lines for the person who asked for it."""

    place: Any
    done: int
    notes: Sequence[str] = ()


Kind = Callable[[Job, Room], Step]
_kinds: dict[str, Kind] = {}


def kind(name: str) -> Callable[[Kind], Kind]:
    """Register the function as the step of jobs of this kind. It runs inside a transaction and may be repeated."""

    def register(step: Kind) -> Kind:
        if name in _kinds:
            raise ValueError(f"there are two kinds of jobs named {name}")
        _kinds[name] = step
        return step

    return register


def step_of(name: str) -> Kind | None:
    return _kinds.get(name)
