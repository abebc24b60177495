"""The passkeys on a user's page in the admin: users add them themselves, and only they can."""

from __future__ import annotations

from collections.abc import Mapping

from users.factors.panels import Done, FactorPanel, NotDone
from users.models import UserPasskey, VpnUser

from .enrolment import remove


def find(user: VpnUser, sent: Mapping[str, str]) -> UserPasskey:
    """The one that the form names. Raise ``NotDone``."""
    number = sent.get("passkey", "")
    pk = int(number) if number.isascii() and number.isdigit() and len(number) < 19 else 0
    passkey = UserPasskey.objects.filter(user=user, pk=pk).select_related("user").first()
    if passkey is None:
        raise NotDone("This passkey is gone already.")
    return passkey


def _remove(user: VpnUser, sent: Mapping[str, str]) -> Done:
    passkey = find(user, sent)
    remove(passkey, may_be_last=True)
    return Done(f"Removed the passkey “{passkey}” of {user}.")


PANEL = FactorPanel("passkey/panel.html", {"remove": _remove})
