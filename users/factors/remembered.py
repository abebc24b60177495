"""Passes that are remembered for a while: the client's factor token, and the secret of a device that reconnects."""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from datetime import timedelta

from core import clock
from core.crypto import keyed_hash
from users.models import RememberedPass, VpnUser

from .base import Attempt, Policy
from .wanted import Wanted


def _digest(user: VpnUser, policy: Policy, wanted: Sequence[Wanted], kind: str, secret: str) -> str:
    # Which factors it stands for: where the server asks for one more since, a pass without it counts no longer.
    asked = [part for each in wanted for part in (each.kind, each.factor.fingerprint(each.enrolment))]
    return keyed_hash(f"remembered {kind}", user.public_id, policy.server, *asked, secret)


def is_remembered(
    user: VpnUser, policy: Policy, wanted: Sequence[Wanted], attempt: Attempt, kind: str, now: float
) -> bool:
    """Whether ``attempt``'s token (``kind`` "token") or password ("grace") stands for all ``wanted`` factors."""
    secret, ttl = (attempt.token, policy.token_ttl) if kind == "token" else (attempt.password, policy.grace)
    if not secret or not ttl:
        return False
    row = RememberedPass.objects.filter(
        user=user,
        scope=policy.server,
        kind=kind,
        device_id=attempt.device_id,
        device_name=attempt.device_name,
        expires__gt=clock.moment(now),
    ).first()
    return row is not None and hmac.compare_digest(row.digest, _digest(user, policy, wanted, kind, secret))


def remember(user: VpnUser, policy: Policy, wanted: Sequence[Wanted], attempt: Attempt, now: float) -> None:
    """``wanted``: exactly the factors that passed."""
    for kind, secret, ttl in (("grace", attempt.password, policy.grace), ("token", attempt.token, policy.token_ttl)):
        if secret and ttl:
            RememberedPass.objects.update_or_create(
                user=user,
                scope=policy.server,
                kind=kind,
                device_id=attempt.device_id,
                device_name=attempt.device_name,
                defaults={
                    "digest": _digest(user, policy, wanted, kind, secret),
                    "expires": clock.moment(now) + timedelta(seconds=ttl),
                },
            )


def forget(user: VpnUser) -> None:
    """Void all passes of ``user``. The digest covers the enrolments anyway; no row outlives what it stood for."""
    RememberedPass.objects.filter(user=user).delete()
