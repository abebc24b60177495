"""Saving a form of the admin: in turn with others, with a word where the database refuses, and written into the
history with what was before and what is now."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from django import forms
from django.core.exceptions import FieldDoesNotExist
from django.db import IntegrityError, models, transaction
from django.http import HttpRequest, HttpResponse

from core.crypto import SecretField
from core.locking import take_turns

CONFLICT = (
    "Not saved: somebody else has just saved something that this does not go together with. Look at it as it is "
    "now, and save again."
)
# Parts of names of fields whose values are in no history, whatever kind of column they are.
NEVER_SHOWN = ("password", "secret", "token", "private", "hash")
LONGEST = 80

M = TypeVar("M", bound=models.Model)

if TYPE_CHECKING:
    from django.contrib.admin import ModelAdmin

    class _Admin(ModelAdmin[M]): ...

else:

    class _Admin(Generic[M]): ...


class SavesInTurn(_Admin[M]):
    """A page whose form is checked and saved one at a time: of two that each are fine but not beside the other
    (networks that overlap, a port wanted twice), whoever comes second is told so. What only a constraint of the
    database finds (another door, at the same moment) is an error of the form, too."""

    def changeform_view(
        self,
        request: HttpRequest,
        object_id: str | None = None,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> HttpResponse:
        if request.method != "POST":
            return super().changeform_view(request, object_id, form_url, extra_context)
        try:
            with transaction.atomic():
                take_turns()
                return super().changeform_view(request, object_id, form_url, extra_context)
        except IntegrityError:
            # Checked once more, beside what is there now, and not saved whatever the checks say.
            request.conflict = True  # type: ignore[attr-defined]
            with transaction.atomic():
                return super().changeform_view(request, object_id, form_url, extra_context)

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any) -> Any:
        form = super().get_form(request, obj, change=change, **kwargs)
        if not getattr(request, "conflict", False):
            return form

        def clean(self: Any) -> Any:
            cleaned = form.clean(self)
            self.add_error(None, CONFLICT)
            return cleaned

        return type(form.__name__, (form,), {"clean": clean})

    def construct_change_message(self, request: HttpRequest, form: Any, formsets: Any, add: bool = False) -> list[Any]:
        """As Django's, with the old and the new value of each field."""
        found: list[Any] = []
        if add:
            found.append({"added": {}})
        elif form.changed_data:
            found.append({"changed": {"fields": changes(form)}})
        for formset in formsets or ():
            found += [{"added": _named(row)} for row in formset.new_objects]
            rows = {id(each.instance): each for each in formset.forms}
            for row, names in formset.changed_objects:
                found.append({"changed": {**_named(row), "fields": changes(rows[id(row)], names)}})
            found += [{"deleted": _named(row)} for row in formset.deleted_objects]
        return found


def _named(row: models.Model) -> dict[str, str]:
    return {"name": str(row._meta.verbose_name), "object": str(row)}


def changes(form: Any, names: Any = None) -> list[str]:
    """``Name (“Office” → “Lab”)`` for each field that was changed."""
    return [_change(form, name) for name in (form.changed_data if names is None else names)]


def _change(form: Any, name: str) -> str:
    field = form.fields.get(name)
    label = str(getattr(field, "label", None) or name.replace("_", " "))
    if field is None or not _may_be_shown(form, name, field):
        return label
    before, now = _words(field, form.get_initial_for_field(field, name)), _words(field, form.cleaned_data.get(name))
    return f"{label} ({before} → {now})"


def _may_be_shown(form: Any, name: str, field: forms.Field) -> bool:
    """Columns that hold no secret; of what is no column, nobody can say."""
    if any(part in name for part in NEVER_SHOWN) or isinstance(field.widget, forms.PasswordInput):
        return False
    try:
        return not isinstance(form._meta.model._meta.get_field(name), SecretField)
    except FieldDoesNotExist:
        return False


def _words(field: forms.Field, value: Any) -> str:
    if isinstance(field, forms.ModelMultipleChoiceField):
        names = [_name(field, each) for each in value or ()]
        return _quoted(", ".join(sorted(names)))
    if isinstance(field, forms.ModelChoiceField) and value not in (None, ""):
        return _quoted(_name(field, value))
    if isinstance(field, forms.BooleanField):
        return "on" if value else "off"
    if isinstance(field, forms.ChoiceField):
        choices: Any = field.choices
        known = {str(key): str(text) for key, text in choices if not isinstance(text, list | tuple)}
        return _quoted(known.get(str(value), "" if value is None else str(value)))
    if isinstance(value, datetime.datetime):
        return _quoted(f"{value:%Y-%m-%d %H:%M:%S}")
    return _quoted("" if value is None else str(value))


def _name(field: forms.ModelChoiceField[Any], value: Any) -> str:
    if isinstance(value, models.Model):
        return str(value)
    row = field.queryset.filter(pk=value).first() if field.queryset is not None else None
    return str(row or f"one that is gone ({value})")


def _quoted(text: str) -> str:
    if not text:
        return "empty"
    return f"“{text}”" if len(text) <= LONGEST else f"“{text[:LONGEST]}…”"
