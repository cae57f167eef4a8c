"""Who listens to Redis in this test process's own database."""

from __future__ import annotations

from apps.core.redis import redis_client


def subscriptions() -> list[str]:
    """The client ids of the connections that are subscribed to something (pytest-xdist's workers share one Redis)."""
    client = redis_client()
    database = str(client.connection_pool.connection_kwargs["db"])
    return [entry["id"] for entry in client.client_list(_type="pubsub") if entry["db"] == database]
