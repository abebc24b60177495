"""web's second pool, of many threads: the connects that wait for the servers of others. web hands them over."""

import os

from vpnproject import serving

# Set, not defaulted, as gateway web's.
os.environ["DJANGO_SETTINGS_MODULE"] = "vpnproject.settings_waiting"
application = serving.application("https", "HANDED_OVER")
