"""What a provider's answer comes to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field


class NotSignedIn(Exception):
    """The provider's answer lets nobody in. ``code`` is one of the factor's ``sentences``; ``detail`` is ours, for the
    log, and holds nothing that came from outside."""

    def __init__(self, code: str, detail: str = "") -> None:
        super().__init__(f"{code} {detail}".strip())
        self.code = code


@dataclass(frozen=True, slots=True)
class SignedIn:
    """Whoever it was is the user. ``groups``: None where the provider does not say; ``refresh_token``: to ask about
    them again, empty where it gives none."""

    groups: Sequence[str] | None
    refresh_token: str = field(default="", repr=False)
