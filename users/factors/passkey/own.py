"""The passkeys on a user's own page: added with a proof of all that the user has, shown as a proof, and removed.

Making and showing one needs a script, which only the page has that a button leads to. Its challenge is for this visit
and for what the user had when it was given.
"""

from __future__ import annotations

from collections.abc import Mapping

import redis

from core import passkeys
from core.crypto import keyed_hash
from core.passkeys import NotAccepted, Site
from core.redis_store import RedisUnavailable, redis_client
from users.factors.enrolments import Changed
from users.factors.panels import Done, NotDone, OwnCase, OwnPanel, ShownOnce
from users.factors.proofs import NotProven, prove
from users.models import Enrolment, UserPasskey

from .enrolment import KIND, add, remove
from .panel import find
from .place import NO_NAME, our_site
from .showing import show, usable

# Seconds for which a passkey that was shown is a proof, in the same visit.
PROVES = 300
CHANGED = "The passkey was not added: something was changed meanwhile. Begin anew."


def _site(case: OwnCase) -> Site:
    """Raise ``NotDone`` where this page has another name than passkeys are for."""
    site = our_site()
    if site is None:
        raise NotDone(NO_NAME)
    if case.origin != site.origin:
        raise NotDone(f"Passkeys are bound to a name. Open this same page below {site.origin} instead.")
    return site


def _begin(case: OwnCase) -> Done:
    site, proven = _site(case), prove(case)
    there = UserPasskey.objects.filter(user=case.user)
    try:
        asked, challenge = passkeys.creation(site, "VPN", str(case.user), f"user-{case.user.public_id}", there)
    except NotAccepted as error:
        raise NotDone(str(error)) from None
    passkeys.keep(challenge, *_purpose(case, "add"))
    context = {"options": asked, "name": case.sent.get("name", "")[: passkeys.LONGEST_NAME]}
    return Done("Began to add a passkey.", _scripted("Add a passkey", "passkey/own_add.html", context), proven)


def _add(case: OwnCase) -> Done:
    site, row = _site(case), UserPasskey(user=case.user)
    try:
        challenge = passkeys.take(*_purpose(case, "add"))
        passkeys.put(row, site, case.sent.get("name", ""), case.sent.get("answer", ""), challenge, case.now)
        add(row, _mine(case))
    except NotAccepted as error:
        raise NotDone(f"The passkey was not added. {error}") from None
    except Changed:
        raise NotDone(CHANGED) from None
    return Done(f"Added the passkey “{row}”.")


def _ask(case: OwnCase) -> Done:
    site = _site(case)
    there = list(usable(case.user, site))
    if not there:
        raise NotDone("None of your passkeys can be used here. Ask your administrator.")
    asked, challenge = passkeys.question(site, there)
    passkeys.keep(challenge, *_purpose(case, "show"))
    context = {"options": asked}
    return Done("Was asked for a passkey.", _scripted("Show your passkey", "passkey/own_show.html", context))


def _show(case: OwnCase) -> Done:
    site = _site(case)
    try:
        challenge = passkeys.take(*_purpose(case, "show"))
        passkey = show(case.user, site, case.sent.get("answer", ""), challenge, case.now)
    except NotAccepted as error:
        raise NotProven(str(error), f"{KIND}_{error.code}") from None
    try:
        redis_client().set(_shown(case), 1, ex=PROVES)
    except redis.RedisError as error:
        raise RedisUnavailable from error
    return Done(f"Showed the passkey “{passkey}”. It counts as a proof for five minutes.")


def _remove(case: OwnCase) -> Done:
    passkey = find(case.user, case.sent)
    proven = prove(case)
    if not remove(passkey, may_be_last=False):
        raise NotDone("Your last passkey stays: add another one first, or ask your administrator.")
    return Done(f"Removed the passkey “{passkey}”.", detail=proven)


def _scripted(title: str, template: str, context: Mapping[str, object]) -> ShownOnce:
    site = our_site()
    return ShownOnce(title, template, context, script=f"{site.origin}/sso/passkeys.js" if site else "")


def is_proven(case: OwnCase) -> bool:
    """Whether one was shown in this visit a short while ago, and nothing changed since. Raise ``RedisUnavailable``."""
    try:
        return bool(redis_client().exists(_shown(case)))
    except redis.RedisError as error:
        raise RedisUnavailable from error


def _shown(case: OwnCase) -> str:
    return f"passkey-shown:{keyed_hash('passkey shown', *_purpose(case, 'proof'))}"


def _purpose(case: OwnCase, purpose: str) -> tuple[str, ...]:
    mine = _mine(case)
    return purpose, case.user.public_id, case.visit, str(mine.pk if mine else "")


def _mine(case: OwnCase) -> Enrolment | None:
    """``case`` may be another factor's."""
    return Enrolment.objects.filter(user=case.user, kind=KIND).first()


def _data(case: OwnCase) -> Mapping[str, object]:
    site = our_site()
    elsewhere = site is not None and case.origin != site.origin
    return {
        "passkeys": list(UserPasskey.objects.filter(user=case.user)),
        "site": site,
        "words": NO_NAME if site is None else "",
        "elsewhere": elsewhere,
        "proven": is_proven(case),
    }


OWN_PANEL = OwnPanel(
    "passkey/own.html",
    {"begin": _begin, "add": _add, "ask": _ask, "show": _show, "remove": _remove},
    _data,
    proof="Show your passkey first: the button is at Passkeys",
    is_proven=is_proven,
)
