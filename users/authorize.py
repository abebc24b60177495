"""May this user connect to this server, now, with what they offer? One function, top to bottom:
account, then policy, then factors."""

from __future__ import annotations

import hmac
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta

from core import clock, rate_limits
from core.crypto import keyed_hash

from .factors.base import Attempt, Factor, Policy
from .factors.registry import all_factors
from .models import RememberedPass, VpnUser

Layers = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Allowed:
    """``layers``: what each layer said, as (layer, stable code), in order."""

    layers: Layers


@dataclass(frozen=True, slots=True)
class Denied:
    """``code`` is stable and for administrators; ``reason`` is for the user and tells an attacker nothing more.
    ``retry_after``: seconds, where waiting helps (0: it does not)."""

    layers: Layers
    code: str
    reason: str
    retry_after: int = 0

    @property
    def layer(self) -> str:
        return self.layers[-1][0]


@dataclass(frozen=True, slots=True)
class Pending:
    """A factor that asks something back (a sign-in page, a push) has begun; ``answer`` goes to the client."""

    layers: Layers
    answer: dict[str, str]


Verdict = Allowed | Denied | Pending

WRONG = "Second factor refused"


def authorize(user: VpnUser, policy: Policy, attempt: Attempt, now: float) -> Verdict:
    """Raise ``RedisUnavailable`` where the attempt budgets cannot be read."""
    layers: Layers = ()
    for layer, check in (("account", _account), ("policy", _policy)):
        if refusal := check(user, policy, attempt):
            code, reason = refusal
            return Denied((*layers, (layer, code)), code, reason)
        layers = (*layers, (layer, "ok"))
    return _factors(user, policy, attempt, now, layers)


def _account(user: VpnUser, policy: Policy, attempt: Attempt) -> tuple[str, str] | None:
    if not user.enabled:
        return "user_disabled", "Your account is disabled. Ask your administrator."
    if not user.organization.enabled:
        return "organization_disabled", "Your organization is disabled. Ask your administrator."
    return None


def _policy(user: VpnUser, policy: Policy, attempt: Attempt) -> tuple[str, str] | None:
    if user.organization_id not in policy.organizations:
        return "not_in_organization", "Your organization may not use this server."
    if policy.groups and not user.groups.filter(pk__in=policy.groups).exists():
        return "not_in_group", "You are in no group that may use this server."
    if policy.platforms and attempt.platform not in policy.platforms:
        return "platform_not_allowed", f"This server does not allow the platform {attempt.platform}."
    return None


def _factors(user: VpnUser, policy: Policy, attempt: Attempt, now: float, layers: Layers) -> Verdict:
    factors = [factor for factor in all_factors() if factor.wanted(policy, user)]
    if not factors:
        return Allowed((*layers, ("factors", "none_asked")))
    if attempt.token and policy.token_ttl and _remembers(user, policy, attempt, "token", attempt.token, now):
        return Allowed((*layers, ("factor_token", "ok")))
    for factor in factors:
        if reason := factor.missing(user):
            return Denied((*layers, (factor.name, "not_enrolled")), f"{factor.name}_not_enrolled", reason)
    if not attempt.password:
        names = " and ".join(factor.name.upper() for factor in factors)
        return Denied((*layers, ("factors", "missing")), "factor_missing", f"This server asks for: {names}.")
    try:
        reserved = rate_limits.reserve(user.public_id, attempt.address)
    except rate_limits.TooManyAttempts as error:
        layers = (*layers, ("budget", "used_up"))
        return Denied(layers, "too_many_attempts", "Too many attempts. Wait a while.", error.retry_after)
    verdict = _judge(user, policy, attempt, now, layers, factors)
    if isinstance(verdict, Allowed):
        reserved.give_back()
    return verdict


def _judge(
    user: VpnUser, policy: Policy, attempt: Attempt, now: float, layers: Layers, factors: list[Factor]
) -> Verdict:
    """Take the password apart in every way that fits and let the factors judge the parts: one attempt in all."""
    if policy.grace and _remembers(user, policy, attempt, "grace", attempt.password, now):
        return Allowed((*layers, ("reconnect_grace", "ok")))
    failed = factors[-1].name
    for parts in _ways_apart(attempt.password, factors):
        wrong = _first_wrong(user, parts, attempt, now)
        if wrong is None:
            _remember_pass(user, policy, attempt, now)
            return Allowed((*layers, *((factor.name, "ok") for factor, _ in parts)))
        if wrong != parts[0][0].name:
            failed = wrong  # the passcode was right, so this was the right place to cut
    return Denied((*layers, (failed, "wrong")), f"{failed}_wrong", WRONG)


def _first_wrong(user: VpnUser, parts: list[tuple[Factor, str]], attempt: Attempt, now: float) -> str | None:
    """The name of the factor that says no. All are checked before any is used up: a wrong PIN costs no code."""
    for factor, secret in parts:
        if not factor.check(user, secret, attempt, now):
            return factor.name
    for factor, secret in parts:
        if not factor.claim(user, secret, attempt, now):
            return factor.name
    return None


def _ways_apart(password: str, factors: list[Factor]) -> Iterator[list[tuple[Factor, str]]]:
    """Each way to cut ``password`` into one part a factor: passcode last, then passcode first."""
    coded = next((factor for factor in factors if factor.passcode), None)
    rest = next((factor for factor in factors if not factor.passcode), None)
    if coded is None or coded.passcode is None:
        if rest is not None:
            yield [(rest, password)]
        return
    length = coded.passcode_length
    seen = set()
    for code, remainder in ((password[-length:], password[:-length]), (password[:length], password[length:])):
        if not coded.passcode.fullmatch(code) or (code, remainder) in seen or bool(remainder) != bool(rest):
            continue
        seen.add((code, remainder))
        yield [(coded, code), *([(rest, remainder)] if rest else [])]


def _digest(user: VpnUser, policy: Policy, kind: str, secret: str) -> str:
    totp = user.totp_secret.reveal() if user.totp_secret else ""
    # Which factors it stands for: where the server asks for one more since, a pass without it counts no longer.
    asked = " ".join(factor.name for factor in all_factors() if factor.wanted(policy, user))
    return keyed_hash(f"remembered {kind}", user.public_id, policy.server, asked, user.pin_hash, totp, secret)


def _remembers(user: VpnUser, policy: Policy, attempt: Attempt, kind: str, secret: str, now: float) -> bool:
    row = RememberedPass.objects.filter(
        user=user,
        scope=policy.server,
        kind=kind,
        device_id=attempt.device_id,
        device_name=attempt.device_name,
        expires__gt=clock.moment(now),
    ).first()
    return row is not None and hmac.compare_digest(row.digest, _digest(user, policy, kind, secret))


def _remember_pass(user: VpnUser, policy: Policy, attempt: Attempt, now: float) -> None:
    for kind, secret, ttl in (("grace", attempt.password, policy.grace), ("token", attempt.token, policy.token_ttl)):
        if secret and ttl:
            RememberedPass.objects.update_or_create(
                user=user,
                scope=policy.server,
                kind=kind,
                device_id=attempt.device_id,
                device_name=attempt.device_name,
                defaults={
                    "digest": _digest(user, policy, kind, secret),
                    "expires": clock.moment(now) + timedelta(seconds=ttl),
                },
            )


def password_mode(user: VpnUser, policy: Policy) -> str | None:
    """Which secret the client must ask its user for, as the profile's header spells it."""
    wanted = {factor.name for factor in all_factors() if factor.wanted(policy, user)}
    if wanted == {"pin", "totp"}:
        return "otp_pin"
    if "totp" in wanted:
        return "otp"
    return "pin" if wanted else None
