"""web or gateway web, as DJANGO_SETTINGS_MODULE says, with the empty view beside the real ones."""

from django.core.wsgi import get_wsgi_application

application = get_wsgi_application()
