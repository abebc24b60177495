"""Which host names may reach what, and what a one-time password is good for."""

from __future__ import annotations

from collections.abc import Callable

from django.conf import settings
from django.http import HttpRequest, HttpResponse, HttpResponseBadRequest
from django.http.request import split_domain_port, validate_host
from django.middleware.common import CommonMiddleware
from django.shortcuts import redirect
from django.urls import reverse

from users.models import OneTimePassword

# Paths that clients use. A host-name check here would answer a ping through the tunnel (Host: the gateway's
# address) with 400, and to a client any 4xx on a ping is final.
CLIENT_PATHS = ("/key/", "/k/", "/ku/")


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


class OwnPassword:
    """Who signed in with a one-time password chooses one of their own before anything else."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        if request.path_info.startswith("/admin/") and _uses_one_time_password(request):
            change = reverse("admin:password_change")
            if request.path_info not in (change, reverse("admin:logout"), reverse("admin:jsi18n")):
                return redirect(change)
        return self.get_response(request)


def _uses_one_time_password(request: HttpRequest) -> bool:
    # Accounts that have chosen a password since have another hash: their row says nothing any more.
    user = request.user
    return user.is_authenticated and OneTimePassword.objects.filter(user=user, password=user.password).exists()
