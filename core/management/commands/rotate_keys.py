"""``manage.py rotate_keys``: encrypt every stored secret anew with the newest key of FIELD_KEYS."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from django.apps import apps
from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.db import models

from core.crypto import Secret, SecretField
from core.pace import Pace

# A process that still runs with the old keys may write while we go through the rows: what it left is found by the
# next pass. It writes a few rows a second at most, so passes get shorter quickly.
PASSES = 10


@dataclass
class Count:
    """What one pass found in one model. ``renewed`` and ``changed`` count secrets, not rows."""

    rows: int = 0
    renewed: int = 0
    changed: int = 0  # by somebody else, between our look and our write
    unreadable: int = 0


def secret_fields() -> Iterator[tuple[type[models.Model], list[str]]]:
    """Each model that has secrets, with the names of their fields."""
    for model in apps.get_models():
        if names := [field.attname for field in model._meta.concrete_fields if isinstance(field, SecretField)]:
            yield model, names


class Command(BaseCommand):
    help = "Encrypt every stored secret anew with the newest key of FIELD_KEYS (its first). May be run at any time."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--batch", type=int, default=500, help="Rows read at a time (default 500).")

    def handle(self, *args: Any, batch: int, **options: Any) -> None:
        if batch < 1:
            raise CommandError("--batch must be 1 or more.")
        self.newest = Fernet(settings.FIELD_KEYS[0])
        self.all = MultiFernet([Fernet(key) for key in settings.FIELD_KEYS])
        for _ in range(PASSES):
            counts = [self._model(model, names, batch) for model, names in secret_fields()]
            if sum(count.unreadable for count in counts):
                raise CommandError(
                    "Some secrets open with none of FIELD_KEYS (see above). Put the key they were encrypted with back "
                    "at the end of FIELD_KEYS and run this again. Drop no key before that."
                )
            if not sum(count.renewed + count.changed for count in counts):
                self._finished()
                return
        raise CommandError("Secrets are still being written with an old key. Restart everything that uses it first.")

    def _model(self, model: type[models.Model], names: list[str], batch: int) -> Count:
        count, last, label, pace = Count(), 0, model._meta.label, Pace()
        total = model._default_manager.count()
        while rows := list(self._rows(model, names, last, batch)):
            for pk, *secrets in rows:
                count.rows += 1
                for name, secret in zip(names, secrets, strict=True):
                    self._secret(model, pk, name, secret, count)
                pace.breathe()
            last = rows[-1][0]
            self._progress(f"\r{label}: {count.rows} of {max(total, count.rows)} rows")
        message = f"{label}: {count.rows} rows, {count.renewed} secrets encrypted anew"
        if count.unreadable:
            message += f", {count.unreadable} UNREADABLE"
        self._progress("\r")
        self.stdout.write(f"{message:<60}")
        return count

    @staticmethod
    def _rows(model: type[models.Model], names: list[str], last: int, batch: int) -> Iterator[tuple[Any, ...]]:
        yield from model._default_manager.filter(pk__gt=last).order_by("pk").values_list("pk", *names)[:batch]

    def _secret(self, model: type[models.Model], pk: int, name: str, secret: Secret, count: Count) -> None:
        if not secret or self._is_new(secret):
            return
        try:
            fresh = Secret(self.all.rotate(secret.stored.encode()).decode())
        except InvalidToken:
            self.stderr.write(f"{model._meta.label} {pk}: {name} opens with none of FIELD_KEYS")
            count.unreadable += 1
            return
        # Only as we read it: whoever gave the row another secret meanwhile must not get the old one back.
        if model._default_manager.filter(pk=pk, **{name: secret}).update(**{name: fresh}):
            count.renewed += 1
        else:
            count.changed += 1

    def _is_new(self, secret: Secret) -> bool:
        try:
            self.newest.decrypt(secret.stored.encode())
        except InvalidToken:
            return False
        return True

    def _progress(self, text: str) -> None:
        """On a terminal only: in a file a line that overwrites itself is noise."""
        if self.stdout.isatty():
            self.stdout.write(text, ending="")
            self.stdout.flush()

    def _finished(self) -> None:
        self.stdout.write(self.style.SUCCESS("Every secret is encrypted with the newest key."))
        if len(settings.FIELD_KEYS) == 1:
            self.stdout.write("FIELD_KEYS holds no other key.")
            return
        self.stdout.write(
            "If every process (web, gateway web, workers, beat) was restarted since the newest key came to stand first "
            "in FIELD_KEYS, the other keys can be dropped; else restart them and run this again first. Keep old keys "
            "for as long as you keep backups of the database from before. Remembered second factors are void: each "
            "user is asked once more."
        )
