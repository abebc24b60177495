"""gateway web: pings and syncs."""

from wgpeers.urls import gateway_patterns

urlpatterns = [*gateway_patterns]
