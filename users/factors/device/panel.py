"""A user's registered devices on their page: those that wait are confirmed here, by the key that the device shows."""

from __future__ import annotations

from collections.abc import Mapping

from core import clock
from users.factors.panels import Done, FactorPanel, NotDone
from users.models import DeviceKey, VpnUser

from . import enrolment


def _key(user: VpnUser, sent: Mapping[str, str]) -> DeviceKey:
    number = sent.get("key", "")
    key = user.device_keys.filter(pk=int(number)).first() if number.isascii() and number.isdigit() else None
    if key is None:
        raise NotDone("This device is not here any more.")
    return key


def _confirm(user: VpnUser, sent: Mapping[str, str]) -> Done:
    key = _key(user, sent)
    # What was on the page that somebody compared, and not what has taken its place meanwhile.
    if sent.get("reg_key") != key.reg_key or not enrolment.confirm(key, clock.now()):
        raise NotDone("This device does not wait for confirmation any more.")
    return Done(f"Confirmed the device {key} of {user}.")


def _rename(user: VpnUser, sent: Mapping[str, str]) -> Done:
    key, name = _key(user, sent), " ".join(sent.get("name", "").split())
    if not name or len(name) > 128 or not name.isprintable():
        raise NotDone("A device's name is text of at most 128 characters.")
    enrolment.rename(key, name)
    return Done(f"Renamed the device {key} of {user} to {name}.")


def _revoke(user: VpnUser, sent: Mapping[str, str]) -> Done:
    key = _key(user, sent)
    enrolment.revoke(key, clock.now())
    return Done(f"Revoked the device {key} of {user}.")


PANEL = FactorPanel("device/panel.html", {"confirm": _confirm, "rename": _rename, "revoke": _revoke})
