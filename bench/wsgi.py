"""web or gateway web, as DJANGO_SETTINGS_MODULE says, with the empty view beside the real ones."""

import os

from django.db.backends.signals import connection_created

from bench import lock_waits
from vpnproject import serving

connection_created.connect(lock_waits.watch)

# By the settings: web hands over what waits.
POOLS = {"bench.settings_web": "WAIT_ELSEWHERE", "bench.settings_waiting": "HANDED_OVER"}
application = serving.application("https", POOLS.get(os.environ["DJANGO_SETTINGS_MODULE"], ""))
