"""Addresses that administrators give for signing in: theirs, and ours."""

from __future__ import annotations

from urllib.parse import urlsplit

from django.conf import settings

from core.http import host_of

LOOPBACK = ("localhost", "127.0.0.1", "::1")


def is_secure(text: str) -> bool:
    """With TLS, but for this very machine: else whoever is on the way could sign in as anybody."""
    host = host_of(text)
    return bool(host) and (text.startswith("https://") or host in LOOPBACK) and not set(text) & set("#\"'<>\\ ")


def is_plain(text: str) -> bool:
    """Secure, and without a query."""
    return is_secure(text) and "?" not in text


def is_ours(said: str) -> bool:
    """Whether browsers can be told to come back to ``said``; empty: the first of ``API_URLS``."""
    own = said or next(iter(settings.API_URLS), "")
    return is_plain(own) and urlsplit(own).path in ("", "/")
