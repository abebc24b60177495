"""For each factor of the registry its counterpart, and how each case of the table is brought about with it.

Each case says what one attempt of Alice came to: "allowed", "waiting" where she is asked back, or the code of the
refusal.
"""

from .bench import Bench
from .device import DeviceBench
from .duo import DuoBench, DuoPasscodeBench
from .ldap import LdapBench
from .oidc import OidcBench
from .okta import OktaBench, OktaPasscodeBench
from .okta_number import OktaNumberBench
from .onelogin import OneLoginBench, OneLoginPasscodeBench
from .passkey import PasskeyBench
from .radius import RadiusBench
from .saml import SamlBench
from .typed import PinBench, TotpBench
from .yubikey import YubiKeyBench

BENCHES: dict[str, type[Bench]] = {
    each.kind: each
    for each in (
        PinBench, TotpBench, YubiKeyBench, RadiusBench, LdapBench, DuoBench, DuoPasscodeBench, OktaBench,
        OktaPasscodeBench, OktaNumberBench, OneLoginBench, OneLoginPasscodeBench, OidcBench, SamlBench,
        PasskeyBench, DeviceBench,
    )
}  # fmt: skip

__all__ = ["BENCHES", "Bench"]
