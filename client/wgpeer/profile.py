"""A profile: one text file that holds all a client needs for one server. Parse, check, write, and merge a sync.

The format is that of docs/PROTOCOL.md, *Profile*.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import urlsplit

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from nacl.public import PublicKey

from wgpeer.constants import MAX_PROFILE
from wgpeer.text import printable

IDS = ("organization_id", "user_id", "server_id")
_ID = re.compile(r"[A-Za-z0-9]{1,64}")
_HASH = re.compile(r"[A-Za-z0-9]{1,128}")
_SECRET = re.compile(r"[A-Za-z0-9]{16,256}")
_UV_ID = re.compile(r"[0-9a-f]{32}")
_TAG = re.compile(r"<(/?)(ca|cert|key)>")


class ProfileError(Exception):
    """A profile cannot be used. The message says why, and quotes nothing secret."""


@dataclass(frozen=True, slots=True)
class ApiHost:
    """A host and port where the API answers by HTTPS. ``name`` is a host name or an address, without brackets."""

    name: str
    port: int = 443

    @property
    def url(self) -> str:
        """``https://host``, with the port where it is not 443."""
        shown = f"[{self.name}]" if ":" in self.name else self.name
        return f"https://{shown}" if self.port == 443 else f"https://{shown}:{self.port}"


@dataclass(frozen=True, slots=True)
class Profile:
    """A parsed profile. ``header`` is its JSON object, ``lines`` are its OpenVPN-style lines, ``ca``, ``cert`` and
    ``key`` are PEM texts."""

    header: dict[str, Any] = field(repr=False)
    lines: tuple[str, ...] = field(repr=False)
    ca: str = field(repr=False)
    cert: str = field(repr=False)
    key: str = field(repr=False)

    def text(self, name: str) -> str:
        """A string of the header, empty when it is missing or no string."""
        value = self.header.get(name)
        return value if isinstance(value, str) else ""

    def flag(self, name: str) -> bool:
        """Whether a field of the header is true."""
        return self.header.get(name) is True

    def number(self, name: str) -> int:
        """An integer of the header, 0 when it is missing or no integer."""
        value = self.header.get(name)
        return value if isinstance(value, int) and not isinstance(value, bool) else 0

    @property
    def ids(self) -> tuple[str, str, str]:
        """The ids of organization, user and server."""
        return self.text(IDS[0]), self.text(IDS[1]), self.text(IDS[2])

    @property
    def title(self) -> str:
        """For people: whose profile this is, and of which server."""
        return printable(f"{self.text('user')} at {self.text('organization')}, server {self.text('server')}", 200)

    @property
    def device_id(self) -> str:
        """32 hex digits."""
        return self._setenv("UV_ID")

    @property
    def device_name(self) -> str:
        """The name that the server gave this device."""
        return self._setenv("UV_NAME")

    def _setenv(self, name: str) -> str:
        start = f"setenv {name} "
        return next((line[len(start) :].strip() for line in self.lines if line.startswith(start)), "")

    @property
    def sync_hosts(self) -> tuple[ApiHost, ...]:
        """The hosts to ask first. Raises ``ProfileError``."""
        return tuple(parse_host(url) for url in self.header.get("sync_hosts") or ())

    @property
    def remotes(self) -> tuple[ApiHost, ...]:
        """The hosts to ask when all sync hosts have failed: those of ``remote`` lines of exactly four words, at port
        443 whatever the line says."""
        lines = (line.split() for line in self.lines)
        return tuple(ApiHost(line[1].strip("[]")) for line in lines if len(line) == 4 and line[0] == "remote")

    @property
    def box_key(self) -> PublicKey:
        """The server's public key for the box. Raises ``ProfileError``."""
        return PublicKey(_box_key(self.text("server_box_public_key")))

    def rsa_key(self) -> rsa.RSAPrivateKey:
        """The user's private key. Raises ``ProfileError``.

        Its numbers are not proven: that takes a third of a second and protects nobody, since the key is the user's own
        and the import has made a signature with it."""
        try:
            key = serialization.load_pem_private_key(self.key.encode(), None, unsafe_skip_rsa_key_validation=True)
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise ProfileError("its private key cannot be read") from error
        if not isinstance(key, rsa.RSAPrivateKey):
            raise ProfileError("its private key is not an RSA key")
        return key


def parse(text: str, *, synced: bool = False) -> Profile:
    """Parse and check a profile; with ``synced`` one without key, sync token and secret, as a sync sends it. Raises
    ``ProfileError``."""
    if len(text.encode(errors="replace")) > MAX_PROFILE:
        raise ProfileError(f"it is larger than {MAX_PROFILE // 1024} KiB")
    lines = [line.rstrip("\r") for line in text.split("\n")]
    header, rest = _split_header(lines)
    plain_lines, blocks = _split_blocks(rest)
    profile = Profile(header, tuple(plain_lines), blocks["ca"], blocks["cert"], blocks["key"])
    _check(profile)
    if not synced:
        _check_secrets(profile)
    return profile


def render(profile: Profile) -> str:
    """The text of the profile's file. ``parse`` of it gives the same profile."""
    header = "\n".join("#" + line for line in json.dumps(profile.header, indent=4).split("\n"))
    blocks = "".join(
        f"<{tag}>\n{pem}\n</{tag}>\n"
        for tag, pem in (("ca", profile.ca), ("cert", profile.cert), ("key", profile.key))
        if pem
    )
    return header + "\n" + "".join(line + "\n" for line in profile.lines) + blocks


def merge(mine: Profile, text: str) -> Profile | None:
    """The profile after a sync that sent ``text``, None when it changes nothing. Raises ``ProfileError``.

    The caller has verified the HMAC over ``text``. That signature proves only the sync secret. So the box key stays the
    one of the import: whoever holds the secret alone must not be able to put in a key of their own and read the next
    PIN. Key, token, secret, device id and device name stay ours too.
    """
    theirs = parse(text, synced=True)
    if theirs.ids != mine.ids:
        raise ProfileError("it is the profile of another organization, user or server")
    if theirs.text("server_box_public_key") != mine.text("server_box_public_key"):
        raise ProfileError("the server's box key has changed; import the profile anew if that is expected")
    if theirs.number("revision") < mine.number("revision"):
        raise ProfileError("it is older than the one in use")
    header = theirs.header | {name: mine.header[name] for name in ("sync_token", "sync_secret")}
    own = tuple(line for line in mine.lines if line.startswith("setenv UV_"))
    lines = tuple(line for line in theirs.lines if not line.startswith("setenv UV_"))
    merged = replace(
        theirs, header=header, lines=own + lines, ca=theirs.ca or mine.ca, cert=theirs.cert or mine.cert, key=mine.key
    )
    return None if merged == mine else merged


def parse_host(url: object) -> ApiHost:
    """The host of a URL ``https://host[:port]``. Raises ``ProfileError``."""
    try:
        parts = urlsplit(url if isinstance(url, str) else "")
        port = parts.port or 443
    except ValueError as error:
        raise ProfileError("one of its API addresses is malformed") from error
    name = parts.hostname or ""
    known = all(c.isascii() and (c.isalnum() or c in "-._:") for c in name)
    rest = parts.path.strip("/") or parts.query or parts.fragment or parts.username
    if parts.scheme != "https" or not name or not known or rest:
        raise ProfileError("one of its API addresses is not https://host[:port]")
    return ApiHost(name, port)


def _split_header(lines: list[str]) -> tuple[dict[str, Any], list[str]]:
    if lines[0].lstrip("\ufeff") != "#{" or "#}" not in lines:
        raise ProfileError("it does not begin with a JSON header between #{ and #}")
    end = lines.index("#}")
    if not all(line.startswith("#") for line in lines[1:end]):
        raise ProfileError("a line of its header does not start with #")
    try:
        header = json.loads("{" + "\n".join(line[1:] for line in lines[1 : end + 1]))
    except (ValueError, RecursionError) as error:
        raise ProfileError("its header is not JSON") from error
    return header, lines[end + 1 :]


def _split_blocks(lines: list[str]) -> tuple[list[str], dict[str, str]]:
    rest: list[str] = []
    blocks = {"ca": "", "cert": "", "key": ""}
    inside, held = "", list[str]()
    for line in lines:
        tag = _TAG.fullmatch(line.strip())
        if not inside and tag and not tag[1]:
            inside, held = tag[2], []
        elif inside and tag and tag[1] and tag[2] == inside:
            blocks[inside], inside = "\n".join(held), ""
        elif inside:
            held.append(line.strip())
        elif line.strip():
            rest.append(line.strip())
    if inside:
        raise ProfileError(f"its <{inside}> has no end")
    return rest, blocks


def _check(profile: Profile) -> None:
    for name in IDS:
        if not _ID.fullmatch(profile.text(name)):
            raise ProfileError(f"its {name} is missing or malformed")
    if profile.header.get("wg") is False:
        raise ProfileError("WireGuard is not enabled on its server; ask the administrator")
    hash_ = profile.header.get("sync_hash")
    if hash_ not in (None, "") and not (isinstance(hash_, str) and _HASH.fullmatch(hash_)):
        raise ProfileError("its sync_hash is malformed")
    _box_key(profile.text("server_box_public_key"))
    if not isinstance(profile.header.get("sync_hosts") or [], list):
        raise ProfileError("its sync_hosts are not a list")
    for host in profile.remotes:
        parse_host(host.url)
    if not profile.sync_hosts and not profile.remotes:
        raise ProfileError("it names no address of a server")


def _check_secrets(profile: Profile) -> None:
    for name in ("sync_token", "sync_secret"):
        if not _SECRET.fullmatch(profile.text(name)):
            raise ProfileError(f"its {name} is missing or malformed; download the whole profile")
    if not _UV_ID.fullmatch(profile.device_id):
        raise ProfileError("its device id (setenv UV_ID) is missing or malformed")
    name = profile.device_name
    if not name or len(name) > 128 or not name.isprintable():
        raise ProfileError("its device name (setenv UV_NAME) is missing or malformed")
    profile.rsa_key()


def _box_key(text: str) -> bytes:
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raw = b""
    if len(raw) != 32:
        raise ProfileError("its server_box_public_key is missing or malformed")
    return raw
