"""gateway web: pings and syncs that come through tunnels, and nothing else."""

import os

from django.core.wsgi import get_wsgi_application

from vpnproject.behind_front import BehindFront

# Set, not defaulted: this process is gateway web whatever the environment says.
os.environ["DJANGO_SETTINGS_MODULE"] = "vpnproject.settings_gateway"
application = BehindFront(get_wsgi_application(), "http")
