"""What processes of the product need of a test's own: its very database and keys."""

from __future__ import annotations

from django.conf import settings
from django.db import connections


def environment() -> dict[str, str]:
    """The settings of a test's processes."""
    database = connections["default"].settings_dict
    if connections["default"].vendor == "sqlite":
        url = f"sqlite:///{database['NAME']}"
    elif str(database["HOST"]).startswith("/"):
        url = f"postgres://{database['USER']}@/{database['HOST']}/{database['NAME']}"
    else:
        url = f"postgres://{database['USER']}@{database['HOST']}:{database['PORT']}/{database['NAME']}"
    keys = "\n".join(key.decode() for key in settings.FIELD_KEYS)
    return {
        "DATABASE_URL": url,
        "FIELD_KEYS": keys,
        "SECRET_KEY": settings.SECRET_KEY,
        "DJANGO_SETTINGS_MODULE": "vpnproject.settings",
    }
