"""The YubiKeys on a user's own page: added by touching them, with a proof of all that the user has, and removed so."""

from __future__ import annotations

from collections.abc import Mapping

from core.names import name_given
from users.factors.enrolments import Changed
from users.factors.panels import Done, NotDone, OwnCase, OwnPanel
from users.factors.proofs import prove

from .enrolment import MOST_KEYS, add_key_in_place_of, key_id, keys_of, remove_key_in_place_of, why_not
from .panel import touched, validate_new

CHANGED = "Nothing was changed: your YubiKeys were, at the same moment."


def _add(case: OwnCase) -> Done:
    otp = touched(case.sent)
    # Before anything is used up.
    if why := why_not(case.enrolment, key_id(otp)):
        raise NotDone(why.replace("The user has", "You have"))
    proven = prove(case)
    validate_new(otp)
    name = name_given(case.sent.get("name", ""), key_id(otp))
    try:
        add_key_in_place_of(case.enrolment, case.user, key_id(otp), name)
    except Changed:
        raise NotDone(CHANGED) from None
    return Done(f"Added the YubiKey “{name}”.", detail=proven)


def _remove(case: OwnCase) -> Done:
    key, keys = case.sent.get("key", ""), keys_of(case.enrolment)
    if key not in keys:
        raise NotDone("This YubiKey is gone already.")
    if len(keys) == 1:
        raise NotDone("Your last YubiKey stays: add another one first, or ask your administrator.")
    proven = prove(case)
    try:
        remove_key_in_place_of(case.enrolment, case.user, key)
    except Changed:
        raise NotDone(CHANGED) from None
    return Done(f"Removed the YubiKey “{keys[key]}”.", detail=proven)


def _data(case: OwnCase) -> Mapping[str, object]:
    keys = keys_of(case.enrolment)
    return {"keys": keys, "more": len(keys) < MOST_KEYS}


OWN_PANEL = OwnPanel("yubikey/own.html", {"add": _add, "remove": _remove}, _data, proof="Touch a YubiKey that you have")
