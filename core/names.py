"""Names as people write and read them: of people, organizations, groups, servers and hosts.

One name can be written by several sequences of characters (``ü`` as one, or as ``u`` with two dots), and people do not
tell names apart by capitals or by how many blanks are in them. So a name is stored in one form (Unicode NFC, single
blanks), and compared by a *key*, in which case is folded as well.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from django.core.exceptions import ValidationError
from django.db import models

if TYPE_CHECKING:
    _CharField = models.CharField[str, str]
else:
    _CharField = models.CharField

LENGTH = 64
# Longer than any key of a name can get: folding makes three letters of one at most.
KEY_LENGTH = 3 * LENGTH
# Letters, marks that belong to letters, digits.
_WORD = "LMN"
_OTHERS = " ._-+@'\u2019\u00b7\u30fb"
_FIRST = "LN"


def composed(text: str) -> str:
    """The form in which a name is stored."""
    return " ".join(unicodedata.normalize("NFC", text).split())


def key_of(text: str) -> str:
    """Equal for names that people read as the same."""
    return unicodedata.normalize("NFC", composed(text).casefold())


def name_validator(text: str) -> None:
    known = all(unicodedata.category(letter)[0] in _WORD or letter in _OTHERS for letter in text)
    if not known or unicodedata.category(text[:1] or " ")[0] not in _FIRST:
        raise ValidationError("Use letters, digits, spaces and . _ - + @ '; begin with a letter or a digit.")


class NameField(_CharField):
    """A name, brought into its one form whenever it is checked, stored or looked for."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("max_length", LENGTH)
        kwargs.setdefault("validators", [name_validator])
        super().__init__(*args, **kwargs)

    def to_python(self, value: Any) -> Any:
        value = super().to_python(value)
        return composed(value) if isinstance(value, str) else value

    def get_prep_value(self, value: Any) -> Any:
        value = super().get_prep_value(value)
        return composed(value) if isinstance(value, str) else value


class NameKeyField(_CharField):
    """The key of the row's ``name``, always as that is: for constraints, and for finding by a name."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs |= {"max_length": KEY_LENGTH, "editable": False, "default": ""}
        super().__init__(*args, **kwargs)

    def pre_save(self, model_instance: models.Model, add: bool) -> str:
        key = key_of(getattr(model_instance, "name"))  # noqa: B009 (no model in particular)
        setattr(model_instance, self.attname, key)
        return key


def with_key(changes: Mapping[str, Any]) -> dict[str, Any]:
    """For ``update()``, which knows no fields' ``pre_save``: a changed name with its key."""
    return {**changes, "name_key": key_of(changes["name"])} if isinstance(changes.get("name"), str) else {**changes}


def ordered_by_key(model: type[models.Model], field: str) -> str:
    """``field`` of an ordering of ``model``; by the key where it is a name, or stands for a row that has one: people
    look for "alice" before "Bob"."""
    sign, name = ("-", field[1:]) if field.startswith("-") else ("", field)
    *way, last = name.split("__")
    for step in way:
        related = model._meta.get_field(step).related_model
        if not isinstance(related, type):
            return field
        model = related
    if last == "name" and issubclass(model, Named):
        return f"{sign}{'__'.join([*way, 'name_key'])}"
    if last == "pk":
        return field
    related = next((each.related_model for each in model._meta.fields if each.name == last), None)
    if isinstance(related, type) and issubclass(related, Named):
        return f"{field}__name_key"
    return field


class Named(models.Model):
    """A row with a ``name`` that no other one has as people read it, among those with the same ``named_within``."""

    named_within: ClassVar[tuple[str, ...]] = ()

    name_key = NameKeyField()

    class Meta:
        abstract = True

    def save(self, *args: Any, **kwargs: Any) -> None:
        fields = kwargs.get("update_fields")
        if fields is not None and "name" in fields:
            kwargs["update_fields"] = [*fields, "name_key"]
        super().save(*args, **kwargs)

    def clean(self) -> None:
        """All that is wrong at once: the name, and whatever else there is."""
        wrong: dict[str, list[ValidationError]] = {}
        if other := self._of_same_name():
            wrong["name"] = [ValidationError(f"There is a {self._meta.verbose_name} {other} already.")]
        try:
            super().clean()
        except ValidationError as error:
            error.update_error_dict(wrong)
        if wrong:
            raise ValidationError(wrong)

    def _of_same_name(self) -> models.Model | None:
        name = getattr(self, "name", "")
        try:
            name_validator(composed(name))
        except ValidationError:
            return None  # what is no name is refused for that, and a database may not even take it
        within = {field: getattr(self, f"{field}_id", None) for field in self.named_within}
        return type(self)._default_manager.filter(name_key=key_of(name), **within).exclude(pk=self.pk).first()


def name_given(text: str, otherwise: str, longest: int = 60) -> str:
    """What somebody calls a thing of theirs: one line of at most ``longest`` characters."""
    return "".join(each for each in text if each.isprintable()).strip()[:longest] or otherwise
