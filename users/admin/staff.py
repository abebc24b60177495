"""Administrators and their roles: Django's own accounts, in this site's looks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.contrib import admin
from django.contrib.auth.admin import GroupAdmin as DjangoGroupAdmin
from django.contrib.auth.admin import UserAdmin as DjangoUserAdmin
from django.contrib.auth.models import Group as Role
from django.contrib.auth.models import User as Administrator

from core.admin.deleting import DeletesInSteps
from core.admin.lookups import FilteredByAllowList

if TYPE_CHECKING:

    class _Looks: ...

    from django.contrib.auth.forms import AdminPasswordChangeForm, UserChangeForm
    from django.contrib.auth.forms import AdminUserCreationForm as UserCreationForm
else:
    from unfold.admin import ModelAdmin as _Looks
    from unfold.forms import AdminPasswordChangeForm, UserChangeForm, UserCreationForm

admin.site.unregister(Administrator)
admin.site.unregister(Role)


@admin.register(Administrator)
class AdministratorPage(FilteredByAllowList, DeletesInSteps[Administrator], DjangoUserAdmin, _Looks):  # type: ignore[type-arg]
    form: Any = UserChangeForm
    add_form = UserCreationForm
    change_password_form = AdminPasswordChangeForm
    list_display = ("username", "email", "is_active", "is_superuser", "last_login")
    list_filter = ("is_active", "is_superuser", "groups")
    list_filter_sheet = False


@admin.register(Role)
class RolePage(FilteredByAllowList, DeletesInSteps[Role], DjangoGroupAdmin, _Looks): ...
