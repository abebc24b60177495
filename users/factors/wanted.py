"""Which factors one user must pass on one server."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from users.models import Enrolment, VpnUser

from .base import AskedFactor, Factor, Override, Policy
from .held import held_by
from .providers import NotConfigured, config_for
from .registry import FACTORS, load


class NotInstalled(Exception):
    """A factor is asked for that this installation does not have. The argument is its kind."""


# Why nobody can judge a factor that is wanted, each with its kind: a connect is refused, whatever it offers.
NOBODY_CAN_JUDGE = {NotInstalled: "not_installed", NotConfigured: "not_configured"}


@dataclass(frozen=True, slots=True)
class Wanted:
    """A factor that this user must pass, with what the server says about it and what the user has of it. ``waived``: it
    is not judged this time, and the user, whose client asks for it all the same, may have typed something for it."""

    factor: Factor
    asked: AskedFactor
    enrolment: Enrolment | None
    waived: bool = False

    @property
    def kind(self) -> str:
        return self.factor.kind

    def enrolled(self, user: VpnUser) -> bool:
        return self.factor.enrolled(user, self.enrolment)


def wanted_factors(policy: Policy, user: VpnUser, now: float) -> list[Wanted]:
    """In the registry's order; before the others those that ask a provider, which may refuse before a code is used up
    here, and last those that ask back. Raise one of ``NOBODY_CAN_JUDGE``: leaving out a factor that nobody can judge
    would let people in without it."""
    held = held_by(user.pk, now)
    asked_of = _with_overrides({asked.kind: asked for asked in policy.factors}, held.overrides)
    asked = [Wanted(load(kind), asked_of[kind], held.enrolments.get(kind)) for kind in FACTORS if kind in asked_of]
    for each in asked:
        if each.factor.missing():
            raise NotInstalled(each.kind)
    wanted = [with_provider(each) for each in asked if each.asked.mode == "required" or each.enrolled(user)]
    return sorted(wanted, key=lambda each: (each.factor.asks_back, each.factor.provider_form is None))


def asked_of_user(policies: Iterable[Policy], user: VpnUser, now: float) -> dict[str, list[AskedFactor]]:
    """By kind, what servers with these policies ask of the user, whatever they have. A server that nobody can judge for
    asks nothing: nobody gets in there, and nothing that users do helps."""
    overrides = held_by(user.pk, now).overrides
    found: dict[str, list[AskedFactor]] = {}
    for policy in policies:
        try:
            asked = _with_overrides({asked.kind: asked for asked in policy.factors}, overrides)
        except NotInstalled:
            continue
        for kind, each in asked.items():
            found.setdefault(kind, []).append(each)
    return found


def with_provider(wanted: Wanted) -> Wanted:
    """Raise ``NotConfigured``."""
    form = wanted.factor.provider_form
    if form is None:
        return wanted
    config = config_for(wanted.kind, form, wanted.asked.provider_id)
    return replace(wanted, asked=replace(wanted.asked, provider=config))


def _with_overrides(by_server: dict[str, AskedFactor], overrides: Mapping[str, Override]) -> dict[str, AskedFactor]:
    """What is asked of one user: what their server asks, and what was said for them alone."""
    # Also where an exemption would take it out again: a server whose rule nobody here understands lets nobody in.
    if missing := sorted((by_server.keys() | overrides.keys()) - FACTORS.keys()):
        raise NotInstalled(missing[0])
    asked = dict(by_server)
    for kind, override in overrides.items():
        if override == "required":
            asked[kind] = replace(asked.get(kind, AskedFactor(kind)), mode="required", always=True)
        else:
            asked.pop(kind, None)
    return asked


@dataclass(frozen=True, slots=True)
class ProfileFlags:
    """What the profile's header says of factors. ``push_auth_ttl`` is in seconds."""

    password_mode: str | None
    push_auth: bool
    push_auth_ttl: int
    sso_auth: bool
    device_auth: bool


def profile_flags(user: VpnUser, policy: Policy, now: float) -> ProfileFlags:
    """What a client must ask its user for and be ready to do. ``password_mode`` names passcodes first, then the secret
    of free form: ``otp_pin``."""
    try:
        wanted = wanted_factors(policy, user, now)
    except tuple(NOBODY_CAN_JUDGE):
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
