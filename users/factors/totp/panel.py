"""The authenticator on a user's page. Its secret is shown once, when it is set up."""

from __future__ import annotations

from collections.abc import Mapping

import segno

from users.factors.panels import Done, FactorPanel, ShownOnce
from users.models import VpnUser

from .enrolment import provisioning_uri, remove_totp, set_up_totp


def _set_up(user: VpnUser, sent: Mapping[str, str]) -> Done:
    secret = set_up_totp(user).secret
    qr = segno.make(provisioning_uri(user, secret), error="m").svg_data_uri(scale=5, border=2)
    shown = ShownOnce(f"Authenticator for {user}", "totp/shown_once.html", {"qr": qr, "secret": secret.reveal()})
    return Done(f"Set up an authenticator for {user}.", shown)


def _remove(user: VpnUser, sent: Mapping[str, str]) -> Done:
    remove_totp(user)
    return Done(f"Removed the authenticator of {user}.")


PANEL = FactorPanel("totp/panel.html", {"set_up": _set_up, "remove": _remove})
