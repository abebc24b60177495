"""The beat as a program: python -m vpnproject.beat_alone. It sends tasks by their names and loads none of them."""

from __future__ import annotations

from celery.apps.beat import Beat

from .beat import SteadyScheduler
from .celery import app


class BeatAlone(Beat):
    def init_loader(self) -> None:
        """Celery's own would import all tasks first, and with them Django's apps: half of its memory."""
        self.app.finalize()


if __name__ == "__main__":
    BeatAlone(app=app, scheduler_cls=SteadyScheduler, loglevel="WARNING", quiet=True).run()
