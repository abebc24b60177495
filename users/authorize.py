"""May this user connect to this server, now, with what they offer? One function, top to bottom:
account, then policy, then factors (users.factors.judge): a remembered factor token, enrolment, the attempt budgets,
reconnect grace, and then every wanted factor, all checked before any is used up."""

from __future__ import annotations

from .factors.base import Attempt, Policy
from .factors.held import device_is_revoked
from .factors.judge import judge_factors
from .models import VpnUser
from .verdicts import Allowed, Denied, Layers, MustWait, Pending, Verdict

__all__ = ["Allowed", "Denied", "Layers", "MustWait", "Pending", "Verdict", "authorize"]


def authorize(user: VpnUser, policy: Policy, attempt: Attempt, now: float, *, may_wait: bool = True) -> Verdict:
    """``may_wait``: whether a factor may hold this thread for as long as somebody else's server takes. Raise
    ``RedisUnavailable`` where the attempt budgets cannot be read, ``MustWait`` where one would have to and may not."""
    layers: Layers = ()
    for layer, check in (("account", _account), ("policy", _policy)):
        if refusal := check(user, policy, attempt):
            code, reason = refusal
            return Denied((*layers, (layer, code)), code, reason)
        layers = (*layers, (layer, "ok"))
    return judge_factors(user, policy, attempt, now, layers, may_wait=may_wait)


def _account(user: VpnUser, policy: Policy, attempt: Attempt) -> tuple[str, str] | None:
    if not user.enabled:
        return "user_disabled", "Your account is disabled. Ask your administrator."
    if not user.organization.enabled:
        return "organization_disabled", "Your organization is disabled. Ask your administrator."
    if device_is_revoked(user.pk, attempt.device_id):
        return "device_revoked", "This device was revoked. Ask your administrator to let it in again."
    return None


def _policy(user: VpnUser, policy: Policy, attempt: Attempt) -> tuple[str, str] | None:
    if user.organization_id not in policy.organizations:
        return "not_in_organization", "Your organization may not use this server."
    if policy.groups and not user.groups.filter(pk__in=policy.groups).exists():
        return "not_in_group", "You are in no group that may use this server."
    if policy.platforms and attempt.platform not in policy.platforms:
        return "platform_not_allowed", f"This server does not allow the platform {attempt.platform}."
    return None
