"""What is the matter with a MongoDB or a Redis that does not do what it was asked, in words for people."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from django_redis.exceptions import ConnectionInterrupted
from mongoengine.connection import ConnectionFailure as MongoEngineConnectionFailure
from pymongo.errors import ConnectionFailure, ExecutionTimeout, OperationFailure
from redis.exceptions import AuthenticationError, BusyLoadingError, OutOfMemoryError, ReadOnlyError, ResponseError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

_MONGODB_DOWN = (ConnectionFailure, ExecutionTimeout, MongoEngineConnectionFailure)
_REFUSED = re.compile(r"\b(OOM|MISCONF|READONLY) ")  # in a script's error of Redis 6, and of a Redis whose disk is full


@dataclass(frozen=True, kw_only=True)
class Outage:
    """``what``: "Redis is full". ``remedy``: sentences for who runs the server."""

    what: str
    remedy: str

    @property
    def for_operators(self) -> str:
        return f"{self.what}. {self.remedy}"


_IS_IT_RUNNING = "Is the server running (`manage.py up`)? Else check"
MONGODB_AWAY = Outage(what="MongoDB does not answer", remedy=f"{_IS_IT_RUNNING} MONGO_URI.")
_BY_MONGODB_CODE: Mapping[int | None, Outage] = {
    13: Outage(
        what="MongoDB does not let our user do that",
        remedy="MONGO_URI has to name a user who may read and write its database.",
    ),
    18: Outage(what="MongoDB refuses our user name or password", remedy="Check MONGO_URI."),
}
REDIS_AWAY = Outage(what="Redis does not answer", remedy=f"{_IS_IT_RUNNING} REDIS_URL.")
_WRONG_REDIS_PASSWORD = Outage(what="Redis refuses our password", remedy="Check REDIS_URL.")
_REDIS_LOADING = Outage(what="Redis still reads its data", remedy="It began a moment ago: wait until it is done.")
_BY_REFUSAL = {
    "OOM": Outage(
        what="Redis is full",
        remedy="It has used all the memory that it may: give it more (`maxmemory` in its configuration).",
    ),
    "MISCONF": Outage(
        what="Redis cannot write to its disk",
        remedy="Make room on that disk; the log of Redis says more.",
    ),
    "READONLY": Outage(
        what="Redis takes no changes",
        remedy="It is a replica: set REDIS_URL to the Redis that it copies.",
    ),
}


def trouble_of(service: str, error: BaseException) -> str:
    """The same to stand behind the service's name: "is full". What is not known is "refuses us"."""
    outage = outage_of(error)
    if outage is None:
        return f"refuses us ({type(error).__name__})"
    return outage.what.removeprefix(f"{service} ")


def outage_of(error: BaseException) -> Outage | None:
    """None: the error has another reason, or is a fault of ours."""
    if isinstance(error, ConnectionInterrupted):
        return (outage_of(error.__cause__) if error.__cause__ is not None else None) or REDIS_AWAY
    if isinstance(error, _MONGODB_DOWN):
        return MONGODB_AWAY
    if isinstance(error, OperationFailure):
        return _BY_MONGODB_CODE.get(error.code)
    if isinstance(error, OutOfMemoryError):
        return _BY_REFUSAL["OOM"]
    if isinstance(error, ReadOnlyError):
        return _BY_REFUSAL["READONLY"]
    if isinstance(error, AuthenticationError):
        return _WRONG_REDIS_PASSWORD
    if isinstance(error, BusyLoadingError):
        return _REDIS_LOADING
    if isinstance(error, RedisConnectionError | RedisTimeoutError):
        return REDIS_AWAY
    if isinstance(error, ResponseError) and (refused := _REFUSED.search(str(error))):
        return _BY_REFUSAL[refused[1]]
    return None
