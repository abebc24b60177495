"""TOTP (RFC 6238): six digits of an authenticator app, new every 30 seconds.

They are taken as apps show them and people write them: with a space in the middle, of whatever kind and beside them
too, and in the digits of any script (full-width ones, say, which a Japanese keyboard makes)."""

from __future__ import annotations

import hmac
import unicodedata

import pyotp

from .crypto import Secret

STEP = 30
# One step either way: phones' clocks drift, and typing takes a while.
DRIFT_STEPS = (0, -1, 1)


def new_secret() -> Secret:
    return Secret.of(pyotp.random_base32(length=32))


def plain_code(written: str) -> str:
    """ASCII digits, of a code as somebody wrote it."""
    return "".join(str(unicodedata.decimal(each, "?")) for each in written if not each.isspace())


def matching_step(secret: Secret, code: str, now: float) -> int | None:
    """The time step whose code this is, None if it is of none near ``now``."""
    totp, plain = pyotp.TOTP(secret.reveal()), plain_code(code)
    current = int(now) // STEP
    matches = [step for drift in DRIFT_STEPS if hmac.compare_digest(totp.generate_otp(step := current + drift), plain)]
    return matches[0] if matches else None
