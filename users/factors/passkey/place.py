"""Where users make and show their passkeys: at the public name of this installation, at which every browser reaches it.

A passkey is bound to a host name, and none can be bound to an address. So without a name there are no passkeys.
"""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

from django.conf import settings

from core.passkeys import Site

NO_NAME = (
    "Passkeys are bound to a host name, and this server has only addresses. Your administrator can give it a name "
    "(API_URLS)."
)


def our_site() -> Site | None:
    """By the first of ``API_URLS`` that has a name; None where none has."""
    for url in settings.API_URLS:
        name = urlsplit(url).hostname or ""
        if name and not _is_address(name):
            return Site(name, _origin(url))
    return None


def _origin(url: str) -> str:
    """As browsers write it: in lower case, and without the port that needs no saying."""
    parts = urlsplit(url)
    usual = {"https": 443, "http": 80}.get(parts.scheme)
    port = "" if parts.port in (None, usual) else f":{parts.port}"
    return f"{parts.scheme}://{parts.hostname}{port}"


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
