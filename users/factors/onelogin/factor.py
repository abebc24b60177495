"""OneLogin: a request on the user's phone (OneLogin Protect), or a code of an authenticator app, which it judges."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from users.factors import pushes, remote
from users.factors.base import SIX_DIGITS, AskedFactor, Case, Contribution, Denied, Outcome, Passed, TypedSecret
from users.factors.providers import ProviderConfig, ProviderForm
from users.factors.remote import JudgedThere, Malformed, RefusesUs, username_of

from .api import Account, ask, ask_once, identity, query
from .form import OneLoginAccount, account_of

# Seconds between two looks: OneLogin's limits are of the whole account, and by the hour.
LOOK_EVERY = 3.0
# Of a user's ``status``.
ACTIVE = 1
SENTENCES = {
    **remote.SENTENCES,
    "wrong": "OneLogin did not accept the code.",
    "not_enrolled_there": "OneLogin does not know exactly one user by this name.",
    "denied_there": "The user is not active in OneLogin: suspended, locked, not activated yet, or to set a password.",
    "no_device": "The user has nothing set up in OneLogin that this factor asks for.",
    "refused": "OneLogin does not take the API credential, or it has too few rights (Manage All is needed).",
}


class OneLogin(JudgedThere):
    """What both have. ``factor_name``: OneLogin's ``auth_factor_name`` of the devices that it asks for."""

    service: ClassVar[str] = "OneLogin"
    provider_form: ClassVar[type[ProviderForm] | None] = OneLoginAccount
    not_enrolled: ClassVar[str] = "You are not set up for OneLogin. Ask your administrator."
    sentences: ClassVar[Mapping[str, str]] = SENTENCES
    factor_name: ClassVar[str]

    def judged(self, case: Case, provider: ProviderConfig, secret: str) -> Outcome:
        account, name = account_of(provider), username_of(provider, case.user)
        by = "email" if provider.settings["username"] == "email" else "username"
        # Compared here as well: a name may look like a pattern to them.
        found = ask(account, "GET", f"/api/2/users?{by}={query(name)}").objects()
        users = [each for each in found if str(each.get(by) or "").casefold() == name.casefold()]
        if len(users) != 1:
            return Denied("not_enrolled_there")
        if users[0].get("status") != ACTIVE or isinstance(users[0].get("status"), bool):
            return Denied("denied_there")
        path = f"/api/2/mfa/users/{identity(users[0].get('id'))}"
        device = self._device(account, path)
        return Denied("no_device") if device is None else self._verify(account, case, path, device, secret)

    def _device(self, account: Account, path: str) -> object:
        """The id of the user's device of the right kind, by choice the one that they have made their usual one; None
        where there is none."""
        devices = ask(account, "GET", f"{path}/devices").objects()
        fitting = [each for each in devices if each.get("auth_factor_name") == self.factor_name]
        fitting.sort(key=lambda each: each.get("default") is not True)
        return _device_id(fitting[0]) if fitting else None

    @abstractmethod
    def _verify(self, account: Account, case: Case, path: str, device: object, secret: str) -> Outcome:
        """What OneLogin says of ``device`` of the user at ``path``. Raise ``NoAnswer``, ``RefusesUs``,
        ``Malformed``, ``NotSent``."""

    def greet(self, provider: ProviderConfig) -> str:
        ask(account_of(provider), "GET", "/api/2/users?limit=1").objects()
        return "OneLogin answers, and takes the credential."


class OneLoginPush(OneLogin):
    kind: ClassVar[str] = "onelogin"
    label: ClassVar[str] = "OneLogin push"
    factor_name: ClassVar[str] = "OneLogin"
    pause: Callable[[float], None] = staticmethod(time.sleep)
    clock: Callable[[], float] = staticmethod(time.monotonic)

    def _verify(self, account: Account, case: Case, path: str, device: object, secret: str) -> Outcome:
        with pushes.one_open(case.user, case.attempt_hash):
            # It ends by itself: there is nothing to take one back by.
            until = self.clock() + pushes.OPEN
            begun = _begin(account, path, device, expires_in=pushes.OPEN)
            while self.clock() <= until:
                self.pause(LOOK_EVERY)
                polled = ask(account, "GET", f"{path}/verifications/{begun}")
                if polled.status == 404:
                    return Denied("expired")
                if polled.status != 200:
                    raise Malformed
                if outcome := _pushed(polled.object()):
                    return outcome
            return Denied("expired")

    def contribution(self, asked: AskedFactor) -> Contribution:
        return Contribution(push_ttl=pushes.GONE)


class OneLoginPasscode(OneLogin):
    kind: ClassVar[str] = "onelogin_otp"
    label: ClassVar[str] = "OneLogin passcode"
    typed: ClassVar[TypedSecret | None] = SIX_DIGITS
    # Not a code of OneLogin Protect: what must be begun for it sends a request to the phone, too.
    factor_name: ClassVar[str] = "Google Authenticator"

    def _verify(self, account: Account, case: Case, path: str, device: object, secret: str) -> Outcome:
        begun = _begin(account, path, device)
        said = ask_once(account, "PUT", f"{path}/verifications/{begun}", {"otp": secret, "device_id": device})
        # Which of them a wrong code gives, their documentation leaves open; right it is by no other answer than below.
        if 400 <= said.status < 500:
            return Denied()
        status = said.object().get("status")
        success = isinstance(status, dict) and status.get("type") == "success" and status.get("error") is False
        if said.status != 200 or not success:
            raise Malformed
        return Passed()

    def contribution(self, asked: AskedFactor) -> Contribution:
        return Contribution(mode="onelogin_otp")


def _begin(account: Account, path: str, device: object, **more: object) -> str:
    """A verification's id, as one part of a path."""
    begun = ask(account, "POST", f"{path}/verifications", {"device_id": device, **more})
    if begun.status in (400, 422):
        raise RefusesUs(str(begun.status))
    if begun.status not in (200, 201):
        raise Malformed
    return identity(begun.object().get("id"))


def _device_id(device: Mapping[str, Any]) -> object:
    """As they gave it: a number, or a text. Raise ``Malformed``."""
    identity(device.get("device_id"))
    return device["device_id"]


def _pushed(said: Mapping[str, Any]) -> Outcome | None:
    """None while nobody has answered. Raise ``Malformed``."""
    status = said.get("status")
    if status == "pending":
        return None
    if status == "accepted":
        return Passed()
    if status == "rejected":
        return Denied("rejected")
    raise Malformed
