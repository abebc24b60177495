"""What every factor shares that is shown on our own sign-in page: nobody else is asked.

The page gives a browser a challenge for one answer (``sign_ins.leave``), and takes the answer from that browser alone.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

from core.rate_limits import count_of
from users.factors.base import AskedFactor, Case, Contribution, Denied, Factor, Outcome, Passed, Pending
from users.models import SignIn

from . import sign_ins
from .factor import MOST


class HereFactor(Factor):
    """``page_template`` extends ``users/sign_in.html``, and has a form with the field ``answer``."""

    asks_back: ClassVar[bool] = True
    can_be_unavailable: ClassVar[bool] = False
    page_template: ClassVar[str]

    @abstractmethod
    def our_origin(self) -> str:
        """Where the page must be opened; empty: nowhere."""

    @abstractmethod
    def question(self, sign_in: SignIn, challenge: str) -> str:
        """What the browser needs to answer ``challenge``, as JSON. Raise ``NotSignedIn``."""

    @abstractmethod
    def challenge_in(self, answer: str) -> str:
        """The challenge that ``answer`` says it is to; empty for what is none."""

    @abstractmethod
    def judge(self, sign_in: SignIn, challenge: str, answer: str) -> None:
        """Raise ``NotSignedIn`` where the answer is not the user's."""

    def claim(self, case: Case, secret: str) -> Outcome:
        sign_in = sign_ins.of(case)
        if sign_in is None:
            if not count_of("sign_ins", case.user.public_id, MOST, 600):
                return Denied("too_many", advice="Wait some minutes.")
            sign_in = sign_ins.begin(case, None)
        if sign_in.outcome:
            return Passed() if sign_in.outcome == sign_ins.OK else Denied(sign_in.outcome)
        address = f"{self.our_origin()}/sso/here/{sign_in.page}"
        return Pending({"sso_url": address, "sso_token": sign_ins.token_of(sign_in)}, "sign_in")

    def contribution(self, asked: AskedFactor) -> Contribution:
        return Contribution(sso=True)
