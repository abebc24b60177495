"""Cells of an exported CSV that no spreadsheet takes for a formula, and back again.

A cell that begins with ``=``, ``+``, ``-`` or ``@`` is run by the spreadsheet that opens the file; also after blanks,
quotes and characters that nobody sees, with the wide forms of these signs, and where it cuts a cell in two at a
semicolon, a tab or an end of line. An apostrophe in front makes it text.
"""

from __future__ import annotations

# In all the forms that Unicode has of them (NFKC).
_SIGNS = frozenset(
    "=+-@\uff1d\uff0b\uff0d\uff20\ufe66\ufe62\ufe63\ufe6b\u2212\u207a\u207b\u207c\u208a\u208b\u208c\u2a75\u2a76\ufb29"
)
# Quotes of all kinds, and what is printable and has no width. Whatever is not printable is skipped too, so that a
# character that nobody has heard of yet hides nothing.
_QUOTES = "\"'`\u00ab\u00b4\u00bb\u2018\u2019\u201a\u201b\u201c\u201d\u201e\u201f\u2039\u203a\uff02\uff07"
_WIDTHLESS = "\u034f\u115f\u1160\u17b4\u17b5\u3164\uffa0" + "".join(map(chr, range(0xFE00, 0xFE10)))
_UNSEEN = frozenset(_QUOTES + _WIDTHLESS)
_CUTS = frozenset(";\t\r\n")
# To begin with one of these is enough: what some do with it is anybody's guess.
_ENDS = frozenset("\t\r\n")


def _runs(cell: str, start: int, enough: frozenset[str]) -> bool:
    """Whether a sign, or one of ``enough``, comes next from ``start`` on, after what is not seen."""
    for character in cell[start:]:
        if character in _SIGNS or character in enough:
            return True
        if not (character.isspace() or not character.isprintable() or character in _UNSEEN):
            return False
    return False


def defuse(cell: str) -> str:
    """``cell`` with an apostrophe wherever a spreadsheet would begin to run it."""
    found = ["'"] if _runs(cell, 0, _ENDS) else []
    for place, character in enumerate(cell, start=1):
        found.append(character)
        if character in _CUTS and _runs(cell, place, frozenset()):
            found.append("'")
    return "".join(found)


def restore(cell: str) -> str:
    """What was defused: ``restore(defuse(text)) == text`` for every text."""
    found, place = [], 1 if cell.startswith("'") and _runs(cell, 1, _ENDS) else 0
    while place < len(cell):
        character = cell[place]
        found.append(character)
        place += 1
        if character in _CUTS and cell.startswith("'", place) and _runs(cell, place + 1, frozenset()):
            place += 1
    return "".join(found)
