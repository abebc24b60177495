"""What an administrator has, and what their session has shown of it."""

from __future__ import annotations

from django.contrib.auth.models import User
from django.db.models import Q
from django.http import HttpRequest

from core import clock

# Seconds for which a second factor that was shown is enough for what is asked again.
FRESH = 15 * 60
# In a session: when (Unix seconds) a second factor was last shown in it.
SHOWN_AT = "second_factor_at"


def has_factor(administrator: User) -> bool:
    """Whether there is one to ask for. Recovery codes alone are none: they stand in for one."""
    owns = Q(authenticator__isnull=False) | Q(passkeys__isnull=False)
    return User.objects.filter(owns, pk=administrator.pk).exists()


def is_shown(request: HttpRequest) -> bool:
    """Whether this session has shown a second factor. When a factor is taken away, such sessions end."""
    return SHOWN_AT in request.session


def is_asked(request: HttpRequest) -> bool:
    """Whether this session must show a second factor before anything else."""
    user = request.user
    return isinstance(user, User) and not is_shown(request) and has_factor(user)


def is_fresh(request: HttpRequest) -> bool:
    """Whether nothing is to be asked again: a factor was shown a short while ago, or there is none to ask for."""
    user = request.user
    if not isinstance(user, User):
        return False
    # A clock that was set back says nothing of how long ago it was.
    if 0 <= clock.now() - float(request.session.get(SHOWN_AT, float("-inf"))) < FRESH:
        return True
    return not has_factor(user)


def mark_shown(request: HttpRequest) -> None:
    """Note it, in a session with another key: who has seen the one of before has nothing."""
    request.session.cycle_key()
    request.session[SHOWN_AT] = clock.now()
