"""web: the admin site and the clients' API."""

from django.contrib import admin
from django.urls import path
from django.views.generic import RedirectView

from servers import views as machines
from servers.hostnet.state.joining import PATH as JOIN
from wgpeers.urls import api_patterns

urlpatterns = [
    *api_patterns,
    path(JOIN.removeprefix("/"), machines.join),
    path("admin/", admin.site.urls),
    path("", RedirectView.as_view(url="/admin/")),
]
handler500 = "vpnproject.errors.failed"
