"""In which order the files of tests are begun, so that the processors are busy from the first to the last."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# Seconds that each file takes in bin/test and bin/test --long on two quiet cores; bin/test --measure writes them anew.
# They decide the order alone: where they are old, all of it takes a little longer.
TABLE = ROOT / "tests" / "seconds.json"
# Of a file that is not in the table, and for less than which none is put there.
A_MOMENT, WORTH_WRITING = 1.0, 3.0
# By then the last of those that wait has begun, as a share of the seconds of those that compute.
LAST_THAT_WAITS = 0.8


def known() -> dict[str, float]:
    """What the table says, by the file's path from the project's root."""
    seconds: dict[str, float] = json.loads(TABLE.read_text())
    return seconds


def places(waits: Mapping[str, bool], seconds: Mapping[str, float]) -> dict[str, float]:
    """The place of each file between 0 and 1. ``waits``: which of them mostly wait, for networks and browsers.

    These come evenly between those that compute, so that there is never more to compute than there are processors, nor
    less. Of either kind the longest is first: begun last, it would go on by itself when all else has ended.
    """
    found: dict[str, float] = {}
    for kind, end in ((True, LAST_THAT_WAITS), (False, 1.0)):
        mine = {path: max(seconds.get(path, 0.0), A_MOMENT) for path, each in waits.items() if each is kind}
        all_of_them, before = sum(mine.values()), 0.0
        for path in sorted(mine, key=lambda path: (-mine[path], path)):
            found[path] = end * before / all_of_them
            before += mine[path]
    return found


def write(measured: Mapping[str, float]) -> None:
    """Write the table anew: what was not measured now stays as it was, what is no longer there goes."""
    seconds = {path: round(took, 1) for path, took in (known() | dict(measured)).items() if took >= WORTH_WRITING}
    there = {path: took for path, took in sorted(seconds.items()) if (ROOT / path).exists()}
    TABLE.write_text(json.dumps(there, indent=2) + "\n")
