"""A user's profile links on their page: made, shown with their QR code and downloads, and revoked."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

import segno
from django.conf import settings
from django.contrib import messages
from django.http import HttpRequest

from core import clock
from core.admin.asking_again import address_of
from core.admin.page import Page, Panel, posted
from core.second_factor.proof import is_fresh
from servers.access import servers_of
from users.models import VpnUser
from wgpeers.models import ProfileLink
from wgpeers.profiles import links

# Who sees a link can take the user's private key, so looking needs the same right as making one.
CHANGE = "users.change_vpnuser"
# Links of one user that are shown; older ones still work until they expire.
SHOWN = 5


class LinksMixin(Page[VpnUser]):
    def panels(self, request: HttpRequest, obj: VpnUser) -> list[Panel]:
        others = super().panels(request, obj)
        if not request.user.has_perm(CHANGE):
            return others
        if not is_fresh(request):
            asked = {"ask_url": address_of(request.get_full_path())}
            return [Panel("Profile link", "admin/wgpeers/links_hidden.html", asked, wide=True, place=1), *others]
        now = clock.now()
        servers = list(servers_of(obj))
        data = {
            "user": obj,
            "links": [shown(link, request) for link in usable(obj, now)],
            "servers": servers,
            "ready": obj.key_ready,
            "usable": obj.enabled and obj.organization.enabled,
            "create_url": self.post_url(obj, "create_link"),
            "revoke_url": self.post_url(obj, "revoke_link"),
        }
        return [Panel("Profile link", "admin/wgpeers/links.html", data, wide=True, place=1), *others]

    @posted(CHANGE, sensitive=True)
    def create_link(self, request: HttpRequest, user: VpnUser) -> None:
        one_time = request.POST.get("kind") == "one_time"
        try:
            links.create(user, clock.now(), one_time=one_time)
        except links.UserDisabled:
            messages.error(request, f"{user} is disabled; a link would not open.")
            return
        self.done(request, user, f"Made a {'one-time ' if one_time else ''}profile link for {user}.")

    @posted(CHANGE)
    def revoke_link(self, request: HttpRequest, user: VpnUser) -> None:
        number = request.POST.get("link", "")
        mine = ProfileLink.objects.filter(user=user)
        link = mine.filter(pk=int(number)).first() if number.isascii() and number.isdigit() else None
        if link is None:
            messages.error(request, "There is no such link any more.")
            return
        links.revoke(link, clock.now())
        self.done(request, user, f"Revoked a profile link of {user}.")


def usable(user: VpnUser, now: float) -> list[ProfileLink]:
    """The links that would open now, newest first."""
    mine = user.links.filter(revoked=None, expires__gt=clock.moment(now)).exclude(one_time=True, used__isnull=False)
    return list(mine.order_by("-created")[:SHOWN])


def shown(link: ProfileLink, request: HttpRequest) -> dict[str, Any]:
    """A link as its panel shows it. The short addresses may have expired while the downloads still work."""
    base = settings.API_URLS[0] if settings.API_URLS else f"https://{request.get_host()}"
    short = link.short_id.reveal()
    host = urlsplit(base).netloc
    address = f"pritunl://{host}/ku/{short}"
    return {
        "link": link,
        "page": f"{base}/k/{short}",
        "import_address": address,
        "importable": links.importable(host),
        "qr": segno.make(address, error="m").svg_data_uri(scale=4, border=2),
        "key_id": link.key_id.reveal(),
        "short_open": link.short_expires > clock.moment(clock.now()),
    }
