"""The host's worker: a Celery app of its own, without Django and without a database.

    python -m servers.hostnet             run (settings in the environment, see ``Settings``)
    python -m servers.hostnet --cleanup   remove our table, rules, interfaces and resolvers, and nothing else

It ends on SIGTERM and leaves all tunnels as they are: a restart drops nobody.
"""

from __future__ import annotations

import logging
import os
import resource
import signal
import socket
import sys
import uuid
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from celery import Celery
from celery.platforms import SecurityWarning
from kombu.connection import Connection
from kombu.entity import Exchange, Queue

from servers.hostnet.dns import resolvers as dns
from servers.hostnet.firewall.ruleset import TABLE
from servers.hostnet.firewall.table import Firewall, FirewallError
from servers.hostnet.foreign.manager import Foreign
from servers.hostnet.gateway import proxy
from servers.hostnet.gateway.forwarding import Forwarding
from servers.hostnet.mesh import memory
from servers.hostnet.mesh import network as mesh_network
from servers.hostnet.mesh.reach import Reaching
from servers.hostnet.netlink import conntrack
from servers.hostnet.netlink.events import Events
from servers.hostnet.netlink.links import LinkError, Links
from servers.hostnet.openvpn import tunnels as openvpn
from servers.hostnet.outer.detour import Detour
from servers.hostnet.probes.prober import Prober
from servers.hostnet.probes.sockets import Sockets
from servers.hostnet.reconcile.apply import Applier
from servers.hostnet.reconcile.desired import Desired
from servers.hostnet.state import OUR_INTERFACE, json_lines, lost_acks, worker_logs
from servers.hostnet.state.redis_urls import (
    broker_options,
    broker_url,
    in_mesh,
    is_sentinel,
    sentinels,
    with_password,
)
from servers.hostnet.subsystem import Subsystem
from servers.hostnet.wireguard.base import WireGuardError
from servers.hostnet.wireguard.choose import choose

from . import decoding
from .channel import Channel
from .dispatcher import Dispatcher, Inbox
from .endings import Endings
from .heartbeat import Heartbeat
from .watch import Watch

log = logging.getLogger("hostnet.worker")

# On a TCP connection to Redis: when its machine has gone without a word, it is given up after some 10 s and made anew,
# which otherwise takes the kernel a quarter of an hour. Unix sockets take none of it.
GIVE_UP = {
    "socket_connect_timeout": 5,
    "socket_keepalive": True,
    "socket_keepalive_options": {
        socket.TCP_KEEPIDLE: 5,
        socket.TCP_KEEPINTVL: 2,
        socket.TCP_KEEPCNT: 3,
        socket.TCP_USER_TIMEOUT: 10_000,
    },
}

TASKS = (
    decoding.FULL_STATE,
    decoding.ADD_PEER,
    decoding.REMOVE_PEERS,
    decoding.ADD_REMOTES,
    decoding.REMOVE_REMOTES,
    decoding.SHOW_PLAN,
)


@dataclass(frozen=True, slots=True)
class Settings:
    """What the environment says. ``redis_url`` may hold a password and stays out of the repr."""

    host: str
    redis_url: str = field(repr=False)
    var: Path
    backend: str
    web_port: int
    log_format: str = json_lines.LINE

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> Settings:
        """Read HOST_ID, HOST_REDIS_URL, HOST_VAR, HOSTNET_BACKEND, VPN_GATEWAY_PORT and LOG_FORMAT; end with a hint if
        wrong. A URL that names a user without a password gets that from the file ``redis_password`` in HOST_VAR."""
        for name in ("HOST_ID", "HOST_REDIS_URL", "HOST_VAR"):
            if not env.get(name):
                sys.exit(f"{name} is not set")
        if not env["HOST_ID"].isalnum() or not env["HOST_ID"].isascii():
            sys.exit("HOST_ID must be letters and digits")
        port = env.get("VPN_GATEWAY_PORT", "9790")
        if not port.isdecimal() or not 0 < int(port) < 65536:
            sys.exit("VPN_GATEWAY_PORT must be a port number")
        log_format = env.get("LOG_FORMAT", json_lines.LINE)
        if log_format not in (json_lines.LINE, json_lines.JSON):
            sys.exit(f"LOG_FORMAT must be {json_lines.LINE} or {json_lines.JSON}")
        try:
            if is_sentinel(env["HOST_REDIS_URL"]):
                sentinels(env["HOST_REDIS_URL"])
        except ValueError as error:
            sys.exit(f"HOST_REDIS_URL: {error}")
        backend, var = env.get("HOSTNET_BACKEND", "auto"), Path(env["HOST_VAR"])
        redis_url = with_password(env["HOST_REDIS_URL"], _password(var))
        return cls(env["HOST_ID"], redis_url, var, backend, int(port), log_format)

    @property
    def queue(self) -> str:
        return f"host.{self.host}"


def _password(var: Path) -> str:
    """For Redis, where it is kept in a file: what is in the environment of a process shows in more places."""
    try:
        return (var / "redis_password").read_text().strip()
    except FileNotFoundError:
        return ""


class SteadyConnection(Connection):
    """Looks for Redis every 3 s. kombu's own pauses grow to 30 s, for which a host would stand idle after an outage."""

    def ensure_connection(self, *arguments: Any, **options: Any) -> Any:
        options |= {"interval_start": 3, "interval_step": 0, "interval_max": 3}
        return super().ensure_connection(*arguments, **options)  # type: ignore[no-untyped-call]


def make_app(settings: Settings) -> Celery:
    """A Celery app that touches nothing in Redis but keys starting with ``host.<id>``."""
    lost_acks.survive(host=True)
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
            **GIVE_UP,
            **broker_options(settings.redis_url),
            "unacked_key": f"{name}:unacked",
            "unacked_index_key": f"{name}:unacked_index",
            "unacked_mutex_key": f"{name}:unacked_mutex",
        },
    )
    return app


def register(app: Celery, dispatcher: Dispatcher) -> None:
    """Make the dispatcher's messages tasks of ``app``."""

    def task(name: str) -> None:
        def receive(*arguments: object, **_: object) -> None:
            # With the wrong number of arguments it is as malformed as nothing at all.
            dispatcher.receive(name, arguments[0] if len(arguments) == 1 else None)

        app.task(name=name)(receive)

    for name in TASKS:
        task(name)


class Moved:
    """Ends this run, as SIGTERM does, when Redis is elsewhere: the next one begins with the way there."""

    def __init__(self) -> None:
        self.anew = False

    def __call__(self) -> None:
        self.anew = True
        os.kill(os.getpid(), signal.SIGTERM)


def run(settings: Settings) -> bool:
    """Work until SIGTERM; whether to start anew, since Redis is elsewhere now."""
    boot = uuid.uuid4().hex
    settings.var.mkdir(mode=0o700, parents=True, exist_ok=True)
    settings = replace(settings, redis_url=in_mesh(settings.redis_url, memory.load(memory.path_in(settings.var))))
    desired, firewall = Desired(boot), Firewall()
    shut = partial(firewall.guard, settings.web_port)
    try:
        backend = choose(settings.backend)
        shut()
    except (WireGuardError, FirewallError) as error:
        sys.exit(f"cannot start: {error}")
    channel = Channel(settings.host, settings.redis_url, boot)
    prober = Prober(channel, Sockets())
    moved = Moved()
    mesh = mesh_network.MeshNetwork(backend, Links(), settings.var, moved)
    # One line each. The guards' order is that in which they are applied, the followers' as well.
    subsystems: list[Subsystem] = [
        firewall,
        Detour(),
        dns.Resolvers(),
        Forwarding(settings.host),
        prober,
        Foreign(),
        mesh,
        openvpn.Tunnels(settings.var),
    ]
    applier = Applier(desired, backend, Links(), settings.var / "keys", conntrack.flush, subsystems, shut=shut)
    app = make_app(settings)
    worker_logs.write_json(lambda: settings.log_format)
    inbox = Inbox(app, app.conf.task_queues[0], settings.host)
    register(app, Dispatcher(settings.host, applier, channel, inbox.waiting))
    # It runs as root since it changes the network, and takes nothing but JSON.
    warnings.simplefilter("ignore", SecurityWarning)
    for noisy in ("celery.worker.strategy", "celery.app.trace"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    mesh.start()
    reaching = Reaching(mesh.seen, Sockets())
    reaching.start()
    prober.start()
    Endings(channel, applier).start()
    Watch(channel, applier, partial(Events, TABLE.split()[1])).start()
    Heartbeat(channel, applier, desired, backend.name, mesh_key=mesh.public_key, ways=reaching.ways).start()
    flags = ["--without-gossip", "--without-mingle", "--without-heartbeat", "--loglevel=INFO"]
    app.worker_main(["worker", "--pool=solo", "--concurrency=1", f"--queues={settings.queue}", *flags])
    return moved.anew


def cleanup(backend_setting: str) -> list[str]:
    """Remove our interfaces, whoever left them, then our table and our rules in other firewalls; return what could not
    be removed, in words."""
    errors: list[str] = []
    try:
        backend = choose(backend_setting)
        for name in filter(OUR_INTERFACE.fullmatch, backend.list()):
            backend.delete(name)
        links = Links()
        for name in links.read():
            links.delete(name)
        Detour.remove()
        mesh_network.cleanup(backend, links)
    except (WireGuardError, LinkError) as error:
        errors.append(str(error))
    try:
        # Only now, and only if no tunnel is left that it would leave open.
        if not errors:
            Firewall().remove()
    except FirewallError as error:
        errors.append(str(error))
    try:
        Foreign().remove()
    except FirewallError as error:
        errors.append(str(error))
    proxy.cleanup()
    if var := os.environ.get("HOST_VAR"):
        errors += openvpn.cleanup(Path(var))
    return errors + dns.cleanup()


def main(arguments: list[str]) -> None:
    # Celery loads Django by itself where it finds this; a host has none.
    os.environ.pop("DJANGO_SETTINGS_MODULE", None)
    # Of us and of what we start: a core file of a crash would have keys in it.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if arguments == ["--cleanup"]:
        errors = cleanup(os.environ.get("HOSTNET_BACKEND", "auto"))
        sys.exit("; ".join(errors) or None)
    if arguments:
        sys.exit("usage: python -m servers.hostnet [--cleanup]")
    if run(Settings.from_env(os.environ)):
        os.execv(sys.executable, [sys.executable, "-m", "servers.hostnet"])  # noqa: S606 (ourselves)
