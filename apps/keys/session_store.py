"""Django's sessions in the cache, for which a Redis that does not answer is an error and no end of the session."""

from __future__ import annotations

from typing import Any

from django.contrib.sessions.backends import cache as in_cache
from django.core.cache import cache


class SessionStore(in_cache.SessionStore):
    """SESSION_ENGINE. Django's own takes a failed read for a session that is not there: it logs everybody out who looks
    meanwhile, and has their browsers forget the cookie."""

    def load(self) -> dict[str, Any]:
        """Raises redis.RedisError."""
        data: dict[str, Any] | None = cache.get(self.cache_key)
        if data is None:
            self._session_key = None
        return data or {}
