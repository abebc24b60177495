"""A careful client sends a code for one attempt alone, and what its device passed with for as long as that is good."""

from __future__ import annotations

import pyotp
import pytest

from core.totp import STEP
from tests.conftest import Clock

from .passcodes import PIN, Passcodes


@pytest.fixture
def codes(fixed_clock: Clock) -> Passcodes:
    return Passcodes(pyotp.TOTP("A" * 32))


def test_a_code_is_sent_for_one_attempt(codes: Passcodes, fixed_clock: Clock) -> None:
    first = codes.for_attempt(0, "key")
    assert first is not None
    assert first.startswith(PIN)
    assert codes.for_attempt(0, "key") == first  # its answer was lost
    assert codes.for_attempt(0, "another key") is None
    fixed_clock.advance(STEP)
    assert codes.for_attempt(0, "another key") not in {None, first}
    fixed_clock.step(-10 * STEP)
    assert codes.for_attempt(0, "another key") is None


def test_what_passed_is_sent_again_by_its_device_until_it_is_refused(codes: Passcodes, fixed_clock: Clock) -> None:
    first = codes.for_attempt(0, "key")
    assert first is not None
    codes.passed(0, first)
    fixed_clock.advance(10 * STEP)
    assert codes.for_attempt(0, "another key") == first
    assert codes.for_attempt(1, "a third key") != first
    codes.refused(0)
    assert codes.for_attempt(0, "another key") is None
    fixed_clock.advance(STEP)
    assert codes.for_attempt(0, "another key") not in {None, first}
