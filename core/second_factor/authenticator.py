"""An administrator's authenticator app."""

from __future__ import annotations

import pyotp
from django.contrib.auth.models import User
from django.db import transaction

from core import totp
from core.clock import moment
from core.crypto import Secret
from core.locking import lock
from core.models import AdminAuthenticator

from . import audit
from .proof import has_factor


class NotSetUp(Exception):
    """Its text says why."""


def uri(administrator: User, secret: Secret, site: str) -> str:
    """The ``otpauth://`` address that authenticator apps read from a QR code. ``site``: the host name."""
    name = administrator.get_username()
    return pyotp.TOTP(secret.reveal()).provisioning_uri(name=name, issuer_name=f"VPN admin {site}")


@transaction.atomic
def set_up(administrator: User, secret: Secret, code: str, now: float, *, first: bool) -> None:
    """Have this secret asked for from now on, in place of the one of before, once a ``code`` of it shows that the app
    has it. ``first``: whoever asks has shown no second factor, so there must be none yet."""
    lock(administrator)
    if first and has_factor(administrator):
        raise NotSetUp("This account has a second factor already: sign in with that.")
    step = totp.matching_step(secret, code, now)
    if step is None:
        raise NotSetUp("That was not the app's present code. Try the next one; is the phone's clock set by itself?")
    values = {"secret": secret, "counter": step, "created": moment(now)}
    AdminAuthenticator.objects.update_or_create(administrator=administrator, defaults=values)
    audit.note(administrator, "Set up an authenticator app as second factor.")


def claim(administrator: User, code: str, now: float) -> bool:
    """Use up the code of this time step. The conditional update is the claim: of two requests with one code, in
    whichever processes, one finds the older step."""
    row = AdminAuthenticator.objects.filter(administrator=administrator).first()
    step = totp.matching_step(row.secret, code, now) if row else None
    if row is None or step is None:
        return False
    return AdminAuthenticator.objects.filter(pk=row.pk, counter__lt=step).update(counter=step) == 1
