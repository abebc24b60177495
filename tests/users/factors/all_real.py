"""All factors of the registry at once, each with its counterpart, and one user who has them all.

Real are yubiserver, slapd, and all that is judged here. RADIUS is answered packet by packet; Duo, Okta and OneLogin,
whose services cannot be reached, are stand-ins that were written from their documentation; a sign-in page's outcome is
stored as the page stores it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from core.crypto import Secret
from core.redis_store import redis_client
from tests.attempts import TOTP_SECRET, a_policy, an_attempt, code_at, pin_hash, wrong_code
from tests.counterpart import Asked, Said, serving
from tests.protocol_client import NOW
from users.authorize import Pending, Verdict, authorize
from users.factors.base import AskedFactor
from users.factors.device import enrolment as devices
from users.factors.yubikey.enrolment import add_key
from users.models import Provider, SignIn, VpnUser, WrongAttempts
from users.signin import sign_ins

from .duo_service import ALLOW, IKEY, SKEY, DuoService, ok
from .ldap.slapd import OURS, OURS_PASSWORD, PASSWORD, PEOPLE, Slapd, person
from .oidc.liar import CLIENT, Liar, lying
from .oidc.liar import SECRET as OIDC_SECRET
from .okta_service import TOKEN, OktaService, error, said
from .onelogin_service import CLIENT as ONELOGIN_CLIENT
from .onelogin_service import SECRET as ONELOGIN_SECRET
from .onelogin_service import SUCCESS, OneLoginService
from .onelogin_service import error as onelogin_error
from .passkey.visits import OwnPasskeys, a_maker
from .radius.freeradius import SECRET as RADIUS_SECRET
from .radius.liar import REJECT, password_of, reply
from .radius.liar import Liar as RadiusLiar
from .saml.liar import SamlLiar
from .yubiserver import Key, yubiserver

DEVICE = "a" * 64
# What is typed for those whose right answer stays the same, and something of the same form that is wrong.
FIXED = {
    "pin": ("w0mbat", "w0mbet"),
    "radius": ("135790sesame246802", "135790sesams246802"),
    "ldap": (PASSWORD, f"{PASSWORD}s"),
    "duo_otp": ("246810", "246811"),
    "okta_otp": ("135791", "135792"),
    "onelogin_otp": ("975318", "975319"),
}


@dataclass
class Providers:
    """``yes``: what is said on phones, by kind; ``settings``: what is stored of each, and its secrets."""

    stack: ExitStack
    yes: dict[str, bool] = field(default_factory=dict)
    settings: dict[str, tuple[dict[str, Any], dict[str, str]]] = field(default_factory=dict)
    key: Key = field(default_factory=lambda: Key("cccccccccccb"))

    def __post_init__(self) -> None:
        self._duo()
        self._okta()
        self._onelogin()
        radius = self.stack.enter_context(RadiusLiar())
        radius.says = lambda request, before: [
            reply(request) if password_of(request) == FIXED["radius"][0] else reply(request, REJECT)
        ]
        says = {"servers": radius.address, "patience": 30, "timeout": 30, "tries": 1}
        self.settings["radius"] = says, {"shared_secret": RADIUS_SECRET}
        slapd = self.stack.enter_context(Slapd(person("alice")))
        says = {"servers": slapd.ldaps, "bind_dn": OURS, "base": PEOPLE, "ca": slapd.authority.pem}
        self.settings["ldap"] = {**says, "timeout": 30, "patience": 30}, {"bind_password": OURS_PASSWORD}
        server = self.stack.enter_context(yubiserver(self.key))
        self.settings["yubikey"] = {"servers": server.url, "client_id": "1"}, {"secret_key": server.key}
        issuer = self.stack.enter_context(lying(Liar())).url
        says = {"issuer": issuer, "client_id": CLIENT, "our_address": "https://vpn.acme.example"}
        self.settings["oidc"] = says, {"client_secret": OIDC_SECRET}

        says = {"metadata": SamlLiar().metadata, "our_address": "https://vpn.acme.example"}
        self.settings["saml"] = says, {"our_key": ""}

    def says_yes(self, kind: str) -> bool:
        return self.yes.get(kind, True)

    def _duo(self) -> None:
        def judge(sent: dict[str, str]) -> Said:
            push = sent["factor"] == "push"
            right = self.says_yes("duo") if push else sent["passcode"] == FIXED["duo_otp"][0]
            return ALLOW if right else ok(result="deny", status="deny", status_msg="…")

        url = self.stack.enter_context(serving(DuoService(NOW, auth=judge))).url
        for kind in ("duo", "duo_otp"):
            self.settings[kind] = {"address": url, "integration_key": IKEY}, {"secret_key": SKEY}

    def _okta(self) -> None:
        def judge(asked: Asked) -> Said:
            typed = json.loads(asked.body).get("passCode") if asked.body else ""
            right = typed == FIXED["okta_otp"][0]
            code = said({"factorResult": "SUCCESS"}) if right else error(403, "E0000068")
            result = {"factorResult": "SUCCESS" if self.says_yes("okta") else "REJECTED"}
            return OktaService(results=[result], code=code)(asked)

        url = self.stack.enter_context(serving(judge)).url
        for kind in ("okta", "okta_otp", "okta_number"):
            self.settings[kind] = {"address": url}, {"token": TOKEN}

    def _onelogin(self) -> None:
        good: set[str] = set()

        def judge(asked: Asked) -> Said:
            typed = json.loads(asked.body).get("otp") if asked.body else ""
            right = typed == FIXED["onelogin_otp"][0]
            result = {"status": "accepted" if self.says_yes("onelogin") else "rejected"}
            code = SUCCESS if right else onelogin_error(401, "InvalidCredentials")
            return OneLoginService(results=[result], code=code, good=good)(asked)

        url = self.stack.enter_context(serving(judge)).url
        for kind in ("onelogin", "onelogin_otp"):
            says = {"address": url, "client_id": ONELOGIN_CLIENT}
            self.settings[kind] = says, {"client_secret": ONELOGIN_SECRET}


@dataclass
class Alice:
    """Has every factor. Each attempt of hers is the first that anybody knows of."""

    user: VpnUser
    providers: Providers
    attempts: int = 0

    def __post_init__(self) -> None:
        OwnPasskeys(self.user).add(a_maker())  # first: who has more must prove it
        for kind, (says, secrets) in self.providers.settings.items():
            Provider.objects.create(kind=kind, name=kind, settings=says, secrets=Secret.of(json.dumps(secrets)))
        self.user.enrolments.create(kind="pin", hash=pin_hash(FIXED["pin"][0]))
        self.user.enrolments.create(kind="totp", secret=Secret.of(TOTP_SECRET))
        add_key(self.user, self.providers.key.public)
        row = devices.register(self.user, DEVICE, "device-1", "heron", "linux", NOW)
        assert devices.confirm(row, NOW)

    def typed(self, kind: str, wrong: bool = False) -> str:
        """Empty where nothing is."""
        if kind == "totp":
            return wrong_code() if wrong else code_at(NOW)
        if kind == "yubikey":
            return f"{self.providers.key.public}{'b' * 32}" if wrong else self.providers.key.touch()
        return FIXED[kind][wrong] if kind in FIXED else ""

    def tries(self, kinds: Iterable[str], password: str, wrong: str = "") -> Verdict:
        """What comes of ``password``. ``wrong``: who says no of those for whom nothing is typed."""
        redis_client().flushall()
        WrongAttempts.objects.all().delete()
        SignIn.objects.all().delete()
        self.user.enrolments.filter(kind="totp").delete()
        self.user.enrolments.create(kind="totp", secret=Secret.of(TOTP_SECRET))
        self.providers.yes = {wrong: False}
        self.attempts += 1
        key = "" if wrong == "device" else DEVICE
        attempt = an_attempt(password, wg_public_key=f"key-{self.attempts}", device_key=key)
        policy = a_policy(self.user, factors=tuple(AskedFactor(kind) for kind in kinds))
        while True:
            verdict = authorize(self.user, policy, attempt, NOW)
            page = SignIn.objects.filter(outcome="").first()
            if not isinstance(verdict, Pending) or page is None:
                return verdict
            refusal = {"oidc": "declined", "saml": "declined", "passkey": "wrong", "okta_number": "rejected"}[page.kind]
            sign_ins.end(page, refusal if page.kind == wrong else sign_ins.OK)
