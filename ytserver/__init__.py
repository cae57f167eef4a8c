"""The Django project: wiring only. What the product does lives in ``apps``."""

from ytserver.celery import app as celery_app

__all__ = ["celery_app"]  # every process that sends tasks finds the configured application
