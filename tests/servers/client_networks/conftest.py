"""A company with two users, who may have a network behind them."""

from __future__ import annotations

import pytest

from tests.conftest import Clock
from tests.connection_rows import live, queued
from tests.factories import Company, found
from tests.protocol_client import NOW
from users.models import VpnUser
from wgpeers.lifecycle import site_failover
from wgpeers.models import Connection

from .rows import behind, saved, serves


@pytest.fixture
def company(db: None, fixed_clock: Clock) -> Company:
    return found()


@pytest.fixture
def alice(company: Company) -> VpnUser:
    return company.hire("alice")[0]


@pytest.fixture
def bob(company: Company) -> VpnUser:
    return company.hire("bob")[0]


@pytest.fixture
def probed(company: Company, alice: VpnUser, bob: VpnUser) -> tuple[Connection, Connection]:
    """Alice serves OFFICE, Bob stands by; both are probed, and both have been there for long."""
    saved(behind(alice, probe_address="192.168.77.1"))
    saved(behind(bob, priority=2, probe_address="192.168.77.2", probe_port=22))
    both = live(company, alice, NOW - 1000), live(company, bob, NOW - 1000)
    site_failover.elect_all(NOW)
    assert serves() == "alice"
    queued()
    return both
