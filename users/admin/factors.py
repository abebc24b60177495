"""A user's second factors on their page: set, replace and remove. A PIN is never shown, a TOTP secret once."""

from __future__ import annotations

import segno
from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse

from core.admin.page import Page, Panel, posted
from core.crypto import Secret
from users.factors.pin import LONGEST, SHORTEST, hash_pin
from users.factors.totp import new_secret, provisioning_uri
from users.models import VpnUser

CHANGE = "users.change_vpnuser"


class FactorsMixin(Page[VpnUser]):
    def panels(self, request: HttpRequest, obj: VpnUser) -> list[Panel]:
        data = {"user": obj, "may_change": self.may_post(request, "set_pin"), "shortest": SHORTEST, "longest": LONGEST}
        return [*super().panels(request, obj), Panel("Second factors", "admin/users/factors.html", data, place=2)]

    @posted(CHANGE)
    def set_pin(self, request: HttpRequest, user: VpnUser) -> None:
        try:
            pin_hash = hash_pin(request.POST.get("pin", ""))
        except ValueError as error:
            messages.error(request, f"The PIN was not set. {error}")
            return
        VpnUser.objects.filter(pk=user.pk).update(pin_hash=pin_hash)
        self.done(request, user, f"Set a PIN for {user}.")

    @posted(CHANGE)
    def remove_pin(self, request: HttpRequest, user: VpnUser) -> None:
        VpnUser.objects.filter(pk=user.pk).update(pin_hash="")
        self.done(request, user, f"Removed the PIN of {user}.")

    @posted(CHANGE)
    def set_up_totp(self, request: HttpRequest, user: VpnUser) -> HttpResponse:
        """The one answer that shows the secret; it is never shown again."""
        user.totp_secret = new_secret()
        # A new secret starts anew: no step of the old one stands in the way of its first code.
        user.totp_last_step, user.totp_last_attempt = 0, ""
        user.save(update_fields=["totp_secret", "totp_last_step", "totp_last_attempt"])
        self.log_change(request, user, "Set up an authenticator.")
        context = {
            **self.admin_site.each_context(request),
            "title": f"Authenticator for {user}",
            "opts": self.opts,
            "user_page": self.page_of(user),
            "vpn_user": user,
            "qr": segno.make(provisioning_uri(user), error="m").svg_data_uri(scale=5, border=2),
            "secret": user.totp_secret.reveal(),
        }
        response = TemplateResponse(request, "admin/users/totp.html", context)
        response["Cache-Control"] = "no-store"
        return response

    @posted(CHANGE)
    def remove_totp(self, request: HttpRequest, user: VpnUser) -> None:
        VpnUser.objects.filter(pk=user.pk).update(totp_secret=Secret(""), totp_last_step=0, totp_last_attempt="")
        self.done(request, user, f"Removed the authenticator of {user}.")
