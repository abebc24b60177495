"""A list out of a spreadsheet: bytes to lines, whatever program wrote them.

CSV has no one form: programs differ in the sign between cells, in how they write letters, and in what they leave empty.
What cannot be understood without a doubt is refused, with the line and the column where it is.
"""

from __future__ import annotations

import codecs
import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from core.csv_cells import restore

COLUMNS = ("organization", "name", "email", "groups", "enabled")
NEEDED = ("organization", "name")
SIGNS = (",", ";", "\t")
MOST_LINES = 50_000
_MARKS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong, and where: the line as an editor counts it (0: the whole file), the column by its title."""

    line: int
    text: str
    column: str = ""

    def __str__(self) -> str:
        where = ", ".join([*([f"line {self.line}"] if self.line else []), *([self.column] if self.column else [])])
        return f"{where}: {self.text}" if where else self.text


@dataclass(frozen=True, slots=True)
class Line:
    """One person: the line where it begins, and the cells by column. A column that the file lacks is not in it."""

    number: int
    cells: dict[str, str]


@dataclass(slots=True)
class Reading:
    """What was read. ``notes`` are for a person to look at; where there are ``problems``, nothing else counts."""

    lines: list[Line] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def read(raw: bytes) -> Reading:
    """Understand a file, or say all that is wrong with it."""
    reading = Reading()
    text = _decode(raw, reading)
    if reading.problems:
        return reading
    rows = list(_rows(text, _sign(text), reading))
    if not rows:
        reading.problems.append(Problem(0, "The file is empty."))
        return reading
    (title_line, titles), *rest = rows
    columns = _columns(title_line, titles, reading)
    if columns and not reading.problems:
        for number, cells in rest:
            _take(number, cells, columns, reading)
    if len(reading.lines) > MOST_LINES:
        reading.problems = [Problem(0, f"The file has more than {MOST_LINES:,} people; cut it into several.")]
    return reading


def _decode(raw: bytes, reading: Reading) -> str:
    encoding = next((name for mark, name in _MARKS if raw.startswith(mark)), "utf-8")
    try:
        text = raw.decode(encoding)
    except UnicodeDecodeError:
        if encoding != "utf-8":
            reading.problems.append(Problem(0, "The file is damaged: its letters cannot be read. Save it as UTF-8."))
            return ""
        # What older programs write in western Europe. Every byte is a letter in it, the right one or not.
        text = raw.decode("cp1252", errors="replace")
        reading.notes.append(
            "The file is not UTF-8; it was read as Windows-1252. Look at names with other letters than a to z."
        )
    if "\0" in text:
        reading.problems.append(
            Problem(0, "This is no text file that can be read here. Save it as CSV, in UTF-8, and not as a workbook.")
        )
    return text


def _sign(text: str) -> str:
    """The sign between cells: the one by which the titles are most of our columns."""
    first = next((line for line in text.splitlines() if line.strip(" ,;\t")), "")
    return max(SIGNS, key=lambda sign: len({_title(cell) for cell in first.split(sign)} & set(COLUMNS)))


def _rows(text: str, sign: str, reading: Reading) -> Iterator[tuple[int, list[str]]]:
    """The rows that are not empty, each with the line where it begins."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=sign, strict=True, skipinitialspace=True)
    while True:
        begins = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error:
            reading.problems.append(
                Problem(begins, "A quotation mark is not closed, or stands in the middle of a cell.")
            )
            return
        if any(cell.strip() for cell in cells):
            yield begins, cells


def _title(cell: str) -> str:
    return " ".join(cell.strip().strip('"').casefold().split())


def _columns(number: int, titles: Sequence[str], reading: Reading) -> list[str]:
    """The column of each cell; empty for one without a title."""
    columns = [_title(cell) for cell in titles]
    known = ", ".join(COLUMNS)
    for column in dict.fromkeys(columns):
        if column and column not in COLUMNS:
            reading.problems.append(Problem(number, f"There is no column {column!r}. There are: {known}."))
        elif column and columns.count(column) > 1:
            reading.problems.append(Problem(number, "This column is there twice.", column))
    for column in NEEDED:
        if column not in columns:
            text = f"The column {column} is missing. The first line names the columns, of: {known}."
            reading.problems.append(Problem(number, text))
    return columns


def _take(number: int, cells: Sequence[str], columns: Sequence[str], reading: Reading) -> None:
    found: dict[str, str] = {}
    for place, cell in enumerate(cells):
        column = columns[place] if place < len(columns) else ""
        if column:
            found[column] = restore(cell).strip()
        elif cell.strip():
            text = f"{cell.strip()!r} is in column {place + 1}, which has no title."
            reading.problems.append(Problem(number, text))
    reading.lines.append(Line(number, {column: found.get(column, "") for column in columns if column}))
