"""DNS names of connected clients: ``<device>.<user>.<organization>.<zone>``, and ``<user>.<organization>.<zone>`` for
all of a user's devices. Who gets which label follows from the rows alone, so that it is the same every time.
"""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeVar

from users.models import Device, VpnUser

from .models import Server

LONGEST_LABEL, LONGEST_NAME = 63, 253
AT_ONCE = 500  # rows asked for by their keys in one query: SQLite takes no more than 999
UNNAMED = "unnamed"  # where nothing of a name can be in a label
# Letters that are no accented ones to Unicode.
_LETTERS = str.maketrans({"ß": "ss", "æ": "ae", "œ": "oe", "ø": "o", "ł": "l", "đ": "d", "ð": "d", "þ": "th"})
_NO_LETTERS = re.compile(r"[\W_]+")

Key = TypeVar("Key")


@dataclass(frozen=True, slots=True)
class NamedDevice:
    """A device that is connected, as it calls itself. ``user`` is a primary key."""

    user: int
    device_id: str
    name: str


# Labels


@lru_cache(maxsize=50_000)
def label(text: str) -> str:
    """``text`` as a DNS label: lower case letters, digits and hyphens, at most 63 characters, never empty.

    Accents go; names in other scripts become what browsers make of them (``xn--...``).
    """
    apart = unicodedata.normalize("NFKD", text.lower().translate(_LETTERS))
    letters = "".join(each for each in apart if not unicodedata.combining(each)).lower().translate(_LETTERS)
    plain = _NO_LETTERS.sub("-", letters).strip("-")
    if not plain.isascii():
        encoded = "xn--" + unicodedata.normalize("NFC", plain).encode("punycode").decode()
        if len(encoded) <= LONGEST_LABEL:
            return encoded
        plain = re.sub(r"[^a-z0-9]+", "-", plain).strip("-")
    return cut(plain, LONGEST_LABEL) or UNNAMED


def cut(text: str, longest: int) -> str:
    return text[:longest].rstrip("-")


def is_label(name: str) -> bool:
    """Whether ``name`` is a label as it stands, upper and lower case aside."""
    return name.isascii() and label(name) == name.lower()


def distinct(names: Mapping[Key, str], longest: int = LONGEST_LABEL) -> dict[Key, str]:
    """A label for each of ``names``, no two alike. ``names`` are in the order of their rows.

    Names that are labels as they stand come before others (so a user "jose" never gives way to a "José"), and among
    equals the first one has the plain label. The others get a number.
    """
    given: dict[Key, str] = {}
    taken: set[str] = set()
    last: dict[str, int] = {}
    for key, name in sorted(names.items(), key=lambda item: not is_label(item[1])):
        plain = wanted = cut(label(name), longest)
        while wanted in taken:
            last[plain] = last.get(plain, 1) + 1
            suffix = f"-{last[plain]}"
            wanted = cut(plain, longest - len(suffix)) + suffix
        taken.add(wanted)
        given[key] = wanted
    return given


# Users


def of_user(server: Server, user: VpnUser) -> str:
    """The name of a user's devices on ``server``, as ``alice.acme.vpn``."""
    return _of_users(server, {user.pk})[user.pk]


def plain_of_user(server: Server, user: VpnUser) -> str:
    """What ``of_user`` would be if nobody else's name became the same label."""
    return f"{label(user.name)}.{label(user.organization.name)}.{server.dns_zone.lower()}"


def _of_users(server: Server, users: set[int]) -> dict[int, str]:
    """Of all of them at once. Those that are gone are left out."""
    fields = ("pk", "name", "organization", "organization__name")
    rows = [row for some in _some(users) for row in VpnUser.objects.filter(pk__in=some).values_list(*fields)]
    organizations = distinct(dict(server.organizations.order_by("pk").values_list("pk", "name")))
    labels = _user_labels([(pk, name, organization) for pk, name, organization, _ in rows])
    zone = server.dns_zone.lower()
    return {
        # An organization that was just taken off the server: its connections are being ended.
        pk: f"{labels[pk]}.{organizations.get(organization) or label(organization_name)}.{zone}"
        for pk, _, organization, organization_name in rows
    }


def _user_labels(rows: Sequence[tuple[int, str, int]]) -> dict[int, str]:
    """By primary key, for rows of (primary key, name, organization).

    Names are unique within an organization, so one that is a label as it stands is its user's: only for others must
    their organization's users be looked at.
    """
    labels = {pk: name.lower() for pk, name, _ in rows if is_label(name)}
    unclear = {organization for pk, _, organization in rows if pk not in labels}
    members: defaultdict[int, dict[int, str]] = defaultdict(dict)
    for some in _some(unclear):
        others = VpnUser.objects.filter(organization__in=some).order_by("pk")
        for organization, pk, name in others.values_list("organization", "pk", "name"):
            members[organization][pk] = name
    for names in members.values():
        labels |= distinct(names)
    return labels


# Devices


def of_devices(server: Server, devices: Sequence[NamedDevice]) -> dict[NamedDevice, tuple[str, str]]:
    """The full names of connected devices: its own, and its user's. A handful of queries, however many they are.
    Devices of users that are gone are left out."""
    users = _of_users(server, {device.user for device in devices})
    mine: defaultdict[int, list[NamedDevice]] = defaultdict(list)
    for device in devices:
        mine[device.user].append(device)
    # With one device at a time there is nobody to take a name from, only what the device was called before.
    known = _known(users) if server.multi_device else {}
    found: dict[NamedDevice, tuple[str, str]] = {}
    for user, full in users.items():
        called = {device.device_id: device.name for device in mine[user]}
        labels = distinct(known.get(user, {}) | called, min(LONGEST_LABEL, LONGEST_NAME - 1 - len(full)))
        found |= {device: (f"{labels[device.device_id]}.{full}", full) for device in mine[user]}
    return found


def _known(users: Iterable[int]) -> dict[int, dict[str, str]]:
    """Every device that these users ever had, by device id, the oldest first: whether one is connected or not, it
    keeps its name, so that no name goes from one to another while both are."""
    found: defaultdict[int, dict[str, str]] = defaultdict(dict)
    for some in _some(users):
        rows = Device.objects.filter(user__in=some).order_by("pk").values_list("user", "device_id", "name")
        for user, device_id, name in rows:
            found[user][device_id] = name
    return found


def _some(keys: Iterable[int]) -> Iterator[list[int]]:
    """``keys`` in pieces that fit into one query."""
    ordered = sorted(keys)
    for start in range(0, len(ordered), AT_ONCE):
        yield ordered[start : start + AT_ONCE]
