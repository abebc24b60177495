"""The way of a connect, from allowed to confirmed. Read top to bottom.

Everything is read and made first. Then, in one transaction that only writes: what the new connection replaces is ended,
its address is taken, its row is written and its key spent. After commit one message goes to the host, which confirms
that WireGuard has the peer; else the next host is tried. Only then is the connection open and the client told.
"""

from __future__ import annotations

import hashlib
import logging
from datetime import datetime
from typing import Any

from django.core.exceptions import ObjectDoesNotExist
from django.db import IntegrityError, OperationalError, transaction

from core import task_names
from core.changes import after_commit
from core.clock import moment
from core.locking import lock
from core.redis_store import RedisUnavailable
from core.sql import is_deadlock
from servers import addresses
from servers.changes import bump_versions
from servers.hostnet.state import AddPeer, RemovePeers
from servers.models import Host, Server, ServerHost
from servers.policy import ask_again
from users.authorize import Allowed
from users.factors import remembered
from users.factors.base import Attempt
from users.models import Device, VpnUser
from wgpeers.fleet import messages, peers, remotes
from wgpeers.models import Connection, EndReason, SpentKey, State
from wgpeers.protocol import client_config, envelope
from wgpeers.protocol.errors import Refusal, SealedRefusal

from . import choosing, decisions, liveness, placement, queries, renewals, site_failover
from .accounts import Account
from .ending import end, notify_hosts

log = logging.getLogger(__name__)


def connect(account: Account, attempt: Attempt, allowed: Allowed, now: float, asked: str = "") -> dict[str, Any]:
    """The configuration for an allowed client; raise ``Refusal`` where there is none to give. ``allowed`` is what let
    the client come this far, for the decision that is written down and for what is remembered of it. ``asked`` is the
    name or address that its request was sent to, which may be a host's."""
    raw_key = envelope.wireguard_key(attempt.wg_public_key)
    digest = hashlib.sha256(raw_key).digest()
    suitable = _suitable_hosts(account, attempt, asked)
    first = suitable[0].host
    connection = _draft(account, attempt, first, now)
    try:
        replaced = _begin(account, connection, first, digest, now)
    except placement.CameBack as back:
        # Once: who was told stays away, until its user starts it by hand. Else the two would take turns for ever.
        Connection.objects.filter(pk=back.args[0]).update(device_told=True)
        reason = "You are connected with another device. Start again here to use this one instead."
        raise SealedRefusal("other_device", reason) from None
    except KeyWasUsed:
        again = _given_before(account, attempt, digest, now)
        _note(account, attempt, allowed, "given_again", now)
        return again
    try:
        answer = _confirm(account, attempt, allowed, connection, replaced, suitable, now)
    except RedisUnavailable:
        _give_up(connection, replaced, now)
        raise
    if answer is None:
        _give_up(connection, replaced, now)
        detail = "no host confirmed the connection in time"
        raise Refusal("unconfirmed", detail, choosing.pause(choosing.SOON))
    return answer


def _confirm(
    account: Account,
    attempt: Attempt,
    allowed: Allowed,
    connection: Connection,
    replaced: list[Connection],
    suitable: list[ServerHost],
    now: float,
) -> dict[str, Any] | None:
    """Have one host after the other take the peer; None if none did, or the connection was ended meanwhile."""
    # Other hosts are told of a client that stays where it is once only, when both is true: that it is there by the new
    # connection, and no more by the old one. In between they would know no way to it.
    stays = _goes_on(attempt, replaced, suitable[0].host)
    _start_counting(connection, [] if stays else replaced, account.server, now)
    for number, attachment in enumerate(suitable):
        if number and not _move(connection, attachment.host, replaced):
            return None
        if messages.add_and_wait(
            attachment.host, _add_message(connection, attachment.host, account, attempt, replaced)
        ):
            choosing.trust(attachment.host)
            if _open(connection, account, attempt, allowed, now):
                if account.extras.several_hosts or account.extras.linked:
                    remotes.note([connection.public_id])
                if stays:
                    notify_hosts(replaced, except_on=connection.host_id)
                return _configuration(connection, account, attachment, now)
            return None
        choosing.avoid(attachment.host)
        log.warning("host %s did not confirm connection %s", attachment.host, connection.public_id)
    return None


class KeyWasUsed(Exception):
    """There is a row of this key in SpentKey already; nothing was changed."""


def _given_before(account: Account, attempt: Attempt, digest: bytes, now: float) -> dict[str, Any]:
    """A lost answer is given again: to the same user and device, as long as its connection is open, has not pinged and
    is not due to end. Anyone else with a spent key is refused."""
    spent = SpentKey.objects.filter(digest=digest).first()
    # Gone again: the attempt that it was of has failed at this moment, so the key is not spent.
    if spent is None:
        raise Refusal("in_progress", "another attempt with this key is ending; try again")
    mine = spent.connection
    same = mine is not None and (mine.user_id, mine.server_id, mine.device_id) == (
        account.user.pk,
        account.server.pk,
        attempt.device_id,
    )
    if mine is not None and same and mine.state == State.PENDING:
        raise Refusal("in_progress", "this connection is being made")
    if mine is None or not same or mine.state != State.OPEN or not liveness.awaits_first_ping(mine.public_id, now):
        raise Refusal("key_spent", "this WireGuard key was used before")
    if mine.session_ends is not None and mine.session_ends <= moment(now):
        raise Refusal("key_spent", "this WireGuard key was used before")
    attachment = ServerHost.objects.filter(server=account.server, host=mine.host_id).first()
    if attachment is None:
        raise Refusal("key_spent", "this WireGuard key was used before")
    return _configuration(mine, account, attachment, now)


def _configuration(connection: Connection, account: Account, attachment: ServerHost, now: float) -> dict[str, Any]:
    server_has_networks = account.extras.server_has_networks
    return client_config.build(
        connection,
        account.server,
        attachment.host,
        attachment.public_key,
        now,
        rows=queries.routes(account.server),
        server_has_networks=server_has_networks,
        server_is_linked=account.extras.linked,
    )


def _suitable_hosts(account: Account, attempt: Attempt, asked: str) -> list[ServerHost]:
    """Hosts of the server that have made their key for it and take clients, the best one first."""
    attachments = queries.attachments(account.server)
    if any(attachment.public_key == attempt.wg_public_key for attachment in attachments):
        raise Refusal("invalid_key", "wg_public_key is the server's own")
    return choosing.suitable(account, attempt, attachments, asked)


def _draft(account: Account, attempt: Attempt, host: Host, now: float) -> Connection:
    """The pending connection, not stored, and without what only the transaction can say: address and version."""
    return Connection(
        user_id=account.user.pk,
        user_name=decisions.full_name(account.user),
        server=account.server,
        server_name=account.server.name,
        host=host,
        host_name=host.name,
        device_id=attempt.device_id,
        device_name=attempt.device_name,
        platform=attempt.platform,
        client_version=attempt.client_version,
        client_address=attempt.address or None,
        wg_public_key=attempt.wg_public_key,
        created=moment(now),
        session_ends=_session_end(account.server, max(now, attempt.counts_from)),
    )


def _session_end(server: Server, now: float) -> datetime | None:
    """When the connection ends whatever its pings say."""
    daily = ask_again(server)
    ends = [daily.after(now)] if daily else []
    if server.session_timeout:
        ends.append(now + server.session_timeout)
    return moment(min(ends)) if ends else None


def _begin(account: Account, connection: Connection, first: Host, digest: bytes, now: float) -> list[Connection]:
    """Store the connection with its address and version, and its key as spent; the connections that it replaced."""
    held: frozenset[int] = frozenset()
    for _ in range(2):
        try:
            return _store(account, connection, first, digest, now, held)
        except IntegrityError:
            # Its address has no owner any more (an admin's edit, a user deleted), but a connection that is being ended.
            pass
        except OperationalError as error:
            # By a connect that has taken such an address and waits for that connection's end, which is ours: we wait
            # for the address.
            if not is_deadlock(error):
                raise
        held = queries.held_addresses(account.server.pk)
    raise Refusal("in_progress", "the address was taken at the same moment; try again")


def _store(
    account: Account, connection: Connection, first: Host, digest: bytes, now: float, held: frozenset[int]
) -> list[Connection]:
    """The transaction. ``held``: host parts that nobody can have now."""
    has_networks = account.extras.has_networks  # read before the lock is held
    try:
        with transaction.atomic():
            lock(account.user)
            replaced = placement.take_place(account, connection, now, held)
            queries.insert_connection(connection)
            queries.insert_spent_key(digest, connection, now)
            # What nobody serves is the new connection's own from its first message on.
            others = site_failover.elect_for_user(account.server.pk, account.user.pk, now) if has_networks else set()
            for other in sorted(others):
                after_commit(task_names.CONVERGE, other)
            # Connections before hosts, as whoever ends one does: the other way round, the address that we wait for
            # (its connection is being ended) could wait for the host's row that we hold. Hence the version comes last.
            versions = bump_versions([first.pk, *(gone.host_id for gone in replaced if gone.host_id), *others])
            connection.version = versions.get(first.pk, 0)
            queries.set_version(connection)
    except ObjectDoesNotExist:
        raise Refusal("in_progress", placement.CHANGED) from None
    except addresses.NoAddressLeft:
        raise Refusal("no_address_left", "every address of this server is taken") from None
    except IntegrityError:
        if SpentKey.objects.filter(digest=digest).exists():
            raise KeyWasUsed from None
        raise
    return replaced


def _add_message(
    connection: Connection, host: Host, account: Account, attempt: Attempt, replaced: list[Connection]
) -> AddPeer:
    """What is replaced on this very host goes in the same message: its address is never without a peer, so flows
    through it survive. Where its own client says that it goes on by the old key until the new one works, so does the
    host."""
    here = tuple(gone.public_id for gone in replaced if gone.host_id == host.pk)
    extras = account.extras
    peer = peers.peer_of(connection, account.server, has_forwards=extras.has_forwards, has_networks=extras.has_networks)
    confirm = messages.confirm_key(host, connection.public_id)
    seconds = renewals.HAND_OVER if _goes_on(attempt, replaced, host) else 0.0
    return AddPeer(account.server.public_id, peer, here, confirm, hand_over=seconds)


def _goes_on(attempt: Attempt, replaced: list[Connection], host: Host) -> bool:
    """Whether the client uses what is replaced on ``host`` until its new key works there."""
    own = [gone for gone in replaced if gone.host_id == host.pk and gone.device_id == attempt.device_id]
    return any(gone.wg_public_key == attempt.renews for gone in own)


def _start_counting(connection: Connection, replaced: list[Connection], server: Server, now: float) -> None:
    """From here on the sweep knows the connection, whatever becomes of this request."""
    liveness.start(connection.public_id, now + server.ping_timeout)
    notify_hosts(replaced, except_on=connection.host_id)


def _move(connection: Connection, host: Host, replaced: list[Connection]) -> bool:
    """Put a connection that is still pending onto the next host, and off the one that did not answer."""
    before = connection.host
    with transaction.atomic():
        # The connection's row before the hosts', as whoever ends it does: the other way round the two could wait for
        # each other.
        if not Connection.objects.filter(pk=connection.pk, state=State.PENDING).update(host=host, host_name=host.name):
            return False
        versions = bump_versions([host.pk, *([before.pk] if before else [])])
        connection.host, connection.host_name = host, host.name
        connection.version = versions.get(host.pk, 0)
        queries.set_version(connection)
    if before is not None:
        gone = (connection.public_id, *(old.public_id for old in replaced if old.host_id == before.pk))
        messages.send_removal(before, RemovePeers(versions.get(before.pk, 0), gone))
    return True


def _open(connection: Connection, account: Account, attempt: Attempt, allowed: Allowed, now: float) -> bool:
    """Pending to open, unless the sweep or an admin ended it meanwhile; note the device and the decision.

    Whoever takes a right away from now on finds our row and ends it; what was taken away until now is asked here.
    """
    device = _device(account.user, attempt, now)
    with transaction.atomic():
        if not queries.open_pending(connection, now):
            return False
        queries.note_device(device)
        _note(account, attempt, allowed, "ok", now)
    connection.state = State.OPEN
    return True


def _note(account: Account, attempt: Attempt, allowed: Allowed, outcome: str, now: float) -> None:
    """Write down that the client is connected, and remember what it passed."""
    layers = (*allowed.layers, ("connect", outcome))
    decisions.record(account, attempt, layers, now, allowed=True, code="allowed", detail=allowed.detail)
    remembered.store(allowed.passes)


def _device(user: VpnUser, attempt: Attempt, now: float) -> Device:
    return Device(
        user_id=user.pk,
        device_id=attempt.device_id,
        first_seen=moment(now),
        name=attempt.device_name,
        hostname=attempt.device_hostname,
        platform=attempt.platform,
        client_version=attempt.client_version,
        last_seen=moment(now),
        last_address=attempt.address or None,
    )


def _give_up(connection: Connection, replaced: list[Connection], now: float) -> None:
    """No host confirmed: end the row (the key is then not spent) and have the peer removed, should it arrive late."""
    end([connection], EndReason.UNCONFIRMED, now)
    notify_hosts(replaced)


def disconnect(connection: Connection, now: float) -> bool:
    """End one connection by an administrator's hand."""
    return end([connection], EndReason.ADMIN, now) == 1
