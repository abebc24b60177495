"""The authenticator on a user's page. Its secret is shown once, when it is set up."""

from __future__ import annotations

from collections.abc import Mapping

from users.factors.enrolments import Changed
from users.factors.panels import Done, FactorPanel, NotDone, ShownOnce
from users.models import Enrolment, VpnUser

from . import recovery
from .enrolment import KIND, provisioning_uri, remove_totp, set_up_totp
from .qr import qr_of


def _set_up(user: VpnUser, sent: Mapping[str, str]) -> Done:
    secret = set_up_totp(user).secret
    qr = qr_of(provisioning_uri(user, secret))
    shown = ShownOnce(f"Authenticator for {user}", "totp/shown_once.html", {"qr": qr, "secret": secret.reveal()})
    return Done(f"Set up an authenticator for {user}.", shown)


def _remove(user: VpnUser, sent: Mapping[str, str]) -> Done:
    remove_totp(user)
    return Done(f"Removed the authenticator of {user}.")


def _new_codes(user: VpnUser, sent: Mapping[str, str]) -> Done:
    enrolment = Enrolment.objects.filter(user=user, kind=KIND).first()
    try:
        codes = recovery.make(enrolment) if enrolment else []
    except Changed:
        codes = []
    if not codes:
        raise NotDone("There are no recovery codes without an authenticator.")
    shown = ShownOnce(f"Recovery codes for {user}", "totp/recovery_shown_once.html", {"codes": codes})
    return Done(f"Made new recovery codes for {user}.", shown)


def _data(enrolment: Enrolment | None) -> Mapping[str, object]:
    return {"left": recovery.left(enrolment) if enrolment else 0}


ACTIONS = {"set_up": _set_up, "remove": _remove, "new_codes": _new_codes}
PANEL = FactorPanel("totp/panel.html", ACTIONS, _data)
