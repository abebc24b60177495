"""Another administrator's second factor and sessions, on their page."""

from __future__ import annotations

from django.contrib import messages
from django.contrib.auth.models import User as Administrator
from django.http import HttpRequest

from core import clock
from core.admin.page import BAD, GOOD, WAITING, Button, Page, Panel, posted, span
from core.admin.sessions import shown
from core.models import AdminAuthenticator, Passkey
from core.redis_store import RedisUnavailable
from core.second_factor import audit, changes, guesses, recovery, sessions
from core.second_factor.proof import has_factor

# A right that nobody can be given: superusers, who have every right, have it.
SUPERUSER = "core.all_that_a_superuser_may"
OWN = "This is you: see to your own second factor and sessions on your own page."


class SecondFactorMixin(Page[Administrator]):
    def state(self, obj: Administrator) -> tuple[str, str] | None:
        if left := guesses.pause_left(obj, clock.now()):
            return BAD, f"wrong codes: none is looked at for {span(left)}"
        return (GOOD, "second factor set up") if has_factor(obj) else (WAITING, "no second factor")

    def buttons(self, request: HttpRequest, obj: Administrator) -> list[Button]:
        if obj == request.user:
            return []
        found = []
        if guesses.pause_left(obj, clock.now()):
            confirm = "Whoever guessed may go on. They know this administrator's password."
            found.append(Button("lift_codes_pause", "Let them try again", "lock_open", confirm=confirm))
        if has_factor(obj):
            confirm = "Have you made sure that it is they who ask? Whoever has their password sets up a new one then."
            found.append(Button("reset_second_factor", "Reset second factor", "lock_reset", "danger", confirm))
        return found

    def panels(self, request: HttpRequest, obj: Administrator) -> list[Panel]:
        rows = [shown(row) for row in sessions.of(obj)] if self.may_post(request, "end_sessions") else None
        data = {
            "app": AdminAuthenticator.objects.filter(administrator=obj).exists(),
            "passkeys": Passkey.objects.filter(administrator=obj).order_by("created"),
            "codes_left": recovery.left(obj),
            "sessions": rows,
            "own": obj == request.user,
            "end_url": self.post_url(obj, "end_sessions"),
        }
        return [*super().panels(request, obj), Panel("Signing in", "admin/users/signing_in.html", data, wide=True)]

    @posted("auth.change_user", sensitive=True)
    def lift_codes_pause(self, request: HttpRequest, obj: Administrator) -> None:
        if obj == request.user:
            messages.error(request, OWN)
            return
        try:
            guesses.lift(obj)
        except RedisUnavailable:
            messages.error(request, "Not done: Redis is down.")
            return
        self.done(request, obj, f"Ended the pause after wrong codes of {obj}.")

    @posted(SUPERUSER, sensitive=True)
    def reset_second_factor(self, request: HttpRequest, obj: Administrator) -> None:
        if obj == request.user:
            messages.error(request, OWN)
            return
        changes.reset(obj, by=_of(request))
        messages.success(request, f"Reset the second factor of {obj}: at the next sign-in they set up a new one.")

    @posted(SUPERUSER, sensitive=True)
    def end_sessions(self, request: HttpRequest, obj: Administrator) -> None:
        """``session``: one of theirs; without it, all."""
        if obj == request.user:
            messages.error(request, OWN)
            return
        public_id = request.POST.get("session", "")
        ended = int(sessions.end(obj, public_id)) if public_id else sessions.end_all(obj)
        audit.note(obj, f"Ended {ended} of their sessions.", by=_of(request))
        messages.success(request, f"Ended: {ended}.")


def _of(request: HttpRequest) -> Administrator:
    assert isinstance(request.user, Administrator)  # noqa: S101 (the admin's views are open to nobody else)
    return request.user
