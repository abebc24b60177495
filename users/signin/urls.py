"""What browsers open to sign in."""

from django.urls import re_path

from users.factors.saml import pages as saml

from . import here_pages, pages, phone_pages

sign_in_patterns = [
    re_path(r"^sso/back$", pages.back),
    re_path(r"^sso/saml/acs$", saml.answers),
    re_path(r"^sso/saml/(?P<provider>[A-Za-z0-9]{1,24})$", saml.about_us),
    re_path(r"^sso/passkeys\.js$", here_pages.script),
    re_path(r"^sso/here/(?P<page>[A-Za-z0-9]{32})$", here_pages.page),
    re_path(r"^sso/here/(?P<page>[A-Za-z0-9]{32})/question$", here_pages.question),
    re_path(r"^sso/phone/(?P<page>[A-Za-z0-9]{32})$", phone_pages.page),
    re_path(r"^sso/(?P<page>[A-Za-z0-9]{32})$", pages.page),
]
