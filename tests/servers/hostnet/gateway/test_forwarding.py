"""What nginx is told, and that it runs when it is to and only then."""

from __future__ import annotations

from pathlib import Path

import pytest

from servers.hostnet.gateway.configuration import configuration
from servers.hostnet.gateway.forwarding import Forwarding
from servers.hostnet.gateway.proxy import GatewayError
from servers.hostnet.state import Gateway, HostState, host_state_from_json, to_json
from tests.lab import until

TWO = (Gateway("fd00::1", 9790), Gateway("10.99.0.2", 9791))


def state(*gateways: Gateway) -> HostState:
    return HostState("h", 1, "boot", 9790, (), gateways=gateways)


class Nginx:
    """Stands for ``Proxy``."""

    def __init__(self) -> None:
        self.text = ""
        self.starts = 0
        self.error: Exception | None = None

    def run(self, text: str) -> None:
        if self.error:
            raise self.error
        self.starts += text != self.text
        self.text = text

    def running(self) -> int:
        return int(bool(self.text))

    def remove(self) -> None:
        self.text = ""


def test_the_first_is_asked_and_the_others_stand_by() -> None:
    text = configuration(Path("/run/x"), 9790, TWO)
    assert "server [fd00::1]:9790 max_fails=1 fail_timeout=5s;" in text
    assert "server 10.99.0.2:9791 max_fails=1 fail_timeout=5s backup;" in text
    assert "listen 0.0.0.0:9790 " in text


@pytest.mark.parametrize("address", ["x; include /etc/passwd", "", "10.0.0.1;", "node.example.com"])
def test_what_is_no_address_never_becomes_configuration(address: str) -> None:
    with pytest.raises(ValueError, match="does not appear to be"):
        configuration(Path("/run/x"), 9790, (Gateway(address, 9790),))
    wrong = to_json(state(Gateway(address, 9790)))
    with pytest.raises(ValueError, match="does not appear to be"):
        host_state_from_json(wrong)


@pytest.mark.parametrize("port", [0, -1, 65536])
def test_what_is_no_port_is_refused(port: int) -> None:
    with pytest.raises(ValueError, match="no port"):
        host_state_from_json(to_json(state(Gateway("10.0.0.1", port))))


def test_it_runs_while_there_are_gateways_elsewhere() -> None:
    nginx = Nginx()
    forwarding = Forwarding("h", nginx)
    assert forwarding.preview(state()) == []
    assert forwarding.preview(state(*TWO)) == ["start forwarding of pings to gateway web"]
    forwarding.apply(state(*TWO))
    until(lambda: "fd00::1" in nginx.text)
    assert forwarding.preview(state(*TWO)) == []
    assert forwarding.preview(state(TWO[1])) == ["forward pings to another gateway web"]
    forwarding.apply(state(TWO[1]))
    until(lambda: "fd00::1" not in nginx.text)
    assert forwarding.preview(state()) == ["end forwarding of pings to gateway web"]
    forwarding.apply(state())
    until(lambda: not nginx.text)


@pytest.mark.parametrize(
    ("error", "words"), [(GatewayError("nginx is not installed"), "not installed"), (ValueError("x"), "ValueError")]
)
def test_what_fails_is_a_condition_until_it_works(error: Exception, words: str) -> None:
    nginx = Nginx()
    forwarding = Forwarding("h", nginx)
    nginx.error = error
    forwarding.apply(state(*TWO))
    until(forwarding.conditions)
    (condition,) = forwarding.conditions()
    assert condition.code == "gateway_failed"
    assert words in condition.text
    nginx.error = None
    until(lambda: not forwarding.conditions())
    assert nginx.starts == 1
