"""Deleting from the admin: what goes along is counted before, and much of it goes in the background."""

from __future__ import annotations

from typing import Any, TypeVar

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db import models
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.utils.text import capfirst

from core import deletion
from core.admin import bulk
from core.admin.base import AdminBase

M = TypeVar("M", bound=models.Model)


class DeletesInSteps(AdminBase[M]):
    """See ``core.deletion``. What a page with ``is_read_only`` shows goes with what it is about."""

    delete_confirmation_template = "admin/core/delete.html"

    def get_deleted_objects(
        self, objs: Any, request: HttpRequest
    ) -> tuple[list[Any], dict[str, int], set[str], list[Any]]:
        """What goes with an object: names of the objects and counts of the rest (there may be thousands of rows).

        Rows that nobody can delete by themselves, such as connections, go with the object that they belong to.
        """
        keys = objs if isinstance(objs, models.QuerySet) else [obj.pk for obj in objs]
        objects = self.model._default_manager.filter(pk__in=keys)
        found: dict[type[models.Model], int] = {self.model: objects.count(), **deletion.counts(objects)}
        needed = set()
        for model in found:
            page = self.admin_site._registry.get(model)
            if (
                page is not None
                and not getattr(page, "is_read_only", False)
                and not page.has_delete_permission(request)
            ):
                needed.add(str(model._meta.verbose_name))
        numbers = {str(model._meta.verbose_name_plural): number for model, number in found.items()}
        for model, number in deletion.endings(objects).items():
            numbers[f"{model._meta.verbose_name_plural} that are cut off"] = number
        return bulk.first_names(objects), numbers, needed, list(deletion.reasons_to_stay(objects))

    def log_deletions(self, request: HttpRequest, queryset: Any) -> Any:
        """Each deletion is written into the history when it is carried out; see ``core.deletion``."""

    def delete_model(self, request: HttpRequest, obj: M) -> None:
        mine = self.model._default_manager.filter(pk=obj.pk)
        job, reasons = deletion.delete(mine, f"Delete {obj}", request.user)
        if job is not None:
            bulk.say(request, job, "")
        self._say_reasons(request, reasons)

    def _say_reasons(self, request: HttpRequest, reasons: list[str]) -> None:
        for reason in reasons[: bulk.SHOWN]:
            messages.error(request, reason)

    def delete_view(self, request: HttpRequest, object_id: str, extra_context: Any = None) -> HttpResponse:
        """As Django's, but not in one transaction from the counting to the end: each part has its own."""
        response: HttpResponse = self._delete_view(request, object_id, extra_context)  # type: ignore[attr-defined]
        return response

    def response_delete(self, request: HttpRequest, obj_display: str, obj_id: int) -> HttpResponse:
        if not self.model._default_manager.filter(pk=obj_id).exists():
            return super().response_delete(request, obj_display, obj_id)
        # It goes in the background, as was said.
        return redirect(reverse(f"admin:{self.opts.app_label}_{self.opts.model_name}_changelist"))

    def get_actions(self, request: HttpRequest) -> Any:
        actions = super().get_actions(request)
        if "delete_selected" in actions:
            actions["delete_selected"] = self.get_action("delete_selected")  # ours, not the site's
        return actions

    @admin.action(description="Delete", permissions=["delete"])
    def delete_selected(self, request: HttpRequest, queryset: models.QuerySet[M]) -> HttpResponse | None:
        names, found, needed, protected = self.get_deleted_objects(queryset, request)
        what = bulk.counted(queryset.count(), self.opts)
        if protected:
            self._say_reasons(request, protected)
            return None
        if needed:
            raise PermissionDenied
        facts = [f"{capfirst(name)}: {number:,}" for name, number in found.items()]
        if not bulk.confirmed(request):
            return bulk.ask(
                self, request, queryset, "delete_selected", f"Delete {what}?", names, ["What goes:", *facts]
            )
        job, reasons = deletion.delete(queryset, f"Delete {what}", request.user)
        self._say_reasons(request, reasons)
        if not reasons:
            bulk.say(request, job, f"Deleted {what}.")
        return None
