"""Administrators and their roles: Django's own accounts, in this site's looks."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from django.contrib import admin
from django.contrib.auth.admin import GroupAdmin as DjangoGroupAdmin
from django.contrib.auth.admin import UserAdmin as DjangoUserAdmin
from django.contrib.auth.models import Group as Role
from django.contrib.auth.models import User as Administrator
from django.db import transaction
from django.http import HttpRequest, HttpResponse

from core.admin.asking_again import AsksAgain
from core.admin.base import AdminBase
from core.admin.deleting import DeletesInSteps
from core.admin.lookups import FilteredByAllowList
from core.admin.page import Page
from core.admin.saving import SavesInTurn
from core.second_factor import audit, sessions
from users.services import known_to_others

from .second_factor import SecondFactorMixin

if TYPE_CHECKING:

    class _Looks: ...

    from django.contrib.auth.forms import AdminPasswordChangeForm, UserChangeForm
    from django.contrib.auth.forms import AdminUserCreationForm as UserCreationForm
    from django.forms import ModelForm
else:
    from unfold.admin import ModelAdmin as _Looks
    from unfold.forms import AdminPasswordChangeForm, UserChangeForm, UserCreationForm

NEW_ACCOUNT = (
    "Give them this name and password by a way that only they read. When they first sign in, they choose a password of "
    "their own. What they may look at and do is said on the next page."
)

admin.site.unregister(Administrator)
admin.site.unregister(Role)


class OtherName(AdminBase[Any]):
    """Pages of a table of Django's that have another name for its rows: in ``opts``, of which all else takes it."""

    named = ("", "")  # one of them, several

    def __init__(self, model: type[Any], site: admin.AdminSite) -> None:
        super().__init__(model, site)
        # A copy: changed itself, it would be a change of Django's own table, for which Django wants a migration.
        self.opts = copy.copy(self.opts)
        self.opts.verbose_name, self.opts.verbose_name_plural = self.named

    def get_changelist_instance(self, request: HttpRequest) -> Any:
        changelist = super().get_changelist_instance(request)
        changelist.opts = self.opts
        return changelist

    def response_add(self, request: HttpRequest, obj: Any, post_url_continue: str | None = None) -> HttpResponse:
        obj._meta = self.opts  # here alone Django takes the name from the row
        return super().response_add(request, obj, post_url_continue)


@admin.register(Administrator)
class AdministratorPage(
    OtherName,
    AsksAgain,
    SecondFactorMixin,
    Page[Administrator],
    DjangoUserAdmin,  # type: ignore[type-arg]
    _Looks,
):
    named = ("administrator", "administrators")
    form: Any = UserChangeForm
    add_form = UserCreationForm
    add_form_template = "admin/change_form.html"  # Django's own has words of its own beside ours
    change_password_form = AdminPasswordChangeForm
    list_display = ("username", "email", "is_active", "is_superuser", "last_login")
    list_filter = ("is_active", "is_superuser", "groups")
    list_filter_sheet = False
    add_fieldsets = ((None, {"fields": ("username", "password1", "password2"), "description": NEW_ACCOUNT}),)

    def save_model(
        self, request: HttpRequest, obj: Administrator, form: ModelForm[Administrator], change: bool
    ) -> None:
        if not change:
            obj.is_staff = True  # whoever is here is here to sign in
        super().save_model(request, obj, form, change)
        if not change:
            known_to_others(obj)

    def user_change_password(self, request: HttpRequest, id: str, form_url: str = "") -> HttpResponse:
        with transaction.atomic():
            before = self.get_object(request, id)
            response = super().user_change_password(request, id, form_url)
            now = self.get_object(request, id)
            if before and now and before.password != now.password:
                self._is_changed(request, now)
        return response

    def _is_changed(self, request: HttpRequest, account: Administrator) -> None:
        """Sessions that were begun with the password of before end."""
        own = account == request.user
        if not own:
            known_to_others(account)
        sessions.end_all(account, but=request.session.session_key if own else None)
        audit.note(account, "Their sessions ended, since they have a new password.", by=_administrator(request))


def _administrator(request: HttpRequest) -> Administrator | None:
    return request.user if isinstance(request.user, Administrator) else None


@admin.register(Role)
class RolePage(
    OtherName,
    AsksAgain,
    SavesInTurn[Any],
    FilteredByAllowList,
    DeletesInSteps[Role],
    DjangoGroupAdmin,
    _Looks,
):
    named = ("role", "roles")
