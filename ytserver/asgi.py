"""The ASGI application that the web server runs."""

from __future__ import annotations

import os

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "ytserver.settings")
_django = get_wsgi_application()

from ytserver.entrance import Entrance  # noqa: E402 - needs Django to be set up

application = Entrance(_django)
