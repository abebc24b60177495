"""Factors for the tests of the contract: what each says is decided by the test."""

from __future__ import annotations

import re
from typing import ClassVar

from users.factors.base import AskedFactor, Case, Contribution, Denied, Factor, Outcome, Passed, TypedSecret
from users.models import Enrolment, VpnUser


class Fake(Factor):
    """Right is ``right``, and what it claims stays in ``claimed``. ``says``: its outcome instead, ``at_claim``: only
    then."""

    label: ClassVar[str] = "fake"
    not_enrolled: ClassVar[str] = "Not enrolled."
    right: ClassVar[str] = ""
    says: Outcome | None = None
    at_claim: Outcome | None = None
    is_enrolled = True

    def __init__(self) -> None:
        self.claimed: list[str] = []
        self.checked: list[str] = []

    def enrolled(self, user: VpnUser, enrolment: Enrolment | None) -> bool:
        return self.is_enrolled

    def check(self, case: Case, secret: str) -> Outcome:
        self.checked.append(secret)
        return self.says or (Passed() if secret == self.right else Denied())

    def claim(self, case: Case, secret: str) -> Outcome:
        self.claimed.append(secret)
        return self.at_claim or Passed()

    def contribution(self, asked: AskedFactor) -> Contribution:
        return Contribution(mode=self.kind if self.typed else "")


class Six(Fake):
    kind: ClassVar[str] = "six"
    typed: ClassVar[TypedSecret | None] = TypedSecret(re.compile(r"[0-9]{6}"), 6)
    right: ClassVar[str] = "314159"


class AlsoSix(Six):
    """Of the same form as ``Six``: only judging can tell which is whose."""

    kind: ClassVar[str] = "also_six"
    right: ClassVar[str] = "271828"


class Words(Fake):
    kind: ClassVar[str] = "words"
    typed: ClassVar[TypedSecret | None] = TypedSecret()
    right: ClassVar[str] = "123456open"


class MoreWords(Words):
    """Of any form as well: nobody could say where one ends."""

    kind: ClassVar[str] = "more_words"


class Untyped(Fake):
    kind: ClassVar[str] = "untyped"
    asks_back: ClassVar[bool] = True


FAKES: dict[str, type[Fake]] = {each.kind: each for each in (Six, AlsoSix, Words, Untyped)}
TWO_TEXTS: dict[str, type[Fake]] = {each.kind: each for each in (Words, MoreWords)}
