"""What every page of the admin here shares: saving only what was changed, buttons that act by POST, and panels."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

from django.contrib import messages
from django.contrib.admin.options import IS_POPUP_VAR
from django.contrib.admin.utils import flatten_fieldsets
from django.contrib.admin.views.main import ORDER_VAR, PAGE_VAR
from django.core.exceptions import PermissionDenied
from django.db import IntegrityError, models
from django.forms import ModelForm
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import URLPattern, path, reverse
from django.utils.html import format_html, format_html_join
from django.utils.http import url_has_allowed_host_and_scheme
from django.utils.safestring import SafeString
from unfold.decorators import action as unfold_action
from unfold.decorators import display as unfold_display

from core.admin.asking_again import ask_again
from core.admin.base import ChangeList, InlineBase
from core.admin.deleting import DeletesInSteps
from core.admin.lookups import FilteredByAllowList
from core.admin.saving import CONFLICT, SavesInTurn
from core.names import ordered_by_key
from core.second_factor.proof import is_fresh

M = TypeVar("M", bound=models.Model)
F = TypeVar("F", bound=Callable[..., Any])

# Colours of a badge, by what it means.
GOOD, BAD, WAITING, NEUTRAL = "success", "danger", "warning", "default"
ROW_BUTTON = (
    "border border-base-200 cursor-pointer font-medium px-2 py-1 rounded-default text-important whitespace-nowrap "
    "hover:bg-base-100 dark:border-base-700 dark:hover:bg-base-800"
)
TONES = {GOOD: GOOD, BAD: BAD, WAITING: WAITING, NEUTRAL: NEUTRAL, "info": "info"}


def column(title: str, *, ordering: str | None = None, badge: bool = False, boolean: bool = False) -> Callable[[F], F]:
    """A column of a list. With ``badge`` the method returns (tone, text)."""

    def mark(method: F) -> F:
        unfold_display(
            method,
            description=title,
            ordering=ordering,
            label=TONES if badge else None,
            boolean=boolean or None,
        )
        return method

    return mark


def above_list(title: str, url_path: str, permission: str, icon: str) -> Callable[[F], F]:
    """A page of its own, by a button above the list, for who has ``has_<permission>_permission``."""

    def mark(method: F) -> F:
        return cast(F, unfold_action(method, description=title, url_path=url_path, permissions=[permission], icon=icon))

    return mark


def posted(permission: str, *, sensitive: bool = False) -> Callable[[F], F]:
    """Let a page's buttons call this method, by POST and with ``permission`` only; see ``Page``. What is ``sensitive``
    asks for the second factor again; see ``core.admin.asking_again``."""

    def mark(method: F) -> F:
        method.post_permission = permission  # type: ignore[attr-defined]
        method.sensitive = sensitive  # type: ignore[attr-defined]
        return method

    return mark


@dataclass(frozen=True, slots=True)
class Button:
    """A button on a page. ``name`` is that of a ``posted`` method; ``confirm`` is asked before it acts."""

    name: str
    text: str
    icon: str = ""
    variant: str = "default"
    confirm: str = ""


@dataclass(frozen=True, slots=True)
class Panel:
    """A card beside the form of a page: its template, and what that shows (``panel.data`` there).

    Panels stand in the order of their ``place``, two abreast unless ``wide``.
    """

    title: str
    template: str
    data: Mapping[str, Any] = field(default_factory=dict)
    wide: bool = False
    place: int = 0


class PageChangeList(ChangeList):
    """A list that lets its page look up, for all its rows at once, what is not in the database; names stand in it as
    people look for them."""

    def get_ordering(self, request: HttpRequest, queryset: models.QuerySet[Any]) -> list[Any]:
        fields = super().get_ordering(request, queryset)
        return [ordered_by_key(self.model, each) if isinstance(each, str) else each for each in fields]

    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        if not request.GET.keys() - {PAGE_VAR, ORDER_VAR, IS_POPUP_VAR}:
            # Nothing is left out, so there is nothing to offer to "show all" of.
            self.full_result_count = self.result_count
        prepare = getattr(self.model_admin, "prepare", None)
        if prepare is not None:
            # Evaluated here and cached in the queryset: the template goes over the same objects.
            prepare(list(self.result_list))


class Page(SavesInTurn[M], FilteredByAllowList, DeletesInSteps[M]):
    """Base of all admin pages.

    ``posted`` methods take (request, object) and return a response or None, which leads back to where the button
    was. A GET of their address changes nothing.
    """

    list_filter_sheet = False
    list_per_page = 50
    show_full_result_count = False
    compressed_fields = True
    warn_unsaved_form = True
    change_form_outer_before_template = "admin/page_head.html"
    change_form_outer_after_template = "admin/page_panels.html"

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return PageChangeList

    def prepare(self, rows: Sequence[M]) -> None:
        """Look up what the rows of one page of the list need and the database does not have."""

    def state(self, obj: M) -> tuple[str, str] | None:
        """(tone, message) of the badge at the top of the object's page."""
        return None

    def buttons(self, request: HttpRequest, obj: M) -> list[Button]:
        """Buttons at the top of the object's page, as far as they make sense now."""
        return []

    def panels(self, request: HttpRequest, obj: M) -> list[Panel]:
        """Cards below the form."""
        return []

    def row_buttons(self, obj: M, buttons: list[Button]) -> SafeString:
        """The same buttons in a row of the list. They send the list's own form, which carries the CSRF token."""
        html = format_html_join(
            " ",
            '<button type="submit" formaction="{}" data-confirm="{}" class="{}">{}</button>',
            ((self.post_url(obj, button.name), button.confirm, ROW_BUTTON, button.text) for button in buttons),
        )
        return format_html('<span class="flex gap-2 justify-end">{}</span>', html)

    def post_url(self, obj: M, name: str) -> str:
        return reverse(f"admin:{self.opts.app_label}_{self.opts.model_name}_do", args=[obj.pk, name])

    def may_post(self, request: HttpRequest, name: str) -> bool:
        permission = getattr(getattr(type(self), name, None), "post_permission", None)
        return permission is not None and request.user.has_perm(permission)

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view(self._post_view)
        name = f"{self.opts.app_label}_{self.opts.model_name}_do"
        return [path("<int:object_id>/do/<slug:name>/", view, name=name), *super().get_urls()]

    def _post_view(self, request: HttpRequest, object_id: int, name: str) -> HttpResponse:
        if not hasattr(getattr(type(self), name, None), "post_permission"):
            raise Http404
        if not self.may_post(request, name):
            raise PermissionDenied
        obj = self.get_object(request, str(object_id))
        if obj is None:
            raise Http404
        if request.method != "POST":
            # Somebody who had to log in first comes by GET: show them the page with the button.
            return redirect(self.page_of(obj))
        if getattr(getattr(type(self), name), "sensitive", True) and not is_fresh(request):
            return ask_again(request, self._back(request, obj))
        try:
            response = getattr(self, name)(request, obj)
        except IntegrityError:
            messages.error(request, CONFLICT)
            response = None
        return response if isinstance(response, HttpResponse) else redirect(self._back(request, obj))

    def page_of(self, obj: models.Model) -> str:
        return reverse(f"admin:{obj._meta.app_label}_{obj._meta.model_name}_change", args=[obj.pk])

    def _back(self, request: HttpRequest, obj: M) -> str:
        came_from: str = request.META.get("HTTP_REFERER", "")
        if url_has_allowed_host_and_scheme(came_from, {request.get_host()}, request.is_secure()):
            return came_from
        return self.page_of(obj)

    def done(self, request: HttpRequest, obj: M, message: str) -> None:
        """Tell the administrator, and write it into the object's history. ``message`` holds no secret."""
        self.log_change(request, obj, message)
        messages.success(request, message)

    def render_change_form(
        self,
        request: HttpRequest,
        context: dict[str, Any],
        add: bool = False,
        change: bool = False,
        form_url: str = "",
        obj: M | None = None,
    ) -> HttpResponse:
        if obj is not None:
            context["page_state"] = self.state(obj)
            context["page_buttons"] = [
                (button, self.post_url(obj, button.name))
                for button in self.buttons(request, obj)
                if self.may_post(request, button.name)
            ]
            context["page_panels"] = sorted(self.panels(request, obj), key=lambda panel: panel.place)
        return super().render_change_form(request, context, add, change, form_url, obj)

    def save_model(self, request: HttpRequest, obj: M, form: ModelForm[M], change: bool) -> None:
        """Save only the columns that this form changed.

        Workers write to the same rows (keys, versions, the address counter). A whole row written back, as it was
        when the form was sent, would undo what they wrote meanwhile.
        """
        if not change:
            obj.save()
            return
        own = {column.name for column in obj._meta.concrete_fields}
        if changed := [name for name in form.changed_data if name in own]:
            obj.save(update_fields=changed)


class ReadOnlyPage(Page[M]):
    """A list of what happened: read, never written by hand."""

    is_read_only = True

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: M | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: M | None = None) -> bool:
        return False

    def get_readonly_fields(self, request: HttpRequest, obj: M | None = None) -> list[str]:
        return [str(name) for name in flatten_fieldsets(self.get_fieldsets(request, obj))]


class Inline(InlineBase):
    """Rows of another model on an object's page."""

    extra = 0
    show_change_link = False


def span(seconds: float) -> str:
    """A span of time in words: ``12 s``, ``5 min``, ``3 h``, ``2 days``."""
    for size, unit, until in ((1, "s", 120), (60, "min", 7200), (3600, "h", 172800)):
        if seconds < until:
            return f"{int(seconds // size)} {unit}"
    return f"{int(seconds // 86400)} days"


def ago(seconds: float) -> str:
    return "just now" if seconds < 1 else f"{span(seconds)} ago"
