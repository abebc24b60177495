"""What people are told when a page fails."""

from __future__ import annotations

import sys

import redis
from django.db import InterfaceError, OperationalError
from django.http import HttpRequest, HttpResponse
from django.views.defaults import server_error

from core.redis_store import RedisUnavailable

STORE_DOWN = (OperationalError, InterfaceError, redis.RedisError, RedisUnavailable)
WORDS = """Not right now.

The database or Redis cannot be reached, or takes nothing: a full disk, for example. What you sent was not stored.
Tunnels go on. Administrators: the first page of the admin, the terminal of bin/run and var/log/web.log say more.
"""


def failed(request: HttpRequest) -> HttpResponse:
    """The answer to a page that raised, whether its view did or what is around it (a session that cannot be stored)."""
    if isinstance(sys.exc_info()[1], STORE_DOWN):
        return HttpResponse(WORDS, content_type="text/plain", status=503, headers={"Retry-After": "10"})
    return server_error(request)
