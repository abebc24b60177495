"""What every factor shares that asks on a phone while our sign-in page shows what to choose there: clients have no
place for it. Who has a stolen profile can open that page, and the owner of the phone does not see what it shows."""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import ClassVar

import redis

from core.crypto import keyed_hash
from core.rate_limits import count_of
from core.redis_store import RedisUnavailable, redis_client
from users.factors import pushes
from users.factors.base import NOT_CONFIGURED, AskedFactor, Case, Contribution, Denied, Outcome, Passed, Pending
from users.factors.providers import ProviderConfig
from users.factors.remote import RemoteFactor
from users.models import SignIn, VpnUser

from . import sign_ins
from .factor import MOST

# Seconds between two looks at one request, however often its page is loaded.
LOOK_EVERY = 2


@dataclass(frozen=True, slots=True)
class OnPhone:
    """A request that is open. ``number``: what to choose there; ``reference``: by which the factor finds it again."""

    number: str
    reference: str = field(repr=False)


class PhoneFactor(RemoteFactor):
    asks_back: ClassVar[bool] = True
    sentences: ClassVar[Mapping[str, str]] = {
        "sign_in": "The user was asked to open a page, from which a request is sent to their phone.",
        "too_many": "Too many sign-ins were begun for this user within ten minutes.",
        "no_address": "Nothing says at which address browsers reach this server (API_URLS).",
    }

    @abstractmethod
    def begin(self, config: ProviderConfig, user: VpnUser, address: str) -> OnPhone:
        """Send a request. ``address``: where the connect came from. Raise ``NotSignedIn`` where the user cannot be
        asked; ``NoAnswer``, ``RefusesUs``, ``Malformed``."""

    @abstractmethod
    def look(self, config: ProviderConfig, on_phone: OnPhone) -> bool:
        """Whether they said yes by now. Raise ``NotSignedIn`` where it came to nothing; else as ``begin``."""

    def check(self, case: Case, secret: str) -> Outcome:
        if case.asked.provider and not sign_ins.our_address(case.asked.provider):
            return Denied("no_address", guess=False)
        return super().check(case, secret)

    def claim(self, case: Case, secret: str) -> Outcome:
        config, sign_in = case.asked.provider, sign_ins.of(case)
        if config is None:
            return NOT_CONFIGURED
        if sign_in is None:
            if not count_of("sign_ins", case.user.public_id, MOST, 600):
                return Denied("too_many", advice="Wait some minutes.")
            sign_in = sign_ins.begin(case, config)
        if sign_in.outcome:
            return Passed() if sign_in.outcome == sign_ins.OK else Denied(sign_in.outcome)
        address = f"{sign_ins.our_address(config)}/sso/phone/{sign_in.page}"
        return Pending({"sso_url": address, "sso_token": sign_ins.token_of(sign_in)}, "sign_in")

    def contribution(self, asked: AskedFactor) -> Contribution:
        return Contribution(sso=True)


def keep(sign_in: SignIn, browser: str, on_phone: OnPhone) -> None:
    """For the browser that asked for it alone, while it is open. Raise ``RedisUnavailable``."""
    try:
        redis_client().set(_key(sign_in, browser), json.dumps(asdict(on_phone)), ex=pushes.GONE)
    except redis.RedisError as error:
        raise RedisUnavailable from error


def open_for(sign_in: SignIn, browser: str) -> OnPhone | None:
    """What that browser asked for, if it is open. Raise ``RedisUnavailable``."""
    try:
        stored = redis_client().get(_key(sign_in, browser)) if browser else None
    except redis.RedisError as error:
        raise RedisUnavailable from error
    return OnPhone(**json.loads(stored)) if isinstance(stored, str | bytes) else None


def may_look(sign_in: SignIn) -> bool:
    """Raise ``RedisUnavailable``."""
    try:
        return bool(redis_client().set(f"phone-look:{sign_in.page}", 1, nx=True, ex=LOOK_EVERY))
    except redis.RedisError as error:
        raise RedisUnavailable from error


def _key(sign_in: SignIn, browser: str) -> str:
    return f"phone:{keyed_hash('on phone', sign_in.page, browser)}"
