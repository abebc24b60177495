"""How the admin looks: titles, colours and the side bar."""

from __future__ import annotations

from typing import Any

UNFOLD: dict[str, Any] = {
    "SITE_TITLE": "VPN",
    "SITE_HEADER": "VPN",
}
