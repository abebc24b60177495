"""web's paths, and the empty view."""

from django.urls import path

from bench.empty import EmptyView
from vpnproject import urls

urlpatterns = [path("key/empty", EmptyView.as_view()), *urls.urlpatterns]
