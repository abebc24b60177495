"""Passkeys (WebAuthn), of whomever: a key that never leaves its device, for one host name, its owner verified.

Here is what browsers are asked, and how their answers are judged. Whose passkeys count, and what follows from it, is
for ``core.second_factor`` (administrators) and ``users.factors.passkey`` (users).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

import redis
import webauthn
from django.db.models import QuerySet
from webauthn.helpers import base64url_to_bytes, bytes_to_base64url, parse_authentication_credential_json
from webauthn.helpers.exceptions import WebAuthnException
from webauthn.helpers.structs import (
    AuthenticatorSelectionCriteria,
    PublicKeyCredentialDescriptor,
    ResidentKeyRequirement,
    UserVerificationRequirement,
)

from core.clock import moment
from core.crypto import keyed_hash
from core.models import StoredPasskey
from core.names import name_given
from core.redis_store import RedisUnavailable, redis_client

# Seconds in which a challenge is to be answered: the browser asks for a finger, a face or a PIN meanwhile.
ANSWER_WITHIN = 300
MOST = 20  # of one person
LONGEST_NAME = 60

WRONG, UNKNOWN, UNVERIFIED, COPIED, LOCKED = "wrong", "unknown", "unverified", "copied", "locked"
NOT_YOURS = "That is not the answer of a passkey of yours."
WORDS = {
    WRONG: NOT_YOURS,
    UNKNOWN: NOT_YOURS,
    UNVERIFIED: f"{NOT_YOURS} It must ask for your finger, your face or a PIN.",
    COPIED: "This passkey's counter did not grow: somebody may have a copy of it. It is locked now. Remove it.",
    LOCKED: "This passkey is locked, because somebody may have a copy of it. Remove it, and add another one.",
}

Row = TypeVar("Row", bound=StoredPasskey)


class NotAccepted(Exception):
    """Its text is for whose passkey it is. ``code``: one of the above, of an answer that was judged. ``passkey``: the
    one that was shown, where it is known."""

    def __init__(self, words: str, code: str = WRONG, passkey: StoredPasskey | None = None) -> None:
        super().__init__(words)
        self.code = code
        self.passkey = passkey


@dataclass(frozen=True, slots=True)
class Site:
    """Where passkeys are made and shown: ``name`` is the host name that they are bound to (``rp_id``), ``origin`` is
    as browsers write it (``https://vpn.example.com:8443``)."""

    name: str
    origin: str


def creation(
    site: Site, title: str, name: str, handle: str, there: Iterable[StoredPasskey], challenge: bytes | None = None
) -> tuple[str, bytes]:
    """What the browser needs to make one, as JSON, and the challenge. ``title`` names the site and ``name`` the person,
    for them; ``handle`` is theirs for ever, and of nobody else. Raise ``NotAccepted`` where they have too many."""
    known = _described(there)
    if len(known) >= MOST:
        raise NotAccepted(f"There are {MOST} passkeys already: remove one first.")
    options = webauthn.generate_registration_options(
        rp_id=site.name,
        rp_name=title,
        user_name=name,
        user_id=handle.encode(),
        challenge=challenge,
        exclude_credentials=known,
        authenticator_selection=AuthenticatorSelectionCriteria(
            resident_key=ResidentKeyRequirement.PREFERRED, user_verification=UserVerificationRequirement.REQUIRED
        ),
    )
    return webauthn.options_to_json(options), options.challenge


def put(row: StoredPasskey, site: Site, name: str, answer: str, challenge: bytes, now: float) -> None:
    """Write the passkey that the browser made onto ``row``, unsaved. Raise ``NotAccepted``."""
    try:
        made = webauthn.verify_registration_response(
            credential=answer,
            expected_challenge=challenge,
            expected_rp_id=site.name,
            expected_origin=site.origin,
            require_user_verification=True,
        )
    except WebAuthnException:
        raise NotAccepted("The browser's answer is not that of a new passkey for this site.") from None
    row.name = name_given(name, "Passkey", LONGEST_NAME)
    row.rp_id = site.name
    row.credential_id = bytes_to_base64url(made.credential_id)
    row.public_key = bytes_to_base64url(made.credential_public_key)
    row.counter = made.sign_count
    row.created = moment(now)


def question(site: Site, there: Iterable[StoredPasskey], challenge: bytes | None = None) -> tuple[str, bytes]:
    """What the browser needs to show one of ``there``, as JSON, and the challenge."""
    options = webauthn.generate_authentication_options(
        rp_id=site.name,
        challenge=challenge,
        allow_credentials=_described(there),
        user_verification=UserVerificationRequirement.REQUIRED,
    )
    return webauthn.options_to_json(options), options.challenge


def shown(site: Site, theirs: QuerySet[Row], answer: str, challenge: bytes, now: float) -> Row:
    """Which one of ``theirs`` the browser showed. Raise ``NotAccepted``; one whose counter did not grow is locked."""
    try:
        credential = parse_authentication_credential_json(answer)
    except WebAuthnException:
        raise NotAccepted(WORDS[WRONG]) from None
    passkey = theirs.filter(rp_id=site.name, credential_id=bytes_to_base64url(credential.raw_id)).first()
    if passkey is None:
        raise NotAccepted(WORDS[UNKNOWN], UNKNOWN)
    try:
        verified = webauthn.verify_authentication_response(
            credential=credential,
            expected_challenge=challenge,
            expected_rp_id=passkey.rp_id,
            expected_origin=site.origin,
            credential_public_key=base64url_to_bytes(passkey.public_key),
            credential_current_sign_count=0,  # _count judges it, in one step with writing it down
            require_user_verification=False,  # below, so that it has a code of its own
        )
    except WebAuthnException:
        raise NotAccepted(WORDS[WRONG], WRONG, passkey) from None
    if not verified.user_verified:
        raise NotAccepted(WORDS[UNVERIFIED], UNVERIFIED, passkey)
    if refused := _count(passkey, verified.new_sign_count, now):
        raise NotAccepted(WORDS[refused], refused, passkey)
    return passkey


def _count(passkey: StoredPasskey, counter: int, now: float) -> str:
    """Why it does not pass, empty where its counter grew. Authenticators without one say 0 for ever."""
    mine = type(passkey)._default_manager.filter(pk=passkey.pk, locked=None)
    grown = mine.filter(counter__lt=counter) if counter else mine.filter(counter=0)
    if grown.update(counter=counter, used=moment(now)):
        return ""
    return COPIED if mine.update(locked=moment(now)) else LOCKED


def keep(challenge: bytes, *purpose: str) -> None:
    """For one answer to it, in some minutes. ``purpose`` names who is to answer, where and what for; a later challenge
    takes the place of an earlier one. Raise ``RedisUnavailable``."""
    try:
        redis_client().set(_key(purpose), bytes_to_base64url(challenge), ex=ANSWER_WITHIN)
    except redis.RedisError as error:
        raise RedisUnavailable from error


def take(*purpose: str) -> bytes:
    """The challenge that was kept; once: of two answers to it, one finds it. Raise ``NotAccepted``,
    ``RedisUnavailable``."""
    try:
        found = redis_client().getdel(_key(purpose))
    except redis.RedisError as error:
        raise RedisUnavailable from error
    if not found:
        raise NotAccepted("That took too long, or was answered already. Try again.")
    return base64url_to_bytes(found.decode() if isinstance(found, bytes) else str(found))


def _key(purpose: tuple[str, ...]) -> str:
    return f"passkey:{keyed_hash('passkey challenge', *purpose)}"


def _described(passkeys: Iterable[Any]) -> list[PublicKeyCredentialDescriptor]:
    return [PublicKeyCredentialDescriptor(id=base64url_to_bytes(each.credential_id)) for each in passkeys]
