"""Leading people on to where they wanted to go, once what stood before it is done."""

from __future__ import annotations

from urllib.parse import urlencode

from django.contrib.auth import REDIRECT_FIELD_NAME
from django.http import HttpRequest
from django.urls import reverse
from django.utils.http import url_has_allowed_host_and_scheme


def wanted(request: HttpRequest) -> str:
    """Where they wanted to go; never to another site."""
    address = request.GET.get(REDIRECT_FIELD_NAME, "")
    here = url_has_allowed_host_and_scheme(address, {request.get_host()}, request.is_secure())
    return address if here else reverse("admin:index")


def by_way_of(page: str, address: str) -> str:
    """``page``, which leads on to ``address``."""
    return f"{page}?{urlencode({REDIRECT_FIELD_NAME: address})}"
