"""``limits.charge`` for an event loop: the requests that come in at the same time are counted in one trip to Redis."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import redis.asyncio
from redis.exceptions import NoScriptError, RedisError

from apps.core.gather import Gatherer
from apps.core.redis import make_async_redis
from apps.keys.grants import KeyGrant
from apps.keys.limits import LimitState, charge_without_redis, read_answer, script_arguments
from apps.keys.redis_loss import health
from apps.keys.windows import SCRIPT, SCRIPT_SHA, Arguments

MAX_BATCH = 100

Answer = list[int] | None  # None: Redis did not say


class Charger:
    """Belongs to one event loop. Its callers bound how many wait."""

    def __init__(self) -> None:
        self._client: redis.asyncio.Redis | None = None
        self._gatherer: Gatherer[KeyGrant, Answer] = Gatherer(self._count, max_batch=MAX_BATCH)

    async def charge(self, grant: KeyGrant) -> LimitState:
        """Count one request, as ``limits.charge`` does. Raises what that raises."""
        answer = None if health.is_away() else await self._gatherer.submit(grant)
        return charge_without_redis(grant) if answer is None else read_answer(answer, grant)

    async def aclose(self) -> None:
        """Let go of everything that waits."""
        await self._gatherer.aclose()
        if self._client is not None:
            await self._client.aclose()
            self._client = None

    async def _count(self, grants: Sequence[KeyGrant]) -> list[Answer]:
        calls = [script_arguments(grant) for grant in grants]
        try:
            answers = await self._run_all("EVALSHA", SCRIPT_SHA, calls)
            unknown = [at for at, answer in enumerate(answers) if isinstance(answer, NoScriptError)]
            if unknown:  # a Redis that was started since
                again = await self._run_all("EVAL", SCRIPT, [calls[at] for at in unknown])
                for at, answer in zip(unknown, again, strict=True):
                    answers[at] = answer
        except (RedisError, OSError):
            answers = [None] * len(grants)
        good = [None if isinstance(answer, RedisError) else answer for answer in answers]
        if None in good:
            health.note_failure()
        return good

    async def _run_all(self, command: str, script: str, calls: Sequence[Arguments]) -> list[Any]:
        """The answer to each, or its error. Raises RedisError when nobody knows."""
        if self._client is None:
            self._client = make_async_redis()
        async with self._client.pipeline(transaction=False) as pipeline:
            for arguments in calls:
                pipeline.execute_command(command, script, *arguments)
            return list(await pipeline.execute(raise_on_error=False))
