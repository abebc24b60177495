"""PINs that guessers try first are refused, with words; nearly all others are not."""

from __future__ import annotations

import random
import string

import pytest

from users.factors.pin.enrolment import hash_pin
from users.factors.pin.strength import why_common

# The most frequent six digits of lists that were made public, and what people make of them.
FREQUENT = (
    "123456 654321 111111 000000 123123 666666 121212 112233 789456 159753 101010 222222 123321 520520 147258 456789 "
    "696969 131313 232323 202020 159357 987654 142536 456123 147852 147896 789123 753951 963852 852456 741852 112358 "
    "010203 314159 271828 007007 420420 998877 246810 135790 521521 102030 908070 246800 124578 147963 456654 789987 "
    "555555 777777 888888 999999 333333 444444 100000 212121 321321 456456 789789 012345 234567 345678 567890 890123"
)
WORDS = "qwerty asdfgh 1q2w3e 1qaz2wsx qwe123 abc123 123abc password Password1 letmein dragon12 a1b2c3 aaa111 zxcvbn"
DATES = "311299 123199 991231 199004 041990 19811204 04121981 12041981 19801982 240607"
MARKED = ["123456!", "!111111", "qwerty?1"]


@pytest.mark.parametrize("pin", [*FREQUENT.split(), *WORDS.split(), *DATES.split(), *MARKED])
def test_a_frequent_pin_is_refused_in_words(pin: str) -> None:
    with pytest.raises(ValueError, match=r"^This PIN is too easy to guess: it [a-z, ]+\. Choose another one\.$"):
        hash_pin(pin)


@pytest.mark.parametrize("pin", ["830147", "590617x", "w0mbat", "heron-7-gate", "правда-42", "1357924680x"])
def test_others_are_taken(pin: str) -> None:
    assert why_common(pin) == ""
    assert hash_pin(pin)


def test_the_rules_leave_most_of_all_pins() -> None:
    chance = random.Random(7)
    digits = ["".join(chance.choices(string.digits, k=6)) for _ in range(3000)]
    letters = ["".join(chance.choices(string.ascii_lowercase + string.digits, k=6)) for _ in range(3000)]
    assert sum(bool(why_common(pin)) for pin in digits) < 0.15 * 3000
    assert sum(bool(why_common(pin)) for pin in letters) < 0.005 * 3000
