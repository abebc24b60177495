"""Settings of gateway web: the same, with only what a ping or a sync through the tunnel needs."""

from .settings import *  # noqa: F403

ROOT_URLCONF = "vpnproject.urls_gateway"
WSGI_APPLICATION = "vpnproject.wsgi_gateway.application"
# No sessions, no CSRF, no redirects: none of it has a part in a ping.
MIDDLEWARE = ["vpnproject.tunnels_only.TunnelsOnly"]
