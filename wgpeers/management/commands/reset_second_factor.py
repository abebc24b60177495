"""An administrator has lost their second factor: they set up a new one at their next sign-in."""

from __future__ import annotations

import argparse
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError

from core.second_factor import changes
from wgpeers.management import administrators


class Command(BaseCommand):
    help = "Takes an administrator's second factor away and ends their sessions. Used by bin/run --reset-second-factor."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("name", help="the name to sign in with")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            changes.reset(administrators.named(options["name"]), how=" by a command on the machine")
        except DatabaseError as error:
            raise CommandError(f"The database cannot be used: {error}") from error
