"""The database side of ``bin/run``: bring the database up to date, make the first rows, wait for what they set off."""

from __future__ import annotations

import argparse
import json
import os
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from django.conf import settings
from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.core.management import call_command
from django.core.management.base import BaseCommand
from django.db import DatabaseError

from core import clock
from core.locking import alone_setting_up
from core.redis_store import redis_client
from servers import heartbeats, mesh, redis_access
from servers.hostnet.state.conditions import Severity
from servers.models import Host, MeshNode
from users.models import VpnUser
from wgpeers.management import first_rows
from wgpeers.models import ProfileLink

HOST_WITHIN = 60.0
KEY_WITHIN = 120.0
LOOK_EVERY = 0.1
NOT_REPORTED = "its worker has not reported yet"


class Command(BaseCommand):
    """Prints one JSON object a line, each when it is true: ``database``, ``rows``, ``host``, ``user_key``; or ``error``
    with ``message`` for a person, and ends with 1. ``rows`` holds the one-time password, and nothing else ever does."""

    help = "Used by bin/run. Migrates, makes the first admin, host, organization, server and user, and waits for them."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--public-address", required=True)
        parser.add_argument("--old-address", default="", help="the address of the last start")
        parser.add_argument("--wireguard-port", type=int, default=51820, help="UDP port of the first server")
        parser.add_argument("--host-id", default="", help="public id of this machine's host, if it has one")
        parser.add_argument("--host-redis-hash", default="", help="SHA-256 of its worker's password for Redis")
        parser.add_argument("--stamp", default="", help="fingerprint of the code, to know when static files changed")
        parser.add_argument("--fresh", action="store_true", help="no host worker of this machine is running")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            with alone_setting_up():
                self._database(options["stamp"])
                self._is_still_in(options["host_id"])
                host, user = self._rows(options)
                mesh.control_node(host, options["host_redis_hash"])
            redis_access.sync()
            if options["fresh"]:
                # What the worker of an earlier run said last may still stand for some seconds.
                redis_client().delete(heartbeats.key(host))
            error = self._wait_for_host(host)
            self.emit("host", error=error, reported=error != NOT_REPORTED)
            self.emit("user_key", error=self._wait_for_key(user))
        except (ValidationError, DatabaseError) as error:
            text = "; ".join(error.messages) if isinstance(error, ValidationError) else str(error)
            self.emit("error", message=f"The database could not be set up: {text}")
            sys.exit(1)

    def emit(self, event: str, **fields: Any) -> None:
        self.stdout.write(json.dumps({"event": event, **fields}))
        self.stdout.flush()

    def _is_still_in(self, host_id: str) -> None:
        """A control node whose host was removed in the admin does not come back by itself. One that is alone does."""
        known = not host_id or Host.objects.filter(public_id=host_id).exists()
        if not known and MeshNode.objects.filter(control=True).exists():
            words = "This machine's host was removed in the admin, and it is no control node any more. To make it one"
            self.emit("error", message=f"{words} again, empty its var and join with a new token (bin/run --join).")
            sys.exit(1)

    def _database(self, stamp: str) -> None:
        call_command("migrate", verbosity=0, interactive=False, stdout=sys.stderr)
        done = Path(settings.STATIC_ROOT) / ".stamp"
        if not (stamp and done.exists() and done.read_text() == stamp):
            call_command("collectstatic", verbosity=0, interactive=False, stdout=sys.stderr)
            done.write_text(stamp)
        self.emit("database")

    def _rows(self, options: dict[str, Any]) -> tuple[Host, VpnUser | None]:
        machine = first_rows.Machine(
            name=_machine_name(),
            host_id=options["host_id"],
            address=options["public_address"],
            old_address=options["old_address"],
            wireguard_port=options["wireguard_port"],
            in_use=first_rows.routed_networks(),
        )
        password = first_rows.make_admin()
        host = first_rows.make_host(machine)
        link = first_rows.make_server(host, machine, clock.now())
        self.emit(
            "rows",
            host_id=host.public_id,
            mesh=mesh.networks_of(mesh.the_mesh()),
            admin=first_rows.ADMIN,
            password=password,
            never_signed_in=not User.objects.filter(is_superuser=True, last_login__isnull=False).exists(),
            **_link_fields(link),
        )
        return host, link.user if link else None

    def _wait_for_host(self, host: Host) -> str:
        """Wait until the host's worker has applied a state of its present run; what it complains of, if anything."""
        before = (host.boot, host.applied_at)

        def applied() -> bool:
            host.refresh_from_db()
            said = heartbeats.read([host]).get(host.pk, {})
            new_run = host.boot != before[0]
            return (
                bool(host.boot)
                and said.get("boot") == host.boot
                and host.applied_version >= host.version
                and (not new_run or host.applied_at != before[1])
            )

        if not until(applied, HOST_WITHIN):
            return NOT_REPORTED
        return "; ".join(each["text"] for each in host.conditions if each["severity"] == Severity.ERROR)

    def _wait_for_key(self, user: VpnUser | None) -> str:
        if user is None:
            return ""

        def ready() -> bool:
            user.refresh_from_db()
            return user.key_ready

        return "" if until(ready, KEY_WITHIN) else "The user's key is not made yet; the link works once it is."


def _machine_name() -> str:
    name = socket.gethostname().partition(".")[0]
    return name if name[:1].isalnum() else f"host-{os.getpid()}"


def _link_fields(link: ProfileLink | None) -> dict[str, str]:
    if link is None:
        return {}
    return {"user": first_rows.USER, "server": first_rows.SERVER, "short": link.short_id.reveal()}


def until(condition: Callable[[], bool], seconds: float) -> bool:
    """Look until ``condition()`` holds, at most ``seconds`` long."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(LOOK_EVERY)
    return True
