"""Sessions of administrators, as pages list them."""

from __future__ import annotations

from typing import Any

from core import clock
from core.admin.page import ago
from core.models import AdminSession
from core.second_factor.sessions import in_words


def shown(row: AdminSession, own_key: str | None = None) -> dict[str, Any]:
    """``own_key``: the key of the session that asks."""
    now = clock.now()
    return {
        "id": row.public_id,
        "address": row.address,
        "browser": in_words(row.browser),
        "began": ago(now - row.began.timestamp()) if row.began else "-",
        "seen": ago(now - row.seen.timestamp()) if row.seen else "-",
        "own": row.session_key == own_key,
    }
