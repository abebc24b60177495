"""What a response may say, and what of it is shown."""

from __future__ import annotations

import pytest
from wgpeer.envelope import InvalidResponse
from wgpeer.responses import Ended, Route, read_configuration, read_end
from wgpeer.text import printable
from wgpeer_fakes import CONFIGURATION


def test_what_a_configuration_says_of_domains_metrics_and_mtu() -> None:
    plain = read_configuration(CONFIGURATION)
    assert plain.routing_domains == ()  # of a server that knows nothing of them
    assert plain.routes[0].metric == 0
    assert read_configuration(CONFIGURATION | {"mtu": 0}).mtu == 0
    apart = {"search_domains": ["corp.example"], "routing_domains": ["lab.example"]}
    read = read_configuration(CONFIGURATION | apart | {"routes": [{"network": "10.0.0.0/8", "metric": 5}]})
    assert (read.search_domains, read.routing_domains) == (("corp.example",), ("lab.example",))
    assert read.routes == (Route("10.0.0.0/8", metric=5),)
    for wrong in (
        {"routing_domains": ["x\nnameserver 6.6.6.6"]},
        {"routing_domains": "x"},
        {"routing_domains": ["-x"]},
    ):
        with pytest.raises(InvalidResponse):
            read_configuration(CONFIGURATION | wrong)
    for metric in (-1, 2**31, "5", True):
        with pytest.raises(InvalidResponse):
            read_configuration(CONFIGURATION | {"routes": [{"network": "10.0.0.0/8", "metric": metric}]})


def test_text_from_outside_cannot_command_the_terminal() -> None:
    assert printable("a\x1b]0;x\x07b\r\nc\u202ed") == "a ]0;x b  c d"
    assert len(printable("x" * 9999)) == 500


@pytest.mark.parametrize(
    ("response", "end"),
    [
        ({"status": True}, None),
        ({"status": True, "reason": "none"}, None),
        ({"status": False}, Ended()),
        ({"status": False, "reason": None}, Ended()),
        ({"status": False, "reason": "disconnected by an administrator"}, Ended("disconnected by an administrator")),
        ({"status": False, "reason": "\x1b[2J" + "x" * 5000}, Ended(printable("\x1b[2J" + "x" * 5000))),
    ],
)
def test_a_ping_says_that_and_why_a_connection_has_ended(response: dict[str, object], end: Ended | None) -> None:
    assert read_end(response) == end
    assert end is None or "\x1b" not in end.reason


@pytest.mark.parametrize("response", [{}, {"status": 0}, {"status": False, "reason": 5}])
def test_what_is_no_answer_to_a_ping_is_refused(response: dict[str, object]) -> None:
    with pytest.raises(InvalidResponse):
        read_end(response)
