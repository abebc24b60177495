"""For each factor of the registry its counterpart, and how each case of the table is brought about with it.

Those of Duo and Okta, whose services cannot be reached, are stand-ins that were written from their documentation. Each
case says what one attempt of Alice came to: "allowed", "waiting" where she is asked back, or the code of the refusal.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, ClassVar

import pytest
from django.conf import LazySettings

from core.crypto import Secret
from core.http import Limits
from servers.policy import policy_of
from tests.attempts import TOTP_SECRET, an_attempt, code_at, pin_hash, wrong_code
from tests.conftest import Clock
from tests.counterpart import Said, saying_bytes, serving
from tests.factories import Company
from tests.passkey_maker import PasskeyMaker
from tests.protocol_client import NOW, Identity
from users.authorize import Pending, authorize
from users.factors.device import enrolment as devices
from users.factors.duo import api as duo_api
from users.factors.oidc import discovery
from users.factors.okta import api as okta_api
from users.factors.okta.factor import OktaPush
from users.factors.yubikey import validation
from users.factors.yubikey.enrolment import add_key
from users.models import DeviceKey, Provider, UserPasskey, VpnUser
from wgpeers.models import Decision

from .duo_service import ALLOW, IKEY, SKEY, DuoService, ok
from .ldap.liars import Listener
from .ldap.slapd import OURS, OURS_PASSWORD, PASSWORD, PEOPLE, Authority, Slapd, person
from .oidc.attempts import Visit
from .oidc.attempts import a_provider as an_issuer
from .oidc.liar import Liar as OidcLiar
from .oidc.liar import lying, unsigned
from .okta_service import TOKEN, OktaService, error, said
from .passkey.visits import OwnPasskeys, PasskeyVisit, a_maker
from .radius.freeradius import SECRET
from .radius.liar import REJECT, password_of, reply
from .radius.liar import Liar as RadiusLiar
from .test_yubikey import API_KEY, saying
from .yubiserver import Key, yubiserver

# Of a counterpart that never answers: however long it is waited for, the same comes out.
SHORT = Limits(connect=60.0, total=1.0)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@dataclass
class Bench:
    """Alice and Bob, and a server that asks for this factor alone. ``stack`` ends what was begun."""

    kind: ClassVar[str]
    company: Company
    stack: ExitStack
    monkeypatch: pytest.MonkeyPatch
    settings: LazySettings
    clock: Clock
    alice: VpnUser = field(init=False)
    bob: VpnUser = field(init=False)
    identity: Identity = field(init=False)

    def __post_init__(self) -> None:
        self.alice, self.identity = self.company.hire("alice", email="alice@acme.example")
        self.bob, _ = self.company.hire("bob", email="bob@acme.example")
        self.company.server.factors.all().delete()
        self.company.server.factors.create(kind=self.kind)
        self.prepare()

    def prepare(self) -> None:
        """What all cases need."""

    def code(self, typed: str = "", user: VpnUser | None = None, **attempt: Any) -> str:
        fresh = VpnUser.objects.select_related("organization").get(pk=(user or self.alice).pk)
        verdict = authorize(fresh, policy_of(self.company.server), an_attempt(typed, **attempt), NOW)
        return "waiting" if isinstance(verdict, Pending) else getattr(verdict, "code", "allowed")

    def without_providers(self) -> None:
        """One that a server asks for stays."""
        self.company.server.factors.all().delete()
        Provider.objects.all().delete()
        self.company.server.factors.create(kind=self.kind)

    def provider(self, says: dict[str, Any], secrets: dict[str, str]) -> None:
        self.without_providers()
        stored = Secret.of(json.dumps(secrets))
        Provider.objects.create(kind=self.kind, name="theirs", settings=says, secrets=stored)

    def silent(self) -> str:
        """The address of a web server that takes a connection and says nothing."""

        def nothing(connection: socket.socket) -> None:
            while connection.recv(1 << 16):
                pass

        return self.stack.enter_context(saying_bytes(nothing)).url

    def nowhere(self) -> str:
        return f"http://localhost:{free_port()}"


class PinBench(Bench):
    kind = "pin"

    def prepare(self) -> None:
        self.alice.enrolments.create(kind="pin", hash=pin_hash("w0mbat"))
        self.bob.enrolments.create(kind="pin", hash=pin_hash("qu0kka77"))

    def right(self) -> str:
        return self.code("w0mbat")

    def wrong(self) -> str:
        return self.code("w0mbet")

    def others(self) -> str:
        assert self.code("qu0kka77", self.bob) == "allowed"
        return self.code("qu0kka77")


class TotpBench(Bench):
    kind = "totp"
    bobs: ClassVar[str] = "KRSXG5CTMVRXEZLUKRSXG5CTMVRXEZLU"

    def prepare(self) -> None:
        self.alice.enrolments.create(kind="totp", secret=Secret.of(TOTP_SECRET))
        self.bob.enrolments.create(kind="totp", secret=Secret.of(self.bobs))

    def right(self) -> str:
        return self.code(code_at(NOW))

    def wrong(self) -> str:
        return self.code(wrong_code())

    def replayed(self) -> str:
        assert self.right() == "allowed"
        return self.code(code_at(NOW), wg_public_key="another")

    def expired(self) -> str:
        return self.code(code_at(NOW - 120))

    def others(self) -> str:
        assert self.code(code_at(NOW, self.bobs), self.bob) == "allowed"
        return self.code(code_at(NOW, self.bobs), wg_public_key="another")


class YubiKeyBench(Bench):
    kind = "yubikey"

    def prepare(self) -> None:
        self.monkeypatch.setattr(validation, "LIMITS", SHORT)
        self.mine, self.bobs = Key("cccccccccccb"), Key("cccccccccccd")
        add_key(self.alice, self.mine.public)
        add_key(self.bob, self.bobs.public)

    def at(self, url: str, key: str = API_KEY) -> None:
        self.provider({"servers": url, "client_id": "1"}, {"secret_key": key})

    def real(self) -> None:
        self.monkeypatch.setattr(validation, "LIMITS", Limits(connect=60.0, total=60.0))
        server = self.stack.enter_context(yubiserver(self.mine, self.bobs))
        self.at(server.url, server.key)

    def right(self) -> str:
        self.real()
        return self.code(self.mine.touch())

    def wrong(self) -> str:
        self.real()
        return self.code(self.mine.public + "b" * 32)

    def replayed(self) -> str:
        self.real()
        otp = self.mine.touch()
        assert self.code(otp) == "allowed"
        return self.code(otp, wg_public_key="another")

    def expired(self) -> str:
        self.real()
        earlier, later = self.mine.touch(), self.mine.touch()
        assert self.code(later) == "allowed"
        return self.code(earlier, wg_public_key="another")

    def others(self) -> str:
        self.real()
        return self.code(self.bobs.touch())

    def down(self) -> str:
        self.at(self.nowhere())
        return self.code(self.mine.touch())

    def slow(self) -> str:
        self.at(self.silent())
        return self.code(self.mine.touch())

    def lying(self) -> str:
        self.monkeypatch.setattr(validation, "LIMITS", Limits(connect=60.0, total=60.0))
        self.at(self.stack.enter_context(serving(saying("OK", key="b3RoZXI="))).url)
        return self.code(self.mine.touch())


class RadiusBench(Bench):
    kind = "radius"

    def at(self, address: str, timeout: int = 30) -> None:
        says = {"servers": address, "patience": 30, "timeout": timeout, "tries": 1}
        self.provider(says, {"shared_secret": SECRET})

    def answering(self, answer: Callable[[bytes], list[bytes]], timeout: int = 30) -> None:
        liar = self.stack.enter_context(RadiusLiar())
        liar.says = lambda request, before: answer(request)
        self.at(liar.address, timeout)

    def judging(self) -> None:
        # A request names its user before the password.
        pairs = {b"alice": "sesame", b"bob": "open"}

        def judge(request: bytes) -> list[bytes]:
            right = any(name in request and password_of(request) == password for name, password in pairs.items())
            return [reply(request) if right else reply(request, REJECT)]

        self.answering(judge)

    def right(self) -> str:
        self.judging()
        return self.code("sesame")

    def wrong(self) -> str:
        self.judging()
        return self.code("sesams")

    def others(self) -> str:
        self.judging()
        assert self.code("open", self.bob) == "allowed"
        return self.code("open")

    def down(self) -> str:
        self.at(f"127.0.0.1:{free_port()}", timeout=1)
        return self.code("sesame")

    def slow(self) -> str:
        self.answering(lambda request: [], timeout=1)
        return self.code("sesame")

    def lying(self) -> str:
        self.answering(lambda request: [reply(request, secret="another")], timeout=1)
        return self.code("sesame")


class LdapBench(Bench):
    kind = "ldap"

    def at(self, servers: str, ca: str, timeout: int = 30) -> None:
        says = {"servers": servers, "bind_dn": OURS, "base": PEOPLE, "ca": ca, "timeout": timeout, "patience": 30}
        self.provider(says, {"bind_password": OURS_PASSWORD})

    def real(self) -> Slapd:
        people = person("alice") + person("bob", "bob's own")
        slapd = self.stack.enter_context(Slapd(people))
        self.at(slapd.ldaps, slapd.authority.pem)
        return slapd

    def right(self) -> str:
        self.real()
        return self.code(PASSWORD)

    def wrong(self) -> str:
        self.real()
        return self.code("another")

    def expired(self) -> str:
        slapd = self.stack.enter_context(Slapd(person("alice", more="pwdChangedTime: 20200101000000Z")))
        self.at(slapd.ldaps, slapd.authority.pem)
        return self.code(PASSWORD)

    def others(self) -> str:
        self.real()
        assert self.code("bob's own", self.bob) == "allowed"
        return self.code("bob's own")

    def down(self) -> str:
        self.at(f"ldaps://localhost:{free_port()}", Authority.new().pem)
        return self.code(PASSWORD)

    def slow(self) -> str:
        listener = self.stack.enter_context(Listener())
        self.at(f"ldaps://{listener.host}", Authority.new().pem, timeout=1)
        return self.code(PASSWORD)

    def lying(self) -> str:
        slapd = self.real()
        self.at(slapd.ldaps, Authority.new().pem)
        return self.code(PASSWORD)


class DuoBench(Bench):
    """A stand-in, written from Duo's documentation, that checks real signatures."""

    kind = "duo"

    def at(self, url: str) -> None:
        self.provider({"address": url, "integration_key": IKEY}, {"secret_key": SKEY})

    def saying(self, auth: Callable[[dict[str, str]], Said]) -> None:
        self.at(self.stack.enter_context(serving(DuoService(NOW, auth=auth))).url)

    def result(self, status: str) -> str:
        self.saying(lambda sent: ok(result="deny", status=status, status_msg="…"))
        return self.code(self.typed)

    typed: ClassVar[str] = ""

    def right(self) -> str:
        self.saying(lambda sent: ALLOW)
        return self.code(self.typed)

    def wrong(self) -> str:
        return self.result("deny")

    def replayed(self) -> str:
        assert self.right() == "allowed"
        self.wrong()
        return self.code(self.typed, wg_public_key="another")

    def expired(self) -> str:
        return self.result("timeout")

    def others(self) -> str:
        """Bob's phone says yes, or it is his code."""
        deny = ok(result="deny", status="deny", status_msg="…")
        self.saying(lambda sent: ALLOW if sent["username"] == self.bob.email else deny)
        assert self.code(self.typed, self.bob) == "allowed"
        return self.code(self.typed, wg_public_key="another")

    def down(self) -> str:
        self.at(self.nowhere())
        return self.code(self.typed)

    def slow(self) -> str:
        self.monkeypatch.setattr(duo_api, "LIMITS", SHORT, raising=False)
        self.at(self.silent())
        return self.code(self.typed)

    def lying(self) -> str:
        self.saying(lambda sent: Said(200, b'{"stat": "OK", "response": {"result": "allowed"}}'))
        return self.code(self.typed)


class DuoPasscodeBench(DuoBench):
    kind = "duo_otp"
    typed = "123456"


class OktaBench(Bench):
    """A stand-in, written from Okta's documentation, that checks tokens and paths."""

    kind = "okta"
    typed: ClassVar[str] = ""

    def prepare(self) -> None:
        self.monkeypatch.setattr(OktaPush, "pause", staticmethod(lambda seconds: None))

    def at(self, url: str) -> None:
        self.provider({"address": url}, {"token": TOKEN})

    def result(self, name: str) -> str:
        service = OktaService(results=[{"factorResult": "WAITING"}, {"factorResult": name}])
        service.code = said({"factorResult": name})
        self.at(self.stack.enter_context(serving(service)).url)
        return self.code(self.typed)

    def right(self) -> str:
        return self.result("SUCCESS")

    def wrong(self) -> str:
        return self.result("REJECTED")

    def replayed(self) -> str:
        assert self.right() == "allowed"
        self.result("REJECTED")
        return self.code(self.typed, wg_public_key="another")

    def expired(self) -> str:
        return self.result("TIMEOUT")

    def others(self) -> str:
        """Okta finds somebody else by that name."""
        bobs = said({"id": "00u1", "status": "ACTIVE", "profile": {"login": self.bob.email}})
        self.at(self.stack.enter_context(serving(OktaService(user=bobs))).url)
        return self.code(self.typed)

    def down(self) -> str:
        self.at(self.nowhere())
        return self.code(self.typed)

    def slow(self) -> str:
        self.monkeypatch.setattr(okta_api, "LIMITS", SHORT)
        self.at(self.silent())
        return self.code(self.typed)

    def lying(self) -> str:
        return self.result("SUCCES")


class OktaPasscodeBench(OktaBench):
    kind = "okta_otp"
    typed = "123456"

    def wrong(self) -> str:
        service = OktaService(code=error(403, "E0000068"))
        self.at(self.stack.enter_context(serving(service)).url)
        return self.code(self.typed)

    def replayed(self) -> str:
        assert self.right() == "allowed"
        self.result("PASSCODE_REPLAYED")
        return self.code(self.typed, wg_public_key="another")

    def expired(self) -> str:
        return self.result("TIME_WINDOW_EXCEEDED")


def came_to(answer: Any) -> str:
    """Of a client that waits for a sign-in."""
    if answer == 428 or "sso_url" in answer:
        return "waiting"
    return "allowed" if answer["allow"] else Decision.objects.latest("pk").code


class OidcBench(Bench):
    kind = "oidc"
    liar: OidcLiar

    def prepare(self) -> None:
        self.settings.SIGN_IN_HOLD = 0.0
        self.settings.SESSION_COOKIE_SECURE = self.settings.CSRF_COOKIE_SECURE = False
        discovery.forget()
        self.liar = self.stack.enter_context(lying(OidcLiar()))
        an_issuer(self.liar.url)

    def signed_in(self, **claims: Any) -> str:
        visit = Visit(self.identity)
        visit.connect()
        visit.come_back(self.liar.sign_in(visit.press(), **claims))
        return came_to(visit.wait())

    def right(self) -> str:
        return self.signed_in()

    def wrong(self) -> str:
        visit = Visit(self.identity)
        visit.connect()
        state = self.liar.sign_in(visit.press()).partition("&state=")[2]
        visit.come_back(f"/sso/back?error=access_denied&state={state}")
        return came_to(visit.wait())

    def replayed(self) -> str:
        assert self.right() == "allowed"
        visit = Visit(self.identity)
        visit.connect()
        state = self.liar.sign_in(visit.press()).partition("&state=")[2]
        visit.come_back(f"/sso/back?code=code-1&state={state}")
        return came_to(visit.wait())

    def expired(self) -> str:
        return self.signed_in(iat=int(NOW) - 7200, exp=int(NOW) - 3600)

    def others(self) -> str:
        return self.signed_in(sub="sub-bob", email="bob@acme.example")

    def down(self) -> str:
        self.liar.down = True
        return came_to(Visit(self.identity).connect())

    def slow(self) -> str:
        self.monkeypatch.setattr(discovery, "LIMITS", SHORT)
        self.without_providers()
        an_issuer(self.silent())
        return came_to(Visit(self.identity).connect())

    def lying(self) -> str:
        self.liar.forge = unsigned
        return self.signed_in()


class PasskeyBench(Bench):
    kind = "passkey"
    maker: PasskeyMaker

    def prepare(self) -> None:
        self.settings.SIGN_IN_HOLD = 0.0
        self.maker = a_maker()
        OwnPasskeys(self.alice).add(self.maker)

    def shown(self, maker: PasskeyMaker | None = None) -> str:
        visit = PasskeyVisit(self.identity)
        visit.connect()
        visit.show(maker or self.maker)
        return came_to(visit.wait())

    def right(self) -> str:
        return self.shown()

    def wrong(self) -> str:
        self.maker.key = PasskeyMaker().key
        return self.shown()

    def replayed(self) -> str:
        first, second = PasskeyVisit(self.identity), PasskeyVisit(self.identity)
        first.connect()
        answer = self.maker.get(first.question())
        first.answer(answer)
        second.connect()
        second.question()
        second.answer(answer)
        return came_to(second.wait())

    def expired(self) -> str:
        visit = PasskeyVisit(self.identity)
        visit.connect()
        answer = self.maker.get(visit.question())
        self.clock.advance(301)
        visit.answer(answer)
        return came_to(visit.wait())

    def others(self) -> str:
        bobs = a_maker()
        OwnPasskeys(self.bob).add(bobs)
        return self.shown(bobs)

    def lying(self) -> str:
        """A copy: its counter is behind."""
        UserPasskey.objects.update(counter=9)
        return self.shown()


class DeviceBench(Bench):
    kind = "device"

    def signed(self, user: VpnUser | None = None, key: str = "a" * 64, **attempt: Any) -> str:
        return self.code("", user, device_key=key, **attempt)

    def confirmed(self) -> DeviceKey:
        assert self.signed() == "waiting"
        row = DeviceKey.objects.get()
        assert devices.confirm(row, NOW)
        return row

    def right(self) -> str:
        self.confirmed()
        return self.signed()

    def wrong(self) -> str:
        self.confirmed()
        return self.signed(key="")

    def replayed(self) -> str:
        """By another device, with a copy of the key."""
        self.confirmed()
        return self.signed(device_id="another")

    def expired(self) -> str:
        devices.revoke(self.confirmed(), NOW)
        return self.signed()

    def others(self) -> str:
        self.confirmed()
        return self.signed(self.bob)


BENCHES: dict[str, type[Bench]] = {
    each.kind: each
    for each in (
        PinBench, TotpBench, YubiKeyBench, RadiusBench, LdapBench, DuoBench, DuoPasscodeBench, OktaBench,
        OktaPasscodeBench, OidcBench, PasskeyBench, DeviceBench,
    )
}  # fmt: skip
