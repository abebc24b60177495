"""Settings of web, with the empty view beside the real ones."""

from vpnproject.settings import *  # noqa: F403

ROOT_URLCONF = "bench.urls_web"
