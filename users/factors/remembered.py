"""Passes that are remembered for a while: the client's factor token, and the secret of a device that reconnects."""

from __future__ import annotations

import hmac
import math
from collections.abc import Sequence

from core import clock
from core.crypto import keyed_hash
from users.models import RememberedPass, VpnUser

from .again import line_of
from .base import Attempt, Policy
from .wanted import Wanted


def _digest(user: VpnUser, policy: Policy, wanted: Sequence[Wanted], attempt: Attempt, kind: str, secret: str) -> str:
    # Which factors it stands for: where the server asks for one more since, a pass without it counts no longer.
    # And of which provider: another one has not let them pass.
    # What is judged each time is none of it.
    asked = [
        part
        for each in wanted
        if not each.factor.always_judged
        for part in (
            each.kind,
            each.factor.fingerprint(each.enrolment),
            each.asked.provider.public_id if each.asked.provider else "",
        )
    ]
    line = line_of(attempt.address) if policy.ask_again_elsewhere else ""
    return keyed_hash(f"remembered {kind}", user.public_id, policy.server, line, *asked, secret)


def is_remembered(
    user: VpnUser, policy: Policy, wanted: Sequence[Wanted], attempt: Attempt, kind: str, now: float
) -> bool:
    """Whether ``attempt``'s token (``kind`` "token") or password ("grace") stands for all ``wanted`` factors, and does
    so still when the attempt is to count."""
    secret, ttl = (attempt.token, policy.token_ttl) if kind == "token" else (attempt.password, policy.grace)
    if not secret or not ttl:
        return False
    row = RememberedPass.objects.filter(
        user=user,
        scope=policy.server,
        kind=kind,
        device_id=attempt.device_id,
        device_name=attempt.device_name,
        expires__gt=clock.moment(max(now, attempt.counts_from)),
    ).first()
    return row is not None and hmac.compare_digest(row.digest, _digest(user, policy, wanted, attempt, kind, secret))


def passes_of(
    user: VpnUser, policy: Policy, wanted: Sequence[Wanted], attempt: Attempt, now: float
) -> tuple[RememberedPass, ...]:
    """What to remember of ``attempt`` once its client is connected. ``wanted``: exactly the factors that passed."""
    latest = policy.ask_again.after(max(now, attempt.counts_from)) if policy.ask_again else math.inf
    kinds = (("grace", attempt.password, policy.grace), ("token", attempt.token, policy.token_ttl))
    return tuple(
        RememberedPass(
            user=user,
            scope=policy.server,
            kind=kind,
            device_id=attempt.device_id,
            device_name=attempt.device_name,
            digest=_digest(user, policy, wanted, attempt, kind, secret),
            expires=clock.moment(min(now + ttl, latest)),
        )
        for kind, secret, ttl in kinds
        if secret and ttl
    )


def store(passes: Sequence[RememberedPass]) -> None:
    """Remember them, in the place of older ones. Only after the connection that they were made for is open: who passed
    the factors and was refused all the same (no address, no host) has not passed for the next time."""
    if passes:
        RememberedPass.objects.bulk_create(
            passes,
            update_conflicts=True,
            unique_fields=["user", "scope", "kind", "device_id", "device_name"],
            update_fields=["digest", "expires"],
        )


def forget_device(user: int, device_id: str) -> None:
    """Void the passes of one device. ``user``: their primary key."""
    RememberedPass.objects.filter(user=user, device_id=device_id).delete()


def forget(user: VpnUser) -> None:
    """Void all passes of ``user``. The digest covers the enrolments anyway; no row outlives what it stood for."""
    RememberedPass.objects.filter(user=user).delete()
