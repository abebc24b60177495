"""What a further control node needs to be one: the secrets that all of them share, and the settings. Whoever has it can
do all that the installation can."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from django.conf import settings

# Of settings: what names a file of this machine, whose content goes along where it is a secret.
_OF_THIS_MACHINE = "_FILE"
_SECRETS = ("SECRET_KEY", "FIELD_KEYS")


def all_of_it() -> dict[str, Any]:
    """``secrets`` by the names of their files, ``settings`` as they stand in ``settings.env``."""
    return {
        "secrets": {
            "secret_key": str(settings.SECRET_KEY),
            "field_keys": "\n".join(key.decode() for key in settings.FIELD_KEYS),
        },
        "settings": dict(_shared(settings.GIVEN_SETTINGS(Path(settings.VAR) / "settings.env"))),
    }


def _shared(given: Mapping[str, str]) -> Mapping[str, str]:
    return {
        name: value for name, value in given.items() if not name.endswith(_OF_THIS_MACHINE) and name not in _SECRETS
    }
