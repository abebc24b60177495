"""Settings of web's second pool: a database has fewer connections than this has threads, so none keeps one."""

from .settings import *  # noqa: F403
from .settings import DATABASES

DATABASES["default"]["CONN_MAX_AGE"] = 0
