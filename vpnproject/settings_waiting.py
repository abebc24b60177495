"""Settings of web's second pool: a database has fewer connections than this has threads, so none keeps one."""

from .settings import *  # noqa: F403
from .settings import DATABASES

DATABASES["default"]["CONN_MAX_AGE"] = 0

# Half of its threads; the others are for those who wait for a push or a password.
SIGN_INS_HELD = 128
