"""What browsers open to sign in."""

from django.urls import re_path

from . import pages

sign_in_patterns = [
    re_path(r"^sso/back$", pages.back),
    re_path(r"^sso/(?P<page>[A-Za-z0-9]{32})$", pages.page),
]
