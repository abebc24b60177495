"""Temporary links to a user's profiles: making, finding, using up and revoking them."""

from __future__ import annotations

import hashlib
import io
import tarfile
import zipfile
from datetime import timedelta

from django.conf import settings
from django.db.models import Q

from core import import_links
from core.clock import moment
from core.crypto import Secret, random_text
from servers.access import usable_by
from servers.models import Server
from users.models import VpnUser
from wgpeers.models import ProfileLink
from wgpeers.protocol.errors import Refusal

from . import content

LIFETIME = timedelta(hours=24)
MINUTES_ONCE_OPENED = 10


class UserDisabled(Exception):
    """The user, or their organization, is disabled: a link for them would not open."""


def importable(host: str) -> bool:
    """Whether clients can import by an address at ``host``. A proxy in front of us has a certificate of its own, which
    nobody here knows."""
    return bool(settings.TRUSTED_PROXIES) or import_links.usable(host, settings.CERTIFICATE)


def certificate_known() -> bool:
    """Whether programs that verify certificates take ours."""
    return bool(settings.TRUSTED_PROXIES) or import_links.self_signed(settings.CERTIFICATE) is False


def _digest(link_id: str) -> str:
    return hashlib.sha256(link_id.encode()).hexdigest()


def create(user: VpnUser, now: float, *, one_time: bool = False) -> ProfileLink:
    """A link good for ``LIFETIME``. Raise ``UserDisabled`` where it would not open."""
    if not (user.enabled and user.organization.enabled):
        raise UserDisabled
    # 32 characters for the key id; 16 for the short one (95 bits), which people type and QR codes carry.
    key_id, short_id = random_text(32), random_text(16)
    until = moment(now) + LIFETIME
    return ProfileLink.objects.create(
        user=user,
        key_id=Secret.of(key_id),
        key_digest=_digest(key_id),
        short_id=Secret.of(short_id),
        short_digest=_digest(short_id),
        one_time=one_time,
        created=moment(now),
        expires=until,
        short_expires=until,
    )


def revoke(link: ProfileLink, now: float) -> None:
    ProfileLink.objects.filter(pk=link.pk, revoked=None).update(revoked=moment(now))


def _good(now: float) -> Q:
    spent = Q(one_time=True, used__isnull=False)
    return Q(revoked=None, expires__gt=moment(now), user__enabled=True, user__organization__enabled=True) & ~spent


def by_key(key_id: str, now: float) -> ProfileLink | None:
    links = ProfileLink.objects.select_related("user__organization")
    return links.filter(_good(now), key_digest=_digest(key_id)).first()


def by_short(short_id: str, now: float) -> ProfileLink | None:
    links = ProfileLink.objects.select_related("user__organization")
    return links.filter(_good(now), short_digest=_digest(short_id), short_expires__gt=moment(now)).first()


def for_session(pk: int, short_id: str, now: float) -> ProfileLink | None:
    """The link of somebody who has opened it: its short half may have ended, but nothing else."""
    links = ProfileLink.objects.select_related("user__organization")
    return links.filter(_good(now), pk=pk, short_digest=_digest(short_id), opened__isnull=False).first()


def start_ending(link: ProfileLink, now: float) -> None:
    """At its first opening, start the ten minutes of its short half."""
    if link.opened is None:
        opened, until = moment(now), min(link.expires, moment(now) + timedelta(minutes=MINUTES_ONCE_OPENED))
        ProfileLink.objects.filter(pk=link.pk, opened=None).update(opened=opened, short_expires=until)
        link.opened, link.short_expires = opened, until


def use(link: ProfileLink, now: float) -> bool:
    """Mark a download; False if a one-time link was used up by another one first."""
    # On the link's own columns alone: through a join PostgreSQL would wait for the row's lock and then not look
    # at ``used`` again, and both of two downloads at the same moment would win.
    unused = ProfileLink.objects.filter(Q(one_time=False) | Q(used=None), pk=link.pk, revoked=None)
    return bool(unused.update(used=moment(now)))


def servers(link: ProfileLink) -> list[Server]:
    return list(usable_by(link.user))


def profiles(link: ProfileLink) -> dict[str, str]:
    """File name to text, one for each server that the user may use. Raise ``Refusal`` key_not_ready, or no_profile
    where there is none: an empty download would use a one-time link up for nothing."""
    texts: dict[str, str] = {}
    for server in servers(link):
        name = content.file_name(link.user, server)
        if name in texts:  # two servers whose names differ only in characters that file names do not have
            name = f"{name.removesuffix('.ovpn')}-{server.pk}.ovpn"
        texts[name] = content.full(link.user, server)
    if not texts:
        raise Refusal("no_profile", "there is no server yet that this user may use")
    return texts


def as_tar(texts: dict[str, str], now: float) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, text in texts.items():
            data = text.encode()
            info = tarfile.TarInfo(name)
            info.size, info.mode, info.mtime = len(data), 0o600, int(now)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def as_zip(texts: dict[str, str], now: float) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in texts.items():
            info = zipfile.ZipInfo(name, date_time=moment(now).timetuple()[:6])
            info.external_attr = 0o600 << 16
            archive.writestr(info, text)
    return buffer.getvalue()
