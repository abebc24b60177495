"""Settings of the test suite: throw-away secrets, and the Redis that tests/conftest.py starts."""

import os
import tempfile

from cryptography.fernet import Fernet

# Before .settings is read: it must neither find nor make anything in the checkout's own var/.
os.environ["VPN_VAR"] = os.environ.get("VPN_TEST_VAR") or tempfile.mkdtemp(prefix="vpn-test-")
os.environ["SECRET_KEY"] = "only for tests"  # noqa: S105
os.environ["FIELD_KEYS"] = Fernet.generate_key().decode()

from .settings import *  # noqa: F403

for directory in (STATIC_ROOT, VAR / "database"):  # noqa: F405
    directory.mkdir(parents=True, exist_ok=True)
API_URLS = ["https://192.0.2.10", "https://vpn.example.com:8443"]
DATABASES["default"]["CONN_MAX_AGE"] = 0  # noqa: F405
if DATABASES["default"]["ENGINE"] == "core.sqlite":  # noqa: F405
    # A file, not memory: threads of a test must meet in one database, with the locking that users have.
    DATABASES["default"]["TEST"] = {"NAME": VAR / "test.sqlite3"}  # noqa: F405
# Argon2 as in earnest; the cheap parameters are for its speed alone.
PASSWORD_HASHERS = ["tests.hashers.QuickArgon2"]
LINK_VIEWS_PER_MINUTE = 10_000
CONFIRM_TIMEOUT = 120.0  # a stand-in for a host is a thread, which a busy machine may leave waiting
# Tests that are about it turn it on; all others sign in by force.
ADMIN_SECOND_FACTOR = "off"
