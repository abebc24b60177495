"""A new one-time password for an administrator who has forgotten theirs."""

from __future__ import annotations

import argparse
from typing import Any

from django.contrib.auth.models import User
from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError

from wgpeers.management import one_time_passwords


class Command(BaseCommand):
    """Prints the password and nothing else; ``bin/run --new-password`` shows it."""

    help = "Gives an administrator a new one-time password. Used by bin/run --new-password."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("name", help="the name to sign in with")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            self.stdout.write(one_time_passwords.give(_administrator(options["name"])))
        except DatabaseError as error:
            raise CommandError(f"The database cannot be used: {error}") from error


def _administrator(name: str) -> User:
    administrators = User.objects.filter(is_staff=True, is_active=True)
    user = administrators.filter(username=name).first()
    if user is None:
        names = ", ".join(administrators.order_by("username").values_list("username", flat=True)[:20])
        there = f"there are: {names}" if names else "there is none; bin/run makes one"
        raise CommandError(f"There is no active administrator {name!r}; {there}.")
    return user
