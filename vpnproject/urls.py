"""web: the admin site and the clients' API."""

from django.contrib import admin
from django.urls import path
from django.views.generic import RedirectView

from wgpeers.urls import api_patterns

urlpatterns = [
    *api_patterns,
    path("admin/", admin.site.urls),
    path("", RedirectView.as_view(url="/admin/")),
]
handler500 = "vpnproject.errors.failed"
