"""Which factors one user must pass on one server."""

from __future__ import annotations

from dataclasses import dataclass

from users.models import VpnUser

from .base import AskedFactor, Factor, Policy
from .registry import FACTORS, load


class NotInstalled(Exception):
    """A server asks for a factor that this installation does not have. The argument is its kind."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A factor that this user must pass, with what the server says about it."""

    factor: Factor
    asked: AskedFactor

    @property
    def kind(self) -> str:
        return self.factor.kind


def wanted_factors(policy: Policy, user: VpnUser) -> list[Wanted]:
    """In the registry's order, those that ask back last. Raise ``NotInstalled``: leaving out a factor that nobody can
    judge would let people in without it."""
    asked_of = {asked.kind: asked for asked in policy.factors}
    if missing := sorted(asked_of.keys() - FACTORS.keys()):
        raise NotInstalled(missing[0])
    asked = [Wanted(load(kind), asked_of[kind]) for kind in FACTORS if kind in asked_of]
    wanted = [each for each in asked if each.asked.mode == "required" or each.factor.enrolled(user)]
    return sorted(wanted, key=lambda each: each.factor.asks_back)


@dataclass(frozen=True, slots=True)
class ProfileFlags:
    """What the profile's header says of factors. ``push_auth_ttl`` is in seconds."""

    password_mode: str | None
    push_auth: bool
    push_auth_ttl: int
    sso_auth: bool
    device_auth: bool


def profile_flags(user: VpnUser, policy: Policy) -> ProfileFlags:
    """What a client must ask its user for and be ready to do. ``password_mode`` names passcodes first, then the secret
    of free form: ``otp_pin``."""
    try:
        wanted = wanted_factors(policy, user)
    except NotInstalled:
        wanted = []  # a connect is refused whatever the client asks for
    # Stable: passcodes keep the registry's order among themselves.
    wanted.sort(key=lambda each: each.factor.typed is not None and each.factor.typed.form is None)
    contributions = [each.factor.contribution(each.asked) for each in wanted]
    push_ttl = max((each.push_ttl for each in contributions), default=0)
    return ProfileFlags(
        password_mode="_".join(each.mode for each in contributions if each.mode) or None,
        push_auth=push_ttl > 0,
        push_auth_ttl=push_ttl,
        sso_auth=any(each.sso for each in contributions),
        device_auth=any(each.device for each in contributions),
    )
