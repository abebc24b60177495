"""Settings of gateway web, with the empty view beside the real ones."""

from vpnproject.settings_gateway import *  # noqa: F403

ROOT_URLCONF = "bench.urls_gateway"
