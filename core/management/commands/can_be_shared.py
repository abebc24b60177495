"""Whether a second control node could use this one's database and Redis."""

from __future__ import annotations

import sys
from typing import Any

from django.core.management.base import BaseCommand

from core.shared_stores import what_keeps_to_one_machine


class Command(BaseCommand):
    help = "Say what keeps a second control node from joining, a line each, and end with 1; nothing where one may."
    requires_system_checks = ()

    def handle(self, *args: Any, **options: Any) -> None:
        found = what_keeps_to_one_machine()
        for words in found:
            self.stdout.write(words)
        if found:
            sys.exit(1)
