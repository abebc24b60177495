"""Which account of a provider is a user's: its issuer and subject, from the first sign-in on."""

from __future__ import annotations

import hmac
import json
from dataclasses import dataclass, field

from django.db import transaction

from core.crypto import Secret
from core.locking import lock
from users.factors import enrolments
from users.models import Enrolment, VpnUser

from .models import SignInGrant
from .outcomes import NotSignedIn


@dataclass(frozen=True, slots=True)
class Account:
    """Who a provider says has signed in: ``subject`` is its own id of them, good at ``issuer`` alone. ``address``:
    their e-mail address, empty where it names none; ``verified``: whether nobody else can have written it there."""

    issuer: str
    subject: str = field(repr=False)
    address: str = field(repr=False)
    verified: bool


def accounts(enrolment: Enrolment | None) -> dict[str, str]:
    """The subject at each issuer."""
    return dict(json.loads(enrolment.secret.reveal())) if enrolment and enrolment.secret else {}


@transaction.atomic
def recognise(user: VpnUser, kind: str, account: Account, *, first: bool = True) -> None:
    """Whether ``account`` is the user's. The first one that has their address is, from then on and whatever its address
    will be; not where ``first`` is False. Raise ``NotSignedIn``."""
    lock(user)
    known = accounts(Enrolment.objects.filter(user=user, kind=kind).first())
    if account.issuer in known:
        if not hmac.compare_digest(known[account.issuer].encode(), account.subject.encode()):
            raise NotSignedIn("other_account")
        return
    if not first or not user.email or account.address.casefold() != user.email.casefold():
        raise NotSignedIn("other_account", "first sign-in")
    if not account.verified:
        raise NotSignedIn("address_unverified")
    enrolments.enrol(user, kind, secret=Secret.of(json.dumps({**known, account.issuer: account.subject})))


@transaction.atomic
def forget_accounts(user: VpnUser, kind: str) -> None:
    """The next account that has their address is theirs."""
    enrolments.withdraw(user, kind)
    SignInGrant.objects.filter(user=user, provider__kind=kind).delete()
