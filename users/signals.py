"""Who loses a right is disconnected, by whichever door it is taken: a page, an import, a queryset, a cascade or code.
(What saving brings with it is in each model's ``save``.)"""

from __future__ import annotations

from typing import Any

from django.db.models.signals import m2m_changed, pre_delete, pre_save
from django.dispatch import receiver

from core.changes import after_commit
from core.task_names import ENFORCE

from .factors import providers
from .factors.registry import FACTORS, load
from .models import FactorOverride, Provider, VpnUser


@receiver(m2m_changed, sender=VpnUser.groups.through)
def check_people_again(action: str, **kwargs: Any) -> None:
    if action.startswith("post_"):
        after_commit(ENFORCE)


@receiver(pre_delete, sender=FactorOverride)
@receiver(pre_delete, sender=VpnUser)
def end_what_a_deleted_user_has(**kwargs: Any) -> None:
    """Also where the organization goes: its users go with it. An exception goes with a factor that is asked again."""
    after_commit(ENFORCE)


@receiver(pre_save, sender=Provider)
def check_a_provider(instance: Provider, **kwargs: Any) -> None:
    """By whichever door it comes: what its factor cannot use is not stored. Raise ``ValidationError``."""
    providers.check(instance, load(instance.kind).provider_form if instance.kind in FACTORS else None)
