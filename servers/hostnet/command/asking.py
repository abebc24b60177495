"""Asking the control side to let this machine join. TLS carries the request, and proves nothing: the boxes do."""

from __future__ import annotations

import http.client
import json
import re
import ssl
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

from servers.hostnet.state.joining import LONGEST_ANSWER, PATH, JoinError, Request, Token

from .place import HostError

WITHIN = 30.0  # seconds for one answer
LONGEST_WORDS = 500
_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?|[0-9A-Fa-f:.]+")


@dataclass(frozen=True, slots=True)
class Address:
    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """``vpn.example.com``, ``203.0.113.5:8443``, ``[2001:db8::5]`` or an ``https://`` address of these."""
        bare = text.strip()
        if bare.count(":") > 1 and not bare.startswith(("[", "https://")):
            bare = f"[{bare}]"
        try:
            parts = urlsplit(bare if "://" in bare else f"https://{bare}")
            host, port = parts.hostname or "", parts.port or 443
        except ValueError:
            host, port, parts = "", 0, urlsplit("")
        # urlsplit leaves out line breaks.
        if (
            not bare.isprintable()
            or parts.scheme != "https"
            or not _NAME.fullmatch(host)
            or parts.path not in ("", "/")
            or parts.query
        ):
            raise HostError(f"{text[:80]!r} is no address of a control side: write it like vpn.example.com:8443.")
        return cls(host, port)

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == 443 else f"{host}:{self.port}"


def read_token(given: str | None, file: Path | None) -> Token:
    """The token that somebody typed, or that is in a file (``-``: standard input). Raise ``HostError``."""
    if (given is None) == (file is None):
        raise HostError("Give the token, or a file that has it with --token-file.")
    text = given or ""
    if file is not None:
        try:
            text = sys.stdin.read() if str(file) == "-" else file.read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise HostError(f"{file} cannot be read: {getattr(error, 'strerror', 'no text')}") from None
    try:
        return Token.parse(text)
    except JoinError as error:
        raise HostError(str(error)) from None


def ask(address: Address, token: Token, action: str, **more: Any) -> dict[str, Any]:
    """What the control side answers. Raise ``HostError`` with its own words where it refuses, and ours where whoever
    answers is not the one that made the token."""
    try:
        request = Request(token.control_key)
    except JoinError:
        raise HostError("This is not a token: copy it anew from the host's page.") from None
    status, body = _post(address, request.body({"action": action, "token": token.sent, **more}))
    try:
        said = request.answer(body)
    except JoinError:
        raise HostError(_unproven(address, status, body)) from None
    if "error" in said:
        raise HostError(_printable(said.get("detail") or said["error"]))
    return said


def _post(address: Address, body: bytes) -> tuple[int, bytes]:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    connection = http.client.HTTPSConnection(address.host, address.port, timeout=WITHIN, context=context)
    try:
        connection.request("POST", PATH, body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        return response.status, response.read(LONGEST_ANSWER)
    except (OSError, http.client.HTTPException) as error:
        words = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise HostError(f"{address} cannot be asked: {_printable(words)}") from None
    finally:
        connection.close()


def _unproven(address: Address, status: int, body: bytes) -> str:
    """Nobody knows who said it, so it is quoted as such."""
    try:
        words = json.loads(body)["detail"]
    except (ValueError, KeyError, TypeError, RecursionError):
        words = ""
    said = f" It said (HTTP {status}): {_printable(words)}" if words else f" It answered HTTP {status}."
    return f"Whoever answers at {address} did not prove to be the control side that made this token.{said}"


def _printable(text: object) -> str:
    return "".join(each if each.isprintable() else "?" for each in str(text))[:LONGEST_WORDS]
