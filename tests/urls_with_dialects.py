"""The program's own addresses, and every dialect's."""

from __future__ import annotations

from apps.downloads.dialects.urls import PATTERNS, dialect_patterns
from ytserver.urls import handler400, handler403, handler404, handler500
from ytserver.urls import urlpatterns as own

__all__ = ["handler400", "handler403", "handler404", "handler500"]

urlpatterns = [*own, *dialect_patterns(PATTERNS)]
