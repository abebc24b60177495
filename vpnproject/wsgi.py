"""web: the admin site, the connect API and the profile links."""

import os

from django.core.wsgi import get_wsgi_application

from vpnproject.behind_front import BehindFront

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "vpnproject.settings")
application = BehindFront(get_wsgi_application(), "https", "WAIT_ELSEWHERE")
