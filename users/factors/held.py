"""What each connect asks of its user: what they have of factors, and whether the device may come at all.

As SQL that is made once; a test holds it equal to what the ORM says.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from core.clock import moment
from core.sql import Table, fetch_all, fetch_one, moment_value
from users.models import Enrolment

from .base import Override

_enrolments = Table(Enrolment)
_NO_ENROLMENT = ", ".join(["NULL"] * len(_enrolments))
# Enrolments first: they say of which type the columns are that the others leave empty.
_HELD = f"""
SELECT {_enrolments.columns("e")}, NULL, NULL FROM users_enrolment e WHERE e.user_id = %s
UNION ALL
SELECT {_NO_ENROLMENT}, f.kind, f.state FROM users_factoroverride f
WHERE f.user_id = %s AND (f.state <> 'exempt' OR f.until IS NULL OR f.until > %s)
"""
_REVOKED = "SELECT 1 FROM users_device d WHERE d.user_id = %s AND d.device_id = %s AND d.revoked IS NOT NULL"


@dataclass(frozen=True, slots=True)
class Held:
    """``enrolments`` and ``overrides`` by kind of factor; of the overrides those that hold now."""

    enrolments: Mapping[str, Enrolment]
    overrides: Mapping[str, Override]


def held_by(user: int, now: float) -> Held:
    """``user``: their primary key; ``now``: Unix seconds."""
    enrolments: dict[str, Enrolment] = {}
    overrides: dict[str, Override] = {}
    for *columns, kind, state in fetch_all(_HELD, user, user, moment_value(moment(now))):
        if kind is None:
            enrolment = _enrolments.load(columns)
            enrolments[enrolment.kind] = enrolment
        else:
            overrides[kind] = state
    return Held(enrolments, overrides)


def device_is_revoked(user: int, device_id: str) -> bool:
    """``user``: their primary key."""
    return fetch_one(_REVOKED, user, device_id) is not None
