"""Passkeys of administrators: whose they are, where they are shown, and what of it stands in the history.

A challenge is bound to its session and to what it is for.
"""

from __future__ import annotations

import ipaddress

from django.contrib.auth.models import User
from django.db import IntegrityError, transaction
from django.http import HttpRequest
from django.http.request import split_domain_port

from core import passkeys
from core.locking import lock
from core.models import Passkey
from core.passkeys import NotAccepted, Site

from . import audit
from .proof import has_factor

ADD, SHOW = "add", "show"


def site_of(request: HttpRequest) -> str:
    """The host name that passkeys are bound to; empty where there is none: browsers make no passkey for an address."""
    name, _port = split_domain_port(request.get_host())
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return name
    return ""


def _site(request: HttpRequest) -> Site:
    return Site(site_of(request), f"{request.scheme}://{request.get_host()}")


def usable(administrator: User, site: str) -> list[Passkey]:
    """Those that can be asked for at this host name."""
    return list(Passkey.objects.filter(administrator=administrator, rp_id=site, locked=None)) if site else []


def creation(request: HttpRequest, administrator: User) -> str:
    """What the browser needs to make one, as JSON."""
    site = _site(request)
    if not site.name:
        raise NotAccepted("Passkeys need a host name: open the admin by its name, not by an address.")
    there = Passkey.objects.filter(administrator=administrator)
    handle = f"administrator-{administrator.pk}"
    asked, challenge = passkeys.creation(site, "VPN admin", administrator.get_username(), handle, there)
    passkeys.keep(challenge, ADD, _session(request))
    return asked


def add(request: HttpRequest, administrator: User, name: str, answer: str, now: float, *, first: bool) -> None:
    """Keep the one that the browser made. ``first``: whoever asks has shown no second factor, so there must be none."""
    challenge = passkeys.take(ADD, _session(request))
    row = Passkey(administrator=administrator)
    passkeys.put(row, _site(request), name, answer, challenge, now)
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
    there = usable(administrator, site_of(request))
    if not there:
        raise NotAccepted("There is no passkey of yours for this host name.")
    asked, challenge = passkeys.question(_site(request), there)
    passkeys.keep(challenge, SHOW, _session(request))
    return asked


def show(request: HttpRequest, administrator: User, answer: str, now: float) -> Passkey:
    """The passkey that the browser showed. Raise ``NotAccepted`` for any other answer."""
    challenge = passkeys.take(SHOW, _session(request))
    theirs = Passkey.objects.filter(administrator=administrator)
    try:
        return passkeys.shown(_site(request), theirs, answer, challenge, now)
    except NotAccepted as error:
        if error.code == passkeys.COPIED:
            words = f"Locked the passkey “{error.passkey}”: its counter did not grow, so there is a copy."
            audit.note(administrator, words)
        raise


def _session(request: HttpRequest) -> str:
    return request.session.session_key or ""
