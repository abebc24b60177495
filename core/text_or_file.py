"""A text that is pasted into a form, or given as a file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django import forms
from django.utils.html import format_html
from django.utils.safestring import SafeString

BOX = (
    "display: inline-block; max-width: 100%; margin-top: .5rem; padding: .4rem .75rem; "
    "border: 1px solid #9ca3af; border-radius: 6px"
)


class TextOrFile(forms.Textarea):
    """The file goes before what stands in the text. Only so much of it is read as is needed to see that it is too long
    for the field (``maxlength``, characters)."""

    needs_multipart_form = True

    def render(self, name: str, value: Any, attrs: Any = None, renderer: Any = None) -> SafeString:
        text = super().render(name, value, attrs, renderer)
        return format_html(
            '{}<label style="{}">Or a file: <input type="file" name="{}" style="max-width: 100%"></label>',
            text,
            BOX,
            _file_of(name),
        )

    def value_from_datadict(self, data: Mapping[str, Any], files: Any, name: str) -> Any:
        file = files.get(_file_of(name)) if files else None
        if file is None:
            return super().value_from_datadict(data, files, name)
        return file.read(4 * int(self.attrs.get("maxlength") or 1 << 16) + 1).decode("utf-8-sig", "replace")

    def value_omitted_from_data(self, data: Any, files: Any, name: str) -> bool:
        return super().value_omitted_from_data(data, files, name) and _file_of(name) not in files


def _file_of(name: str) -> str:
    return f"{name}-file"
