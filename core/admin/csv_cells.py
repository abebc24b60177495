"""Cells of an exported CSV that no spreadsheet takes for a formula, and back again.

A cell that begins with ``=``, ``+``, ``-`` or ``@`` is run by the spreadsheet that opens the file; also after blanks,
quotes and characters that nobody sees, with the wide forms of these signs, and where it cuts a cell in two at a
semicolon, a tab or an end of line. An apostrophe in front makes it text.
"""

from __future__ import annotations

import re
from typing import Any

from import_export.formats import base_formats

_SIGNS = r"=+\-@" "\uff1d\uff0b\uff0d\uff20\ufe66\ufe62\ufe63\ufe6b\u2212"
# Blanks, controls, quotes of all kinds, and what has no width.
_SKIPPED = (
    r"\s\x00-\x20\x7f-\xa0\"'`"
    "\u00ab\u00ad\u00b4\u00bb\u2018-\u201f\u2039\u203a\uff02\uff07"
    "\u034f\u061c\u115f\u1160\u17b4\u17b5\u180e\u200b-\u200f\u202a-\u202e\u2060-\u2064\u2066-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0"
)
_CUTS = r";\t\r\n"
# Beginning with a tab or an end of line is enough: what some do with these is anybody's guess.
_RUN = rf"(?=[{_SKIPPED}]*[{_SIGNS}])"
_BEGINNING = rf"(?=[{_SKIPPED}]*(?:[{_SIGNS}]|[\t\r\n]))"
_DANGEROUS = re.compile(rf"(\A){_BEGINNING}|([{_CUTS}]){_RUN}")
_DEFUSED = re.compile(rf"(\A)'{_BEGINNING}|([{_CUTS}])'{_RUN}")


def defuse(cell: str) -> str:
    """``cell`` with an apostrophe wherever a spreadsheet would begin to run it."""
    return _DANGEROUS.sub(lambda match: f"{match[0]}'", cell)


def restore(cell: str) -> str:
    """What was defused: ``restore(defuse(text)) == text`` for every text."""
    return _DEFUSED.sub(lambda match: match[0][:-1], cell)


class DefusedCsv(base_formats.CSV):  # type: ignore[misc]
    """CSV out and in. What is read is restored by the resource, row by row."""

    def export_data(self, dataset: Any, **kwargs: Any) -> Any:
        rows = [[defuse(str(cell)) for cell in row] for row in dataset]
        return super().export_data(type(dataset)(*rows, headers=dataset.headers), **kwargs)
