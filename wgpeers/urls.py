"""The clients' paths. Ids are letters and digits; whatever else is asked for is not there."""

from django.urls import re_path

from . import views
from .profiles import own_page
from .profiles import views as profile_views

ID = r"[A-Za-z0-9]{1,64}"
THREE_IDS = rf"(?P<organization>{ID})/(?P<user>{ID})/(?P<server>{ID})"

sync = re_path(rf"^key/sync/{THREE_IDS}/(?P<sync_hash>[A-Za-z0-9]{{1,128}})$", views.SyncView.as_view())

api_patterns = [
    re_path(rf"^key/wg/{THREE_IDS}$", views.WireGuardView.as_view()),
    re_path(rf"^key/wg_wait/{THREE_IDS}$", views.WaitView.as_view()),
    sync,
    re_path(rf"^key/(?P<key_id>{ID})\.(?P<kind>tar|zip)$", profile_views.archive),
    re_path(rf"^key/(?P<key_id>{ID})/(?P<server_id>{ID})\.key$", profile_views.one_profile),
    re_path(rf"^ku/(?P<short_id>{ID})$", profile_views.import_profiles),
    re_path(rf"^k/(?P<short_id>{ID})$", profile_views.page),
    re_path(rf"^k/(?P<short_id>{ID})/do$", own_page.act),
    re_path(r"^client/(?P<name>[A-Za-z0-9._-]{1,100})$", profile_views.client),
    re_path(r"^(?:key|ku|k|client)/", views.not_found),
]
gateway_patterns = [
    re_path(rf"^key/wg/{THREE_IDS}$", views.PingView.as_view()),
    sync,
    re_path(r"", views.not_found),
]
