"""What authorize can answer."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from .models import RememberedPass

Layers = tuple[tuple[str, str], ...]


class MustWait(Exception):
    """A factor may have to wait for somebody else's server, which the caller's thread is not for. Nothing was used up
    or counted."""


@dataclass(frozen=True, slots=True)
class Allowed:
    """``layers``: what each layer said, as (layer, stable code), in order. ``passes``: what to remember of the factors
    that passed, not stored yet: it is good for nothing until the client is connected (``remembered.store``).
    ``passed``: the kinds of factors that were judged, and passed, now. ``detail``: what is special of this case, for
    administrators."""

    layers: Layers
    passes: tuple[RememberedPass, ...] = field(default=(), repr=False)
    passed: frozenset[str] = frozenset()
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Denied:
    """``code`` is stable and for administrators; ``reason`` is for the user and tells an attacker nothing more.
    ``retry_after``: seconds, where waiting helps (0: it does not). ``guess``: a secret was wrong, which is counted.
    ``detail``: what is special of this case, for administrators."""

    layers: Layers
    code: str
    reason: str
    retry_after: int = 0
    guess: bool = False
    detail: str = ""

    @property
    def layer(self) -> str:
        return self.layers[-1][0]


@dataclass(frozen=True, slots=True)
class Pending:
    """A factor that asks something back (a sign-in page, a push) has begun; ``answer`` goes to the client."""

    layers: Layers
    answer: dict[str, Any]


Verdict = Allowed | Denied | Pending
