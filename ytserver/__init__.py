"""The Django project: wiring only. What the product does lives in ``apps``."""

import gc

gc.set_threshold(20_000, 20, 20)  # imports and requests make objects by the thousand, few of them in cycles

from ytserver.celery import app as celery_app  # noqa: E402 - the imports are what it is for

__all__ = ["celery_app"]  # every process that sends tasks finds the configured application
