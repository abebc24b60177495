"""Allotting tunnel addresses. The database's unique constraints decide races; each step costs the same however
full the network is.

Host parts below ``Server.next_part`` have a row; a free row (no user) is taken first, else the counter moves on by
one. The counter may meet parts that an admin gave by hand: it steps over them, each once in the server's life.
"""

from __future__ import annotations

from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction
from django.db.models import F, QuerySet

from core import task_names
from core.changes import after_commit
from core.locking import lock
from users.models import VpnUser

from . import networks
from .models import Address, Server

# Two requests may reach for the same free row; the loser looks again. 50 at once have been seen to need 6 rounds.
ROUNDS = 100


class NoAddressLeft(Exception):
    """Every host part of the server's network is taken."""


def static_address(server: Server, user: VpnUser) -> Address:
    """The user's own address on this server, allotted now if they have none."""
    for _ in range(ROUNDS):
        if mine := Address.objects.filter(server=server, user=user, dynamic=False).order_by().first():
            return mine
        try:
            # A savepoint: the constraint may say that another request of this user was faster.
            with transaction.atomic():
                return _allot(server, user, dynamic=False)
        except IntegrityError:
            continue
    raise NoAddressLeft


def dynamic_address(server: Server, user: VpnUser) -> Address:
    """An address from the pool for a further device of the user; ``release`` gives it back."""
    for _ in range(ROUNDS):
        try:
            with transaction.atomic():
                return _allot(server, user, dynamic=True)
        except IntegrityError:
            continue  # an admin gave that part away by hand at the same moment
    raise NoAddressLeft


def release(server: int, host_part: int) -> None:
    """Put a dynamic address back into the pool; a static one stays its user's."""
    Address.objects.filter(server=server, host_part=host_part, dynamic=True).update(user=None, dynamic=False)


def retake(server: Server, user: VpnUser, host_part: int) -> bool:
    """Take a dynamic address that this transaction has just released; False if it is not free."""
    free = Address.objects.filter(server=server, host_part=host_part, user=None)
    return bool(free.update(user=user, dynamic=True))


def assign(server: Server, user: VpnUser, text: str) -> Address:
    """Give ``user`` the static address ``text`` of the WG network; raise ``ValidationError`` if it is not to be had."""
    host_part = networks.host_part_of(server.wg_network, text)
    try:
        with transaction.atomic():
            lock(user)
            return _assign(server, user, host_part, text)
    except IntegrityError:
        # The user's first connect allotted them another one between our look and our write.
        raise ValidationError(f"{user} was given another address at this moment; try again.") from None


def _assign(server: Server, user: VpnUser, host_part: int, text: str) -> Address:
    # Locked before it is judged (where the database locks rows): a connect may be reaching for the same free row.
    wanted, _ = Address.objects.select_for_update().get_or_create(server=server, host_part=host_part)
    if wanted.user is not None and (wanted.user != user or wanted.dynamic):
        raise ValidationError(f"{text} belongs to {wanted.user}.")
    Address.objects.filter(server=server, user=user, dynamic=False).exclude(pk=wanted.pk).update(user=None)
    wanted.user, wanted.dynamic = user, False
    wanted.save(update_fields=["user", "dynamic"])
    # Whoever is connected with the address that was theirs until now must connect again.
    after_commit(task_names.ENFORCE)
    return wanted


def _allot(server: Server, user: VpnUser, *, dynamic: bool) -> Address:
    last = networks.last_host_part(networks.parse4(server.wg_network))
    for _ in range(ROUNDS):
        if (taken := _take_free(server, user, dynamic, last)) or (taken := _take_new(server, user, dynamic, last)):
            return taken
        if not _free(server, last).exists():
            raise NoAddressLeft
    raise NoAddressLeft


def _free(server: Server, last: int) -> QuerySet[Address]:
    return Address.objects.filter(server=server, user=None, host_part__lte=last)


def _take_free(server: Server, user: VpnUser, dynamic: bool, last: int) -> Address | None:
    free = _free(server, last).order_by("host_part").first()
    # Free as we read it: of two that read the same row, one changes it.
    if free is None or not Address.objects.filter(pk=free.pk, user=None).update(user=user, dynamic=dynamic):
        return None
    free.user, free.dynamic = user, dynamic
    return free


def _take_new(server: Server, user: VpnUser, dynamic: bool, last: int) -> Address | None:
    while Server.objects.filter(pk=server.pk, next_host_part__lte=last).update(next_host_part=F("next_host_part") + 1):
        # The counter's row is locked by our update until we commit, so the part we read is ours alone.
        host_part = Server.objects.values_list("next_host_part", flat=True).get(pk=server.pk) - 1
        if not Address.objects.filter(server=server, host_part=host_part).exists():
            return Address.objects.create(server=server, host_part=host_part, user=user, dynamic=dynamic)
    return None
