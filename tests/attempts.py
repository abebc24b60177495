"""What the tests of authorize share: a policy and an attempt that pass, to change one thing at a time."""

from __future__ import annotations

import dataclasses
from functools import cache
from typing import Any

import pyotp

from core.crypto import Secret
from servers.models import Server
from users.factors.base import AskedFactor, Attempt, Policy
from users.factors.pin.enrolment import hash_pin
from users.models import VpnUser

from .protocol_client import NOW

TOTP_SECRET = "JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP"


@cache
def pin_hash(pin: str) -> str:
    """Argon2 takes its time; once a PIN is enough."""
    return hash_pin(pin)


def code_at(moment: float, secret: str = TOTP_SECRET) -> str:
    return pyotp.TOTP(secret).at(int(moment))


def wrong_code(moment: float = NOW) -> str:
    """Six digits that are no code of any time near ``moment``."""
    near = {code_at(moment + 30 * step) for step in range(-45, 46)}
    return next(code for code in (f"{number:06}" for number in range(10)) if code not in near)


def enrol(user: VpnUser, pin: str = "", totp: bool = False) -> VpnUser:
    """Exactly in these."""
    user.enrolments.all().delete()
    if pin:
        user.enrolments.create(kind="pin", hash=pin_hash(pin))
    if totp:
        user.enrolments.create(kind="totp", secret=Secret.of(TOTP_SECRET))
    return user


def ask(server: Server, pin: str = "off", totp: bool = False) -> None:
    """Have the server ask for exactly these."""
    server.factors.all().delete()
    for each in asked(pin, totp):
        server.factors.create(kind=each.kind, mode=each.mode)


def asked(pin: str = "off", totp: bool = False) -> tuple[AskedFactor, ...]:
    pins = {"optional": (AskedFactor("pin", "optional"),), "required": (AskedFactor("pin"),)}.get(pin, ())
    return (*pins, AskedFactor("totp")) if totp else pins


def a_policy(user: VpnUser, pin: str = "off", totp: bool = False, **changes: Any) -> Policy:
    plain = Policy(
        server="a1b2c3",
        organizations=frozenset({user.organization_id}),
        groups=frozenset(),
        platforms=frozenset(),
        factors=asked(pin, totp),
        token_ttl=0,
        grace=0,
    )
    return dataclasses.replace(plain, **changes)


def an_attempt(password: str = "", token: str = "", **changes: Any) -> Attempt:
    plain = Attempt("device-1", "heron", "linux", "key-1", "198.51.100.7", password, token)
    return dataclasses.replace(plain, **changes)
