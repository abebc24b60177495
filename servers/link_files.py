"""Link files: what one installation gives another so that a server of each are linked. One text, JSON, which holds the
private key of whoever imports it.

A file says what its maker offers and what they ask for, and nothing goes back: what the other side offers it says by
itself. Whatever is in a file, an administrator has seen it before it does anything.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from django.core.exceptions import ValidationError

from . import link_keys, networks
from .hostnet.state.names import LINK_PREFIX, OPAQUE_ID
from .hostnet.state.openvpn import openvpn_from_json
from .link_keys import EndKeys

FORMAT, VERSION = "vpn-link-file", 1
LARGEST = 1 << 16  # bytes; it has about 5,000
MOST_NETWORKS = 100  # of one side


class LinkFileError(Exception):
    """It cannot be imported. The text is for an administrator, and shows nothing of the file's keys."""


@dataclass(frozen=True, slots=True)
class LinkFile:
    """All as whoever imports it sees it: ``listens``, that they do; ``addresses``, where they connect to otherwise, in
    the order in which they are tried; ``theirs``, what the maker offers them; ``ours``, what the maker would like to
    reach. Networks are as ``networks.parse`` spells them. ``link`` is the same for both sides, and no other link has
    it."""

    link: str
    listens: bool
    addresses: tuple[str, ...]
    port: int
    mtu: int
    theirs: tuple[str, ...]
    ours: tuple[str, ...]
    keys: EndKeys = field(repr=False)

    def to_text(self) -> str:
        data = {
            "format": FORMAT,
            "version": VERSION,
            "link": self.link,
            "listens": self.listens,
            "addresses": self.addresses,
            "port": self.port,
            "mtu": self.mtu,
            "theirs": self.theirs,
            "ours": self.ours,
            "keys": link_keys.plain(self.keys),
        }
        return json.dumps(data, indent=2) + "\n"


def read(raw: bytes, now: datetime) -> LinkFile:
    """Raise ``LinkFileError`` where it is none, or one that cannot work."""
    if len(raw) > LARGEST:
        raise LinkFileError(f"This is no link file: it has more than {LARGEST:,} bytes.")
    try:
        data = json.loads(raw.decode())
    except (ValueError, RecursionError):
        raise LinkFileError("This is no link file, or not all of it.") from None
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise LinkFileError("This is no link file.")
    if data.get("version") != VERSION:
        raise LinkFileError(
            f"This link file is of another version ({str(data.get('version'))[:20]!r}) than the one that is understood "
            f"here ({VERSION}): both installations need releases that go together."
        )
    try:
        found = _from(data)
        _end(found)
        link_keys.check(found.keys, listens=found.listens, now=now)
    except ValidationError as error:
        raise LinkFileError(f"The link file is broken: {error.messages[0]}") from None
    except (KeyError, TypeError, ValueError) as error:
        raise LinkFileError(f"The link file is broken: {_in_words(error)}.") from None
    return found


def _in_words(error: Exception) -> str:
    return f"{error.args[0]} is missing" if isinstance(error, KeyError) else str(error)


def _from(data: Mapping[str, Any]) -> LinkFile:
    link = _of(data, "link", str)
    if not OPAQUE_ID.fullmatch(link) or len(link) > 32:
        raise ValueError("the id of the link")
    return LinkFile(
        link,
        _of(data, "listens", bool),
        _addresses(data),
        _of(data, "port", int),
        _of(data, "mtu", int),
        _networks(data, "theirs"),
        _networks(data, "ours"),
        link_keys.end_from({name: _of(_of(data, "keys", dict), name, str) for name in EndKeys.__slots__}),
    )


def _of(data: Mapping[str, Any], name: str, kind: type) -> Any:
    value = data[name]
    if type(value) is not kind:  # a bool is an int as well
        raise TypeError(f"{name} is of another kind")
    return value


def _addresses(data: Mapping[str, Any]) -> tuple[str, ...]:
    """Whether a host would take them ``_end`` says."""
    texts = _of(data, "addresses", list)
    if not all(type(text) is str for text in texts):
        raise TypeError("addresses are of another kind")
    return tuple(texts)


def _networks(data: Mapping[str, Any], name: str) -> tuple[str, ...]:
    """Raise ``ValidationError`` where one of them is none."""
    texts = _of(data, name, list)
    if not 0 < len(texts) <= MOST_NETWORKS or not all(type(text) is str and len(text) < 64 for text in texts):
        raise ValueError(f"{name} are not between 1 and {MOST_NETWORKS} networks")
    return tuple(str(networks.parse(text)) for text in texts)


def _end(file: LinkFile) -> None:
    """Whether a host would take it: each word of it ends up in openvpn's configuration. Raise ``ValueError``."""
    if file.listens == bool(file.addresses):
        raise ValueError("one side listens, and the other knows its address")
    keys = {name: value for name, value in link_keys.plain(file.keys).items() if name != "name"}
    given = {"device": f"{LINK_PREFIX}1", "port": file.port, "addresses": file.addresses, "mtu": file.mtu, **keys}
    openvpn_from_json(given)
