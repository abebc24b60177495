"""The dispatcher: a host carries out its messages one after the other, in batches where many wait."""

from __future__ import annotations

import json
import logging
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import redis
from celery import Celery
from kombu.entity import Queue
from kombu.exceptions import KombuError

from servers.hostnet.reconcile.apply import Applier, Change
from servers.hostnet.reconcile.executor import HOST_ERRORS
from servers.hostnet.reconcile.reported import BatchReport, FullReport
from servers.hostnet.state import AddPeer, HostState, ShowPlan, conditions_to_json
from servers.hostnet.state.host_networks import host_networks_to_json
from servers.hostnet.state.version import FORMAT

from . import decoding
from .channel import Channel
from .decoding import BadMessage, Message, OfLater
from .heartbeat import report_gone

log = logging.getLogger("hostnet.dispatcher")

BATCH = 256  # single changes taken together
# Messages taken out of Redis at once. A full state may be megabytes, and all that are taken are in memory together.
TAKEN_AT_ONCE = 32


class Inbox:
    """The host's own queue, read beside Celery: what waits there while a task runs."""

    def __init__(self, app: Celery, queue: Queue, host: str) -> None:
        self._app = app
        self._queue = queue
        self._host = host
        self._connection: Any = None

    def waiting(self, limit: int) -> Iterator[Message]:
        """At most ``limit`` messages, without waiting. Damaged ones are logged and left out. All of them must be taken:
        they are in the queue no more.

        They are taken without acknowledgement: what a crash loses, the next full state brings.
        """
        while limit > 0:
            count = min(limit, TAKEN_AT_ONCE)
            raws = self._take(count)
            for raw in raws:
                try:
                    message = self._decode(raw)
                except Exception as error:
                    # Whatever it is (nesting without end, say): those behind it must not be lost.
                    log_dropped(error)
                else:
                    yield message
            limit = limit - count if len(raws) == count else 0

    def _take(self, count: int) -> list[Any]:
        try:
            self._connection = self._connection or self._app.connection_for_read()
            # Kombu's own way asks Redis four times for each message, once for each priority that we do not use.
            return self._connection.default_channel.client.rpop(self._queue.name, count) or []
        except (KombuError, redis.RedisError, OSError) as error:
            log.warning("the queue cannot be read: %s", type(error).__name__)
            self._forget_connection()
            return []

    def _forget_connection(self) -> None:
        if self._connection is not None:
            self._connection.collect()
            self._connection = None

    def _decode(self, raw: Any) -> Message:
        message = self._connection.default_channel.Message(json.loads(raw), channel=self._connection.default_channel)
        arguments = message.decode()[0]
        if len(arguments) != 1:
            raise BadMessage("not one argument")
        return decoding.read(str(message.headers.get("task")), arguments[0], self._host)


def log_dropped(error: Exception) -> None:
    """Our own words about a bad message are safe to log; others may quote it."""
    log.error("message dropped: %s", error if isinstance(error, BadMessage) else type(error).__name__)


def log_unexpected(what: str, error: Exception) -> None:
    """Where it came from, but not its own words, which may quote a message or a key."""
    where = "".join(traceback.format_tb(error.__traceback__))
    log.error("%s: unexpected %s\n%s", what, type(error).__name__, where)


def report_applied(channel: Channel, kind: str, report: FullReport, took: float) -> None:
    """Report how the host is now, since a full state came (``applied``) or others changed it (``repaired``)."""
    channel.report(
        kind,
        version=report.version,
        keys=report.keys,
        drift=report.drift,
        conditions=conditions_to_json(report.conditions),
        took=round(took, 3),
        networks=None if report.networks is None else host_networks_to_json(report.networks),
    )


# What is carried out by itself, and not in a batch.
Whole = HostState | ShowPlan | OfLater


class Dispatcher:
    """Carries out messages, one after the other. One that raises costs nothing but itself: what came out of the queue
    with it is in no queue any more, and would be missed until the next full state."""

    def __init__(
        self,
        host: str,
        applier: Applier,
        channel: Channel,
        inbox: Callable[[int], Iterator[Message]],
    ) -> None:
        self._host = host
        self._applier = applier
        self._channel = channel
        self._inbox = inbox

    def receive(self, task: str, data: object) -> None:
        """Carry out a message, and with it what else waits in the queue: single changes in batches, in order."""
        try:
            first = decoding.read(task, data, self._host)
        except BadMessage as error:
            log_dropped(error)
            return
        if isinstance(first, Whole):
            self._whole(first)
            return
        batch: list[Change] = [first]
        for message in self._inbox(BATCH - 1):
            if isinstance(message, Whole):
                self._changes(batch)
                self._whole(message)
                batch = []
            else:
                batch.append(message)
        self._changes(batch)

    def _whole(self, message: HostState | ShowPlan | OfLater) -> None:
        try:
            match message:
                case ShowPlan():
                    self._show(message)
                case OfLater():
                    self._refuse(message)
                case _:
                    self._full(message)
        except Exception as error:
            log_unexpected(type(message).__name__, error)

    def _refuse(self, message: OfLater) -> None:
        text = (
            f"a message of format {message.format}, and this worker knows {FORMAT} at most: it is of an older release"
        )
        log.error("refused: %s", text)
        if message.confirm:
            self._channel.confirm([(message.confirm, f"error: {text}")])

    def _changes(self, batch: list[Change]) -> None:
        if not batch:
            return
        try:
            report = self._applier.changes(batch)
        except Exception as error:
            log_unexpected(f"{len(batch)} single changes", error)
            if len(batch) > 1:
                for message in batch:
                    self._changes([message])
                return
            report = BatchReport([f"unexpected {type(error).__name__}"], [])
        self._answer(batch, report.answers)
        report_gone(self._channel, report.gone)

    def _answer(self, batch: list[Change], answers: list[str]) -> None:
        confirmations = [
            (message.confirm, f"error: {answer}" if answer else "ok")
            for message, answer in zip(batch, answers, strict=True)
            if isinstance(message, AddPeer) and message.confirm
        ]
        if confirmations:
            self._channel.confirm(confirmations)

    def _show(self, message: ShowPlan) -> None:
        """Answer what the state would change. Nothing is changed, so that a late answer is the worst it can do."""
        try:
            lines = self._applier.preview(message.state)
        except HOST_ERRORS as error:
            answer: dict[str, object] = {"error": f"the host could not be read: {error}"}
        else:
            stale = "it has a newer state already, or was restarted just now; ask again"
            answer = {"lines": lines} if lines is not None else {"error": stale}
        self._channel.confirm([(message.confirm, json.dumps(answer))])

    def _full(self, state: HostState) -> None:
        began = time.monotonic()
        report = self._applier.full(state)
        if report is None:
            log.info("full state %d ignored: stale, or for another run", state.version)
            return
        report_applied(self._channel, "applied", report, time.monotonic() - began)
        report_gone(self._channel, report.gone)
