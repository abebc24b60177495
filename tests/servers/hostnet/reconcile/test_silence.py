"""Whom a host removes by itself for its silence, and that no setting of its clock has a part in it."""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from servers.hostnet.reconcile.held import Gone
from servers.hostnet.reconcile.silence import HANDSHAKE_LIFE
from tests.servers.hostnet.reconcile.applied import NOW, RED, A, Host, full

LOOKS_EVERY = 10.0  # seconds, as a host that is alone does
RENEWED = 120  # seconds after which a session that carries packets has a new handshake
HOUR, DAY = 3600.0, 86400.0


def watched(directory: Path, timeout: int) -> Host:
    host = Host(directory)
    host.applier.full(full(dataclasses.replace(RED, ping_timeout=timeout)))
    return host


@pytest.mark.parametrize(
    ("timeout", "silent_for", "stays"),
    [
        (360, 359, True),
        (360, 361, False),
        # A healthy session may be older than a short ping timeout: handshakes are not pings.
        (10, HANDSHAKE_LIFE - 1, True),
        (10, HANDSHAKE_LIFE + 1, False),
    ],
)
@pytest.mark.parametrize("handshake", [int(NOW), int(NOW - DAY), int(NOW + DAY)], ids=["now", "yesterday", "tomorrow"])
def test_silence_is_counted_from_when_something_new_was_read(
    tmp_path: Path, timeout: int, silent_for: float, stays: bool, handshake: int
) -> None:
    host = watched(tmp_path, timeout)
    host.wireguard.shake_hands("wgs1", "a-key", handshake)
    host.applier.full(full(dataclasses.replace(RED, ping_timeout=timeout), version=11))
    host.now += silent_for
    host.wireguard.shake_hands("wgs1", "b-key", int(NOW))
    gone = host.applier.drop_silent()
    assert host.keys() == ({"a-key", "b-key"} if stays else {"b-key"})
    assert gone == ([] if stays else [Gone("a", "silent", "red", A.allowed_ips)])
    # A full state that does not know it yet does not bring it back.
    host.applier.full(full(RED, version=12))
    assert host.keys() == ({"a-key", "b-key"} if stays else {"b-key"})


@pytest.mark.parametrize(("silent_for", "stays"), [(359, True), (361, False)])
def test_one_that_never_shook_hands_is_counted_from_when_it_was_added(
    tmp_path: Path, silent_for: float, stays: bool
) -> None:
    host = watched(tmp_path, 360)
    host.now += silent_for
    host.applier.drop_silent()
    assert host.keys() == ({"a-key", "b-key"} if stays else set())


def test_one_that_an_earlier_run_left_has_the_whole_timeout_from_when_it_was_first_read(tmp_path: Path) -> None:
    host = watched(tmp_path, 360)
    host.wireguard.shake_hands("wgs1", "a-key", int(NOW - DAY))
    host.wireguard.shake_hands("wgs1", "b-key", int(NOW - DAY))
    host.applier.drop_silent()
    host.now += 360
    host.applier.drop_silent()
    assert host.keys() == {"a-key", "b-key"}
    host.now += 1
    host.applier.drop_silent()
    assert host.keys() == set()


def test_packets_without_a_new_handshake_are_heard_as_well(tmp_path: Path) -> None:
    host = watched(tmp_path, 360)
    host.wireguard.shake_hands("wgs1", "a-key", int(NOW))
    host.applier.drop_silent()
    for _ in range(10):
        host.now += 300
        peers = host.wireguard.devices["wgs1"].peers
        peers["a-key"] = dataclasses.replace(peers["a-key"], rx_bytes=peers["a-key"].rx_bytes + 32)
        host.applier.drop_silent()
    assert host.keys() == {"a-key"}


@settings(max_examples=60, deadline=None)
@given(
    steps=st.lists(
        st.tuples(st.integers(1, 60), st.sampled_from((0, -DAY, -HOUR, -120.0, -1.0, 1.0, 120.0, HOUR, DAY))),
        min_size=1,
        max_size=20,
    ),
    timeout=st.sampled_from((30, 180, 360)),
    falls_silent=st.integers(0, 60),
)
def test_no_setting_of_the_clock_ends_who_is_active_or_keeps_who_is_silent(
    steps: list[tuple[int, float]], timeout: int, falls_silent: int
) -> None:
    """``steps``: after how many looks the time of day is set, and by what. A shakes hands all along; B stops to after
    ``falls_silent`` looks."""
    with tempfile.TemporaryDirectory() as directory:
        host, day = watched(Path(directory), timeout), NOW
        longest = max(timeout, HANDSHAKE_LIFE)
        heard = {"a-key": host.now, "b-key": host.now}
        settings_of_clock = [step for count, by in steps for step in (*[0.0] * count, by)]
        for look in range(max(len(settings_of_clock), falls_silent + int(longest / LOOKS_EVERY) + 4)):
            day += LOOKS_EVERY + (settings_of_clock[look] if look < len(settings_of_clock) else 0)
            host.now += LOOKS_EVERY
            for key in ("a-key", "b-key"):
                active = key == "a-key" or look < falls_silent
                if active and (host.now - heard[key] >= RENEWED or look == 0):
                    host.wireguard.shake_hands("wgs1", key, int(day))
                    heard[key] = host.now
            host.applier.drop_silent()
            present = host.now - heard["b-key"] <= longest
            assert host.keys() == ({"a-key", "b-key"} if present else {"a-key"})
            if not present:
                falls_silent = 0
        assert host.keys() == {"a-key"}
