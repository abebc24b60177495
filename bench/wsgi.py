"""web or gateway web, as DJANGO_SETTINGS_MODULE says, with the empty view beside the real ones."""

from django.db.backends.signals import connection_created

from bench import lock_waits
from vpnproject import serving

connection_created.connect(lock_waits.watch)

application = serving.application("https")
