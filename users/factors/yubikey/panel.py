"""The YubiKeys on a user's page. One is added by touching it, so that nobody mistypes it and none is added that the
service does not know."""

from __future__ import annotations

from collections.abc import Mapping

from core.names import name_given
from users.factors.enrolments import Changed
from users.factors.panels import Done, FactorPanel, NotDone
from users.factors.providers import config_of
from users.models import Enrolment, Provider, VpnUser

from .enrolment import KIND, MOST_KEYS, OTP, add_key, key_id, keys_of, remove_key
from .form import YubiKeyService
from .service import client_of
from .validation import Said, validate

SOMETHING_CHANGED = "The user's YubiKeys were changed at the same moment. Try again."
WHY_NOT = {
    Said.WRONG: "The service does not know this YubiKey.",
    Said.USED: "That was used already. Touch the key again.",
    Said.REFUSED: "The service does not take us for a client of its: look at its client ID and secret key.",
    Said.NOT_BELIEVED: "The service's answer has a wrong signature: look at its secret key.",
    Said.SILENT: "The service does not answer.",
}


def _add(user: VpnUser, sent: Mapping[str, str]) -> Done:
    otp = touched(sent)
    validate_new(otp)
    try:
        add_key(user, key_id(otp), name_given(sent.get("name", ""), key_id(otp)))
    except (ValueError, Changed) as error:
        raise NotDone(str(error) or SOMETHING_CHANGED) from None
    return Done(f"Added the YubiKey {key_id(otp)} to {user}.")


def touched(sent: Mapping[str, str]) -> str:
    """What the new key typed, in lower case. Raise ``NotDone``."""
    otp = sent.get("otp", "").strip()
    if not OTP.fullmatch(otp):
        raise NotDone("That is not what a YubiKey types: touch it while the cursor is in the field.")
    return otp.lower()


def validate_new(otp: str) -> None:
    """Use it up at a service that knows the key. Raise ``NotDone``."""
    said = _validate(otp)
    if said is not Said.GOOD:
        raise NotDone(f"The YubiKey was not added. {WHY_NOT[said]}")


def _validate(otp: str) -> Said:
    """By whichever service knows the key."""
    said = None
    for provider in Provider.objects.filter(kind=KIND):
        said = validate(client_of(config_of(provider, YubiKeyService)), otp)
        if said is Said.GOOD:
            break
    if said is None:
        raise NotDone("Say first which service validates YubiKeys: add it under Providers.")
    return said


def _remove(user: VpnUser, sent: Mapping[str, str]) -> Done:
    key = sent.get("key", "")
    try:
        remove_key(user, key)
    except (ValueError, Changed) as error:
        raise NotDone(str(error) or SOMETHING_CHANGED) from None
    return Done(f"Removed the YubiKey {key} of {user}.")


def _data(enrolment: Enrolment | None) -> Mapping[str, object]:
    keys = keys_of(enrolment)
    return {"keys": keys, "more": len(keys) < MOST_KEYS}


PANEL = FactorPanel("yubikey/panel.html", {"add": _add, "remove": _remove}, _data)
