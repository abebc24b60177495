"""Finding the administrator whom a command on the machine is about."""

from __future__ import annotations

from django.contrib.auth.models import User
from django.core.management.base import CommandError


def named(name: str) -> User:
    administrators = User.objects.filter(is_staff=True, is_active=True)
    user = administrators.filter(username=name).first()
    if user is None:
        names = ", ".join(administrators.order_by("username").values_list("username", flat=True)[:20])
        there = f"there are: {names}" if names else "there is none; bin/run makes one"
        raise CommandError(f"There is no active administrator {name!r}; {there}.")
    return user
