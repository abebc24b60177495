"""Sessions that are renewed before they end: which host, which address, what has to be passed, and when the next one
ends."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from core.clock import moment
from servers.models import Server
from tests.conftest import Clock
from tests.factories import Company, HostStandIn, add_host
from tests.protocol_client import NOW, Identity, make_request, new_wg_key, open_answer, plaintext
from users.factors.pin import enrolment as pins
from users.models import VpnUser
from wgpeers.lifecycle import choosing, renewals
from wgpeers.models import Connection, State

PIN = "w0mbat"


def connect(identity: Identity, now: float, **fields: Any) -> dict[str, Any]:
    request = make_request(identity, plaintext(timestamp=int(now), **fields), now=int(now))
    response = request.send()
    if response.status_code != 200:
        return {"status": response.status_code, **response.json()}
    return open_answer(response.json(), identity, request.box_private_key)


def live() -> Connection:
    return Connection.objects.exclude(state=State.ENDED).get()


@pytest.fixture
def alice(company: Company) -> tuple[VpnUser, Identity]:
    return company.hire("alice")


def test_a_client_is_told_how_long_its_session_lasts(
    company: Company, host: HostStandIn, alice: tuple[VpnUser, Identity]
) -> None:
    assert connect(alice[1], NOW)["configuration"]["session_left"] == 0
    Server.objects.update(session_timeout=3600)
    assert connect(alice[1], NOW)["configuration"]["session_left"] == 3600


def test_the_old_key_goes_on_on_its_host_until_the_new_one_works(
    company: Company, host: HostStandIn, alice: tuple[VpnUser, Identity]
) -> None:
    first = new_wg_key()
    before = connect(alice[1], NOW, wg_public_key=first)["configuration"]["address"]
    again = connect(alice[1], NOW, renews=first)
    assert again["configuration"]["address"] == before
    one, two = host.of("hostnet.add_peer")
    assert (one["hand_over"], two["hand_over"]) == (0, renewals.HAND_OVER)
    assert two["replaces"] == [one["peer"]["connection"]]


@pytest.mark.parametrize("renews", ["", "A" * 43 + "="])
def test_whoever_names_no_open_connection_of_their_own_gets_the_address_at_once(
    company: Company, host: HostStandIn, alice: tuple[VpnUser, Identity], renews: str
) -> None:
    connect(alice[1], NOW)
    connect(alice[1], NOW, renews=renews)
    assert [message["hand_over"] for message in host.of("hostnet.add_peer")] == [0, 0]


def test_another_users_or_devices_key_is_nothing_to_continue(
    company: Company, host: HostStandIn, alice: tuple[VpnUser, Identity]
) -> None:
    Server.objects.update(session_timeout=600)
    theirs = new_wg_key()
    connect(company.hire("bob")[1], NOW, wg_public_key=theirs)
    connect(alice[1], NOW, renews=theirs)
    connect(alice[1], NOW, renews=Connection.objects.latest("pk").wg_public_key, device_id="another")
    assert {message["hand_over"] for message in host.of("hostnet.add_peer")} == {0}
    assert Connection.objects.latest("pk").session_ends == moment(NOW + 600)


def test_the_next_session_begins_where_the_old_one_would_have_ended(
    company: Company, host: HostStandIn, alice: tuple[VpnUser, Identity], fixed_clock: Clock
) -> None:
    Server.objects.update(session_timeout=3600)
    key = new_wg_key()
    connect(alice[1], NOW, wg_public_key=key)
    fixed_clock.now = NOW + 3000
    assert connect(alice[1], fixed_clock.now, renews=key)["configuration"]["session_left"] == 600 + 3600
    assert live().session_ends == moment(NOW + 7200)


def test_long_before_its_end_a_new_key_moves_no_time(
    company: Company, host: HostStandIn, alice: tuple[VpnUser, Identity], fixed_clock: Clock
) -> None:
    Server.objects.update(session_timeout=3600)
    key = new_wg_key()
    connect(alice[1], NOW, wg_public_key=key)
    fixed_clock.now = NOW + 3600 - renewals.AHEAD - 1
    connect(alice[1], fixed_clock.now, renews=key)
    assert live().session_ends == moment(fixed_clock.now + 3600)


@pytest.mark.parametrize("daily", [True, False])
def test_what_is_remembered_counts_only_if_it_still_does_at_the_end_of_the_session(
    company: Company, host: HostStandIn, alice: tuple[VpnUser, Identity], fixed_clock: Clock, daily: bool
) -> None:
    """A time of day at which everybody is asked anew is not passed by renewing just before; and who has been asked
    just before is not asked once more at that time."""
    user, identity = alice
    pins.set_pin(user, PIN)
    at = datetime.fromtimestamp(NOW + 600, UTC).time() if daily else None
    Server.objects.update(ask_again_at=at, session_timeout=600, factor_token_ttl=7200, reconnect_grace=0)
    key, next_key, token = new_wg_key(), new_wg_key(), "t" * 16
    assert connect(identity, NOW, wg_public_key=key, token=token, password=PIN)["allow"]
    fixed_clock.now = NOW + 500
    early = connect(identity, fixed_clock.now, wg_public_key=next_key, renews=key, token=token)
    assert early["allow"] is not daily
    if daily:
        assert live().wg_public_key == key  # a renewal that is refused ends nothing
        assert connect(identity, fixed_clock.now, renews=key, wg_public_key=next_key, token=token, password=PIN)[
            "allow"
        ]
    assert live().session_ends == moment(NOW + 1200)
    fixed_clock.now = NOW + 700
    assert connect(identity, fixed_clock.now, token=token)["allow"]  # passed just before, and good for the next day


def test_who_renews_stays_on_their_host_and_who_flees_does_not(
    company: Company, host: HostStandIn, alice: tuple[VpnUser, Identity]
) -> None:
    key = new_wg_key()
    with HostStandIn(add_host(company.server, "gate-2", address="192.0.2.2")).running():
        connect(alice[1], NOW, wg_public_key=key)
        mine = live().host
        for _ in range(5):
            choosing._unanswered.clear()
            again = new_wg_key()
            assert connect(alice[1], NOW, wg_public_key=again, renews=key)["allow"]
            assert live().host == mine
            key = again
        connect(alice[1], NOW)
        assert live().host != mine
