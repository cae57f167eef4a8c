"""A job's progress over a websocket, until the job ends."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any
from urllib.parse import parse_qsl

import structlog
from pymongo.errors import PyMongoError

from apps.core.errors import ApiError, NotFound
from apps.core.trace import note
from apps.core.wake import wake_hub
from apps.core.websockets import BoundedConsumer
from apps.downloads.documents import MediaJob
from apps.downloads.selectors import find_job
from apps.downloads.services.answers import job_answer
from apps.downloads.services.turning_away import as_seen_by
from apps.keys.authentication import authenticate, extract_key
from apps.keys.documents import Scope
from apps.keys.limits import charge_failure

RECHECK_S = 1.0
QUIET_S = 15.0  # a message at least so often: proxies cut silent connections
LONGEST_S = 6 * 3600.0
MAX_OPEN = 2000  # in this process
THREADS = 4
NORMAL, AWAY, REFUSED, NOT_FOUND = 1000, 1001, 4401, 4404
MAX_QUERY_BYTES = 4096

log = structlog.get_logger(__name__)


class JobConsumer(BoundedConsumer):
    """``/ws/jobs/<id>``: sends the job as ``GET /api/v1/jobs/<id>`` gives it at each change, and closes when it ended.

    The id alone opens it (it cannot be guessed); a key that is sent along must be good, and must have asked for the
    job. Close codes: 1000 the job has ended, 1001 ask again, 4401 bad key or too many wrong ids or keys, 4404 no such
    job, 4429 too many open.
    """

    async def connect(self) -> None:
        await self.begin(self._run, most=MAX_OPEN)

    async def _run(self) -> None:
        try:
            code = await self._follow()
        except NotFound:
            code = NOT_FOUND
        except ApiError:
            code = REFUSED
        except PyMongoError as error:
            log.warning("job websocket ends: database away", reason=type(error).__name__)
            code = AWAY
        await self.close(code)

    async def _follow(self) -> int:
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in self.scope["headers"]}
        query = dict(parse_qsl(self.scope["query_string"][:MAX_QUERY_BYTES].decode("latin-1")))
        client = str((self.scope.get("client") or ("",))[0])
        job_id = self.scope["url_route"]["kwargs"]["job_id"]
        job, key_prefix = await _in_thread(lambda: _admitted(job_id, headers, query, client))
        job = as_seen_by(job, key_prefix)
        note(self.scope, key_prefix=key_prefix)
        deadline = time.monotonic() + LONGEST_S
        sent, sent_at = "", 0.0
        while True:
            text = json.dumps({"status": True, **job_answer(job)})
            if text != sent or time.monotonic() - sent_at > QUIET_S:
                await self.send(text_data=text)
                sent, sent_at = text, time.monotonic()
            if not job.active:
                return NORMAL
            if time.monotonic() > deadline:
                return AWAY
            looked_at = time.monotonic()
            await wake_hub().wait(f"asset:{job.asset_id}", timeout_s=RECHECK_S, since=looked_at)
            job = as_seen_by(await _in_thread(lambda: _found(job_id)), key_prefix)


def _admitted(
    job_id: str, headers: Mapping[str, str], query: Mapping[str, str], client_address: str
) -> tuple[MediaJob, str]:
    """The job, and the prefix of the key ("" without one). Raises NotFound, or what a wrong key raises.

    Wrong keys, and without a key wrong ids, count against the address: RateLimited after too many.
    """
    raw = extract_key(headers, query)
    try:
        grant = authenticate(raw, client_address) if raw else None
    except ApiError:
        charge_failure(client_address)
        raise
    try:
        job = _found(job_id)
    except NotFound:
        if grant is None:
            charge_failure(client_address)
        raise
    if grant is not None and grant.prefix not in job.seen_by and Scope.ADMIN not in grant.scopes:
        raise NotFound
    return job, grant.prefix if grant else ""


def _found(job_id: str) -> MediaJob:
    job = find_job(job_id)
    if job is None:
        raise NotFound
    return job


@cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(THREADS, thread_name_prefix="job-websockets")


async def _in_thread(work: Any) -> Any:
    return await asyncio.get_running_loop().run_in_executor(_threads(), work)
