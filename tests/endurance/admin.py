"""The administrator: one thread, one change after the other, by the ways that the admin site takes."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable

from django.db import DatabaseError, connections

from core import clock
from core.redis_store import RedisUnavailable
from servers import services
from servers.models import Route, Server
from users.models import Device, Group, VpnUser
from wgpeers.lifecycle import connect, devices
from wgpeers.models import Connection, State

from .plan import CAREFUL, LEAVERS, OFFICE, YARD, Step
from .record import Record

OFFICE_SERVER, YARD_SERVER, CREW = "VPN", "Yard", "crew"


class Admin:
    """``concern`` is noted before the change: whoever it concerns may feel it before we know that it was made."""

    def __init__(self, record: Record) -> None:
        self._record = record
        self._steps: queue.Queue[Step | None] = queue.Queue()
        self._thread = threading.Thread(target=self._run, name="admin", daemon=True)
        self._ways: dict[str, Callable[[str], object]] = {
            "disable": lambda name: _set_enabled(name, False),
            "enable": lambda name: _set_enabled(name, True),
            "revoke device": _revoke_device,
            "let device in": lambda name: Device.objects.filter(user__name=name).update(revoked=None),
            "take from group": lambda name: _user(name).groups.remove(_crew()),
            "put into group": lambda name: _user(name).groups.add(_crew()),
            "stop server": lambda name: services.stop(Server.objects.get(name=name)),
            "start server": lambda name: services.start(Server.objects.get(name=name)),
            "add route": _add_route,
            "remove route": lambda network: Route.objects.filter(network=network).delete(),
            "disconnect": _disconnect,
            "delete": lambda name: VpnUser.objects.filter(name=name).delete(),
        }

    def start(self) -> None:
        self._thread.start()

    def do(self, step: Step) -> None:
        self._steps.put(step)

    def finish(self) -> None:
        """Do all that is still to do."""
        self._steps.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (step := self._steps.get()) is not None:
            for name in _concerned(step):
                self._record.concern(name, step.action)
            # A database that is locked for longer than anybody waits: a person would press the button again.
            while not self._done(step):
                time.sleep(1)
        connections.close_all()

    def _done(self, step: Step) -> bool:
        try:
            self._ways[step.action](step.target)
        except (DatabaseError, RedisUnavailable) as error:
            self._record.note("admin", step.action, target=step.target, failed=str(error))
            return False
        except Exception as error:
            self._record.problem(f"admin: {step.action} {step.target}: {type(error).__name__} {error}")
        self._record.note("admin", step.action, target=step.target)
        return True


def _concerned(step: Step) -> tuple[str, ...]:
    if step.target == YARD_SERVER:
        return YARD
    return (step.target,) if step.target in {*OFFICE, *YARD, *CAREFUL, *LEAVERS} else ()


def _user(name: str) -> VpnUser:
    return VpnUser.objects.get(name=name)


def _crew() -> Group:
    return Group.objects.get(name=CREW)


def _set_enabled(name: str, enabled: bool) -> None:
    user = _user(name)
    user.enabled = enabled
    user.save()


def _revoke_device(name: str) -> None:
    """The one that was seen last; of somebody who has none yet, none."""
    if seen := Device.objects.filter(user__name=name, revoked=None).order_by("-last_seen").first():
        devices.revoke(seen, clock.now())


def _add_route(network: str) -> None:
    route = Route(server=Server.objects.get(name=OFFICE_SERVER), network=network, nat=True)
    route.full_clean()
    route.save()


def _disconnect(name: str) -> None:
    for row in Connection.objects.select_related("server").filter(user__name=name, state=State.OPEN):
        connect.disconnect(row, clock.now())
