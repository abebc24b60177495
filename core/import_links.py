"""Which import addresses clients can use. Without Django: the supervising side asks it as well.

A client that imports ``pritunl://HOST/ku/…`` verifies HOST's certificate, unless HOST is an IPv4 address, or an IPv6
address without a port. After the import nothing depends on TLS.
"""

from __future__ import annotations

import ipaddress
from pathlib import Path
from urllib.parse import urlsplit

from core.web_certificate import validity


def usable(host: str, certificate: Path) -> bool:
    """Whether a client can import by ``host`` (with a port where it has one), which shows ``certificate``. Where that
    cannot be read, nobody can say it does not."""
    return not verifies(host) or self_signed(certificate) is not True


def verifies(host: str) -> bool:
    """Whether a client that imports by ``host`` wants a certificate that somebody it knows has signed."""
    try:
        parts = urlsplit(f"//{host}")
        address = ipaddress.ip_address(parts.hostname or "")
        return address.version == 6 and parts.port is not None
    except ValueError:
        return True


def self_signed(certificate: Path) -> bool | None:
    """None where it cannot be read."""
    found = validity(certificate)
    return None if found is None else found.self_signed
