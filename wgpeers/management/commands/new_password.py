"""A new one-time password for an administrator who has forgotten theirs."""

from __future__ import annotations

import argparse
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError

from wgpeers.management import administrators, one_time_passwords


class Command(BaseCommand):
    """Prints the password and nothing else; ``bin/run --new-password`` shows it."""

    help = "Gives an administrator a new one-time password. Used by bin/run --new-password."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("name", help="the name to sign in with")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            self.stdout.write(one_time_passwords.give(administrators.named(options["name"])))
        except DatabaseError as error:
            raise CommandError(f"The database cannot be used: {error}") from error
