"""Admin pages for people. A user's page is put together and registered by the topmost layer that has something to
show on it (wgpeers.admin)."""

from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.db.models import Count, OuterRef, QuerySet, Subquery
from django.http import HttpRequest, HttpResponse

from core import clock
from core.admin import bulk
from core.admin.asking_again import FieldsAskAgain
from core.admin.page import BAD, GOOD, NEUTRAL, WAITING, Page, Panel, ago, column, posted, span
from users import jobs
from users.factors import guesses
from users.factors.registry import FACTORS, load
from users.models import Device, Group, Organization, VpnUser

from .factors import FactorsMixin
from .lists import ListsMixin

# A person has a handful of devices; the page shows no more than this.
DEVICES_SHOWN = 20


@admin.register(Organization)
class OrganizationPage(FieldsAskAgain, Page[Organization]):
    sensitive_fields = frozenset({"own_factors"})
    # Said anew here: a query that counts drops the model's own order.
    ordering = ("name",)
    list_display = ("name", "is_enabled", "people", "ca", "created")
    list_filter = ("enabled",)
    search_fields = ("name",)
    fields = ("name", "enabled", "own_factors")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Organization]:
        everything: QuerySet[Organization] = super().get_queryset(request).defer("ca_private_key")
        return everything.annotate(people=Count("users"))

    @column("Enabled", ordering="enabled", badge=True)
    def is_enabled(self, obj: Organization) -> tuple[str, str]:
        return (GOOD, "enabled") if obj.enabled else (BAD, "disabled")

    @column("Users", ordering="people")
    def people(self, obj: Organization) -> int:
        return int(getattr(obj, "people", 0))

    @column("Certificate authority", badge=True)
    def ca(self, obj: Organization) -> tuple[str, str]:
        return (GOOD, "ready") if obj.ca_certificate else (WAITING, "being made…")

    def state(self, obj: Organization) -> tuple[str, str]:
        return self.is_enabled(obj)


@admin.register(Group)
class GroupPage(Page[Group]):
    ordering = ("name",)
    list_display = ("name", "people")
    search_fields = ("name",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Group]:
        return super().get_queryset(request).annotate(people=Count("users"))

    @column("Users", ordering="people")
    def people(self, obj: Group) -> int:
        return int(getattr(obj, "people", 0))


class VpnUserPage(FactorsMixin, ListsMixin, Page[VpnUser]):
    """Who the user is and what proves it. Layers above add where they may go and whether they are there."""

    list_display: tuple[str, ...] = ("name", "organization", "email", "in_groups", "account", "factors", "last_seen")
    list_filter = ("organization", "enabled", "groups")
    list_select_related = ("organization", "wrong_attempts")
    search_fields = ("name", "email", "organization__name")
    autocomplete_fields = ("organization", "groups")
    fields = (("name", "organization"), ("email", "groups"), "enabled")
    actions = ("enable_users", "disable_users")

    def get_queryset(self, request: HttpRequest) -> QuerySet[VpnUser]:
        people = super().get_queryset(request).prefetch_related("groups", "enrolments")
        newest = Device.objects.filter(user=OuterRef("pk")).order_by("-last_seen").values("last_seen")
        return people.annotate(seen=Subquery(newest[:1]))

    def get_readonly_fields(self, request: HttpRequest, obj: VpnUser | None = None) -> Any:
        # Their certificate is their organization's.
        return ("organization",) if obj else ()

    @column("Groups")
    def in_groups(self, obj: VpnUser) -> str:
        return ", ".join(group.name for group in obj.groups.all()) or "-"

    @column("Account", ordering="enabled", badge=True)
    def account(self, obj: VpnUser) -> tuple[str, str]:
        if not obj.enabled:
            return BAD, "disabled"
        if not obj.organization.enabled:
            return BAD, "organization disabled"
        wrong = getattr(obj, "wrong_attempts", None)
        if left := guesses.pause_left(wrong, clock.now()):
            return BAD, f"paused for {span(left)} after {wrong}"
        return (GOOD, "ready") if obj.key_ready else (WAITING, "key being made…")

    @column("Factors", badge=True)
    def factors(self, obj: VpnUser) -> tuple[str, str]:
        has = {enrolment.kind for enrolment in obj.enrolments.all()}
        # What is set up here: who can be asked by a service of somebody else's, that service alone knows.
        names = [load(kind).label for kind in FACTORS if kind in has]
        return (GOOD if names else NEUTRAL), (" + ".join(names) or "none")

    @column("Last connected", ordering="seen")
    def last_seen(self, obj: VpnUser) -> str:
        seen = getattr(obj, "seen", None)
        return ago(clock.now() - seen.timestamp()) if seen else "never"

    def state(self, obj: VpnUser) -> tuple[str, str]:
        return self.account(obj)

    def panels(self, request: HttpRequest, obj: VpnUser) -> list[Panel]:
        # Whatever is revoked is shown, to be let in again.
        devices = [*obj.devices.filter(revoked=None)[:DEVICES_SHOWN], *obj.devices.exclude(revoked=None)]
        return [
            *super().panels(request, obj),
            Panel(
                "Devices",
                "admin/users/devices.html",
                {
                    "devices": devices,
                    "allow_url": self.post_url(obj, "allow_device"),
                    "may_allow": self.may_post(request, "allow_device"),
                },
                wide=True,
                place=5,
            ),
        ]

    @posted("users.change_vpnuser", sensitive=True)
    def allow_device(self, request: HttpRequest, user: VpnUser) -> None:
        device = user.devices.filter(device_id=request.POST.get("device", "")).first()
        if device is None or not Device.objects.filter(pk=device.pk).exclude(revoked=None).update(revoked=None):
            messages.error(request, "There is no such revoked device any more.")
            return
        self.done(request, user, f"Let the device {device} of {user} in again.")

    @admin.action(description="Enable", permissions=["change"])
    def enable_users(self, request: HttpRequest, queryset: QuerySet[VpnUser]) -> HttpResponse | None:
        return self._set_enabled(request, queryset, "enable_users", enabled=True)

    @admin.action(description="Disable, and disconnect at once", permissions=["change"])
    def disable_users(self, request: HttpRequest, queryset: QuerySet[VpnUser]) -> HttpResponse | None:
        return self._set_enabled(request, queryset, "disable_users", enabled=False)

    def _set_enabled(
        self, request: HttpRequest, queryset: QuerySet[VpnUser], action: str, *, enabled: bool
    ) -> HttpResponse | None:
        what, verb = bulk.counted(queryset.count(), self.opts), "Enable" if enabled else "Disable"
        if not bulk.confirmed(request):
            facts = (
                [] if enabled else ["Whoever of them is connected is cut off, and cannot connect until enabled again."]
            )
            return bulk.ask(self, request, queryset, action, f"{verb} {what}?", bulk.first_names(queryset), facts)
        arguments = {"enabled": enabled}
        bulk.carry_out(request, jobs.SET_ENABLED, f"{verb} {what}", queryset, f"{verb}d {what}.", arguments)
        return None
