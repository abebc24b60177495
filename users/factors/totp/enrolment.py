"""Setting up and removing a user's authenticator. Every door (admin, command, API) goes through here."""

from __future__ import annotations

import pyotp

from core.crypto import Secret
from core.totp import new_secret
from users.factors import enrolments
from users.models import Enrolment, VpnUser

KIND = "totp"


def provisioning_uri(user: VpnUser, secret: Secret) -> str:
    """The ``otpauth://`` address that authenticator apps read from a QR code."""
    issuer = user.organization.name
    return pyotp.TOTP(secret.reveal()).provisioning_uri(name=user.name, issuer_name=issuer)


def set_up_totp(user: VpnUser) -> Enrolment:
    """Give ``user`` a new secret; the old one, and what was remembered of passes, is void."""
    return enrolments.enrol(user, KIND, secret=new_secret())


def set_up_in_place_of(before: Enrolment | None, user: VpnUser, secret: Secret, step: int) -> Enrolment:
    """As ``set_up_totp``, by the user, who has proven ``before`` and has shown that their app has ``secret``, by its
    code of time step ``step``: that is used. Raise ``enrolments.Changed``."""
    return enrolments.enrol_in_place_of(before, user, KIND, secret=secret, counter=step)


def remove_totp(user: VpnUser) -> None:
    enrolments.withdraw(user, KIND)
