"""The application of a web process, ready for its first request."""

from __future__ import annotations

from django.core.wsgi import get_wsgi_application
from django.urls import get_resolver

from vpnproject import threads
from vpnproject.behind_front import BehindFront


def application(scheme: str, pool: str = "") -> BehindFront:
    """By the settings that the environment names. ``scheme``: how clients reach the front; ``pool`` as in
    ``BehindFront``."""
    made = BehindFront(get_wsgi_application(), scheme, pool)
    _ = get_resolver().url_patterns  # loads all views, which the first request would wait for
    threads.share()
    return made
