"""Long work on people, step by step."""

from __future__ import annotations

from django.contrib.admin.models import CHANGE, LogEntry

from core import deletion, jobs
from core.models import Job

from . import services
from .models import Organization, VpnUser

SET_ENABLED = "users.set_enabled"


@jobs.kind(SET_ENABLED)
def set_enabled(job: Job, most: int) -> jobs.Step:
    """Enable or disable (``enabled``) the users of ``keys``."""
    keys, place, enabled = job.arguments["keys"], job.place or 0, bool(job.arguments["enabled"])
    some = keys[place : place + most]
    changed = services.set_enabled(VpnUser.objects.filter(pk__in=some).order_by("pk"), enabled)
    said = "Enabled." if enabled else "Disabled."
    LogEntry.objects.log_actions(job.arguments["administrator"], changed, CHANGE, said)
    end = place + len(some)
    return jobs.Step(None if end >= len(keys) else end, len(some))


# Nobody who is about to be deleted is let in meanwhile.
deletion.retires("users.vpnuser", lambda keys: VpnUser.objects.filter(pk__in=keys).update(enabled=False))
deletion.retires("users.organization", lambda keys: Organization.objects.filter(pk__in=keys).update(enabled=False))
