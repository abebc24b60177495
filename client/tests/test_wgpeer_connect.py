"""Connecting: hosts in turn, refusals, untrusted responses and single sign-on, by a clock that only moves when told."""

from __future__ import annotations

import json
import random
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest
from wgpeer.clock import Stopped
from wgpeer.connecting import RoundResult, SessionEnded
from wgpeer.transport import HttpResponse
from wgpeer_fakes import (
    CONFIGURATION,
    Handler,
    OpenedRequest,
    allow,
    hmac64,
    make_profile,
    pong,
    profile_text,
    refuse,
    seal_response,
    silence,
    status,
)
from wgpeer_session_lab import A, B, C, Lab, gateway, in_turn, tampered


def test_names_of_all_api_hosts_are_looked_up_before_the_tunnels_name_servers_are_there(lab: Lab) -> None:
    def twice(request: OpenedRequest) -> HttpResponse:
        return pong(request, status=lab.clock.now < 1100)

    lab.run(a=allow, b=allow, c=allow, gateway=gateway(twice))
    assert len(lab.tunnel.ups) > 1
    assert lab.prefetched == [(0, ["a.example", "b.example", "c.example"])]


def test_connects_and_pings_every_interval(lab: Lab) -> None:
    lab.clock.stop_at = 1095
    assert lab.run(a=allow, b=allow, c=allow, gateway=gateway()) is Stopped
    assert lab.states() == ["connecting", "connected"]
    assert lab.network.times("ping") == [1000.0 + 10 * n for n in range(10)]
    assert len(lab.tunnel.ups) == 1
    assert lab.session.status.address == "10.9.0.5/24"
    assert lab.session.status.last_ping == lab.clock.wall_offset + 1090


def test_request_carries_what_the_protocol_asks_for(lab: Lab) -> None:
    lab.run(a=allow, b=allow, gateway=gateway())
    plaintext = lab.network.of("wg")[0].plaintext
    assert plaintext["device_id"] == "0b7c9e5f4a8d4e0f9a1b2c3d4e5f6071"
    assert plaintext["device_name"] == "wandering-heron-4821"
    assert plaintext["device_hostname"] == "laptop"
    assert plaintext["platform"] == "linux"
    assert plaintext["password"] == "1234"
    assert plaintext["timestamp"] == 1_790_000_000
    assert len(plaintext["nonce"]) == 16
    assert plaintext["device_key"] == ""
    assert "device_signature" not in lab.network.of("wg")[0].body


def test_sync_hosts_in_random_order_then_the_remotes(tmp_path: Path) -> None:
    orders = set()
    for seed in range(8):
        lab = Lab(tmp_path, make_profile(), seed=seed)
        lab.clock.stop_at = 1001
        lab.run()
        order = tuple(request.base for request in lab.network.of("wg"))
        assert order[2] == C
        orders.add(order[:2])
    assert orders == {(A, B), (B, A)}


@pytest.mark.parametrize("failure", [silence, status(401), status(404), status(429), status(500), status(503)])
def test_a_failing_host_passes_key_and_password_to_the_next(lab: Lab, failure: Handler) -> None:
    lab.run(a=failure, b=failure, c=allow, gateway=gateway())
    asked = lab.network.of("wg")
    assert {request.base for request in asked[:2]} == {A, B}
    assert asked[2].base == C
    assert len(set(lab.keys()[:3])) == 1
    assert {request.plaintext["password"] for request in asked} == {"1234"}
    assert len({request.body["public_key"] for request in asked}) == len(asked)  # a fresh box each time


def sealed_by_a_stranger(request: OpenedRequest) -> HttpResponse:
    from nacl.public import PrivateKey

    body = {"allow": True, "reason": None, "configuration": CONFIGURATION}
    return HttpResponse(200, seal_response(request, body, box=PrivateKey.generate()))


def plain_refusal(_request: OpenedRequest) -> HttpResponse:
    return HttpResponse(200, b'{"allow": false, "reason": "go away"}')


def unsigned_sign_in(_request: OpenedRequest) -> HttpResponse:
    return HttpResponse(200, b'{"sso_url": "https://evil.example/", "sso_token": "x"}')


@pytest.mark.parametrize("forged", [tampered, sealed_by_a_stranger, plain_refusal, unsigned_sign_in])
def test_an_answer_that_fails_a_proof_counts_as_none(lab: Lab, forged: Handler) -> None:
    lab.clock.stop_at = 1030
    lab.run(a=forged, b=forged, c=forged, gateway=gateway())
    assert lab.tunnel.ups == []
    assert lab.states() == ["connecting"]
    assert "cannot be trusted" in lab.session.status.last_error
    assert len(lab.keys()) > 3


def test_the_whole_round_again_about_every_seven_seconds_with_the_same_key(lab: Lab) -> None:
    lab.clock.stop_at = 1040
    lab.run(a=status(401), b=status(401), c=status(401))
    assert len(set(lab.keys())) == 1
    starts = lab.network.times("wg")[::3]
    assert len(starts) >= 4
    assert all(3.5 <= later - earlier <= 10.5 for earlier, later in pairwise(starts))


def test_rounds_become_rarer_when_it_goes_on(lab: Lab) -> None:
    lab.clock.stop_at = 1600
    lab.run(a=status(503), b=status(503), c=status(503))
    starts = lab.network.times("wg")[::3]
    assert 15 <= starts[-1] - starts[-2] <= 45


@pytest.mark.parametrize("asked", [0.0, 20.0])
def test_ten_thousand_whose_hosts_fail_at_the_same_moment_do_not_come_back_in_the_same_second(
    tmp_path: Path, asked: float
) -> None:
    """Also where each of them was told the same Retry-After. Each client is its own random numbers."""
    connecting = Lab(tmp_path, make_profile()).make_session()._connecting
    rounds = []
    for number in range(10_000):
        connecting.random = random.Random(number)
        rounds.append(connecting._round_pause(RoundResult(answered=True, wait=asked), started=1000.0))
    seconds = Counter(int(pause) for pause in rounds)
    assert max(seconds.values()) < 1700
    assert min(rounds) >= asked


def test_a_spent_key_is_replaced_in_the_next_round(lab: Lab) -> None:
    lab.clock.stop_at = 1010
    lab.run(a=status(409), b=status(409), c=status(409))
    assert len(set(lab.keys()[:3])) == 1
    assert lab.keys()[3] != lab.keys()[0]


def test_retry_after_is_honoured_for_that_host_alone(lab: Lab) -> None:
    lab.clock.stop_at = 1058
    lab.run(a=status(429, 50), b=status(503), c=status(503))
    asked = [when for when, request in lab.network.seen if request.base == A]
    assert len(asked) == 2
    assert asked[1] - asked[0] >= 50
    assert len([request for request in lab.network.of("wg") if request.base == B]) >= 6


def test_when_all_hosts_say_later_nobody_is_asked_before(lab: Lab) -> None:
    lab.clock.stop_at = 1100
    lab.run(a=status(429, 40), b=status(429, 40), c=status(429, 40))
    assert [when for when in lab.network.times("wg") if 1000 < when < 1040] == []
    assert [when for when in lab.network.times("wg") if when >= 1040] != []


def test_silent_hosts_are_asked_last_in_the_next_round(lab: Lab) -> None:
    lab.clock.stop_at = 1025
    lab.run(a=silence, b=status(503), c=status(503))
    assert lab.network.of("wg")[5].base == A


def test_allow_false_is_final(lab: Lab) -> None:
    assert lab.run(a=refuse, b=refuse, c=refuse) is SessionEnded
    assert str(lab.error) == "Second factor refused"
    assert len(lab.network.of("wg")) == 1
    assert lab.tunnel.ups == []


def test_allow_false_while_reconnecting_is_final_and_takes_the_tunnel_down(lab: Lab) -> None:
    api = in_turn(allow, refuse)
    assert lab.run(a=api, b=api, gateway=gateway(status(404))) is SessionEnded
    assert len(lab.tunnel.ups) == 1


def test_an_unknown_device_shows_its_registration_key(lab: Lab) -> None:
    def unknown(request: OpenedRequest) -> HttpResponse:
        return refuse(request, None, reg_key="Q7KD")

    assert lab.run(a=unknown, b=unknown) is SessionEnded
    assert isinstance(lab.error, SessionEnded)
    assert lab.error.reg_key == "Q7KD"


def test_control_characters_of_a_reason_never_reach_the_terminal(lab: Lab) -> None:
    def nasty(request: OpenedRequest) -> HttpResponse:
        return refuse(request, "no\x1b[2J\nway")

    lab.run(a=nasty, b=nasty)
    assert str(lab.error) == "no [2J way"


# Base32 of SHA-256 of "sign-in code token-1".
SIGN_IN_CODE = "6Q2-N3S"


def sign_in(_request: OpenedRequest) -> HttpResponse:
    url, token = "https://vpn.example/sso/1", "token-1"
    body = {"sso_url": url, "sso_token": token, "signature": hmac64(f"{token}&{url}")}
    return HttpResponse(200, json.dumps(body).encode())


def test_sign_in_waits_with_the_same_key_until_it_is_done(lab: Lab) -> None:
    waits = in_turn(status(428), status(503), status(428), allow)

    def api(request: OpenedRequest) -> HttpResponse:
        return waits(request) if request.kind == "wg_wait" else sign_in(request)

    lab.clock.stop_at = 1030
    lab.run(a=api, b=api, gateway=gateway())
    assert lab.states() == ["connecting", "signing-in", "connecting", "connected"]
    asked = lab.network.of("wg_wait")
    assert len(asked) == 4
    assert {request.plaintext["sso_token"] for request in asked} == {"token-1"}
    assert set(lab.keys("wg_wait")) == set(lab.keys("wg"))
    assert "https://vpn.example/sso/1" in {status.sign_in_url for status in lab.statuses}
    assert {status.sign_in_code for status in lab.statuses} == {"", SIGN_IN_CODE}
    assert (lab.session.status.sign_in_url, lab.session.status.sign_in_code) == ("", "")


def test_sign_in_gives_up_after_ninety_seconds(lab: Lab) -> None:
    def api(request: OpenedRequest) -> HttpResponse:
        return status(428)(request) if request.kind == "wg_wait" else sign_in(request)

    assert lab.run(a=api, b=api) is SessionEnded
    assert 85 < lab.clock.now - 1000 < 95


@pytest.mark.parametrize(("code", "seconds", "pause"), [(429, 47.0, 47.0), (429, 0.0, 30.0), (408, 0.0, 30.0)])
def test_it_backs_off_by_what_the_answer_says_and_says_so(lab: Lab, code: int, seconds: float, pause: float) -> None:
    answer = status(code, seconds)
    lab.clock.stop_at = 1000 + 2.5 * pause
    lab.run(a=answer, b=answer, c=answer)
    times = sorted(set(lab.network.times("wg")))
    assert [later - earlier >= pause for earlier, later in pairwise(times)] == [True] * (len(times) - 1)
    assert len(times) > 1
    assert any(f"{A}: asked again in {pause:.0f} s" in line for line in lab.logged)
    said = [seen.message for seen in lab.statuses if seen.message]
    assert said[0].startswith("no host allowed it; asking again in ")


def test_a_refusal_brings_the_changed_profile(lab: Lab) -> None:
    """Its factors may be why."""
    changed = profile_text(key=None, drop=("sync_token", "sync_secret"), password_mode="otp_pin", revision=4)

    def answer(request: OpenedRequest) -> HttpResponse:
        if request.kind == "sync":
            return HttpResponse(200, json.dumps({"conf": changed, "signature": hmac64(changed)}).encode())
        return refuse(request)

    assert lab.run(a=answer, b=answer) is SessionEnded
    assert [profile.header["password_mode"] for profile in lab.saved] == ["otp_pin"]
