"""Where a request came from."""

from __future__ import annotations

import ipaddress

from django.conf import settings
from django.http import HttpRequest


def client_address(request: HttpRequest) -> str | None:
    """Where the request came from: the last address that no proxy of ours put there."""
    chain = request.META.get("HTTP_X_FORWARDED_FOR", "").split(",")
    address = _plain_address(request.META.get("REMOTE_ADDR", ""))
    while chain and address in settings.TRUSTED_PROXIES:
        address = _plain_address(chain.pop())
    return address


def _plain_address(text: str) -> str | None:
    try:
        parsed = ipaddress.ip_address(text.strip())
    except ValueError:
        return None
    # A socket that serves both families shows an IPv4 client as ::ffff:192.0.2.1.
    return str(getattr(parsed, "ipv4_mapped", None) or parsed)
