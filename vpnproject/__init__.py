"""The Django project. The Celery app is made with it, so that ``send_task`` anywhere finds the right broker."""

from .celery import app as celery_app

__all__ = ["celery_app"]
