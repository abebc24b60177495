"""web: the admin site and the clients' API."""

from django.contrib import admin
from django.urls import path
from django.views.generic import RedirectView

from vpnproject.sign_in import change_password
from wgpeers.urls import api_patterns

urlpatterns = [
    *api_patterns,
    path("admin/password_change/", admin.site.admin_view(change_password)),
    path("admin/", admin.site.urls),
    path("", RedirectView.as_view(url="/admin/")),
]
handler500 = "vpnproject.errors.failed"
