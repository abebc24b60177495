"""Asking for the second factor again before what must not be done by whoever finds an open browser: making profile
links and tokens, showing secrets, changing administrators, roles, second factors, and what is asked of whom.

Buttons say so with ``posted(…, sensitive=True)``, whole pages with ``AsksAgain``, rows with ``RowsAskAgain``, single
fields with ``FieldsAskAgain``, other views with ``asks_again``.
A test names every button of every page, and whether it asks.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec
from urllib.parse import urlencode

from django.contrib import messages
from django.contrib.auth import REDIRECT_FIELD_NAME
from django.core.exceptions import ValidationError
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse

from core.second_factor.proof import is_fresh

P = ParamSpec("P")
View = Callable[Concatenate[HttpRequest, P], HttpResponse]

if TYPE_CHECKING:
    from django.contrib.admin import ModelAdmin, TabularInline

    class _Admin(ModelAdmin[Any]): ...

    class _Inline(TabularInline[Any, Any]): ...

else:

    class _Admin: ...

    class _Inline: ...


def address_of(back: str) -> str:
    """The page that asks, and then leads to ``back`` (a path of this site)."""
    return f"{reverse('second_factor:confirm')}?{urlencode({REDIRECT_FIELD_NAME: back})}"


def ask_again(request: HttpRequest, back: str) -> HttpResponse:
    """Lead there. What was sent is not kept: it may hold secrets."""
    if request.method == "POST":
        messages.warning(request, "Not done yet: your second factor is asked for again first. Then do it once more.")
    return redirect(address_of(back))


def asks_again(view: View[P]) -> View[P]:
    """The view, for who showed their second factor a short while ago."""

    @wraps(view)
    def asking(request: HttpRequest, /, *args: P.args, **kwargs: P.kwargs) -> HttpResponse:
        # Who is not signed in at all is the view's own business.
        if not request.user.is_authenticated or is_fresh(request):
            return view(request, *args, **kwargs)
        return ask_again(request, request.get_full_path())

    return asking


class AsksAgain(_Admin):
    """A page of which all asks again, but for looking at its list and at histories."""

    def get_urls(self) -> list[Any]:
        patterns = super().get_urls()
        for pattern in patterns:
            may_look = str(pattern.name).endswith(("_changelist", "_history"))
            pattern.callback = _asks_to_change(pattern.callback) if may_look else asks_again(pattern.callback)
        return patterns


def _asks_to_change(view: View[P]) -> View[P]:
    asking = asks_again(view)

    @wraps(view)
    def either(request: HttpRequest, /, *args: P.args, **kwargs: P.kwargs) -> HttpResponse:
        return (view if request.method == "GET" else asking)(request, *args, **kwargs)

    return either


def _not_saved() -> ValidationError:
    """In a form, so that what was filled in stays."""
    where = reverse("second_factor:confirm")
    return ValidationError(
        f"Not saved: this asks for your second factor again. Show it at {where} in another tab of this browser, then "
        "save here.",
        code="ask_again",
    )


class RowsAskAgain(_Inline):
    """Rows of which any change asks again."""

    def get_formset(self, request: HttpRequest, obj: Any = None, **kwargs: Any) -> Any:
        formset: Any = super().get_formset(request, obj, **kwargs)

        def clean(self: Any) -> None:
            formset.clean(self)
            if self.has_changed() and not is_fresh(request):
                raise _not_saved()

        return type(formset.__name__, (formset,), {"clean": clean})


class FieldsAskAgain(_Admin):
    """A page of which a change of ``sensitive_fields`` asks again, and of others does not."""

    sensitive_fields: frozenset[str]

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any) -> Any:
        form: Any = super().get_form(request, obj, change=change, **kwargs)

        def clean(self: Any) -> Any:
            cleaned = form.clean(self)
            changed = [name for name in self.changed_data if name in sensitive_fields]
            if changed and not is_fresh(request):
                self.add_error(changed[0], _not_saved())
            return cleaned

        sensitive_fields = self.sensitive_fields
        return type(form.__name__, (form,), {"clean": clean})
