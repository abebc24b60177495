"""Beside each kind of long work people connect, and their pings count; and the work is done in the end."""

from __future__ import annotations

import threading
import time

import pytest
from django.db import connections
from django.test import Client

from core import clock
from tests import long_work
from tests.admin_site import staff
from tests.admin_site_work import Browser, carry_out
from tests.attack import connect, pinged
from tests.connection_rows import queued, with_fresh_marker
from tests.factories import Company, HostStandIn
from tests.lab import HANGING
from tests.long_work import Kind
from tests.protocol_client import NOW, new_wg_key
from wgpeers.lifecycle import liveness
from wgpeers.lifecycle.keepalive import keepalive
from wgpeers.models import Connection, State

COUNT = 30
KINDS = long_work.kinds(COUNT)
LEAST, MOST = 3, 200  # people who connect, however long the work takes


class Work(threading.Thread):
    """What is asked for, and what the control worker does about it."""

    def __init__(self, kind: Kind, site: Browser, branch: Company) -> None:
        super().__init__()
        self._kind, self._site, self._branch = kind, site, branch
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            self._kind.ask(self._site, self._branch)
            carry_out(self._kind, self._branch)
        except BaseException as error:
            self.error = error
        finally:
            connections.close_all()


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_people_connect_and_ping_beside_it(
    kind: Kind, client: Client, company: Company, host: HostStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clock, "steady_source", time.monotonic)  # steps are as long as they take
    staff(client, superuser=True)
    with_fresh_marker()
    branch = long_work.branch_of(company)
    kind.prepare(branch, COUNT)
    alice, key = company.hire("alice")[1], new_wg_key()
    connect(alice, wg_public_key=key)
    row = Connection.objects.get(user__name="alice")
    queued()
    work = Work(kind, Browser(client), branch)
    work.start()
    count = 0
    while count < LEAST or (work.is_alive() and count < MOST):
        count += 1
        connect(company.hire(f"guest {count}")[1])
        assert pinged(alice, key, sent=NOW + count)
    work.join(HANGING)
    assert work.error is None, work.error
    keepalive.write()
    assert liveness.deadline(row.public_id) is not None
    assert Connection.objects.filter(server=company.server, state=State.OPEN).count() == count + 1
