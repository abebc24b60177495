"""The factors there are, loaded when first asked for: a new one is a new file and a line here."""

from __future__ import annotations

from functools import cache
from importlib import import_module

from .base import Factor

# In the order in which a password is taken apart and its parts are judged.
FACTORS = {
    "pin": "users.factors.pin.Pin",
    "totp": "users.factors.totp.Totp",
}


@cache
def load(name: str) -> Factor:
    module, _, cls = FACTORS[name].rpartition(".")
    factor = getattr(import_module(module), cls)()
    if not isinstance(factor, Factor):
        raise TypeError(f"{FACTORS[name]} is not a Factor")
    return factor


def all_factors() -> list[Factor]:
    return [load(name) for name in FACTORS]
