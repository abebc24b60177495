"""What is odd is asked back: beside it stands a box, and who means it ticks that. What was ticked once is kept."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, TypeVar

from django import forms
from django.db.models import Model
from django.http import HttpRequest, HttpResponse
from django.utils.html import format_html
from django.utils.safestring import SafeString

from core.admin.page import Page
from servers.models import Server
from servers.rules.registry import Confirmable, OddError, Oddity, findings

M = TypeVar("M", bound=Model)

if TYPE_CHECKING:

    class _Form(forms.ModelForm[Any]): ...

    class _ServerForm(forms.ModelForm[Server]): ...

else:
    _Form = object
    _ServerForm = forms.ModelForm

BOX = (
    '{} <label class="flex gap-2 items-center mt-1 text-important whitespace-nowrap">'
    '<input type="checkbox" name="{}" value="{}"{}> I mean it</label>'
)


class AsksBack(_Form):
    """A form of a row that may be odd. The keys of what is meant come as ``<prefix>-meant``, once for each box."""

    instance: Confirmable

    def _post_clean(self) -> None:
        ticked: Any = getattr(self.data, "getlist", lambda name: [])
        before, self.instance.meant = self.instance.confirmed, set(ticked(self.add_prefix("meant")))
        super()._post_clean()  # type: ignore[misc]
        if self.instance.confirmed != before and "confirmed" not in self.changed_data:
            self.changed_data.append("confirmed")  # so that it is saved, if nothing else is
        for errors in self.errors.values():
            errors.data = [self._asked(each.oddity) if isinstance(each, OddError) else each for each in errors.data]

    def _asked(self, oddity: Oddity, *, ticked: bool = False) -> SafeString:
        state = SafeString(" checked" if ticked else "")
        return format_html(BOX, oddity.message, self.add_prefix("meant"), oddity.key, state)

    def keep_ticked(self) -> None:
        """The page comes back for another reason: what was ticked is shown as it was, or it would be asked again."""
        for each in findings(self.instance) if self.instance.meant else ():
            if isinstance(each, Oddity) and each.key in self.instance.meant and each.field in self.fields:
                said = self.errors.setdefault(each.field, self.error_class())
                said.data.append(self._asked(each, ticked=True))


class ServerForm(AsksBack, _ServerForm):
    pass


class PageThatAsksBack(Page[M]):
    """A page with forms that ask back, its own or those of its rows."""

    def render_change_form(
        self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any
    ) -> HttpResponse:
        if context.get("errors"):
            for form in _forms(context):
                if isinstance(form, AsksBack):
                    form.keep_ticked()
        return super().render_change_form(request, context, *args, **kwargs)


def _forms(context: dict[str, Any]) -> Iterator[Any]:
    yield context["adminform"].form
    for inline in context["inline_admin_formsets"]:
        yield from inline.formset.forms
