"""The QR code that authenticator apps read."""

from __future__ import annotations

import segno


def qr_of(uri: str) -> str:
    """As the address of an image."""
    return segno.make(uri, error="m").svg_data_uri(scale=5, border=2)
