"""Setting up and removing a user's authenticator. Every door (admin, command, API) goes through here."""

from __future__ import annotations

import pyotp
from django.db import transaction

from core.crypto import Secret
from users.factors.remembered import forget
from users.models import VpnUser


def new_secret() -> Secret:
    return Secret.of(pyotp.random_base32(length=32))


def provisioning_uri(user: VpnUser) -> str:
    """The ``otpauth://`` address that authenticator apps read from a QR code."""
    issuer = user.organization.name
    return pyotp.TOTP(user.totp_secret.reveal()).provisioning_uri(name=user.name, issuer_name=issuer)


def set_up_totp(user: VpnUser) -> None:
    """Give ``user`` a new secret; the old one, and what was remembered of passes, is void."""
    _store(user, new_secret())


def remove_totp(user: VpnUser) -> None:
    _store(user, Secret(""))


@transaction.atomic
def _store(user: VpnUser, secret: Secret) -> None:
    # A new secret starts anew: no step of the old one stands in the way of its first code.
    user.totp_secret, user.totp_last_step, user.totp_last_attempt = secret, 0, ""
    user.save(update_fields=["totp_secret", "totp_last_step", "totp_last_attempt"])
    forget(user)
