"""The factors there are, loaded when first asked for: a new one is a new folder and a line here."""

from __future__ import annotations

from functools import cache
from importlib import import_module

from .base import Factor

# In the order in which they are claimed and logged, within what ``wanted.wanted_factors`` says.
FACTORS = {
    "pin": "users.factors.pin.factor.Pin",
    "totp": "users.factors.totp.factor.Totp",
    "yubikey": "users.factors.yubikey.factor.YubiKey",
    "radius": "users.factors.radius.factor.Radius",
    "ldap": "users.factors.ldap.factor.Ldap",
    "duo_otp": "users.factors.duo.factor.DuoPasscode",
    "okta_otp": "users.factors.okta.factor.OktaPasscode",
    "onelogin_otp": "users.factors.onelogin.factor.OneLoginPasscode",
    "oidc": "users.factors.oidc.factor.OpenIdConnect",
    "saml": "users.factors.saml.factor.Saml",
    "passkey": "users.factors.passkey.factor.Passkey",
    "okta_number": "users.factors.okta.number.OktaNumber",
    "duo": "users.factors.duo.factor.DuoPush",
    "okta": "users.factors.okta.factor.OktaPush",
    "onelogin": "users.factors.onelogin.factor.OneLoginPush",
    "device": "users.factors.device.factor.RegisteredDevice",
}


@cache
def load(kind: str) -> Factor:
    """Raise ``KeyError`` for a kind that is not registered."""
    module, _, cls = FACTORS[kind].rpartition(".")
    factor = getattr(import_module(module), cls)()
    if not isinstance(factor, Factor):
        raise TypeError(f"{FACTORS[kind]} is not a Factor")
    return factor
