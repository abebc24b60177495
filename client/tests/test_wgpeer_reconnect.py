"""Staying connected: pings, lost hosts, suspend and reconnects, by a clock that only moves when told."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from wgpeer.connecting import SessionEnded
from wgpeer.transport import HttpResponse, NoResponse
from wgpeer.tunnel.contract import TunnelError
from wgpeer_fakes import (
    Handler,
    OpenedRequest,
    allow,
    make_profile,
    pong,
    silence,
    status,
)
from wgpeer_session_lab import Lab, gateway, in_turn, tampered


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


def test_after_eight_tries_without_any_http_response_it_reconnects(lab: Lab) -> None:
    lab.clock.stop_at = 1025
    pings = in_turn(pong, *[broken_off] * 8, pong)
    lab.run(a=allow, b=allow, gateway=gateway(pings))
    assert lab.network.times("wg") == [1000.0, 1017.0]


def test_while_the_gateway_answers_at_all_the_tunnel_stays_and_is_not_asked_more_often_than_usual(lab: Lab) -> None:
    """Until its key is revoked for sure; and the tunnel stays also while a new connection is asked for."""
    lab.clock.stop_at = 1420

    def ping(request: OpenedRequest) -> HttpResponse:
        return pong(request) if lab.clock.now < 1005 else status(503)(request)

    api = in_turn(allow, status(503))
    lab.run(a=api, b=api, c=status(503), gateway=gateway(ping))
    asked_again = [when for when in lab.network.times("wg") if when > 1000]
    assert 1360 <= asked_again[0] <= 1371  # ping_timeout is 360 s
    assert lab.network.times("ping")[1:11] == [*(1010.0 + n for n in range(8)), 1020.0, 1030.0]
    then = [when for when in lab.network.times("ping") if 1018 < when <= 1360]
    assert all(later - earlier == 10 for earlier, later in pairwise(then))
    assert len(lab.tunnel.ups) == 1


def test_a_fault_that_is_over_is_forgotten(lab: Lab) -> None:
    lab.clock.stop_at = 1100
    pings = in_turn(pong, *[status(503)] * 10, pong, *[status(503)] * 3, pong)
    lab.run(a=allow, b=allow, gateway=gateway(pings))
    assert lab.session.status.reconnects == 0
    # Eight tries, two for one interval each, one good; then quickly again.
    assert lab.network.times("ping")[11:16] == [1040.0, 1050.0, 1051.0, 1052.0, 1053.0]


def test_one_lost_try_costs_no_connection(lab: Lab) -> None:
    lab.clock.stop_at = 1025
    lab.run(a=allow, b=allow, gateway=gateway(in_turn(pong, silence, pong)))
    assert lab.session.status.reconnects == 0
    assert lab.network.times("ping") == [1000.0, 1010.0, 1010.7, 1020.0]


def test_a_changed_network_is_looked_at_at_once(lab: Lab) -> None:
    lab.clock.wake_at = [1013.25, 1044.5]
    lab.clock.stop_at = 1050
    lab.run(a=allow, b=allow, gateway=gateway())
    assert lab.network.times("ping") == [1000.0, 1010.0, 1013.25, 1023.25, 1033.25, 1043.25, 1044.5]
    assert len(lab.keys()) == 1


def test_when_the_network_is_back_the_old_connection_is_tried_at_once_and_before_any_host(lab: Lab) -> None:
    back = 1024.0  # in the pause after the first round

    def cut(handler: Handler) -> Handler:
        return lambda request: silence(request) if 1009 < lab.clock.now < back else handler(request)

    lab.clock.wake_at, lab.clock.stop_at = [back], 1060
    lab.run(a=cut(allow), b=cut(allow), c=cut(allow), gateway=cut(gateway()))
    assert next(when for when, _ in lab.network.seen if when > 1023) == back
    assert [when for when in lab.network.times("wg") if when >= back] == []
    assert len(lab.tunnel.ups) == 1
    assert lab.states() == ["connecting", "connected", "reconnecting", "connected"]


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
    assert built[1] - died <= 12.5
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
    for gap, pause in zip(gaps[1:7], [1, 2, 4, 8, 16, 32], strict=True):
        assert pause / 2 <= gap <= pause * 3 / 2
    assert max(gaps) <= 90
    assert len(set(lab.keys())) == len(starts)


def test_hosts_that_die_one_after_the_other_are_no_reason_to_wait(lab: Lab) -> None:
    """Each connection works for a moment, and then its host is silent."""
    lab.clock.stop_at = 1100
    lab.run(a=allow, b=allow, gateway=gateway(in_turn(*[pong, silence, silence] * 6, pong)))
    starts = lab.network.times("wg")
    assert len(starts) == 7
    assert all(later - earlier == pytest.approx(12.2) for earlier, later in pairwise(starts))


def test_a_host_that_is_silent_from_the_first_ping_on_is_asked_less_and_less_often(lab: Lab) -> None:
    lab.clock.stop_at = 1400
    lab.run(a=allow, b=allow, gateway=gateway(silence))
    gaps = [later - earlier for earlier, later in pairwise(lab.network.times("wg"))]
    assert gaps[0] == 8
    assert gaps[4] > 8 + 3


def test_a_profile_that_must_not_reconnect_does_not(tmp_path: Path) -> None:
    lab = Lab(tmp_path, make_profile(disable_reconnect=True))
    assert lab.run(a=allow, b=allow, gateway=gateway(in_turn(pong, status(404)))) is SessionEnded
    assert len(lab.keys()) == 1


def test_a_tunnel_that_cannot_be_built_at_first_ends_with_the_reason(lab: Lab) -> None:
    def up(*_args: Any, **_kwargs: Any) -> str:
        raise TunnelError("no /dev/net/tun")

    lab.tunnel.up = up  # type: ignore[method-assign]
    assert lab.run(a=allow, b=allow) is TunnelError
