"""A session that ends is continued by a new key before it does; by a clock that only moves when told."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
from wgpeer.transport import HttpResponse
from wgpeer_fakes import SECRET, Handler, OpenedRequest, allow, hmac64, make_profile, pong, refuse, silence, status
from wgpeer_session_lab import Lab, gateway, in_turn

SESSION = 1000.0  # seconds; renewed 250 to 125 before its end


def for_a_while(request: OpenedRequest) -> HttpResponse:
    return allow(request, session_left=int(SESSION))


@pytest.fixture
def renewing(lab: Lab) -> Lab:
    lab.clock.stop_at = 1000 + SESSION
    return lab


def in_time(when: float, begun: float = 1000) -> bool:
    return begun + 0.75 * SESSION <= when <= begun + 0.875 * SESSION + 10


def test_a_new_key_is_in_use_before_the_session_ends(renewing: Lab) -> None:
    lab = renewing
    lab.clock.stop_at = 1000 + 3 * SESSION
    lab.run(a=for_a_while, b=for_a_while, gateway=gateway())
    asked = lab.network.times("wg")
    begun = 1000.0
    for when in asked[1:]:
        assert in_time(when, begun)
        begun = when
    connects = [request.plaintext for request in lab.network.of("wg")]
    assert [each.get("renews") for each in connects] == [None, *(each["wg_public_key"] for each in connects[:-1])]
    assert len({each["wg_public_key"] for each in connects}) == len(connects) >= 4
    assert len(lab.tunnel.ups) == 1
    assert len({key for _, key in lab.tunnel.replaced}) == len(connects) - 1
    # Nobody sees anything of it but in the log.
    assert lab.states() == ["connecting", "connected"]
    assert (lab.session.status.reconnects, lab.session.status.renewals) == (0, len(connects) - 1)
    assert lab.session.status.public_key == connects[-1]["wg_public_key"]
    assert lab.keys("ping")[-1] == connects[-1]["wg_public_key"]


@pytest.mark.parametrize("seed", range(5))
def test_not_all_renew_at_one_moment(lab: Lab, seed: int) -> None:
    others = Lab(lab.tmp, lab.profile, seed=seed + 100)
    for each in (lab, others):
        each.clock.stop_at = 1000 + SESSION
        each.run(a=for_a_while, b=for_a_while, gateway=gateway())
    assert abs(lab.network.times("wg")[1] - others.network.times("wg")[1]) > 0.01


def test_a_session_without_end_is_never_renewed(lab: Lab) -> None:
    lab.clock.stop_at = 10_000
    lab.run(a=allow, b=allow, gateway=gateway())
    assert len(lab.keys()) == 1


@pytest.mark.parametrize("nobody", [status(503), status(429), silence], ids=["503", "429", "silence"])
def test_while_no_host_allows_it_the_old_key_goes_on_and_it_is_tried_again(renewing: Lab, nobody: Handler) -> None:
    lab = renewing

    def host(request: OpenedRequest) -> HttpResponse:
        return nobody(request) if lab.clock.now > 1001 else for_a_while(request)

    lab.run(a=host, b=host, c=host, gateway=gateway())
    tries = [when for when in lab.network.times("wg") if when > 1001]
    assert len(tries) >= 4
    assert lab.tunnel.replaced == []
    assert lab.states() == ["connecting", "connected"]
    pings = [when for when in lab.network.times("ping") if when > 1001]
    assert max(later - earlier for earlier, later in pairwise(pings)) < 40  # three hosts are asked


def test_a_refusal_ends_nothing_and_says_what_to_do(renewing: Lab) -> None:
    lab = renewing

    def host(request: OpenedRequest) -> HttpResponse:
        return refuse(request) if lab.clock.now > 1001 else for_a_while(request)

    lab.run(a=host, b=host, gateway=gateway())
    assert len(lab.keys()) == 2  # it is asked once: a person must act
    assert lab.session.status.state == "connected"
    assert "Second factor refused" in lab.session.status.message
    assert "wgpeer up" in lab.session.status.message
    assert lab.network.times("ping")[-1] > 1000 + SESSION - 15


def test_a_new_key_that_does_not_work_leaves_the_old_tunnel_until_the_server_says_that_it_is_over(
    renewing: Lab,
) -> None:
    lab = renewing

    def ping(request: OpenedRequest) -> HttpResponse:
        first, *later = lab.keys()
        if not later:
            return pong(request)
        if request.plaintext["wg_public_key"] == later[0]:
            return silence(request)
        return pong(request, status=request.plaintext["wg_public_key"] != first)

    lab.run(a=for_a_while, b=for_a_while, gateway=gateway(ping))
    assert lab.tunnel.replaced == []
    assert len(lab.tunnel.ups) == 2
    assert lab.states() == ["connecting", "connected", "reconnecting", "connected"]
    assert lab.network.times("wg")[2] - lab.network.times("wg")[1] < 30


def test_a_host_that_dies_while_it_is_asked_is_left_as_ever(renewing: Lab) -> None:
    lab = renewing

    def dead(request: OpenedRequest) -> HttpResponse:
        return silence(request) if len(lab.keys()) > 1 else pong(request)

    hosts = in_turn(for_a_while, silence, silence, silence, for_a_while)
    back = lambda request: pong(request) if len(lab.tunnel.ups) > 1 else dead(request)  # noqa: E731
    lab.run(a=hosts, b=hosts, c=hosts, gateway=gateway(back))
    assert lab.states() == ["connecting", "connected", "reconnecting", "connected"]
    asked = lab.network.times("wg")
    assert asked[4] - asked[1] < 15


def sign_in(request: OpenedRequest) -> HttpResponse:
    token, url = "t0ken", f"https://vpn.example/sso/{request.kind}"
    answer = {"sso_url": url, "sso_token": token, "signature": hmac64(f"{token}&{url}", SECRET)}
    return HttpResponse(200, json.dumps(answer).encode())


def test_who_must_sign_in_has_time_to_and_the_old_key_is_pinged_meanwhile(tmp_path: object, lab: Lab) -> None:
    lab.profile = make_profile(sso_auth=True)
    lab.clock.stop_at = 1000 + SESSION + 100
    seen = list[tuple[float, str, str]]()

    def host(request: OpenedRequest) -> HttpResponse:
        if len(lab.keys()) == 1:
            return for_a_while(request)
        if request.kind == "wg":
            return sign_in(request)
        seen.append((lab.clock.now, lab.session.status.state, lab.session.status.sign_in_url))
        lab.clock.now += 5  # held
        return status(428)(request) if len(seen) < 15 else for_a_while(request)

    lab.run(a=host, b=host, gateway=gateway())
    assert {(state, url) for _, state, url in seen} == {("connected", "https://vpn.example/sso/wg")}
    begun, done = seen[0][0], seen[-1][0]
    assert done - begun > 60
    pings = [when for when in lab.network.times("ping") if begun - 10 <= when <= done + 10]
    assert max(later - earlier for earlier, later in pairwise(pings)) <= 10
    assert lab.session.status.sign_in_url == ""
    assert lab.session.status.renewals >= 1
    assert any("sign-in" in line for line in lab.logged)


def test_two_sign_ins_may_follow_one_another(lab: Lab) -> None:
    """Single sign-on, then a passkey: each with an address of its own."""
    lab.profile = make_profile(sso_auth=True)
    lab.clock.stop_at = 1020
    shown = list[str]()

    def host(request: OpenedRequest) -> HttpResponse:
        waits = len(lab.network.of("wg_wait"))
        shown.append(lab.session.status.sign_in_url)
        return allow(request) if waits == 2 else sign_in(request)

    lab.run(a=host, b=host, gateway=gateway())
    assert shown == ["", "https://vpn.example/sso/wg", "https://vpn.example/sso/wg_wait"]
    assert lab.states() == ["connecting", "signing-in", "connecting", "signing-in", "connecting", "connected"]
