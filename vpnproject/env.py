"""Settings from the environment: typed, from files where a secret should not be in the environment, and refused
with a hint where a value cannot work."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import environ
from cryptography.fernet import Fernet
from django.core.exceptions import ImproperlyConfigured

_env = environ.Env()


def load_file(path: Path) -> None:
    """Take ``KEY=value`` lines from ``path`` as defaults; what the environment says already wins."""
    if path.exists():
        environ.Env.read_env(str(path), overwrite=False)


def text(name: str, default: str) -> str:
    return str(_env.str(name, default=default))


def flag(name: str, default: bool) -> bool:
    return bool(_env.bool(name, default=default))


def words(name: str, default: list[str]) -> list[str]:
    return [word.strip() for word in _env.list(name, default=default) if word.strip()]


def whole(name: str, default: int, *, low: int, high: int) -> int:
    """A whole number from ``low`` to ``high``."""
    return int(_ranged(name, default, low, high, int, "a whole number"))


def seconds(name: str, default: float, *, low: float, high: float) -> float:
    return _ranged(name, default, low, high, float, "a number of seconds")


def _ranged(name: str, default: float, low: float, high: float, kind: type, what: str) -> float:
    given = _env.str(name, default=str(default))
    try:
        value: float = kind(given)
    except ValueError:
        raise ImproperlyConfigured(f"{name}={given!r}: give {what} from {low} to {high}.") from None
    if not low <= value <= high:
        raise ImproperlyConfigured(f"{name}={given}: give {what} from {low} to {high}.")
    return value


def secret(name: str, default_file: Path) -> str:
    """``NAME``, or the content of the file ``NAME_FILE`` names, or of ``default_file``."""
    if given := _env.str(name, default=""):
        return str(given)
    path = Path(_env.str(f"{name}_FILE", default=str(default_file)))
    try:
        value = path.read_text().strip()
    except OSError as error:
        hint = f"Set {name}, or {name}_FILE to a readable file; bin/run makes {default_file}."
        raise ImproperlyConfigured(f"{name} is not set and {path} cannot be read ({error.strerror}). {hint}") from None
    if not value:
        raise ImproperlyConfigured(f"{path} is empty; it must hold {name}.")
    return value


def field_keys(default_file: Path) -> list[bytes]:
    """The Fernet keys that encrypt secrets in the database, newest first."""
    keys = [line.encode() for line in secret("FIELD_KEYS", default_file).replace(",", "\n").split() if line]
    for number, key in enumerate(keys, start=1):
        try:
            Fernet(key)
        except ValueError:
            hint = "Fernet.generate_key() of the library cryptography makes one."
            raise ImproperlyConfigured(f"FIELD_KEYS: key {number} is not a Fernet key. {hint}") from None
    return keys


def api_urls(default: list[str]) -> list[str]:
    """Addresses at which clients reach the API, as ``https://host[:port]``."""
    urls = [url.rstrip("/") for url in words("API_URLS", default)]
    for url in urls:
        parts = urlsplit(url)
        if parts.scheme != "https" or not parts.hostname or parts.path or parts.query:
            raise ImproperlyConfigured(
                f"API_URLS: {url!r} must look like https://vpn.example.com or https://host:8443."
            )
    return urls


def database(default_file: Path) -> dict[str, Any]:
    """SQLite in WAL mode unless ``DATABASE_URL`` names a PostgreSQL."""
    config = dict(_env.db_url("DATABASE_URL", default=f"sqlite:///{default_file}"))
    if config["ENGINE"] == "django.db.backends.sqlite3":
        config["OPTIONS"] = {
            # IMMEDIATE takes the write lock at BEGIN: a transaction that reads and then writes waits for its turn
            # instead of failing with "database is locked" when another one wrote in between.
            "transaction_mode": "IMMEDIATE",
            "timeout": 20,
            "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; PRAGMA cache_size=-8000;",
        }
    elif config["ENGINE"] == "django.db.backends.postgresql":
        config["CONN_HEALTH_CHECKS"] = True
    else:
        raise ImproperlyConfigured("DATABASE_URL: use sqlite:///path or postgres://user@host/name.")
    config["CONN_MAX_AGE"] = None
    return config


def celery_broker(redis_url: str) -> str:
    """The same Redis in the spelling of Celery's transport."""
    if redis_url.startswith("unix://"):
        path, _, query = redis_url.removeprefix("unix://").partition("?")
        number = next((part.removeprefix("db=") for part in query.split("&") if part.startswith("db=")), "0")
        return f"redis+socket://{path}?virtual_host={number}"
    return redis_url
