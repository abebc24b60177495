"""How the fields of a form that knows nothing of the admin look there."""

from __future__ import annotations

from typing import Any, TypeVar

from django import forms
from unfold import widgets

from core.text_or_file import TextOrFile

F = TypeVar("F", bound=forms.Form)

# By the widget that the form asks for, else by the kind of field.
_BY_WIDGET: dict[type[forms.Widget], type[Any]] = {
    forms.PasswordInput: widgets.UnfoldAdminPasswordWidget,
    TextOrFile: type("AdminTextOrFile", (TextOrFile, widgets.UnfoldAdminTextareaWidget), {}),
    forms.Textarea: widgets.UnfoldAdminTextareaWidget,
    forms.CheckboxSelectMultiple: widgets.UnfoldAdminCheckboxSelectMultiple,
}
_BY_FIELD: dict[type[forms.Field], type[Any]] = {
    forms.BooleanField: widgets.UnfoldBooleanSwitchWidget,
    forms.MultipleChoiceField: widgets.UnfoldAdminSelectMultipleWidget,
    forms.ChoiceField: widgets.UnfoldAdminSelectWidget,
    forms.IntegerField: widgets.UnfoldAdminIntegerFieldWidget,
    forms.CharField: widgets.UnfoldAdminTextInputWidget,
}


def dress(field: forms.Field) -> None:
    look = next((_BY_WIDGET[kind] for kind in type(field.widget).__mro__ if kind in _BY_WIDGET), None)
    look = look or next((_BY_FIELD[kind] for kind in type(field).__mro__ if kind in _BY_FIELD), None)
    if look is None:
        return
    field.widget = look(attrs=field.widget.attrs)
    field.widget.is_required = field.required
    if isinstance(field, forms.ChoiceField):
        field.widget.choices = field.choices


def dressed(form: F) -> F:
    for field in form.fields.values():
        dress(field)
    return form
