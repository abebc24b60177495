"""Allotting tunnel addresses. The database's unique constraints decide races; each step costs the same however
full the network is.

Host parts below ``Server.next_part`` have a row; a free row (no user) is taken first, else the counter moves on by
one. The counter may meet parts that an admin gave by hand: it steps over them, each once in the server's life.
"""

from __future__ import annotations

from collections.abc import Collection

from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction
from django.db.models import Exists, OuterRef

from core import task_names
from core.changes import after_commit
from core.locking import lock
from core.sql import Table, execute, fetch_all, fetch_one
from users.models import VpnUser

from . import networks
from .models import Address, Server

# Two requests may reach for the same free row; the loser looks again. 50 at once have been seen to need 6 rounds.
ROUNDS = 100

# Host parts that a connection which is being ended still has.
Held = Collection[int]

_addresses = Table(Address)

# As SQL, because every first connect asks it: the ORM would hold the write lock three times as long.
_MINE = f"""
SELECT {_addresses.columns("a")} FROM servers_address a WHERE a.server_id = %s AND a.user_id = %s AND NOT a.dynamic
"""
_FREE = """
SELECT id, host_part FROM servers_address WHERE server_id = %s AND user_id IS NULL AND host_part <= %s
ORDER BY host_part LIMIT %s
"""
# Free as we read it: of two that read the same row, one changes it.
_TAKE = "UPDATE servers_address SET user_id = %s, dynamic = %s WHERE id = %s AND user_id IS NULL"
_NEXT = """
UPDATE servers_server SET next_host_part = next_host_part + 1 WHERE id = %s AND next_host_part <= %s
RETURNING next_host_part - 1
"""
_GIVEN = "SELECT 1 FROM servers_address WHERE server_id = %s AND host_part = %s"


class NoAddressLeft(Exception):
    """Every host part of the server's network is taken."""


def static_address(server: Server, user: VpnUser, held: Held = frozenset()) -> Address:
    """The user's own address on this server, allotted now if they have none, and none of ``held``."""
    for _ in range(ROUNDS):
        if mine := fetch_one(_MINE, server.pk, user.pk):
            return _addresses.load(mine)
        try:
            # A savepoint: the constraint may say that another request of this user was faster.
            with transaction.atomic():
                return _allot(server, user, held, dynamic=False)
        except IntegrityError:
            continue
    raise NoAddressLeft


def dynamic_address(server: Server, user: VpnUser, held: Held = frozenset()) -> Address:
    """An address from the pool, none of ``held``, for a further device of the user; ``release`` gives it back. Some
    are left for users who have none."""
    if _left(server) <= _reserve(server):
        raise NoAddressLeft
    for _ in range(ROUNDS):
        try:
            with transaction.atomic():
                return _allot(server, user, held, dynamic=True)
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


def _left(server: Server) -> int:
    """How many can still be allotted, or a few less: what an admin gave by hand beyond the counter is not counted."""
    last = networks.last_host_part(networks.parse4(server.wg_network))
    next_part = Server.objects.values_list("next_host_part", flat=True).get(pk=server.pk)
    free = Address.objects.filter(server=server, user=None, host_part__lte=last).count()
    return max(0, last + 1 - next_part) + free


def _reserve(server: Server) -> int:
    """How many are left for those who may connect and have no address yet: a quarter of the network at most."""
    last = networks.last_host_part(networks.parse4(server.wg_network))
    static = Address.objects.filter(server=server, user=OuterRef("pk"), dynamic=False)
    without = VpnUser.objects.filter(~Exists(static), enabled=True, organization__servers=server).count()
    return min(without, (last + 1 - networks.FIRST_HOST_PART) // 4)


def _allot(server: Server, user: VpnUser, held: Held, *, dynamic: bool) -> Address:
    last = networks.last_host_part(networks.parse4(server.wg_network))
    for _ in range(ROUNDS):
        taken = _take_free(server, user, dynamic, last, held) or _take_new(server, user, dynamic, last)
        if taken:
            return taken
        if _free(server, last, held) is None:
            raise NoAddressLeft
    raise NoAddressLeft


def _free(server: Server, last: int, held: Held) -> int | None:
    """The primary key of the lowest free row that is not held."""
    rows = fetch_all(_FREE, server.pk, last, len(held) + 1)
    return next((key for key, host_part in rows if host_part not in held), None)


def _take_free(server: Server, user: VpnUser, dynamic: bool, last: int, held: Held) -> Address | None:
    free = _free(server, last, held)
    if free is None or not execute(_TAKE, user.pk, dynamic, free):
        return None
    return Address.objects.get(pk=free)


def _take_new(server: Server, user: VpnUser, dynamic: bool, last: int) -> Address | None:
    # The counter's row is locked by our update until we commit, so the part that we get is ours alone.
    while taken := fetch_one(_NEXT, server.pk, last):
        host_part = taken[0]
        if fetch_one(_GIVEN, server.pk, host_part) is None:
            row = Address(server_id=server.pk, host_part=host_part, user_id=user.pk, dynamic=dynamic)
            return _addresses.insert(row)
    return None
