"""Reading an assertion that is signed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from users.signin.outcomes import NotSignedIn

from .xml import ASSERTION, Element, children, text_of

# Seconds that a provider's clock may be off.
SKEW = 120
LONGEST_NAME = 255
_MOMENT = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(\.\d+)?(Z|\+00:00)", re.ASCII)


@dataclass(frozen=True, slots=True)
class Assertion:
    """``name``: how the provider calls whoever has signed in, in the way that ``name_format`` says. ``authenticated``:
    when they did; ``ends``: when nobody believes it any more (both Unix seconds)."""

    id: str
    name: str = field(repr=False)
    name_format: str
    attributes: Mapping[str, list[str]] = field(repr=False)
    authenticated: float
    ends: float


def moment_of(element: Element, name: str) -> float | None:
    """Unix seconds, rounded down; None where the attribute is missing or says no time."""
    found = _MOMENT.fullmatch(str(element.get(name) or ""))
    try:
        return datetime.fromisoformat(found[1]).replace(tzinfo=UTC).timestamp() if found else None
    except ValueError:
        return None


def is_before(element: Element, name: str, limit: float) -> bool:
    found = moment_of(element, name)
    return found is not None and found <= limit


def name_of(assertion: Element) -> tuple[str, str]:
    """The NameID and its format. Raise ``NotSignedIn`` where there is none that we could read."""
    subjects = children(assertion, ASSERTION, "Subject")
    names = children(subjects[0], ASSERTION, "NameID") if len(subjects) == 1 else []
    name = text_of(names[0]) if len(names) == 1 else ""
    if not 0 < len(name) <= LONGEST_NAME:
        raise NotSignedIn("no_id")
    return name, str(names[0].get("Format") or "")


def attributes_of(assertion: Element) -> dict[str, list[str]]:
    """Each by its Name; one that is said twice has the values of both."""
    found: dict[str, list[str]] = {}
    for statement in children(assertion, ASSERTION, "AttributeStatement"):
        for each in children(statement, ASSERTION, "Attribute"):
            values = [text_of(value) for value in children(each, ASSERTION, "AttributeValue")]
            found.setdefault(str(each.get("Name") or ""), []).extend(value for value in values if value)
    return found
