"""PINs that are tried first, by rule: whoever guesses begins with them, and may guess some ten times a day."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import pairwise

# What fingers walk: along the keys, and along a phone's.
_ROWS = (
    "abcdefghijklmnopqrstuvwxyz qwertyuiop asdfghjkl zxcvbnm qwertzuiop yxcvbnm azertyuiop qsdfghjklm wxcvbn "
    "1q2w3e4r5t6y 1qaz2wsx3edc4rfv5tgb6yhn qazwsxedcrfvtgb 123qwe456rty q1w2e3r4t5y6"
)
_WALKS = [*_ROWS.split(), *(row[::-1] for row in _ROWS.split())]
_WORDS = (
    "access admin administrator amanda andrea andrew anthony apple asdf ashley austin babygirl bailey baseball "
    "basketball batman biteme buster butterfly charlie cheese chelsea chicken chocolate computer cookie corvette "
    "daniel dragon eagle ferrari flower football freedom friend fuckyou ginger google guest hammer hannah harley "
    "hello hockey hunter internet iloveyou jennifer jessica jordan joshua killer lakers letmein liverpool login "
    "lovely loveme maggie master matrix matthew maverick merlin michael michelle monkey mother mustang naruto nicole "
    "ninja orange pass passcode password passwort pepper pokemon princess purple qwer qwerty ranger robert samsung "
    "secret security shadow silver soccer sophie spider starwars summer sunshine superman taylor tennis test thomas "
    "thunder tigger trustno user user1 welcome whatever william winter wizard yankees zxcv"
)
# Of the most frequent ones, those that no rule here finds.
_OTHERS = "007700 102938 112358 124578 135790 147896 246800 246810 271828 314159 420247 515253 696900"
_FREQUENT = frozenset([*_WORDS.split(), *_OTHERS.split()])
_YEARS = range(1900, 2100)


def why_common(pin: str) -> str:
    """Why guessers try this one early, in words that go on after "it"; empty where nothing is known against it."""
    core = "".join(character for character in pin.lower() if character.isalnum())
    if len(pin) - len(core) > 2:
        return ""  # the rules are for letters and digits, with a mark or two beside them
    return next((why for is_so, why in _RULES if is_so(core)), "")


def _repeats(core: str) -> bool:
    blocks = (core[:size] * -(-len(core) // size) for size in range(1, len(core) // 2 + 1))
    return len(set(core)) < 3 or core == core[::-1] or any(block[: len(core)] == core for block in blocks)


def _is_run(part: str) -> bool:
    """One character again and again, digits in equal steps, or a way along the keys."""
    if part.isascii() and part.isdigit():
        return len({(int(after) - int(before)) % 10 for before, after in pairwise(part)}) < 2
    return len(set(part)) == 1 or any(part in walk for walk in _WALKS)


def _is_made_of_runs(core: str) -> bool:
    half = len(core) // 2
    parts = ([core], [core[:half], core[half:]], [core[::2], core[1::2]], re.findall(r"[0-9]+|[^0-9]+", core))
    # Two digits are always a run.
    return any(all(_is_run(part) and (len(part) > 2 or part == core) for part in way) for way in parts)


def _is_date(core: str) -> bool:
    if not (core.isascii() and core.isdigit() and len(core) in {6, 8}):
        return False
    if len(core) == 8:
        first, second, year_last = int(core[:2]), int(core[2:4]), int(core[4:])
        year_first = int(core[:4])
        with_year = year_last in _YEARS and (_is_day(first, second) or year_first in _YEARS)
        return with_year or (year_first in _YEARS and _is_day(int(core[4:6]), int(core[6:])))
    first, second, third = int(core[:2]), int(core[2:4]), int(core[4:])
    of_year = (int(core[:4]) in _YEARS and third in range(1, 13)) or (int(core[2:]) in _YEARS and first in range(1, 13))
    return of_year or _is_day(first, second) or (second in range(1, 13) and third in range(1, 32))


def _is_day(one: int, other: int) -> bool:
    """A day and a month, in either order."""
    return min(one, other) in range(1, 13) and max(one, other) in range(1, 32)


def _is_word(core: str) -> bool:
    return core.strip("0123456789") in _FREQUENT or core in _FREQUENT


_RULES: tuple[tuple[Callable[[str], bool], str], ...] = (
    (_repeats, "repeats itself"),
    (_is_made_of_runs, "counts on, or follows the keys"),
    (_is_date, "is a date"),
    (_is_word, "is one of the most frequent ones"),
)
