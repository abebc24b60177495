"""web: the admin site, the connect API and the profile links."""

import os

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "vpnproject.settings")
application = get_wsgi_application()
