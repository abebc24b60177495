"""The authenticator on a user's own page: set up by its first code, set up anew with a proof of the old one, and its
recovery codes.

Until its first code came a new secret counts for nothing. It is kept by nobody but the form that asks for the code,
encrypted: whoever leaves the page begins anew, and no row of an abandoned one is left.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from core.crypto import CannotDecrypt, Secret
from core.totp import matching_step, new_secret
from users.factors.enrolments import Changed
from users.factors.panels import Done, NotDone, OwnCase, OwnPanel, ShownOnce, TryAgain
from users.factors.proofs import prove

from . import recovery
from .enrolment import provisioning_uri, set_up_in_place_of
from .qr import qr_of

# Seconds for which a new secret may wait for its first code.
PATIENCE = 600
ANEW = "The authenticator was not set up: something was changed meanwhile, or it took too long. Begin anew."


def _begin(case: OwnCase) -> Done:
    proven = prove(case)
    secret = new_secret()
    context = {
        "qr": qr_of(provisioning_uri(case.user, secret)),
        "secret": secret.reveal(),
        "pending": Secret.of(json.dumps(_pending(case) | {"began": case.now, "secret": secret.reveal()})).stored,
    }
    shown = ShownOnce("Scan this code with your authenticator app", "totp/own_first_code.html", context)
    return Done("Began to set up an authenticator.", shown, proven)


def _confirm(case: OwnCase) -> Done:
    pending = case.sent.get("pending", "")
    secret = _secret_of(case, pending)
    step = matching_step(secret, case.sent.get("code", ""), case.now)
    if step is None:
        shown = ShownOnce("One code of the new entry in your app", "totp/own_first_code.html", {"pending": pending})
        raise TryAgain("This was not the code of the new entry. Type the one that your app shows now.", shown)
    try:
        enrolment = set_up_in_place_of(case.enrolment, case.user, secret, step)
        codes = recovery.make(enrolment)
    except Changed:
        raise NotDone(ANEW) from None
    return Done("Set up an authenticator.", _shown(codes))


def _new_codes(case: OwnCase) -> Done:
    if case.enrolment is None:
        raise NotDone("You have no authenticator yet.")
    proven = prove(case)
    try:
        codes = recovery.make(case.enrolment)
    except Changed:
        raise NotDone("Your authenticator was set up anew at the same moment. Nothing was changed.") from None
    return Done("Made new recovery codes.", _shown(codes), proven)


def _shown(codes: list[str]) -> ShownOnce:
    return ShownOnce("Your recovery codes", "totp/own_recovery.html", {"codes": codes})


def _pending(case: OwnCase) -> dict[str, Any]:
    """What a new secret is for: nobody else's, in no other visit, and in the place of what was proven."""
    before = case.enrolment.pk if case.enrolment else None
    return {"for": "first code", "user": case.user.public_id, "visit": case.visit, "before": before}


def _secret_of(case: OwnCase, pending: str) -> Secret:
    try:
        found = json.loads(Secret(pending).reveal())
    except (CannotDecrypt, ValueError):
        raise NotDone(ANEW) from None
    fits = isinstance(found, dict) and _pending(case).items() <= found.items()
    if not fits or not 0 <= case.now - found["began"] <= PATIENCE:
        raise NotDone(ANEW)
    return Secret.of(found["secret"])


def _data(case: OwnCase) -> Mapping[str, object]:
    return {"left": recovery.left(case.enrolment) if case.enrolment else 0}


OWN_PANEL = OwnPanel(
    "totp/own.html",
    {"begin": _begin, "confirm": _confirm, "new_codes": _new_codes},
    _data,
    proof="A code of your authenticator, or a recovery code",
)
