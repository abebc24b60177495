from __future__ import annotations

from datetime import timedelta

import pytest

from core.clock import moment
from core.models import AdminSession
from tests.conftest import Clock
from wgpeers.tasks import prune

pytestmark = pytest.mark.django_db


def test_sessions_that_are_over_are_forgotten(fixed_clock: Clock) -> None:
    now = moment(fixed_clock.now)
    for name, until in (("over", now - timedelta(seconds=1)), ("good", now + timedelta(hours=1))):
        AdminSession.objects.create(session_key=name, session_data="", expire_date=until)
    prune()
    assert list(AdminSession.objects.values_list("session_key", flat=True)) == ["good"]
