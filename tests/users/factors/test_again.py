"""Asked again at a time of day or from another line, and not asked at all in a trusted network."""

from __future__ import annotations

import ipaddress
from datetime import UTC, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from django.core.exceptions import ValidationError
from django.test import Client
from hypothesis import given
from hypothesis import strategies as st

from servers.models import Server
from servers.policy import policy_of
from tests.admin_site import errors, send, staff
from tests.attempts import a_policy, an_attempt, code_at, enrol
from tests.factories import Company, HostStandIn
from tests.protocol_client import NOW, make_request, plaintext
from users.authorize import Allowed, authorize
from users.factors.again import Daily, is_inside, line_of
from users.factors.remembered import store
from users.models import FactorOverride, VpnUser
from wgpeers.models import Connection

ZONES = ["UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe", "Pacific/Apia"]
OFFICE = (ipaddress.ip_network("198.51.100.0/24"), ipaddress.ip_network("2001:db8:1::/48"))


def unix(year: int, month: int, day: int, hour: int, minute: int = 0) -> float:
    return datetime(year, month, day, hour, minute, tzinfo=UTC).timestamp()


@given(st.integers(0, 2_000_000_000), st.builds(time, st.integers(0, 23), st.integers(0, 59)), st.sampled_from(ZONES))
def test_the_next_time_of_day_is_later_and_there_was_none_between(now: int, at: time, zone: str) -> None:
    daily = Daily(at, zone)
    found = daily.after(now)
    assert found > now
    shown = datetime.fromtimestamp(found, ZoneInfo(zone))
    # Shown by the clocks there, unless they were set forward past it.
    later = datetime.combine(shown.date(), shown.time()) - datetime.combine(shown.date(), at)
    assert later in (timedelta(0), timedelta(minutes=30), timedelta(hours=1), timedelta(hours=-23), timedelta(hours=24))
    # Whoever asks at any moment before then hears the same.
    assert daily.after(found - 1) == found
    assert daily.after((now + found) / 2) == found


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        (unix(2026, 3, 28, 12), unix(2026, 3, 29, 1, 30)),  # 02:30 is skipped: 03:30 instead
        (unix(2026, 10, 24, 12), unix(2026, 10, 25, 0, 30)),  # shown twice: the first
        (unix(2026, 10, 25, 0, 30), unix(2026, 10, 26, 1, 30)),
        (unix(2026, 6, 1, 0, 29), unix(2026, 6, 1, 0, 30)),
        (unix(2026, 6, 1, 0, 30), unix(2026, 6, 2, 0, 30)),
    ],
)
def test_clocks_that_are_set_by_law_are_followed(now: float, expected: float) -> None:
    assert Daily(time(2, 30), "Europe/Berlin").after(now) == expected


@pytest.mark.parametrize(
    ("address", "inside"),
    [
        ("198.51.100.7", True),
        ("198.51.101.7", False),
        ("2001:db8:1:2::3", True),
        ("2001:db8:2::1", False),
        ("", False),
        ("unknown", False),
        ("::1", False),
    ],
)
def test_only_an_address_of_a_trusted_network_is_inside(address: str, inside: bool) -> None:
    assert is_inside(address, OFFICE) == inside
    assert not is_inside(address, ())


def test_a_line_is_an_ipv4_address_or_a_64() -> None:
    assert line_of("198.51.100.7") != line_of("198.51.100.8")
    assert line_of("2001:db8::1") == line_of("2001:db8::ffff:2") != line_of("2001:db8:0:1::1")
    assert line_of("") == ""


@pytest.fixture
def alice(company: Company) -> VpnUser:
    return enrol(company.hire("alice")[0], "w0mbat", totp=True)


def judge(alice: VpnUser, now: float = NOW, password: str = "", token: str = "", **changes: Any) -> tuple[str, str]:
    address = changes.pop("address", "198.51.100.7")
    policy = a_policy(alice, "required", True, **changes)
    verdict = authorize(alice, policy, an_attempt(password, token, address=address), now)
    if isinstance(verdict, Allowed):
        store(verdict.passes)
    return verdict.layers[-1]


def test_who_comes_from_a_trusted_network_passes_without_factors(alice: VpnUser) -> None:
    assert judge(alice, trusted=OFFICE) == ("factors", "trusted_network")
    assert judge(alice, trusted=OFFICE, address="2001:db8:1::9") == ("factors", "trusted_network")
    assert judge(alice, trusted=OFFICE, address="203.0.113.1") == ("factors", "missing")
    assert judge(alice, trusted=OFFICE, address="") == ("factors", "missing")
    # And has passed nothing that would count elsewhere.
    judge(alice, token="token-1", trusted=OFFICE, token_ttl=1000)
    assert judge(alice, token="token-1", address="203.0.113.1", token_ttl=1000) == ("factors", "missing")


def test_what_is_always_asked_of_a_user_is_asked_there_too(alice: VpnUser) -> None:
    FactorOverride.objects.create(user=alice, kind="pin", state="required")
    assert judge(alice, trusted=OFFICE) == ("factors", "missing")
    assert judge(alice, password="wrong one", trusted=OFFICE) == ("pin", "wrong")
    # And no code, though clients ask for one all the same.
    allowed = {("pin", "ok"), ("totp", "trusted_network")}
    assert judge(alice, password="w0mbat", trusted=OFFICE) in allowed
    assert judge(alice, password="w0mbat000000", trusted=OFFICE) in allowed
    assert judge(alice, password="wrong1000000", trusted=OFFICE) == ("pin", "wrong")


def test_a_pass_is_remembered_until_the_time_of_day_at_most(alice: VpnUser) -> None:
    daily = Daily(datetime.fromtimestamp(NOW + 600, UTC).time(), "UTC")
    rules: dict[str, Any] = {"token_ttl": 1000, "ask_again": daily}
    assert judge(alice, password=f"w0mbat{code_at(NOW)}", token="token-1", **rules)[1] == "ok"
    assert judge(alice, NOW + 599, token="token-1", **rules) == ("factor_token", "ok")
    assert judge(alice, NOW + 600, token="token-1", **rules) == ("factors", "missing")


@pytest.mark.parametrize("kind", ["token_ttl", "grace"])
def test_a_pass_counts_only_where_it_was_if_the_server_says_so(alice: VpnUser, kind: str) -> None:
    password = f"w0mbat{code_at(NOW)}"
    for elsewhere, expected in ((False, {"ok"}), (True, {"missing", "clock", "used", "wrong"})):
        rules: dict[str, Any] = {kind: 1000, "ask_again_elsewhere": elsewhere}
        when = NOW + 300 * elsewhere
        password = f"w0mbat{code_at(when)}"
        assert judge(alice, when, password, "token-1", **rules)[1] == "ok"
        again = "" if kind == "token_ttl" else password
        assert judge(alice, when + 200, again, "token-1", **rules)[1] == "ok"
        assert judge(alice, when + 200, again, "token-1", address="203.0.113.1", **rules)[1] in expected


def test_a_connection_ends_at_the_time_of_day_or_after_its_session_time(company: Company, host: HostStandIn) -> None:
    identity = company.hire("alice")[1]
    at = datetime.fromtimestamp(NOW + 600, UTC).time()
    for number, (session, ends) in enumerate([(0, 600), (3600, 600), (60, 60)]):
        Server.objects.update(ask_again_at=at, session_timeout=session)
        make_request(identity, plaintext(device_id=f"device-{number}")).send()
        assert Connection.objects.latest("pk").session_ends == datetime.fromtimestamp(NOW + ends, UTC)


@pytest.mark.parametrize(
    "wrong",
    [
        {"trusted_networks": "everywhere"},
        {"trusted_networks": "198.51.100.0/24, 0.0.0.0/0"},
        {"trusted_networks": "::/0"},
        {"trusted_networks": "198.51.100.7/24"},
        {"time_zone": "Mars/Olympus"},
        {"ask_again_at": "25:00"},
    ],
    ids=str,
)
def test_what_cannot_be_is_refused_in_words(company: Company, wrong: dict[str, Any]) -> None:
    server = company.server
    for name, value in wrong.items():
        setattr(server, name, value)
    with pytest.raises(ValidationError) as refused:
        server.full_clean()
    assert set(refused.value.error_dict) == set(wrong)


@pytest.mark.django_db(transaction=True)
def test_a_server_says_it_on_its_page(company: Company, client: Client) -> None:
    staff(client, superuser=True)
    page = f"/admin/servers/server/{company.server.pk}/change/"
    said = {
        "trusted_networks": "198.51.100.0/24, 2001:db8:1::/48",
        "ask_again_at": "04:00",
        "time_zone": "Europe/Berlin",
    }
    assert errors(send(client, page, **said, ask_again_elsewhere="on")) == {}
    policy = policy_of(Server.objects.get())
    assert policy.trusted == OFFICE
    assert policy.ask_again == Daily(time(4), "Europe/Berlin")
    assert policy.ask_again_elsewhere
