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
# What programs of others call our columns.
_TITLES = {"e-mail": "email", "organisation": "organization"}
# The longest cell; csv's own limit is said as a mistake of no kind in particular.
LONGEST_CELL = 10_000
TOO_LONG = f"A cell has more than {LONGEST_CELL:,} characters. Is a quotation mark not closed?"
UNQUOTED = "A quotation mark is not closed, or stands in the middle of a cell."
TITLES_SHOWN = 5
SEP = "sep="
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
    # By such a line a spreadsheet is told the sign; it is no line of the list.
    if rows and "".join(rows[0][1]).strip().lower() == SEP:
        del rows[0]
    if not rows:
        reading.problems = reading.problems or [Problem(0, "The file is empty.")]
        return reading
    (title_line, titles), *rest = rows
    columns = _columns(title_line, titles, reading)
    if not reading.problems and not rest:
        reading.problems.append(Problem(0, "There is nobody in the file: its only line names the columns."))
    if columns and not reading.problems:
        for number, cells in rest:
            _take(number, cells, columns, reading)
    if len(reading.lines) > MOST_LINES:
        reading.problems = [Problem(0, f"The file has more than {MOST_LINES:,} people; cut it into several.")]
    return reading


def _decode(raw: bytes, reading: Reading) -> str:
    encoding = next((name for mark, name in _MARKS if raw.startswith(mark)), "") or _unmarked(raw)
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
    lines = [number for number, line in enumerate(io.StringIO(text, newline=None), start=1) if "\0" in line]
    if len(lines) == 1 and text.count("\0") == 1:
        reading.problems.append(Problem(lines[0], "There is a character in it that no text has (NUL). Take it out."))
    elif lines:
        reading.problems.append(
            Problem(0, "This is no text file that can be read here. Save it as CSV, in UTF-8, and not as a workbook.")
        )
    return text


def _unmarked(raw: bytes) -> str:
    """The encoding of a file without a mark. In UTF-16 every second byte of the titles is 0."""
    first = raw[:20]
    if len(first) >= 4 and not any(first[1::2]):
        return "utf-16-le"
    return "utf-16-be" if len(first) >= 4 and not any(first[::2]) else "utf-8"


def _sign(text: str) -> str:
    """The sign between cells: the one by which the titles are most of our columns."""
    first = next((line for line in text.splitlines() if line.strip(" ,;\t")), "")
    if first[: len(SEP)].lower() == SEP and first[len(SEP) :].rstrip("\r\n ") in SIGNS:
        return first[len(SEP)]
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
        except csv.Error as error:
            reading.problems.append(Problem(begins, TOO_LONG if "limit" in str(error) else UNQUOTED))
            return
        if any(len(cell) > LONGEST_CELL for cell in cells):
            reading.problems.append(Problem(begins, TOO_LONG))
        if any(cell.strip() for cell in cells):
            yield begins, cells


def _title(cell: str) -> str:
    title = " ".join(cell.strip().strip('"').casefold().split())
    return _TITLES.get(title, title)


def _columns(number: int, titles: Sequence[str], reading: Reading) -> list[str]:
    """The column of each cell; empty for one without a title."""
    columns = [_title(cell) for cell in titles]
    known = ", ".join(COLUMNS)
    unknown = [column for column in dict.fromkeys(columns) if column and column not in COLUMNS]
    if unknown:
        names = ", ".join(f"{column[:40]!r}" for column in unknown[:TITLES_SHOWN])
        more = f" and {len(unknown) - TITLES_SHOWN} more" if len(unknown) > TITLES_SHOWN else ""
        what = "is no column" if len(unknown) == 1 else "are no columns"
        reading.problems.append(Problem(number, f"There {what} {names}{more}. There are: {known}."))
    for column in COLUMNS:
        if columns.count(column) > 1:
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
