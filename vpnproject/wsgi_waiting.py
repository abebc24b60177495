"""web's second pool, of many threads: the connects that wait for the servers of others. web hands them over."""

import os

from django.core.wsgi import get_wsgi_application

from vpnproject.behind_front import BehindFront

# Set, not defaulted, as gateway web's.
os.environ["DJANGO_SETTINGS_MODULE"] = "vpnproject.settings_waiting"
application = BehindFront(get_wsgi_application(), "https", "HANDED_OVER")
