"""The session against a scripted network and a clock that only moves when told."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from wgpeer.api_client import ApiClient, DeviceInfo
from wgpeer.clock import Stopped
from wgpeer.factors import FactorToken
from wgpeer.profile import Profile
from wgpeer.session import Session, SessionEnded, TunnelError
from wgpeer.status import Status
from wgpeer.transport import HttpResponse, NoResponse
from wgpeer_fakes import (
    CONFIGURATION,
    FakeClock,
    FakeNetwork,
    FakeTunnel,
    Handler,
    OpenedRequest,
    allow,
    hmac64,
    identity,
    make_profile,
    pong,
    profile_text,
    refuse,
    seal_response,
    silence,
    status,
)

A, B, C = "https://a.example", "https://b.example:8443", "https://c.example"


@dataclass
class Lab:
    """A session with everything around it faked; hosts refuse loudly unless a test says what they do."""

    tmp: Path
    profile: Profile
    clock: FakeClock = field(default_factory=FakeClock)
    tunnel: FakeTunnel = field(default_factory=FakeTunnel)
    statuses: list[Status] = field(default_factory=list)
    logged: list[str] = field(default_factory=list)
    saved: list[Profile] = field(default_factory=list)
    password: str = "1234"
    seed: int = 1
    prefetched: list[tuple[int, list[str]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.network = FakeNetwork(self.clock, {name: status(503) for name in (A, B, C, "gateway")})

    def run(self, **hosts: Handler) -> type[Exception]:
        """Run until stopped or final; what ended it."""
        names = {"a": A, "b": B, "c": C, "gateway": "gateway"}
        self.network.hosts.update({names[name]: handler for name, handler in hosts.items()})
        session = Session(
            api=ApiClient(
                self.profile, identity(), DeviceInfo("laptop", ("02:00:00:00:00:01",)), self.clock, self.network
            ),
            clock=self.clock,
            tunnel=self.tunnel,
            token=FactorToken.load(self.tmp / "token.json", self.profile),
            password=self.password,
            report=self.statuses.append,
            save=self.saved.append,
            log=self.logged.append,
            prefetch=lambda hosts: self.prefetched.append((len(self.tunnel.ups), sorted(hosts))),
            random=random.Random(self.seed),
        )
        self.session = session
        with pytest.raises((Stopped, SessionEnded, TunnelError)) as caught:
            session.run()
        self.error = caught.value
        assert self.tunnel.downs == 1
        return caught.type

    def keys(self, kind: str = "wg") -> list[str]:
        return [request.plaintext["wg_public_key"] for request in self.network.of(kind)]

    def states(self) -> list[str]:
        states = [status.state for status in self.statuses]
        return [state for index, state in enumerate(states) if index == 0 or state != states[index - 1]]


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path, make_profile())


def in_turn(*handlers: Handler) -> Handler:
    """One handler a request; the last one stays."""
    left = list(handlers)

    def handle(request: OpenedRequest) -> HttpResponse:
        return (left.pop(0) if len(left) > 1 else left[0])(request)

    return handle


def gateway(ping: Handler = pong, sync: Handler | None = None) -> Handler:
    quiet: Handler = sync or (lambda _request: HttpResponse(200, b"{}"))
    return lambda request: quiet(request) if request.kind == "sync" else ping(request)


def test_names_of_all_api_hosts_are_looked_up_before_the_tunnels_name_servers_are_there(lab: Lab) -> None:
    def twice(request: OpenedRequest) -> HttpResponse:
        return pong(request, status=lab.clock.now < 1100)

    lab.run(a=allow, b=allow, c=allow, gateway=gateway(twice))
    assert len(lab.tunnel.ups) > 1
    assert lab.prefetched == [(0, ["a.example", "b.example", "c.example"])]


# --- connecting -------------------------------------------------------------------------------------------------------


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


def tampered(request: OpenedRequest) -> HttpResponse:
    answer = json.loads(allow(request).body)
    return HttpResponse(200, json.dumps(answer | {"signature": hmac64("something else")}).encode())


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
    assert len(starts) >= 5
    assert all(6.2 < later - earlier < 7.8 for earlier, later in pairwise(starts))


def test_rounds_become_rarer_when_it_goes_on(lab: Lab) -> None:
    lab.clock.stop_at = 1600
    lab.run(a=status(503), b=status(503), c=status(503))
    starts = lab.network.times("wg")[::3]
    assert 26 < starts[-1] - starts[-2] < 34


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


# --- single sign-on ---------------------------------------------------------------------------------------------------


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
    assert lab.session.status.sign_in_url == ""


def test_sign_in_gives_up_after_ninety_seconds(lab: Lab) -> None:
    def api(request: OpenedRequest) -> HttpResponse:
        return status(428)(request) if request.kind == "wg_wait" else sign_in(request)

    assert lab.run(a=api, b=api) is SessionEnded
    assert 85 < lab.clock.now - 1000 < 95


# --- staying connected ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [400, 401, 404, 409, 429])
def test_a_ping_refused_reconnects_at_once_with_a_new_key(lab: Lab, code: int) -> None:
    lab.clock.stop_at = 1019
    pings = in_turn(pong, status(code), pong)
    lab.run(a=allow, b=allow, gateway=gateway(pings))
    assert lab.network.times("wg") == [1000.0, 1010.0]
    assert len(set(lab.keys())) == 2
    assert len({key for _, key in lab.tunnel.ups}) == 2
    assert lab.session.status.reconnects == 1
    assert lab.states() == ["connecting", "connected", "reconnecting", "connected"]


def test_a_ping_that_says_gone_reconnects_at_once_with_a_new_key(lab: Lab) -> None:
    lab.clock.stop_at = 1019
    pings = in_turn(pong, lambda request: pong(request, status=False), pong)
    lab.run(a=allow, b=allow, gateway=gateway(pings))
    assert lab.network.times("wg") == [1000.0, 1010.0]
    assert len(set(lab.keys())) == 2


def broken_off(_request: OpenedRequest) -> HttpResponse:
    raise NoResponse("connection reset", silent=False)


@pytest.mark.parametrize("fault", [status(500), status(503), status(301), broken_off, tampered])
def test_a_fault_of_the_server_is_borne_for_a_while(lab: Lab, fault: Handler) -> None:
    lab.clock.stop_at = 1035
    pings = in_turn(pong, *[fault] * 5, pong)
    lab.run(a=allow, b=allow, gateway=gateway(pings))
    assert len(lab.keys()) == 1
    assert lab.network.times("ping")[1:7] == [1010.0 + n for n in range(6)]
    assert lab.session.status.reconnects == 0


def test_after_eight_failed_tries_it_reconnects(lab: Lab) -> None:
    lab.clock.stop_at = 1025
    pings = in_turn(pong, *[status(503)] * 8, pong)
    lab.run(a=allow, b=allow, gateway=gateway(pings))
    assert lab.network.times("wg") == [1000.0, 1017.0]


@pytest.mark.parametrize("seed", range(4))
def test_from_a_hosts_death_to_the_new_tunnel_thirteen_seconds_at_worst(tmp_path: Path, seed: int) -> None:
    """The host dies right after a good ping; its API dies with it, and is therefore asked last."""
    lab = Lab(tmp_path, make_profile(lines=f"setenv UV_ID {'0' * 32}\nsetenv UV_NAME x\n"), seed=seed)
    died, built = 1010.001, list[float]()

    def mortal(request: OpenedRequest) -> HttpResponse:
        return silence(request) if lab.clock.now > died else allow(request, hostname="a.example")

    def second(request: OpenedRequest) -> HttpResponse:
        return allow(request, hostname="b.example") if lab.clock.now > died else status(503)(request)

    def gate(request: OpenedRequest) -> HttpResponse:
        return silence(request) if len(built) == 1 and lab.clock.now > died else pong(request)

    def up(configuration: Any, _key: Any, **_kwargs: Any) -> str:
        built.append(lab.clock.now)
        return str(configuration.endpoints[0])

    lab.tunnel.up = up  # type: ignore[method-assign]
    lab.clock.stop_at = 1060
    lab.run(a=mortal, b=second, c=silence, gateway=gateway(gate))
    assert len(built) == 2
    assert built[1] - died <= 13.0
    assert len(set(lab.keys())) == 2
    assert lab.session.status.endpoint == "b.example"


def test_a_suspend_longer_than_the_timeout_reconnects_at_once(lab: Lab) -> None:
    lab.clock.suspend = (1023.0, 400.0)
    lab.clock.stop_at = 1440
    seen: list[float] = []

    def again(request: OpenedRequest) -> HttpResponse:
        seen.append(lab.clock.now)
        return allow(request)

    api = in_turn(allow, again)
    lab.run(a=api, b=api, gateway=gateway())
    assert len(seen) == 1
    assert seen[0] - 1423.0 <= 1.0
    assert [when for when in lab.network.times("ping") if 1021 < when < seen[0]] == []


def test_a_short_suspend_pings_at_once_and_keeps_the_connection(lab: Lab) -> None:
    lab.clock.suspend = (1012.0, 200.0)
    lab.clock.stop_at = 1230
    lab.run(a=allow, b=allow, gateway=gateway())
    assert len(lab.keys()) == 1
    assert any(1212 <= when <= 1213 for when in lab.network.times("ping"))


def test_when_nobody_answers_the_old_connection_is_tried_again(lab: Lab) -> None:
    """Our own network was away for a while: nothing was lost, and no second factor is needed."""

    def cut(handler: Handler) -> Handler:
        return lambda request: silence(request) if 1009 < lab.clock.now < 1021 else handler(request)

    lab.clock.stop_at = 1060
    lab.run(a=cut(allow), b=cut(allow), c=cut(allow), gateway=cut(gateway()))
    assert len(lab.tunnel.ups) == 1
    assert lab.states() == ["connecting", "connected", "reconnecting", "connected"]


def test_connections_that_never_live_back_off(lab: Lab) -> None:
    lab.clock.stop_at = 1400
    lab.run(a=allow, b=allow, gateway=gateway(lambda request: pong(request, status=False)))
    starts = lab.network.times("wg")
    gaps = [later - earlier for earlier, later in pairwise(starts)]
    assert gaps[0] == 0
    assert gaps[1:7] == [1, 2, 4, 8, 16, 32]
    assert max(gaps) <= 60
    assert len(set(lab.keys())) == len(starts)


def test_a_profile_that_must_not_reconnect_does_not(tmp_path: Path) -> None:
    lab = Lab(tmp_path, make_profile(disable_reconnect=True))
    assert lab.run(a=allow, b=allow, gateway=gateway(in_turn(pong, status(404)))) is SessionEnded
    assert len(lab.keys()) == 1


def test_a_tunnel_that_cannot_be_built_at_first_ends_with_the_reason(lab: Lab) -> None:
    def up(*_args: Any, **_kwargs: Any) -> str:
        raise TunnelError("no /dev/net/tun")

    lab.tunnel.up = up  # type: ignore[method-assign]
    assert lab.run(a=allow, b=allow) is TunnelError


# --- factor token -----------------------------------------------------------------------------------------------------


def tokens(lab: Lab) -> list[str]:
    return [request.plaintext["token"] for request in lab.network.of("wg")]


def test_a_factor_token_is_kept_until_it_expires(tmp_path: Path) -> None:
    profile = make_profile(token=True, token_ttl=3600)
    first, second, third = (Lab(tmp_path, profile) for _ in range(3))
    third.clock.wall_offset += 3601
    for lab in (first, second, third):
        lab.run(a=allow, b=allow, gateway=gateway())
    assert tokens(first)[0] == tokens(second)[0]
    assert tokens(third)[0] != tokens(first)[0]
    assert (tmp_path / "token.json").stat().st_mode & 0o777 == 0o600


def test_a_refusal_forgets_the_factor_token(tmp_path: Path) -> None:
    profile = make_profile(token=True, token_ttl=3600)
    first, second, third = (Lab(tmp_path, profile) for _ in range(3))
    first.run(a=allow, b=allow, gateway=gateway())
    second.run(a=refuse, b=refuse)
    assert not (tmp_path / "token.json").exists()
    third.run(a=allow, b=allow, gateway=gateway())
    assert tokens(third)[0] != tokens(first)[0]


def test_without_tokens_nothing_is_stored(lab: Lab) -> None:
    lab.run(a=allow, b=allow, gateway=gateway())
    assert not (lab.tmp / "token.json").exists()
    assert 0 < len(tokens(lab)[0]) <= 64


# --- sync -------------------------------------------------------------------------------------------------------------


def synced(text: str, secret: str | None = None) -> Callable[[OpenedRequest], HttpResponse]:
    signature = hmac64(text, secret) if secret else hmac64(text)
    return lambda _request: HttpResponse(200, json.dumps({"conf": text, "signature": signature}).encode())


def newer(**changes: Any) -> str:
    fields: dict[str, Any] = {"revision": 4, "sync_hosts": ["https://new.example"], "sync_hash": "aaaa"} | changes
    return profile_text(
        drop=("sync_token", "sync_secret"),
        key=None,
        lines=f"setenv UV_ID {'f' * 32}\nsetenv UV_NAME other\nclient\n",
        **fields,
    )


def test_a_sync_brings_new_hosts_and_keeps_what_is_ours(lab: Lab) -> None:
    sync = in_turn(synced(newer()), lambda _request: HttpResponse(200, b"{}"))
    lab.run(a=allow, b=allow, gateway=gateway(sync=sync))
    (saved,) = lab.saved
    assert [host.url for host in saved.sync_hosts] == ["https://new.example"]
    assert saved.device_id == lab.profile.device_id
    assert saved.device_name == lab.profile.device_name
    assert saved.key == lab.profile.key
    assert saved.text("sync_secret") == lab.profile.text("sync_secret")
    assert lab.network.of("sync")[0].path.endswith("/d41d8cd98f00b204e9800998ecf8427e")
    assert saved.text("sync_hash") == "aaaa"
    assert lab.session.profile == saved


BAD_SYNCS = {
    "signature": synced(newer(), "another-secret"),
    "older": synced(newer(revision=2)),
    "other user": synced(newer(user_id="0123")),
    "other server": synced(newer(server_id="0123")),
    "other organization": synced(newer(organization_id="0123")),
    "other box key": synced(newer(server_box_public_key="A" * 43 + "=")),
    "not a profile": synced("hello"),
    "not json": lambda _request: HttpResponse(200, b"hello"),
    "nothing new": lambda _request: HttpResponse(200, b"{}"),
    "quiet": status(480),
    "fault": status(503),
}


@pytest.mark.parametrize("name", BAD_SYNCS)
def test_a_sync_that_must_not_count_changes_nothing(lab: Lab, name: str) -> None:
    lab.run(a=allow, b=allow, gateway=gateway(sync=BAD_SYNCS[name]))
    assert lab.network.of("sync") != []
    assert lab.saved == []
    assert lab.session.profile == lab.profile
    assert lab.session.status.reconnects == 0


def test_a_sync_comes_every_ten_minutes_and_never_costs_a_ping(lab: Lab) -> None:
    lab.clock.stop_at = 2300
    lab.run(a=allow, b=allow, gateway=gateway())
    syncs = lab.network.times("sync")
    assert syncs == [1010.0, 1610.0, 2210.0]
    assert all(later - earlier == 10 for earlier, later in pairwise(lab.network.times("ping")))
