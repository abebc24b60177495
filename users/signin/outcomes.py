"""What a provider's answer comes to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from core.http import NoAnswer


class NotSignedIn(Exception):
    """The provider's answer lets nobody in. ``code`` is one of the factor's ``sentences``; ``detail`` is ours, for the
    log, and holds nothing that came from outside."""

    def __init__(self, code: str, detail: str = "") -> None:
        super().__init__(f"{code} {detail}".strip())
        self.code = code


class SaysNothing(NoAnswer):
    """The provider answers, and others may be asked about; but of this account nothing can be known."""


@dataclass(frozen=True, slots=True)
class SignedIn:
    """Whoever it was is the user. ``groups``: None where the provider does not say. To ask about them again:
    ``refresh_token``, empty where it gives none, and ``account``, by which its directory knows them, if it has one."""

    groups: Sequence[str] | None
    refresh_token: str = field(default="", repr=False)
    account: str = ""
