"""What hosts report of probes, and who serves then."""

from __future__ import annotations

from typing import Any

import pytest

from servers.models import ClientNetwork
from tests.connection_rows import live
from tests.factories import Company, add_host
from tests.protocol_client import NOW
from users.models import VpnUser
from wgpeers.fleet import desired, reports
from wgpeers.lifecycle import site_failover
from wgpeers.models import Connection

from .rows import OFFICE, behind, committed, converged, end, report, saved, serves


@committed
def test_a_silent_gateway_loses_its_network_at_once_and_gets_it_back_after_a_while(
    company: Company, probed: tuple[Connection, Connection]
) -> None:
    mine, _ = probed
    report(company.host, mine, False)
    assert serves() == "bob"
    assert converged() == {company.host.pk}
    state = desired.state_of(company.host.pk)
    assert state is not None
    networks = [peer.networks for peer in state.interfaces[0].peers]
    # Its probe address stays with it, or it could never be seen to be well again.
    assert networks == [("192.168.77.1/32",), (OFFICE, "192.168.77.2/32")]
    report(company.host, mine, True, now=NOW + 60)
    assert serves() == "bob"
    # Said again, it is well since the same moment.
    report(company.host, mine, True, now=NOW + 80)
    site_failover.elect_all(NOW + 89)
    assert serves() == "bob"
    site_failover.elect_all(NOW + 90)
    assert serves() == "alice"


def test_the_while_is_a_setting(company: Company, probed: tuple[Connection, Connection], settings: Any) -> None:
    settings.NETWORK_HYSTERESIS = 3.0
    report(company.host, probed[0], False)
    report(company.host, probed[0], True, now=NOW + 1)
    site_failover.elect_all(NOW + 4)
    assert serves() == "alice"


def test_if_both_are_silent_it_stays_where_it_is(company: Company, probed: tuple[Connection, Connection]) -> None:
    report(company.host, probed[1], False)
    report(company.host, probed[0], False)
    assert serves() == "alice"


def test_a_report_is_believed_only_of_what_that_host_has(
    company: Company, probed: tuple[Connection, Connection]
) -> None:
    mine, other = probed
    stranger = add_host(company.server, "gate-2")
    report(stranger, mine, False)
    report(company.host, mine, False, network="192.168.88.0/24")
    assert not ClientNetwork.objects.exclude(probe_ok=None).exists()
    ended = live(company, company.hire("carol")[0])
    end(ended, NOW)
    report(company.host, ended, False)
    ended.public_id = "no such connection"
    report(company.host, ended, False)
    end(mine, NOW)
    report(company.host, mine, False)
    assert not ClientNetwork.objects.exclude(probe_ok=None).exists()
    report(company.host, other, True)
    assert ClientNetwork.objects.get(probe_ok=True).user.name == "bob"


def test_a_report_of_a_network_without_a_probe_address_changes_nothing(company: Company, alice: VpnUser) -> None:
    saved(behind(alice))
    report(company.host, live(company, alice), False)
    assert ClientNetwork.objects.get().probe_ok is None


@pytest.mark.parametrize("ok", [1, 0, None, "true", []])
def test_a_malformed_report_is_refused(company: Company, probed: tuple[Connection, Connection], ok: Any) -> None:
    with pytest.raises(reports.UNREADABLE):
        report(company.host, probed[0], ok)
    assert not ClientNetwork.objects.exclude(probe_ok=None).exists()
