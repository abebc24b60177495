"""The PIN on a user's page. It is never shown: a new one takes its place."""

from __future__ import annotations

from collections.abc import Mapping

from users.factors.panels import Done, FactorPanel, NotDone
from users.models import Enrolment, VpnUser

from .enrolment import LONGEST, SHORTEST, remove_pin, set_pin


def _set(user: VpnUser, sent: Mapping[str, str]) -> Done:
    try:
        set_pin(user, sent.get("pin", ""))
    except ValueError as error:
        raise NotDone(f"The PIN was not set. {error}") from None
    return Done(f"Set a PIN for {user}.")


def _remove(user: VpnUser, sent: Mapping[str, str]) -> Done:
    remove_pin(user)
    return Done(f"Removed the PIN of {user}.")


def _data(enrolment: Enrolment | None) -> Mapping[str, object]:
    return {"shortest": SHORTEST, "longest": LONGEST}


PANEL = FactorPanel("pin/panel.html", {"set": _set, "remove": _remove}, _data)
