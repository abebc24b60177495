"""A user's second factors on their page: set, replace and remove. A PIN is never shown, a TOTP secret once."""

from __future__ import annotations

import segno
from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse

from core.admin.page import Page, Panel, posted
from users.factors.pin import enrolment as pins
from users.factors.registry import FACTORS, load
from users.factors.totp import enrolment as authenticators
from users.models import VpnUser

CHANGE = "users.change_vpnuser"


class FactorsMixin(Page[VpnUser]):
    def panels(self, request: HttpRequest, obj: VpnUser) -> list[Panel]:
        shown = [factor for kind in FACTORS if (factor := load(kind)).panel_template]
        parts = [{"template": factor.panel_template, "data": factor.panel_data()} for factor in shown]
        data = {"user": obj, "may_change": self.may_post(request, "set_pin"), "parts": parts}
        return [*super().panels(request, obj), Panel("Second factors", "admin/users/factors.html", data, place=2)]

    @posted(CHANGE)
    def set_pin(self, request: HttpRequest, user: VpnUser) -> None:
        try:
            pins.set_pin(user, request.POST.get("pin", ""))
        except ValueError as error:
            messages.error(request, f"The PIN was not set. {error}")
            return
        self.done(request, user, f"Set a PIN for {user}.")

    @posted(CHANGE)
    def remove_pin(self, request: HttpRequest, user: VpnUser) -> None:
        pins.remove_pin(user)
        self.done(request, user, f"Removed the PIN of {user}.")

    @posted(CHANGE)
    def set_up_totp(self, request: HttpRequest, user: VpnUser) -> HttpResponse:
        """The one answer that shows the secret; it is never shown again."""
        authenticators.set_up_totp(user)
        self.log_change(request, user, "Set up an authenticator.")
        context = {
            **self.admin_site.each_context(request),
            "title": f"Authenticator for {user}",
            "opts": self.opts,
            "user_page": self.page_of(user),
            "vpn_user": user,
            "qr": segno.make(authenticators.provisioning_uri(user), error="m").svg_data_uri(scale=5, border=2),
            "secret": user.totp_secret.reveal(),
        }
        response = TemplateResponse(request, "totp/shown_once.html", context)
        response["Cache-Control"] = "no-store"
        return response

    @posted(CHANGE)
    def remove_totp(self, request: HttpRequest, user: VpnUser) -> None:
        authenticators.remove_totp(user)
        self.done(request, user, f"Removed the authenticator of {user}.")
