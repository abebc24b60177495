"""Which account of a provider is a user's: its issuer and subject, from the first sign-in on."""

from __future__ import annotations

import hmac
import json
from collections.abc import Mapping
from typing import Any

from django.db import transaction

from core.crypto import Secret
from core.locking import lock
from users.factors import enrolments
from users.factors.providers import ProviderConfig
from users.models import Enrolment, VpnUser
from users.signin.models import SignInGrant
from users.signin.outcomes import NotSignedIn

KIND = "oidc"


def accounts(enrolment: Enrolment | None) -> dict[str, str]:
    """The subject at each issuer."""
    return dict(json.loads(enrolment.secret.reveal())) if enrolment and enrolment.secret else {}


@transaction.atomic
def recognise(user: VpnUser, config: ProviderConfig, claims: Mapping[str, Any], *, first: bool = True) -> None:
    """Whether the account of these (verified) claims is the user's. The first one that has their address is, from then
    on and whatever its address will be; not where ``first`` is False. Raise ``NotSignedIn``."""
    lock(user)
    known = accounts(Enrolment.objects.filter(user=user, kind=KIND).first())
    issuer, subject = str(config.settings["issuer"]), str(claims["sub"])
    if issuer in known:
        if not hmac.compare_digest(known[issuer].encode(), subject.encode()):
            raise NotSignedIn("other_account")
        return
    address = claims.get("email")
    if not first or not user.email or not isinstance(address, str) or address.casefold() != user.email.casefold():
        raise NotSignedIn("other_account", "first sign-in")
    # Some write the word.
    verified = claims.get("email_verified")
    # By identity: what is only equal to True (1, say) was said by nobody who meant it.
    if not (verified is True or verified == "true") and not config.settings["trust_addresses"]:
        raise NotSignedIn("address_unverified")
    enrolments.enrol(user, KIND, secret=Secret.of(json.dumps({**known, issuer: subject})))


@transaction.atomic
def forget_accounts(user: VpnUser) -> None:
    """The next account that has their address is theirs."""
    enrolments.withdraw(user, KIND)
    SignInGrant.objects.filter(user=user, provider__kind=KIND).delete()
