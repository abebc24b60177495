"""Settings of web's second pool, with the empty view beside the real ones."""

from vpnproject.settings_waiting import *  # noqa: F403

ROOT_URLCONF = "bench.urls_web"
