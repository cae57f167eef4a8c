"""The MongoDB connection of this process."""

from __future__ import annotations

import mongoengine
from django.conf import settings

from apps.core.redis import redis_client

DEFAULT_DATABASE = "ytserver"
NOWHERE = "mongodb://127.0.0.1:1/ytserver"  # not configured: every use fails at once with a clear error


def connect() -> None:
    """Tell MongoEngine where MongoDB is. Does not wait for it: the first use connects, with time limits."""
    mongoengine.connect(
        db=DEFAULT_DATABASE,  # what the address names goes first
        host=settings.SERVICES.mongo_uri or NOWHERE,
        connect=False,
        tz_aware=True,
        uuidRepresentation="standard",
        appname="ytserver",
        serverSelectionTimeoutMS=3000,
        connectTimeoutMS=3000,
        socketTimeoutMS=30000,
        waitQueueTimeoutMS=5000,
        retryWrites=True,
    )


def reconnect() -> None:
    """Forget the connection and take the addresses as they are now. Only for ``up``, which decides them itself."""
    mongoengine.disconnect()
    redis_client.cache_clear()
    connect()
