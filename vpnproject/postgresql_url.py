"""A ``DATABASE_URL`` of PostgreSQL, with one server in it or several of which one is primary.

postgres://user:password@host1:5432,host2:5432/name?target_session_attrs=read-write
"""

from __future__ import annotations

import re
from typing import Any

from django.core.exceptions import ImproperlyConfigured

from servers.hostnet.state.addresses import host_and_port

PORT = 5432
_SEVERAL = re.compile(r"(?P<before>\w+://(?:[^/?#]*@)?)(?P<hosts>[^/?#@]*,[^/?#@]*)(?P<after>.*)", re.ASCII | re.DOTALL)
# Those that never lead to a standby.
_FOR_CHANGES = ("read-write", "primary")
# A machine that is gone says nothing. Seconds to wait for it at a new connection, before the next one is asked. And of
# one that is there: seconds of silence before it is asked, seconds between two questions, and how many of them.
ASK_WITHIN = 3
ALIVE = {"keepalives_idle": 5, "keepalives_interval": 2, "keepalives_count": 3, "tcp_user_timeout": 10_000}


def several(url: str) -> tuple[str, tuple[tuple[str, int], ...]]:
    """Where several servers are named, the URL with one for all of them, and their addresses; else the URL as it is,
    and none. Raise ``ImproperlyConfigured``, with nothing of the password in it."""
    match = _SEVERAL.fullmatch(url)
    if match is None or not url.startswith("postgres"):
        return url, ()
    addresses = tuple(map(_address, match["hosts"].split(",")))
    return f"{match['before']}several{match['after']}", addresses


def _address(text: str) -> tuple[str, int]:
    try:
        return host_and_port(text, PORT)
    except ValueError:
        words = "DATABASE_URL: each server is host or host:port, with commas between them."
        raise ImproperlyConfigured(words) from None


def postgresql(config: dict[str, Any], addresses: tuple[tuple[str, int], ...]) -> dict[str, Any]:
    """Django's configuration of it; ``config`` is what django-environ reads of a URL with one server."""
    options = dict(config.get("OPTIONS", {}))
    if addresses:
        wanted = options.setdefault("target_session_attrs", _FOR_CHANGES[0])
        if wanted not in _FOR_CHANGES:
            hint = f"with several servers it is {' or '.join(_FOR_CHANGES)}."
            raise ImproperlyConfigured(f"DATABASE_URL: target_session_attrs={wanted} could lead to a standby; {hint}")
        hosts, ports = zip(*addresses, strict=True)
        config = {**config, "HOST": ",".join(hosts), "PORT": ",".join(map(str, ports))}
        options = {"connect_timeout": ASK_WITHIN, **ALIVE, **options}
    return {**config, "ENGINE": "core.postgresql", "CONN_HEALTH_CHECKS": True, "OPTIONS": options}
