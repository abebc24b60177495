"""What the factors share whose judge is a service that knows the users itself: it is asked last, what passed for an
attempt passes for the same attempt again, and what the service does wrong lets nobody in."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

from core.http import NoAnswer
from users.models import Enrolment, VpnUser

from . import pushes
from .base import NOT_CONFIGURED, Case, Denied, Factor, Outcome, Passed, Unavailable
from .panels import NotDone
from .providers import ProviderConfig


class RefusesUs(Exception):
    """The service does not take us for a client of its, or what we ask for a right question. The argument is its own
    code, which is no secret."""


class Malformed(Exception):
    """An answer that the documentation does not know."""


BUSY = "There is a request on your phone already, or there were too many. Answer it, or wait a while."
# For administrators, of every such service; more are each one's own.
SENTENCES = {
    "no_name": "The user has no e-mail address here, by which the provider would know them.",
    "rejected": "The user said no on their phone.",
    "expired": "Nobody answered the request on the user's phone.",
    "push_open": "There was a request on the user's phone already, for another attempt.",
    "too_many_pushes": f"There were {pushes.PER_HOUR} requests on the user's phone within the hour.",
    "malformed": "What answered was not the provider, or not as it documents it. Look at the provider's address.",
    "unavailable": "The provider did not answer.",
}


def username_of(provider: ProviderConfig, user: VpnUser) -> str:
    """By which the service knows the user; empty where we do not know it."""
    return user.email if provider.settings["username"] == "email" else user.name


class RemoteFactor(Factor):
    """``provider_form`` has a field ``username``: ``email`` or ``name``. ``service``: its name."""

    service: ClassVar[str]
    can_be_tried: ClassVar[bool] = True
    knows_its_own: ClassVar[bool] = False

    def enrolled(self, user: VpnUser, enrolment: Enrolment | None) -> bool:
        return True  # the service knows

    def check(self, case: Case, secret: str) -> Outcome:
        # Whatever the service is asked is counted there, or on the user's phone.
        provider = case.asked.provider
        return Passed() if provider and username_of(provider, case.user) else Denied("no_name")

    @abstractmethod
    def greet(self, provider: ProviderConfig) -> str:
        """Ask the service what costs nobody anything; what to tell administrators then. Raise ``NoAnswer``,
        ``RefusesUs``, ``Malformed``."""

    def try_out(self, provider: ProviderConfig) -> str:
        try:
            return self.greet(provider)
        except NoAnswer as error:
            raise NotDone(str(error)) from None
        except RefusesUs as error:
            raise NotDone(f"{self.sentences['refused']} ({self.service}'s code: {error})") from None
        except Malformed:
            raise NotDone(self.sentences["malformed"]) from None


class JudgedThere(RemoteFactor):
    """The service says within the connect whether its user may pass."""

    waits: ClassVar[bool] = True

    def claim(self, case: Case, secret: str) -> Outcome:
        checked = self.check(case, secret)
        if not isinstance(checked, Passed):
            return checked
        if case.asked.provider is None:
            return NOT_CONFIGURED
        if pushes.is_remembered(case.user, self.kind, case.attempt_hash, secret):
            return Passed()
        try:
            outcome = self.judged(case, case.asked.provider, secret)
        except NoAnswer:
            return Unavailable()
        except RefusesUs:
            return Unavailable("refused", skippable=False)
        except Malformed:
            return Unavailable("malformed", skippable=False)
        except pushes.NotSent as error:
            return Unavailable(str(error), BUSY, skippable=False)
        if isinstance(outcome, Passed):
            pushes.remember(case.user, self.kind, case.attempt_hash, secret)
        return outcome

    @abstractmethod
    def judged(self, case: Case, provider: ProviderConfig, secret: str) -> Outcome:
        """What the service says. Raise ``NoAnswer``, ``RefusesUs``, ``Malformed``, ``NotSent``."""
