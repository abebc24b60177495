"""Only an answer that was made with our secret, for this request, is one; and nobody is waited for without end."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import pytest
from django.core.exceptions import ValidationError
from hypothesis import given, settings
from hypothesis import strategies as st

from core.redis_store import redis_client
from servers.models import ServerFactor
from tests.attempts import enrol
from tests.concurrency import together
from tests.factories import Company
from tests.lab import HANGING
from users.factors.providers import ProviderConfig
from users.factors.radius.client import Conversation, NoAnswer, Service
from users.factors.radius.factor import password_and_code
from users.factors.radius.packets import Request
from users.factors.radius.servers import parse_servers
from users.models import FactorOverride, VpnUser

from .freeradius import SECRET
from .liar import ACCEPT, CHALLENGE, REJECT, Liar, attributes_of, password_of, reply, signed_request
from .people import AGAIN, HEARD, SILENT, ask_radius, outcome

PROXY_STATE = b"\x21\x03x"


@pytest.fixture
def liar() -> Iterator[Liar]:
    with Liar() as running:
        yield running


@pytest.fixture
def alice(company: Company) -> VpnUser:
    return company.hire("alice")[0]


def flipped(packet: bytes, at: int) -> bytes:
    return packet[:at] + bytes([packet[at] ^ 1]) + packet[at + 1 :]


LIES: dict[str, Callable[[bytes], bytes]] = {
    "another secret": lambda request: reply(request, secret="somebody else's"),
    "not signed": lambda request: reply(request, signed=False),
    "signed by nobody": lambda request: reply(request, message_authenticator=b"\1" * 16),
    "signed twice": lambda request: reply(request, more=b"\x50\x12" + bytes(16)),
    "the state of a proxy": lambda request: reply(request, more=PROXY_STATE),
    "another identifier": lambda request: reply(request, identifier=request[1] ^ 1),
    "to another request": lambda request: reply(flipped(request, 4)),
    "a reject made an accept": lambda request: bytes([ACCEPT]) + reply(request, REJECT)[1:],
    "of a code that answers nothing": lambda request: reply(request, code=5),
    "the request itself": lambda request: request,
    "two states": lambda request: reply(request, CHALLENGE, more=b"\x18\x03a\x18\x03b"),
    "empty attribute": lambda request: reply(request, more=b"\x12\x00"),
    "attribute beyond the end": lambda request: reply(request, more=b"\x12\xff"),
    "cut": lambda request: reply(request)[:-1],
    "cut in its head": lambda request: reply(request)[:19],
    "one byte": lambda request: b"\2",
    "huge": lambda request: reply(request, more=b"\x12\xff" + bytes(253)) + bytes(4300),
    "too long for its length": lambda request: reply(request, more=(b"\x12\xff" + b"x" * 253) * 17),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_lie_counts_as_no_answer_and_is_said(
    company: Company, alice: VpnUser, liar: Liar, lie: str, no_more_time_after_a_lie: None
) -> None:
    liar.says = lambda request, before: [LIES[lie](request)]
    ask_radius(company.server, liar.address)
    assert outcome(alice, "sesame") == "radius_bad_answer"


@pytest.mark.parametrize("lie", LIES)
def test_after_a_lie_the_true_answer_is_waited_for(company: Company, alice: VpnUser, liar: Liar, lie: str) -> None:
    liar.says = lambda request, before: [LIES[lie](request), reply(request)]
    ask_radius(company.server, liar.address)
    assert outcome(alice, "sesame") == "allowed"


def test_what_is_sent_again_is_the_same(liar: Liar) -> None:
    """A server that had the first and whose answer was lost knows the second for the same."""
    liar.says = lambda request, before: [reply(request)] if before >= 2 else []
    service = Service("a1", parse_servers(liar.address), SECRET, patience=HANGING, tries=1000, **AGAIN)
    assert Conversation(service).ask("sesame", {1: b"alice"}).accepted
    assert len(liar.seen) >= 3
    assert len(set(liar.seen)) == 1


def test_what_is_sent_is_signed_and_says_who_it_is(company: Company, alice: VpnUser, liar: Liar) -> None:
    liar.says = lambda request, before: [reply(request)]
    ask_radius(company.server, liar.address)
    assert outcome(alice, "sesame" * 20) == "allowed"
    assert signed_request(liar.seen[0])
    assert password_of(liar.seen[0]) == "sesame" * 20
    assert {1: b"alice", 31: b"198.51.100.7", 32: b"vpn"}.items() <= dict(attributes_of(liar.seen[0])).items()


def test_each_attempt_is_asked_about_once(company: Company, alice: VpnUser, liar: Liar) -> None:
    liar.says = lambda request, before: [reply(request, ACCEPT if password_of(request) == "sesame" else REJECT)]
    ask_radius(company.server, liar.address)
    assert [outcome(alice, "sesame"), outcome(alice, "sesame")] == ["allowed"] * 2
    assert [outcome(alice, "wrong"), outcome(alice, "wrong")] == ["radius_wrong"] * 2
    assert [password_of(each) for each in liar.seen] == ["sesame", "wrong"]
    assert outcome(alice, "sesame", wg_public_key="key-2") == "allowed"
    assert len(liar.seen) == 3


def test_simultaneous_requests_of_one_attempt_are_asked_about_once(
    company: Company, alice: VpnUser, liar: Liar
) -> None:
    liar.says = lambda request, before: [reply(request)]
    ask_radius(company.server, liar.address)
    assert together([partial(outcome, alice, "sesame")] * 5) == ["allowed"] * 5
    assert len(liar.seen) == 1


def test_that_nobody_answered_is_not_kept(company: Company, alice: VpnUser, liar: Liar) -> None:
    provider = ask_radius(company.server, liar.address, **SILENT)
    assert outcome(alice, "sesame") == "radius_unavailable"
    liar.says = lambda request, before: [reply(request)]
    provider.settings |= HEARD
    provider.save()
    assert outcome(alice, "sesame") == "allowed"


def test_the_next_server_answers_for_one_that_is_down_which_is_asked_last_then(
    company: Company, alice: VpnUser, liar: Liar
) -> None:
    with Liar() as first:
        port = first.port
    liar.says = lambda request, before: [reply(request)]
    ask_radius(company.server, f"127.0.0.1:{port}", liar.address)
    assert outcome(alice, "sesame") == "allowed"
    with Liar(liar.says, port=port) as first:
        assert outcome(alice, "sesame", wg_public_key="key-2") == "allowed"
        assert (len(first.seen), len(liar.seen)) == (0, 2)
        redis_client().delete(*redis_client().keys("silent:*"))  # as after two minutes
        assert outcome(alice, "sesame", wg_public_key="key-3") == "allowed"
        assert (len(first.seen), len(liar.seen)) == (1, 2)


def test_a_server_that_was_silent_is_asked_last(liar: Liar) -> None:
    with Liar() as silent:
        servers = parse_servers(f"{silent.address} {liar.address}")
        liar.says = lambda request, before: [reply(request)]
        service = Service("a1", servers, SECRET, patience=HANGING, tries=60, **AGAIN)
        for server in (servers[:1], servers):
            with contextlib.suppress(NoAnswer):
                Conversation(replace(service, servers=server, tries=1 if len(server) == 1 else 60)).ask("x", {})
        assert (len(silent.seen), len(set(liar.seen))) == (1, 1)


def test_silence_of_all_ends_with_the_patience_that_is_said(company: Company, alice: VpnUser, liar: Liar) -> None:
    with Liar() as second:
        ask_radius(company.server, liar.address, second.address, **SILENT | {"tries": 5, "patience": 1})
        assert outcome(alice, "sesame") == "radius_unavailable"
        assert (len(liar.seen) <= 1, len(second.seen)) == (True, 0)


def test_a_challenge_is_answered_where_it_was_made_with_its_state_and_anew(
    company: Company, alice: VpnUser, liar: Liar
) -> None:
    state = b"\x18\x05\x00\xffz"
    liar.says = lambda request, before: [reply(request, CHALLENGE if before == 0 else ACCEPT, more=state)]
    with Liar() as other:
        ask_radius(company.server, liar.address, other.address, code="challenge")
        assert outcome(alice, "sesame123456") == "allowed"
        assert other.seen == []
    first, second = liar.seen
    assert (password_of(first), password_of(second)) == ("sesame", "123456")
    assert (dict(attributes_of(first)).get(24), dict(attributes_of(second))[24]) == (None, b"\x00\xffz")
    assert first[4:20] != second[4:20]
    assert signed_request(second)


def test_a_challenge_after_a_challenge_ends_it(company: Company, alice: VpnUser, liar: Liar) -> None:
    liar.says = lambda request, before: [reply(request, CHALLENGE)]
    ask_radius(company.server, liar.address, code="challenge")
    assert outcome(alice, "sesame123456") == "radius_challenge"
    assert len(liar.seen) == 2


@settings(max_examples=300)
@given(st.binary(max_size=400), st.integers(0, 60), st.integers(0, 255))
def test_whatever_is_not_signed_is_no_answer(noise: bytes, at: int, value: int) -> None:
    request = Request(SECRET, "sesame", {1: b"alice"})
    true = reply(request.raw(), more=b"\x12\x08hello!")
    assert request.answer(true) is not None
    assert request.answer(noise) is None
    at = min(at, len(true) - 1)
    changed = true[:at] + bytes([value]) + true[at + 1 :]
    assert changed == true or request.answer(changed) is None


@pytest.mark.parametrize("way", ["joined", "challenge"])
@settings(max_examples=200)
@given(st.text(min_size=1), st.integers(4, 10), st.data())
def test_a_code_is_found_at_either_end(way: str, password: str, digits: int, data: st.DataObject) -> None:
    code = data.draw(st.text("0123456789", min_size=digits, max_size=digits))
    config = ProviderConfig("a1", "radius", "", {"code": way, "code_digits": digits}, {})
    expected = (password + code, "") if way == "joined" else (password, code)
    assert password_and_code(password + code, config) == expected
    last = (code + password)[-digits:]
    if not (last.isascii() and last.isdigit()):
        assert password_and_code(code + password, config) == expected
    assert password_and_code(code, config) is None


def test_beside_a_pin_it_is_refused(company: Company, alice: VpnUser) -> None:
    """By a server's page, and where it came about by other ways."""
    ask_radius(company.server, "127.0.0.1:9")
    with pytest.raises(ValidationError, match="nobody could tell them apart"):
        ServerFactor(server=company.server, kind="pin").full_clean()
    FactorOverride.objects.create(user=enrol(alice, "w0mbat"), kind="pin", state="required")
    assert outcome(alice, "w0mbatsesame") == "factors_inseparable"


@pytest.mark.parametrize(
    ("text", "servers"),
    [
        ("radius.example.com", ["radius.example.com:1812"]),
        (
            "192.0.2.1:1645\n\n [2001:db8::1]\n[2001:db8::2]:1",
            ["192.0.2.1:1645", "[2001:db8::1]:1812", "[2001:db8::2]:1"],
        ),
    ],
)
def test_servers_are_read_as_people_write_them(text: str, servers: list[str]) -> None:
    assert [str(each) for each in parse_servers(text)] == servers
    assert parse_servers("\n".join(servers)) == parse_servers(text)


@pytest.mark.parametrize(
    "text", ["", " ", "2001:db8::1", "a:0", "a:65536", "a:x", "http://a", "a\na", "\n".join("abcdefghi")]
)
def test_what_is_no_list_of_servers_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"server"):
        parse_servers(text)
