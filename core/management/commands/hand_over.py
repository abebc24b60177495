"""Used by ``bin/run --export-secrets``."""

from __future__ import annotations

import json
import sys
from typing import Any

from django.core.management.base import BaseCommand

from core.handing_over import all_of_it
from core.shared_stores import what_keeps_to_one_machine


class Command(BaseCommand):
    """Prints what a further control node needs, secrets included, as one JSON object; or, and ends with 1, why there
    can be none."""

    help = "Used by bin/run. Prints what a further control node needs."
    requires_system_checks = ()

    def handle(self, *args: Any, **options: Any) -> None:
        if found := what_keeps_to_one_machine():
            self.stdout.write("\n".join(found))
            sys.exit(1)
        self.stdout.write(json.dumps(all_of_it()))
