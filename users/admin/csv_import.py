"""Users as CSV, in and out: organization, name, email, groups, enabled. Nothing secret goes either way."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from import_export.fields import Field
from import_export.formats import base_formats
from import_export.resources import ModelResource
from import_export.widgets import BooleanWidget, ManyToManyWidget, Widget

from core.admin.csv_cells import DefusedCsv, restore
from users.models import Group, Organization, VpnUser

FORMATS = [DefusedCsv]
_TRUE, _FALSE = ["1", "true", "yes", "on"], ["0", "false", "no", "off"]


class OrganizationByName(Widget):  # type: ignore[misc]
    """The organization of this name; none is made here. Found once per import: a resource, with its widgets, is made
    anew for each request."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.found: dict[str, Organization] = {}

    def clean(self, value: Any, row: Any = None, **kwargs: Any) -> Organization:
        name = str(value or "").strip()
        if name not in self.found:
            organization = Organization.objects.filter(name=name).first()
            if organization is None:
                raise ValueError(f"There is no organization {value!r}. Create it first.")
            self.found[name] = organization
        return self.found[name]

    def render(self, value: Organization | None, obj: Any = None, **kwargs: Any) -> str:
        return value.name if value else ""


class GroupsByName(ManyToManyWidget):  # type: ignore[misc]
    """Groups by name, separated by commas. An unknown one is an error: leaving it out would quietly change who may
    connect where."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(Group, **kwargs)
        self.found: dict[str, Group] = {}

    def clean(self, value: Any, row: Any = None, **kwargs: Any) -> list[Group]:
        names = {name.strip() for name in str(value or "").split(",") if name.strip()}
        if new := names - self.found.keys():
            self.found |= {group.name: group for group in Group.objects.filter(name__in=new)}
        if unknown := sorted(names - self.found.keys()):
            raise ValueError(f"There is no group {', '.join(unknown)}. Create it first.")
        return [self.found[name] for name in sorted(names)]

    def render(self, value: Any, obj: Any = None, **kwargs: Any) -> str:
        return ",".join(sorted(group.name for group in value.all())) if value is not None else ""


class Enabled(BooleanWidget):  # type: ignore[misc]
    """Yes or no in the usual spellings. Anything else is an error, so that a typing mistake lets nobody in."""

    def clean(self, value: Any, row: Any = None, **kwargs: Any) -> bool:
        text = str("" if value is None else value).strip().lower()
        if text in _TRUE:
            return True
        if text in _FALSE:
            return False
        raise ValueError(f"enabled is {value!r}; write one of {', '.join(_TRUE + _FALSE)}.")

    def render(self, value: Any, obj: Any = None, **kwargs: Any) -> str:
        return "yes" if value else "no"


class UserResource(ModelResource):  # type: ignore[misc]
    """A row is known by organization and name: new ones are created, others changed, none is deleted."""

    organization = Field("organization", "organization", widget=OrganizationByName())
    groups = Field("groups", "groups", widget=GroupsByName(), m2m_add=False)
    enabled = Field("enabled", "enabled", widget=Enabled())

    class Meta:
        model = VpnUser
        fields = ("organization", "name", "email", "groups", "enabled")
        export_order = fields
        import_id_fields = ("organization", "name")
        clean_model_instances = True
        skip_unchanged = True
        report_skipped = False
        use_transactions = True

    def get_queryset(self) -> Any:
        return VpnUser.objects.select_related("organization").prefetch_related("groups")

    def before_import(self, dataset: Any, **kwargs: Any) -> None:
        """Refuse a file whose columns are others than ours, rather than leave out what was meant."""
        given = [str(header or "").strip() for header in dataset.headers or []]
        missing = [name for name in ("organization", "name") if name not in given]
        unknown = [name for name in given if name not in self.Meta.fields]
        if missing or unknown:
            wrong = [f"{name} is missing" for name in missing] + [f"{name!r} is not known" for name in unknown]
            raise ValueError(f"Columns: {', '.join(wrong)}. There are: {', '.join(self.Meta.fields)}.")

    def before_import_row(self, row: dict[str, Any], **kwargs: Any) -> None:
        for name, value in row.items():
            row[name] = restore(value) if isinstance(value, str) else value

    def do_instance_save(self, instance: VpnUser, is_create: bool) -> None:
        if is_create:
            instance.save(force_insert=True)
        else:
            # Only what a file can say: the key may be made at this very moment.
            instance.save(update_fields=["email", "enabled"])


def csv_only() -> Sequence[type[base_formats.CSV]]:
    return FORMATS
