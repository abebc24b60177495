"""Which look-ups a list may be filtered by, in its address."""

from __future__ import annotations

from typing import Any, ClassVar

from django.contrib.admin import FieldListFilter
from django.contrib.admin.utils import get_fields_from_path
from django.http import HttpRequest


class FilteredByAllowList:
    """A page whose list is filtered by its own filters, by ``further_lookups``, and by nothing else.

    Django's own rule lets through every look-up on the model's own columns: by ``?secret__regex=`` whoever may only
    look at the list reads a hash or an encrypted secret, one character after the other.
    """

    further_lookups: ClassVar[frozenset[str]] = frozenset()

    def lookup_allowed(self, lookup: str, value: Any, request: HttpRequest | None = None) -> bool:
        return lookup in self.further_lookups or (request is not None and lookup in self._of_filters(request))

    def _of_filters(self, request: HttpRequest) -> set[str | None]:
        page: Any = self
        found: set[str | None] = set()
        for each in page.get_list_filter(request):
            if callable(each):
                made = each(request, {}, page.model, page)
            else:
                path, filter_class = each if isinstance(each, tuple | list) else (each, FieldListFilter.create)
                field = get_fields_from_path(page.model, path)[-1]
                made = filter_class(field, request, {}, page.model, page, field_path=path)
            found.update(made.expected_parameters())
        return found
