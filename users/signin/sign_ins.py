"""The sign-ins that are open: each belongs to one attempt, one provider, and the one browser that went there for it."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
from collections.abc import Sequence
from datetime import timedelta

import redis
from django.conf import settings
from django.db import models, transaction

from core import clock
from core.crypto import keyed_hash, random_text
from core.redis_store import redis_client
from users.factors.base import Case
from users.factors.providers import ProviderConfig
from users.models import Provider, SignIn, VpnUser

LIFETIME = timedelta(minutes=5)
OK = "ok"


def of(case: Case) -> SignIn | None:
    """The sign-in of this attempt, at the provider that is asked now (or at none)."""
    found = SignIn.objects.filter(
        user=case.user, kind=case.asked.kind, attempt_hash=case.attempt_hash, expires__gt=clock.moment(case.now)
    )
    return found.filter(**_at(case.asked.provider)).first()


@transaction.atomic
def begin(case: Case, config: ProviderConfig | None) -> SignIn:
    """One for this attempt; of two requests at once, both get the same. ``config``: None where we judge it."""
    whose = {"user": case.user, "kind": case.asked.kind, "attempt_hash": case.attempt_hash}
    known = {**_at(config), "expires__gt": clock.moment(case.now)}
    SignIn.objects.filter(**whose).exclude(**known).delete()
    values = {
        "page": random_text(32),
        "provider": Provider.objects.get(public_id=config.public_id) if config else None,
        "server_name": case.server_name,
        "device_name": case.attempt.device_name,
        "address": case.attempt.address,
        "expires": clock.moment(case.now) + LIFETIME,
    }
    return SignIn.objects.get_or_create(**whose, defaults=values)[0]


def by_page(page: str, now: float) -> SignIn | None:
    return _all().filter(page=page, expires__gt=clock.moment(now)).first()


def by_state(state: str, browser: str, now: float) -> SignIn | None:
    """The one that went to its provider with ``state``, from this very browser. The state is used up: None the second
    time, whoever asks."""
    if not state or not browser:
        return None
    sent = {"state_hash": _state_hash(state), "browser_hash": _browser_hash(browser), "outcome": ""}
    found = _all().filter(**sent, expires__gt=clock.moment(now)).first()
    # The conditional update is the claim: of two requests with one state only one finds it.
    mine = found and SignIn.objects.filter(pk=found.pk, **sent).update(state_hash="")
    return found if mine else None


def is_open(state: str, kind: str, now: float) -> bool:
    """Whether some browser went to a provider of this kind with ``state``, and has brought nothing back yet."""
    sent = {"state_hash": _state_hash(state), "kind": kind, "outcome": ""}
    return bool(state) and SignIn.objects.filter(**sent, expires__gt=clock.moment(now)).exists()


def leave(sign_in: SignIn, browser: str) -> str:
    """The state with which ``browser`` goes to the provider; what another one was given before is void."""
    state = random_text(32)
    SignIn.objects.filter(pk=sign_in.pk, outcome="").update(
        state_hash=_state_hash(state), browser_hash=_browser_hash(browser)
    )
    return state


def end(sign_in: SignIn, outcome: str, groups: Sequence[str] | None = None) -> None:
    """Once: what was said first stays."""
    ended = SignIn.objects.filter(pk=sign_in.pk, outcome="").update(
        outcome=outcome, groups=None if groups is None else list(groups)
    )
    if ended:
        # Only sooner: who waits looks again by itself, too.
        with contextlib.suppress(redis.RedisError), redis_client().pipeline() as pipe:
            pipe.rpush(bell(sign_in), "1")
            pipe.expire(bell(sign_in), int(LIFETIME.total_seconds()))
            pipe.execute()


def waiting(user: VpnUser, token: str, now: float) -> SignIn | None:
    """That of ``user`` whose token this is, if it has no outcome yet."""
    still = SignIn.objects.filter(user=user, outcome="", expires__gt=clock.moment(now))
    return next((each for each in still if hmac.compare_digest(token_of(each), token)), None)


def bell(sign_in: SignIn) -> str:
    return f"signed-in:{sign_in.page}"


def token_of(sign_in: SignIn) -> str:
    """What the client shows to wait for it (``sso_token``). Not to be read off the address that goes round."""
    return keyed_hash("sign-in token", sign_in.page)


def code_of(sign_in: SignIn) -> str:
    """Six characters that page and client show, so that nobody signs in for another's attempt: ``ABC-DEF``."""
    digest = hashlib.sha256(f"sign-in code {token_of(sign_in)}".encode()).digest()
    text = base64.b32encode(digest).decode()[:6]
    return f"{text[:3]}-{text[3:]}"


def our_address(config: ProviderConfig) -> str:
    """Where browsers reach us, as the provider knows it, without a slash at the end; empty where nobody said."""
    said = str(config.settings.get("our_address") or "") or next(iter(settings.API_URLS), "")
    return said.rstrip("/")


def _at(config: ProviderConfig | None) -> dict[str, str | None]:
    return {"provider__public_id": config.public_id} if config else {"provider": None}


def _all() -> models.QuerySet[SignIn]:
    return SignIn.objects.select_related("user__organization", "provider")


def _state_hash(state: str) -> str:
    return keyed_hash("sign-in state", state)


def _browser_hash(browser: str) -> str:
    return keyed_hash("sign-in browser", browser)
