"""A session with everything around it faked: a scripted network and a clock that only moves when told."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from wgpeer.api_client import ApiClient, DeviceInfo
from wgpeer.clock import Stopped
from wgpeer.connecting import SessionEnded
from wgpeer.factors import FactorToken
from wgpeer.profile import Profile
from wgpeer.session import Session
from wgpeer.status import Status
from wgpeer.transport import HttpResponse
from wgpeer.tunnel.contract import TunnelError
from wgpeer_fakes import (
    FakeClock,
    FakeNetwork,
    FakeResolver,
    FakeTunnel,
    Handler,
    OpenedRequest,
    allow,
    hmac64,
    identity,
    make_profile,
    pong,
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
        self.session = session = self.make_session()
        with pytest.raises((Stopped, SessionEnded, TunnelError)) as caught:
            session.run()
        self.error = caught.value
        assert self.tunnel.downs == 1
        return caught.type

    def make_session(self) -> Session:
        return Session(
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
            resolver=FakeResolver(lambda hosts: self.prefetched.append((len(self.tunnel.ups), hosts))),
            random=random.Random(self.seed),
        )

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


def tampered(request: OpenedRequest) -> HttpResponse:
    answer = json.loads(allow(request).body)
    return HttpResponse(200, json.dumps(answer | {"signature": hmac64("something else")}).encode())
