"""web: the admin site and the clients' API."""

from django.conf import settings
from django.contrib import admin
from django.urls import include, path
from django.views.generic import RedirectView

from servers import views as machines
from servers.hostnet.state.joining import PATH as JOIN
from users.signin.urls import sign_in_patterns
from vpnproject import health
from vpnproject.sign_in import change_password
from wgpeers.urls import api_patterns

urlpatterns = [
    *api_patterns,
    *sign_in_patterns,
    path("healthz", health.alive),
    path("readyz", health.ready),
    path("admin/password_change/", admin.site.admin_view(change_password)),
    path("admin/second-factor/", include("vpnproject.second_factor.urls")),
    path(JOIN.removeprefix("/"), machines.join),
    path("admin/", admin.site.urls),
    path("", RedirectView.as_view(url="/admin/")),
    # Browsers ask for it by themselves, on pages that name no icon.
    path("favicon.ico", RedirectView.as_view(url=f"/{settings.STATIC_URL.lstrip('/')}core/icon.svg")),
]
handler403 = "vpnproject.errors.forbidden"
handler404 = "vpnproject.errors.not_found"
handler500 = "vpnproject.errors.failed"
