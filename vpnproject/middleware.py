"""What browsers hold pages to, and which host names may reach what."""

from __future__ import annotations

from collections.abc import Callable

from django.conf import settings
from django.http import HttpRequest, HttpResponse, HttpResponseBadRequest
from django.http.request import split_domain_port, validate_host
from django.middleware.common import CommonMiddleware

from core import import_links

from . import errors

# Paths that clients use. A host-name check here would answer a ping through the tunnel (Host: the gateway's
# address) with 400, and to a client any 4xx on a ping is final.
# Machines join by whatever address they were given, too.
# Users sign in at the address that their provider knows, which need not be an administrator's.
# A load balancer asks by address.
CLIENT_PATHS = ("/key/", "/k/", "/ku/", "/client/", "/host/", "/sso/", "/healthz", "/readyz")


# What a page may load and run: this site's own files alone, and no script that stands in the page.
# - 'unsafe-eval': Alpine, which the admin's theme is made with, compiles what its attributes say. What an attacker
#   brings into a page is still no script, unless it becomes an attribute of Alpine's: templates escape it.
# - 'unsafe-inline' is for style attributes, which the theme, its charts and its menus set.
ADMIN_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self' 'unsafe-eval'",
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data:",
        "font-src 'self'",
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)
# Of whatever else a browser may show: files, errors.
OTHER_POLICY = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"


class PageHeaders:
    """What browsers hold people's pages to. Programs' answers carry none of it, so that a ping stays short."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        response = self.get_response(request)
        if request.path_info.startswith(CLIENT_PATHS) and "text/html" not in response.get("Content-Type", ""):
            return response
        admin = request.path_info.startswith("/admin/")
        response.headers.setdefault("Content-Security-Policy", ADMIN_POLICY if admin else OTHER_POLICY)
        if settings.HSTS_SECONDS and request.is_secure() and _has_own_certificate():
            response["Strict-Transport-Security"] = f"max-age={settings.HSTS_SECONDS}"
        return response


def _has_own_certificate() -> bool:
    """Whether somebody else signed the certificate. With a self-signed one browsers would not let people in any more:
    with HSTS nobody may click a warning away. Who cannot say is not told."""
    return import_links.self_signed(settings.CERTIFICATE) is False


class WordsForButtons:
    """Django answers whoever opens the address of a button with an empty page. People get one that says what it is."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        response = self.get_response(request)
        if response.status_code != 405 or response.content or request.path_info.startswith(errors.FOR_PROGRAMS):
            return response
        page = errors.not_that_way(request)
        page["Allow"] = response["Allow"]
        return page


class AdminHost:
    """Hold everything but the clients' API to ``ALLOWED_HOSTS`` as the admin set it."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        if request.path_info.startswith(CLIENT_PATHS):
            return self.get_response(request)
        name, _port = split_domain_port(request.META.get("HTTP_HOST", ""))
        if not validate_host(name, settings.ADMIN_HOSTS):
            return HttpResponseBadRequest("This host name is not in ALLOWED_HOSTS.", content_type="text/plain")
        return self.get_response(request)


class CommonForAdmin(CommonMiddleware):
    """Django's, which refuses a Host that no DNS name can be (``gate_1``) with 400: not on clients' paths."""

    def process_request(self, request: HttpRequest) -> HttpResponse | None:  # type: ignore[override]
        return None if request.path_info.startswith(CLIENT_PATHS) else super().process_request(request)
