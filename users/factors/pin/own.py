"""The PIN on a user's own page: chosen where they have none, changed with the one that they have."""

from __future__ import annotations

from collections.abc import Mapping

from users.factors.enrolments import Changed
from users.factors.panels import Done, NotDone, OwnCase, OwnPanel
from users.factors.proofs import prove

from .enrolment import KIND, LONGEST, SHORTEST, set_pin_in_place_of


def shortest(case: OwnCase) -> int:
    """As the strictest server that asks them has it."""
    said = [settings.get("shortest", SHORTEST) for settings in case.settings]
    return max([SHORTEST, *(number for number in said if isinstance(number, int))])


def _set(case: OwnCase) -> Done:
    pin = case.sent.get("pin", "")
    if pin != case.sent.get("again", ""):
        raise NotDone("The PIN was not set: the two were not the same.")
    # The old PIN alone; whoever has none shows what else they have.
    proven = prove(case, only=[KIND] if case.enrolment else None)
    try:
        set_pin_in_place_of(case.enrolment, case.user, pin, shortest(case))
    except ValueError as error:
        raise NotDone(f"The PIN was not set. {error}") from None
    except Changed:
        raise NotDone("The PIN was not set: another one was, at the same moment.") from None
    return Done("Your PIN is changed." if case.enrolment else "Your PIN is set.", detail=proven)


def _data(case: OwnCase) -> Mapping[str, object]:
    return {"shortest": shortest(case), "longest": LONGEST}


OWN_PANEL = OwnPanel("pin/own.html", {"set": _set}, _data, proof="Your PIN as it is now")
