"""The host's worker: a Celery app of its own, without Django and without a database.

    python -m servers.hostnet.worker             run (settings in the environment, see ``Settings``)
    python -m servers.hostnet.worker --cleanup   remove our table and interfaces, and nothing else

It ends on SIGTERM and leaves all tunnels as they are: a restart drops nobody.
"""

from __future__ import annotations

import logging
import os
import sys
import time
import uuid
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import redis
from celery import Celery
from celery.platforms import SecurityWarning
from kombu.connection import Connection
from kombu.entity import Exchange, Queue
from kombu.exceptions import ContentDisallowed, DecodeError, KombuError

from servers.hostnet import conntrack, messages
from servers.hostnet.apply import Applier
from servers.hostnet.channel import Channel
from servers.hostnet.firewall import Firewall, FirewallError
from servers.hostnet.links import LinkError, Links
from servers.hostnet.messages import OUR_INTERFACE, BadMessage, Message
from servers.hostnet.pulse import Pulse, report_gone
from servers.hostnet.state import AddPeer, HostState, RemovePeers
from servers.hostnet.wanted import Wanted
from servers.hostnet.wireguard.base import WireGuardError
from servers.hostnet.wireguard.choose import choose

log = logging.getLogger("hostnet.worker")

BATCH = 256  # single changes taken together
TASKS = (messages.FULL_STATE, messages.ADD_PEER, messages.REMOVE_PEERS)


@dataclass(frozen=True, slots=True)
class Settings:
    """What the environment says. ``redis_url`` may hold a password and stays out of the repr."""

    host: str
    redis_url: str = field(repr=False)
    var: Path
    backend: str
    web_port: int

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> Settings:
        """Read HOST_ID, HOST_REDIS_URL, HOST_VAR, HOSTNET_BACKEND and VPN_GATEWAY_PORT; end with a hint if wrong."""
        for name in ("HOST_ID", "HOST_REDIS_URL", "HOST_VAR"):
            if not env.get(name):
                sys.exit(f"{name} is not set")
        if not env["HOST_ID"].isalnum() or not env["HOST_ID"].isascii():
            sys.exit("HOST_ID must be letters and digits")
        port = env.get("VPN_GATEWAY_PORT", "9790")
        if not port.isdecimal() or not 0 < int(port) < 65536:
            sys.exit("VPN_GATEWAY_PORT must be a port number")
        backend = env.get("HOSTNET_BACKEND", "auto")
        return cls(env["HOST_ID"], env["HOST_REDIS_URL"], Path(env["HOST_VAR"]), backend, int(port))

    @property
    def queue(self) -> str:
        return f"host.{self.host}"


class Inbox:
    """The host's own queue, read beside Celery: what waits there while a task runs."""

    def __init__(self, app: Celery, queue: Queue, host: str) -> None:
        self._app = app
        self._queue = queue
        self._host = host
        self._connection: Any = None

    def waiting(self, limit: int) -> Iterator[Message]:
        """At most ``limit`` messages, without waiting. Damaged ones are logged and left out.

        They are taken without acknowledgement: what a crash loses, the next full state brings.
        """
        try:
            for _ in range(limit):
                self._connection = self._connection or self._app.connection_for_read()
                try:
                    raw = self._queue(self._connection.default_channel).get(no_ack=True)  # type: ignore[no-untyped-call]
                    if raw is None:
                        return
                    message = self._decode(raw)
                except (ContentDisallowed, DecodeError, ValueError, TypeError, LookupError, AttributeError) as error:
                    log_dropped(error)
                else:
                    yield message
        except (KombuError, redis.RedisError, OSError) as error:
            log.warning("the queue cannot be read: %s", type(error).__name__)
            self._forget_connection()

    def _forget_connection(self) -> None:
        if self._connection is not None:
            self._connection.collect()
            self._connection = None

    def _decode(self, raw: Any) -> Message:
        arguments = raw.decode()[0]
        if len(arguments) != 1:
            raise BadMessage("not one argument")
        return messages.read(str(raw.headers.get("task")), arguments[0], self._host)


def log_dropped(error: Exception) -> None:
    """Our own words about a bad message are safe to log; others may quote it."""
    log.error("message dropped: %s", error if isinstance(error, BadMessage) else type(error).__name__)


class Lane:
    """The one lane on which messages are carried out."""

    def __init__(
        self, host: str, applier: Applier, channel: Channel, inbox: Callable[[int], Iterator[Message]]
    ) -> None:
        self._host = host
        self._applier = applier
        self._channel = channel
        self._inbox = inbox

    def receive(self, task: str, data: object) -> None:
        """Carry out a message, and with it what else waits in the queue, as one batch."""
        try:
            first = messages.read(task, data, self._host)
        except BadMessage as error:
            log_dropped(error)
            return
        if isinstance(first, HostState):
            self._full(first)
            return
        batch: list[AddPeer | RemovePeers] = [first]
        full: HostState | None = None
        for message in self._inbox(BATCH - 1):
            if isinstance(message, HostState):
                full = message  # it may be large: the rest of the queue can wait
                break
            batch.append(message)
        self._changes(batch)
        if full is not None:
            self._full(full)

    def _changes(self, batch: list[AddPeer | RemovePeers]) -> None:
        report = self._applier.changes(batch)
        answers = [
            (message.confirm, f"error: {answer}" if answer else "ok")
            for message, answer in zip(batch, report.answers, strict=True)
            if isinstance(message, AddPeer) and message.confirm
        ]
        if answers:
            self._channel.confirm(answers)
        report_gone(self._channel, report.gone)

    def _full(self, state: HostState) -> None:
        began = time.monotonic()
        report = self._applier.full(state)
        if report is None:
            log.info("full state %d ignored: stale, or for another run", state.version)
            return
        took = round(time.monotonic() - began, 3)
        self._channel.report(
            "applied", version=report.version, keys=report.keys, drift=report.drift, error=report.error, took=took
        )
        report_gone(self._channel, report.gone)


def broker_url(url: str) -> str:
    """kombu's form of a redis-py URL: the same, save for unix sockets."""
    parts = urlsplit(url)
    if parts.scheme != "unix":
        return url
    login = parts.netloc.rpartition("@")[0]
    database = parse_qs(parts.query).get("db", ["0"])[0]
    return f"redis+socket://{login}{'@' if login else ''}{parts.path}?virtual_host={database}"


class SteadyConnection(Connection):
    """Looks for Redis every 3 s. kombu's own pauses grow to 30 s, for which a host would stand idle after an outage."""

    def ensure_connection(self, *arguments: Any, **options: Any) -> Any:
        options |= {"interval_start": 3, "interval_step": 0, "interval_max": 3}
        return super().ensure_connection(*arguments, **options)  # type: ignore[no-untyped-call]


def make_app(settings: Settings) -> Celery:
    """A Celery app that touches nothing in Redis but keys starting with ``host.<id>``."""
    name = settings.queue
    queue = Queue(name, Exchange(""), routing_key=name)  # type: ignore[no-untyped-call]
    # The default exchange needs no binding, so none is written to Redis, where it would be a key without our prefix.
    app = Celery("hostnet", broker=broker_url(settings.redis_url), fixups=[], set_as_current=False)
    app.amqp.Connection = SteadyConnection
    app.conf.update(
        accept_content=["json"],
        task_serializer="json",
        task_ignore_result=True,
        task_queues=[queue],
        task_default_exchange="",  # Celery puts its own default exchange in the place of the nameless one otherwise
        worker_prefetch_multiplier=1,
        worker_enable_remote_control=False,
        worker_send_task_events=False,
        worker_redirect_stdouts=False,
        worker_cancel_long_running_tasks_on_connection_loss=True,  # ours are never acknowledged late
        broker_connection_retry=True,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_channel_error_retry=True,
        broker_transport_options={
            "unacked_key": f"{name}:unacked",
            "unacked_index_key": f"{name}:unacked_index",
            "unacked_mutex_key": f"{name}:unacked_mutex",
        },
    )
    return app


def register(app: Celery, lane: Lane) -> None:
    """Make the lane's messages tasks of ``app``."""

    def task(name: str) -> None:
        def receive(*arguments: object, **_: object) -> None:
            # With the wrong number of arguments it is as malformed as nothing at all.
            lane.receive(name, arguments[0] if len(arguments) == 1 else None)

        app.task(name=name)(receive)

    for name in TASKS:
        task(name)


def run(settings: Settings) -> None:
    """Work until SIGTERM."""
    boot = uuid.uuid4().hex
    settings.var.mkdir(mode=0o700, parents=True, exist_ok=True)
    wanted, firewall = Wanted(boot), Firewall()
    try:
        backend = choose(settings.backend)
        firewall.guard(settings.web_port)
    except (WireGuardError, FirewallError) as error:
        sys.exit(f"cannot start: {error}")
    applier = Applier(wanted, backend, Links(), firewall, settings.var / "keys", conntrack.flush)
    channel = Channel(settings.host, settings.redis_url, boot)
    app = make_app(settings)
    register(app, Lane(settings.host, applier, channel, Inbox(app, app.conf.task_queues[0], settings.host).waiting))
    # It runs as root since it changes the network, and takes nothing but JSON.
    warnings.simplefilter("ignore", SecurityWarning)
    for noisy in ("celery.worker.strategy", "celery.app.trace"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    Pulse(channel, applier, wanted, backend.name).start()
    flags = ["--without-gossip", "--without-mingle", "--without-heartbeat", "--loglevel=INFO"]
    app.worker_main(["worker", "--pool=solo", "--concurrency=1", f"--queues={settings.queue}", *flags])


def cleanup(backend_setting: str) -> list[str]:
    """Remove our interfaces, whoever left them, then our table; return what could not be removed, in words."""
    errors: list[str] = []
    try:
        backend = choose(backend_setting)
        for name in filter(OUR_INTERFACE.fullmatch, backend.list()):
            backend.delete(name)
        links = Links()
        for name in links.read():
            links.delete(name)
    except (WireGuardError, LinkError) as error:
        errors.append(str(error))
    try:
        # Last, and only if no tunnel is left that it would leave open.
        if not errors:
            Firewall().remove()
    except FirewallError as error:
        errors.append(str(error))
    return errors


def main(arguments: list[str]) -> None:
    # Celery loads Django by itself where it finds this; a host has none.
    os.environ.pop("DJANGO_SETTINGS_MODULE", None)
    if arguments == ["--cleanup"]:
        errors = cleanup(os.environ.get("HOSTNET_BACKEND", "auto"))
        sys.exit("; ".join(errors) or None)
    if arguments:
        sys.exit("usage: python -m servers.hostnet.worker [--cleanup]")
    run(Settings.from_env(os.environ))


if __name__ == "__main__":
    main(sys.argv[1:])
