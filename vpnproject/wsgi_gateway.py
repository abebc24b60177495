"""gateway web: pings and syncs that come through tunnels, and nothing else."""

import os

from vpnproject import serving

# Set, not defaulted: this process is gateway web whatever the environment says.
os.environ["DJANGO_SETTINGS_MODULE"] = "vpnproject.settings_gateway"
application = serving.application("http")
