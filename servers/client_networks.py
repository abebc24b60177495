"""Networks behind clients: what cannot work is refused here, in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .models import ClientNetwork


def check(network: ClientNetwork) -> None:
    """Raise ``ValidationError`` with a message at the field that must change."""
