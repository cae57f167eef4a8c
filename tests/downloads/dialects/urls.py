"""Every address, with all dialects on."""

from apps.downloads.dialects.urls import PATTERNS, dialect_patterns
from ytserver import urls

urlpatterns = [*dialect_patterns(PATTERNS), *urls.urlpatterns]
handler404 = urls.handler404
