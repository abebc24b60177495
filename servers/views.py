"""The door of machines that join: bytes in, bytes out."""

from __future__ import annotations

import logging
from typing import Any

from django.db import DatabaseError
from django.http import HttpRequest, JsonResponse
from django.views.decorators.csrf import csrf_exempt

from core import clock
from core.rate_limits import count_view
from core.redis_store import RedisUnavailable

from . import joining
from .hostnet.state.joining import LONGEST_REQUEST

log = logging.getLogger(__name__)

PER_MINUTE = 20  # requests of one address


@csrf_exempt
def join(request: HttpRequest) -> JsonResponse:
    """``POST /host/join``. It authenticates by the token in it, never by a session."""
    if request.method != "POST":
        return _refused(405, "method_not_allowed", "Machines join by POST.", {"Allow": "POST"})
    try:
        if not count_view("join", request.META.get("REMOTE_ADDR", ""), PER_MINUTE):
            return _refused(
                429, "too_many_requests", "Too many requests; try again in a minute.", {"Retry-After": "60"}
            )
        body = request.read(LONGEST_REQUEST + 1)
        if len(body) > LONGEST_REQUEST:
            return _refused(413, "too_large", "The request is too large.")
        status, said = joining.answer(body, clock.now())
        return JsonResponse(said, status=status)
    except (RedisUnavailable, DatabaseError) as error:
        log.error("nobody can join: %s", type(error).__name__)
        words = "The control side cannot reach its own database or Redis; try again."
        return _refused(503, "store_down", words, {"Retry-After": "5"})


def _refused(status: int, code: str, words: str, headers: dict[str, Any] | None = None) -> JsonResponse:
    return JsonResponse({"error": code, "detail": words}, status=status, headers=headers)
