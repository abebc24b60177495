"""The codes of an authenticator, as people write them."""

from __future__ import annotations

import hmac
import unicodedata

import pyotp

from core.crypto import Secret

STEP = 30
# One step either way: phones' clocks drift, and typing takes a while.
DRIFT_STEPS = (0, -1, 1)


def plain_code(written: str) -> str:
    """ASCII digits, of a code as somebody wrote it."""
    return "".join(str(unicodedata.decimal(each, "?")) for each in written if not each.isspace())


def matching_step(secret: Secret, code: str, now: float) -> int | None:
    """The time step whose code this is, None if it is of none near ``now``."""
    totp, plain = pyotp.TOTP(secret.reveal()), plain_code(code)
    current = int(now) // STEP
    matches = [step for drift in DRIFT_STEPS if hmac.compare_digest(totp.generate_otp(step := current + drift), plain)]
    return matches[0] if matches else None
