"""Yubico's validation protocol 2.0: asking a server whether a one-time password of a YubiKey is good, which uses it up.

Both sides sign what they say with the client's key. Of an answer nothing is believed whose signature is wrong; of one
that says OK nothing either that is not about this very password and request.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from urllib.parse import urlencode

from core.crypto import random_text
from core.http import Limits, NoAnswer, host_of, request

# A connect waits for it, and a client waits some ten seconds for a connect.
LIMITS = Limits(connect=2.0, total=3.0, size=4096)
NONCE_LENGTH = 32


class Said(Enum):
    """What came out of asking. ``REFUSED``: the servers do not take us for a client; ``NOT_BELIEVED``: the signature of
    an answer was wrong, or it was about something else; ``SILENT``: none gave an answer that settles it."""

    GOOD = "good"
    WRONG = "wrong"
    USED = "used"
    REFUSED = "refused"
    NOT_BELIEVED = "not_believed"
    SILENT = "silent"


# Statuses that settle it, whichever server says them.
SETTLED = {"OK": Said.GOOD, "BAD_OTP": Said.WRONG, "REPLAYED_OTP": Said.USED}
# Said before the server knows who asks, and so signed with no key: they can only be taken as they are. They let nobody
# in and count against nobody.
UNSIGNED = {"NO_SUCH_CLIENT", "BAD_SIGNATURE", "MISSING_PARAMETER", "OPERATION_NOT_ALLOWED"}


@dataclass(frozen=True, slots=True)
class Client:
    """Who asks. ``key``: the API key in base64; ``urls``: of the servers, each asked when the one before it did not
    settle it; ``ca``: PEM, empty for the system's."""

    client_id: str
    key: str = field(repr=False)
    urls: Sequence[str]
    ca: str = field(default="", repr=False)


def decoded_key(text: str) -> bytes:
    """Raise ``ValueError`` for what is no base64."""
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        raise ValueError("That is no base64.") from None


def signature(values: Mapping[str, str], key: bytes) -> str:
    text = "&".join(f"{name}={values[name]}" for name in sorted(values) if name != "h")
    return base64.b64encode(hmac.new(key, text.encode(), hashlib.sha1).digest()).decode()


def read_answer(text: str) -> dict[str, str]:
    """Raise ``ValueError`` where a line is no pair, or a name comes twice: which of two would be meant?"""
    pairs = [line.split("=", 1) for line in text.split("\r\n" if "\r\n" in text else "\n") if line.strip()]
    if any(len(pair) != 2 for pair in pairs) or len({name for name, _ in pairs}) != len(pairs):
        raise ValueError("malformed")
    return {name: value.strip() for name, value in pairs}


def validate(client: Client, otp: str) -> Said:
    """Ask the servers in their order about ``otp`` (in lower case) until one settles it. All are asked with one nonce:
    to them it is one request."""
    nonce = random_text(NONCE_LENGTH)
    worst = Said.SILENT
    for url in client.urls:
        said = _ask(client, url, otp, nonce)
        if said in SETTLED.values():
            return said
        worst = worst if said is Said.SILENT else said
    return worst


def _ask(client: Client, url: str, otp: str, nonce: str) -> Said:
    key = decoded_key(client.key)
    values = {"id": client.client_id, "nonce": nonce, "otp": otp}
    query = urlencode({**values, "h": signature(values, key)})
    try:
        answer = request("GET", f"{url}?{query}", named=frozenset({host_of(url)}), ca=client.ca, limits=LIMITS)
        said = read_answer(answer.body.decode() if answer.status == 200 else "")
    except (NoAnswer, ValueError):
        return Said.SILENT
    if not said:
        return Said.SILENT
    status = said.get("status", "")
    if status in UNSIGNED:
        return Said.REFUSED
    if not hmac.compare_digest(said.get("h", "").encode(), signature(said, key).encode()):
        return Said.NOT_BELIEVED
    if status == "OK" and (said.get("otp"), said.get("nonce")) != (otp, nonce):
        return Said.NOT_BELIEVED
    # Others are about the server itself (BACKEND_ERROR, NOT_ENOUGH_ANSWERS), or say that another one has had this very
    # request (REPLAYED_REQUEST): the next one may know more.
    return SETTLED.get(status, Said.SILENT)
