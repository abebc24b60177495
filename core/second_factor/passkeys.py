"""Passkeys of administrators (WebAuthn): a key that never leaves its device, for one host name, its owner verified.

A challenge is bound to its session and to what it is for, lives in Redis for some minutes and is taken out by the
first answer, whatever becomes of that.
"""

from __future__ import annotations

import ipaddress
from typing import Any

import redis
import webauthn
from django.contrib.auth.models import User
from django.db import IntegrityError, transaction
from django.http import HttpRequest
from django.http.request import split_domain_port
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
from core.locking import lock
from core.models import Passkey
from core.redis_store import RedisUnavailable, redis_client

from . import audit
from .proof import has_factor

ADD, SHOW = "add", "show"
# Seconds in which a challenge is to be answered: the browser asks for a finger, a face or a PIN meanwhile.
ANSWER_WITHIN = 300
MOST = 20  # of one administrator


class NotAccepted(Exception):
    """Its text is for the administrator."""


def site_of(request: HttpRequest) -> str:
    """The host name that passkeys are bound to; empty where there is none: browsers make no passkey for an address."""
    name, _port = split_domain_port(request.get_host())
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return name
    return ""


def _origin(request: HttpRequest) -> str:
    return f"{request.scheme}://{request.get_host()}"


def usable(administrator: User, site: str) -> list[Passkey]:
    """Those that can be asked for at this host name."""
    return list(Passkey.objects.filter(administrator=administrator, rp_id=site)) if site else []


def creation(request: HttpRequest, administrator: User) -> str:
    """What the browser needs to make one, as JSON."""
    site, there = site_of(request), Passkey.objects.filter(administrator=administrator)
    if not site:
        raise NotAccepted("Passkeys need a host name: open the admin by its name, not by an address.")
    if there.count() >= MOST:
        raise NotAccepted(f"There are {MOST} passkeys already: remove one first.")
    options = webauthn.generate_registration_options(
        rp_id=site,
        rp_name="VPN admin",
        user_name=administrator.get_username(),
        user_id=f"administrator-{administrator.pk}".encode(),
        exclude_credentials=_described(there),
        authenticator_selection=AuthenticatorSelectionCriteria(
            resident_key=ResidentKeyRequirement.PREFERRED, user_verification=UserVerificationRequirement.REQUIRED
        ),
    )
    _keep(request, ADD, options.challenge)
    return webauthn.options_to_json(options)


def add(request: HttpRequest, administrator: User, name: str, answer: str, now: float, *, first: bool) -> None:
    """Keep the one that the browser made. ``first``: whoever asks has shown no second factor, so there must be none."""
    challenge = _take(request, ADD)
    try:
        made = webauthn.verify_registration_response(
            credential=answer,
            expected_challenge=challenge,
            expected_rp_id=site_of(request),
            expected_origin=_origin(request),
            require_user_verification=True,
        )
    except WebAuthnException:
        raise NotAccepted("The browser's answer is not that of a new passkey for this site.") from None
    row = Passkey(
        administrator=administrator,
        name="".join(each for each in name if each.isprintable()).strip()[:60] or "Passkey",
        rp_id=site_of(request),
        credential_id=bytes_to_base64url(made.credential_id),
        public_key=bytes_to_base64url(made.credential_public_key),
        counter=made.sign_count,
        created=moment(now),
    )
    try:
        _keep_row(row, first=first)
    except IntegrityError:
        raise NotAccepted("This passkey is there already.") from None


@transaction.atomic
def _keep_row(row: Passkey, *, first: bool) -> None:
    lock(row.administrator)
    if first and has_factor(row.administrator):
        raise NotAccepted("This account has a second factor already: sign in with that.")
    row.save(force_insert=True)
    audit.note(row.administrator, f"Added the passkey “{row.name}”.")


def question(request: HttpRequest, administrator: User) -> str:
    """What the browser needs to show one, as JSON."""
    site = site_of(request)
    there = usable(administrator, site)
    if not there:
        raise NotAccepted("There is no passkey of yours for this host name.")
    options = webauthn.generate_authentication_options(
        rp_id=site, allow_credentials=_described(there), user_verification=UserVerificationRequirement.REQUIRED
    )
    _keep(request, SHOW, options.challenge)
    return webauthn.options_to_json(options)


def show(request: HttpRequest, administrator: User, answer: str, now: float) -> Passkey:
    """The passkey that the browser showed. Raise ``NotAccepted`` for any other answer."""
    challenge = _take(request, SHOW)
    try:
        credential = parse_authentication_credential_json(answer)
        passkey = Passkey.objects.get(
            administrator=administrator, rp_id=site_of(request), credential_id=bytes_to_base64url(credential.raw_id)
        )
        shown = webauthn.verify_authentication_response(
            credential=credential,
            expected_challenge=challenge,
            expected_rp_id=passkey.rp_id,
            expected_origin=_origin(request),
            credential_public_key=base64url_to_bytes(passkey.public_key),
            credential_current_sign_count=0,  # _count judges it, in one step with writing it down
            require_user_verification=True,
        )
    except (WebAuthnException, Passkey.DoesNotExist):
        raise NotAccepted("That is not the answer of a passkey of yours.") from None
    if not _count(passkey, shown.new_sign_count, now):
        audit.note(
            administrator, f"Refused the passkey “{passkey.name}”: its counter did not grow, so there is a copy."
        )
        raise NotAccepted("This passkey's counter did not grow: somebody may have a copy of it. Remove it.")
    return passkey


def _count(passkey: Passkey, counter: int, now: float) -> bool:
    """Whether the counter grew. Authenticators without one say 0 for ever."""
    mine = Passkey.objects.filter(pk=passkey.pk)
    grown = mine.filter(counter__lt=counter) if counter else mine.filter(counter=0)
    return grown.update(counter=counter, used=moment(now)) == 1


def _described(passkeys: Any) -> list[PublicKeyCredentialDescriptor]:
    return [PublicKeyCredentialDescriptor(id=base64url_to_bytes(each.credential_id)) for each in passkeys]


def _key(request: HttpRequest, purpose: str) -> str:
    return f"passkey:{purpose}:{keyed_hash('passkey challenge', request.session.session_key or '')}"


def _keep(request: HttpRequest, purpose: str, challenge: bytes) -> None:
    try:
        redis_client().set(_key(request, purpose), bytes_to_base64url(challenge), ex=ANSWER_WITHIN)
    except redis.RedisError as error:
        raise RedisUnavailable from error


def _take(request: HttpRequest, purpose: str) -> bytes:
    """Once: of two answers to one challenge, one finds it."""
    try:
        found = redis_client().getdel(_key(request, purpose))
    except redis.RedisError as error:
        raise RedisUnavailable from error
    if not found:
        raise NotAccepted("That took too long, or was answered already. Try again.")
    return base64url_to_bytes(found.decode() if isinstance(found, bytes) else str(found))
