"""Settings from the environment: typed, from files where a secret should not be in the environment, and refused
with a hint where a value cannot work."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import environ
from cryptography.fernet import Fernet
from django.core.exceptions import ImproperlyConfigured

from servers.hostnet.state.redis_urls import FORM, is_sentinel, sentinels

from .postgresql_url import postgresql, several

_env = environ.Env()
_FLAGS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}


def load_file(path: Path) -> None:
    """Take ``KEY=value`` lines from ``path`` as defaults; what the environment says already wins."""
    if path.exists():
        environ.Env.read_env(str(path), overwrite=False)


def text(name: str, default: str) -> str:
    return str(_env.str(name, default=default))


def flag(name: str, default: bool) -> bool:
    given = str(_env.str(name, default=str(default))).strip().lower()
    if given not in _FLAGS:
        raise ImproperlyConfigured(f"{name}={given!r}: give true or false.")
    return _FLAGS[given]


def one_of(name: str, default: str, *others: str) -> str:
    given = str(_env.str(name, default=default)).strip().lower()
    if given not in (default, *others):
        raise ImproperlyConfigured(f"{name}={given!r}: give {' or '.join((default, *others))}.")
    return given


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
    # Not through django-environ, which takes a value that begins with "$" for the name of another variable.
    if given := os.environ.get(name, ""):
        return given
    path = Path(_env.str(f"{name}_FILE", default=str(default_file)))
    try:
        value = path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        hint = f"Set {name}, or {name}_FILE to a readable file; bin/run makes {default_file}."
        what = getattr(error, "strerror", None) or "it is not text"
        raise ImproperlyConfigured(f"{name} is not set and {path} cannot be read ({what}). {hint}") from None
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
    if not keys:
        raise ImproperlyConfigured("FIELD_KEYS holds no key.")
    return keys


def api_urls(default: list[str]) -> list[str]:
    """Addresses at which clients reach the API, as ``https://host[:port]``."""
    urls = [url.rstrip("/") for url in words("API_URLS", default)]
    for url in urls:
        if not _is_api_url(url):
            raise ImproperlyConfigured(
                f"API_URLS: {url!r} must look like https://vpn.example.com or https://host:8443."
            )
    return urls


def _is_api_url(url: str) -> bool:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:  # a port that is no port, a bracket that does not close
        return False
    more = parts.path or parts.query or parts.fragment or parts.username is not None
    return parts.scheme == "https" and bool(parts.hostname) and port != 0 and not more


def kept(path: Path) -> str:
    """What is in the file ``path``; empty where there is none."""
    try:
        return path.read_text().strip()
    except FileNotFoundError:
        return ""


def redis_url(default: str) -> str:
    """Where Redis is; see ``redis_urls`` for what can be said."""
    url = text("REDIS_URL", default)
    if is_sentinel(url):
        try:
            sentinels(url)
        except ValueError as error:
            raise ImproperlyConfigured(f"REDIS_URL: {error}.") from None
    elif not url.startswith(("unix://", "redis://", "rediss://")):
        hint = f"Write it like unix:///path/redis.sock?db=0, redis://host:6379/0 or {FORM}."
        raise ImproperlyConfigured(f"REDIS_URL begins with none of unix://, redis://, rediss://, sentinel://. {hint}")
    return url


def database(default_file: Path) -> dict[str, Any]:
    """SQLite in WAL mode unless ``DATABASE_URL`` names a PostgreSQL, or several of which one is primary."""
    url, addresses = several(text("DATABASE_URL", f"sqlite:///{default_file}"))
    try:
        config = dict(environ.Env.db_url_config(url))
    except ValueError:  # of a port; its words would show the password
        config = {}
    engine = config.get("ENGINE")
    if engine == "django.db.backends.sqlite3":
        config["ENGINE"] = "core.sqlite"
        config["OPTIONS"] = {
            # IMMEDIATE takes the write lock at BEGIN: a transaction that reads and then writes waits for its turn
            # instead of failing with "database is locked" when another one wrote in between.
            "transaction_mode": "IMMEDIATE",
            "timeout": 20,
            "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; PRAGMA cache_size=-8000;",
        }
    elif engine == "django.db.backends.postgresql":
        config = postgresql(config, addresses)
    else:
        hint = "or postgres://user@host1:5432,host2:5432/name for a primary and its standby."
        raise ImproperlyConfigured(f"DATABASE_URL: use sqlite:///path, postgres://user@host/name, {hint}")
    config["CONN_MAX_AGE"] = None
    return config
