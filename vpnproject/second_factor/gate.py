"""What stands between a right password and the admin: the second factor, a password of one's own, enrolment."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse

from core.client_address import client_address
from core.second_factor import sessions
from core.second_factor.proof import is_asked, is_shown
from users.services import must_choose_password
from vpnproject.leading_on import by_way_of
from vpnproject.middleware import CLIENT_PATHS


@dataclass(frozen=True, slots=True)
class Step:
    """``is_due``: whether a request must do this first; ``pages``: names of the only ones that are open then, the first
    of which it is led to."""

    is_due: Callable[[HttpRequest], bool]
    pages: tuple[str, ...]


def _has_one_time_password(request: HttpRequest) -> bool:
    return request.user.is_authenticated and must_choose_password(request.user)


def _has_none(request: HttpRequest) -> bool:
    # Whoever has one and has not shown it did not get this far.
    return settings.ADMIN_SECOND_FACTOR == "required" and not is_shown(request)


# In this order: who has a second factor shows it before they choose a password.
STEPS = (
    Step(is_asked, ("second_factor:verify", "second_factor:passkey_question", "second_factor:passkey_verify")),
    Step(_has_one_time_password, ("admin:password_change",)),
    Step(
        _has_none,
        (
            "second_factor:enrol",
            "second_factor:authenticator",
            "second_factor:passkey_creation",
            "second_factor:passkey_add",
        ),
    ),
)
ALWAYS = ("admin:logout", "admin:jsi18n")


class Gate:
    """Nobody who has signed in with no more than a password gets further than the step that is due.

    Everything but clients' paths is held to it, so that a page that is added is closed too.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        if request.path_info.startswith(CLIENT_PATHS):
            return self.get_response(request)
        if request.user.is_authenticated:
            step = next((each for each in STEPS if each.is_due(request)), None)
            if step is not None and request.path_info not in {reverse(name) for name in (*step.pages, *ALWAYS)}:
                # A form that was sent is not sent again.
                address = request.get_full_path() if request.method == "GET" else reverse("admin:index")
                return redirect(by_way_of(reverse(step.pages[0]), address))
        response = self.get_response(request)
        if request.user.is_authenticated and request.session.session_key:
            sessions.note_use(request, client_address(request) or "")
        return response
