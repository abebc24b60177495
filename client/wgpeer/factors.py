"""Second factors on the client's side: which secrets to ask for, and the token that replaces them afterwards."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from wgpeer.envelope import random_alphanumeric
from wgpeer.profile import Profile
from wgpeer.store import read_json, write_file

PIN, PASSCODE, PASSWORD = "pin", "passcode", "password"
ORDER = (PASSWORD, PIN, PASSCODE)  # as the server wants them joined
_PASSCODE_MODES = ("otp", "yubikey", "duo_otp", "okta_otp", "onelogin_otp")
# Unicode's categories of spaces, characters that are not seen, and hyphens.
_BETWEEN_DIGITS = ("Zs", "Zl", "Zp", "Cc", "Cf", "Pd")
_PROMPTS = {PIN: "PIN", PASSCODE: "Passcode", PASSWORD: "Password"}


class MissingSecret(Exception):
    """A secret is needed and nobody can be asked. The message names the option that gives it."""


def required_secrets(mode: str | None) -> tuple[str, ...]:
    """The secrets that a profile's ``password_mode`` asks for. An unknown mode asks for a password."""
    if not mode:
        return ()
    if mode == PIN:
        return (PIN,)
    if mode in _PASSCODE_MODES:
        return (PASSCODE,)
    if mode.endswith("_pin") and mode.removesuffix("_pin") in _PASSCODE_MODES:
        return (PIN, PASSCODE)
    if mode.endswith("_password") and mode.removesuffix("_password") in _PASSCODE_MODES:
        return (PASSWORD, PASSCODE)
    return (PASSWORD,)


def join_password(mode: str | None, given: dict[str, str | None], ask: Callable[[str], str] | None) -> str:
    """The password of a connect request: the required secrets joined without a separator, so ``<pin><passcode>``.

    ``given`` maps PIN, PASSCODE and PASSWORD to what the user gave. All of it is sent, also what the mode does not
    name: the server may ask for more by now than it did when the profile was made. The rest is asked for: ``ask`` takes
    the prompt and returns the secret, and is None where there is no terminal. Raises ``MissingSecret``."""
    joined = ""
    required = required_secrets(mode)
    for kind in (kind for kind in ORDER if kind in required or given.get(kind)):
        secret = given.get(kind)
        if not secret and ask is None:
            option = {PIN: "--pin", PASSCODE: "--otp", PASSWORD: "--password"}[kind]
            raise MissingSecret(f"this server asks for the {_PROMPTS[kind]}; give it with {option}")
        if not secret and ask is not None:
            yubikey = kind == PASSCODE and (mode or "").startswith("yubikey")
            secret = ask("YubiKey (touch it)" if yubikey else _PROMPTS[kind])
        joined += _as_sent(kind, secret or "")
    return joined


def _as_sent(kind: str, secret: str) -> str:
    """A secret as the server wants it. A passcode loses what apps show between its digits (spaces of any kind,
    hyphens), and its digits may be those of any script. A recovery code has letters too, and keeps its hyphen."""
    if kind != PASSCODE:
        return secret.strip()
    kept = [character for character in secret if unicodedata.category(character) not in _BETWEEN_DIGITS]
    if re.fullmatch(r"[A-Za-z0-9]{5}-[A-Za-z0-9]{5}", secret.strip()) and any(map(str.isalpha, kept)):
        return secret.strip()
    return "".join(str(unicodedata.decimal(character, character)) for character in kept)


@dataclass(slots=True)
class FactorToken:
    """A random token that replaces the factors after a connect with it has passed them, for the server's ``token_ttl``.

    ``lifetime`` is seconds, ``expires`` Unix seconds; ``passed`` says that the server has accepted the token. Where the
    server keeps no tokens (not ``enabled``), each process makes its own and never stores it.
    """

    path: Path
    lifetime: float
    enabled: bool
    value: str = field(default="", repr=False)
    expires: float = 0.0
    passed: bool = False

    @classmethod
    def load(cls, path: Path, profile: Profile) -> FactorToken:
        """The token stored in ``path``, or an empty one."""
        token = cls(path, float(profile.number("token_ttl")), profile.flag("token"))
        saved = read_json(path) if token.enabled else {}
        value, expires = saved.get("token"), saved.get("expires")
        if isinstance(value, str) and isinstance(expires, (int, float)):
            token.value, token.expires, token.passed = value, float(expires), True
        return token

    def current(self, now: float) -> str:
        """The token to send, a new one when the old one has expired. ``now`` is Unix seconds."""
        if not self.value or (self.passed and now >= self.expires):
            self.value, self.passed = random_alphanumeric(32), False
        return self.value

    def is_valid(self, now: float) -> bool:
        """Whether a connect at ``now`` (Unix seconds) needs no secrets, as far as we know."""
        return self.enabled and self.passed and now < self.expires

    def accepted(self, now: float) -> None:
        """A connect with this token was allowed: store it. The server counts from the time the factors were passed, so
        a later connect extends nothing."""
        if self.enabled and not self.passed:
            self.passed, self.expires = True, now + self.lifetime
            write_file(self.path, json.dumps({"token": self.value, "expires": self.expires}))

    def forget(self) -> None:
        """The server refused: remove the token, here and on disk."""
        self.value, self.passed = "", False
        self.path.unlink(missing_ok=True)
