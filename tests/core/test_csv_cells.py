"""No cell of an exported CSV is a formula to a spreadsheet, and what was exported comes back as it was."""

from __future__ import annotations

import csv
import io
import sys
import unicodedata
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.csv_cells import defuse, restore

SIGNS = "=+-@\uff1d\uff0b\uff0d\uff20\ufe66\ufe62\ufe63\ufe6b\u2212"
UNSEEN = " \t\r\n\v\f\x00\x1f\x7f\xa0\u2003\u200b\u200e\u2060\ufeff\u00ad\"'`\u201c\u2019\u00ab"
PARTS = st.text(st.one_of(st.sampled_from(SIGNS + UNSEEN + ";,|a1("), st.characters(codec="utf-8")), max_size=12)


def runs(cell: str) -> bool:
    """Whether a spreadsheet might run it: said apart from the code, by what the characters are."""
    for character in cell:
        if unicodedata.normalize("NFKC", character)[:1] in {"=", "+", "-", "@", "\u2212"}:
            return True
        if character in "\t\r\n":
            return True
        unseen = unicodedata.category(character)[0] in "ZC" or character in '"`\u201c\u2019\u00ab'
        if not unseen:
            return False
    return False


def cut(text: str) -> list[str]:
    """The cells that a spreadsheet makes of one where a semicolon, a tab or a line ends a cell."""
    for mark in "\t\r\n":
        text = text.replace(mark, ";")
    return text.split(";")


@given(PARTS)
def test_no_cell_begins_with_what_is_run(text: str) -> None:
    assert not runs(defuse(text))
    assert not any(runs(part) for part in cut(defuse(text)))


def every_character() -> Iterator[str]:
    """Each that has a meaning, and some of the three quarters that have none, by which nothing tells them apart."""
    for number, character in enumerate(map(chr, (*range(0xD800), *range(0xE000, sys.maxunicode + 1)))):
        if unicodedata.category(character) not in {"Cn", "Co"} or number % 61 == 0:
            yield character


def test_no_character_of_all_hides_a_sign_or_is_one() -> None:
    for character in every_character():
        for text in (f"{character}=", f";{character}@1", f"'{character}-", f"{character}1"):
            defused = defuse(text)
            assert not any(map(runs, (defused, *cut(defused)))), ascii(text)
            assert restore(defused) == text, ascii(text)


@given(PARTS)
def test_what_was_defused_is_restored(text: str) -> None:
    assert restore(defuse(text)) == text


@pytest.mark.parametrize("sign", SIGNS)
@pytest.mark.parametrize("before", ["", *UNSEEN, " \t", "\ufeff'", "'", '"'])
def test_each_sign_is_defused_after_whatever_is_not_seen(before: str, sign: str) -> None:
    assert defuse(f"{before}{sign}1+1")[0] == "'"
    assert restore(defuse(f"{before}{sign}1+1")) == f"{before}{sign}1+1"


@pytest.mark.parametrize("text", ["", "alice", "alice@example.com", "a=b", "O'Brien", "a-b, c+d", "'quoted'", "1-2"])
def test_plain_text_stays_as_it_is(text: str) -> None:
    assert defuse(text) == restore(text) == text


# Python's reader does not take these two back unchanged; what they begin with is tested above.
READ_BACK = PARTS.map(lambda text: text.replace("\r", "").replace("\x00", ""))


@given(st.lists(READ_BACK, min_size=2, max_size=3))
def test_a_file_holds_the_defused_cells(cells: list[str]) -> None:
    written = io.StringIO(newline="")
    csv.writer(written).writerow(map(defuse, cells))
    assert list(csv.reader(io.StringIO(written.getvalue(), newline=""))) == [[defuse(cell) for cell in cells]]
