"""web: the admin site, the connect API and the profile links."""

import os

from vpnproject import serving

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "vpnproject.settings")
application = serving.application("https", "WAIT_ELSEWHERE")
