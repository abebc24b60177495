"""unfold's classes with the types that django-stubs gives Django's own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, TypeVar

from django.db import models
from unfold.views import ChangeList as UnfoldChangeList

M = TypeVar("M", bound=models.Model)

if TYPE_CHECKING:
    from django.contrib.admin import ModelAdmin, TabularInline
    from django.contrib.admin.views.main import ChangeList as ChangeList

    class AdminBase(ModelAdmin[M]): ...

    class InlineBase(TabularInline[Any, Any]): ...

else:
    from unfold.admin import ModelAdmin, TabularInline

    ChangeList = UnfoldChangeList

    class AdminBase(ModelAdmin, Generic[M]):
        """unfold's, with the type parameter that django-stubs gives Django's own."""

    class InlineBase(TabularInline):
        """Likewise."""
