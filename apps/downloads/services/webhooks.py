"""Tells keys that their jobs ended: signed POSTs to addresses that the operator set, retried for some hours."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import random
import secrets
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import structlog
from pymongo import ReturnDocument

from apps.core.clock import utcnow
from apps.core.errors import Conflict, NotFound
from apps.core.outbound import OutboundRefused
from apps.core.places import place
from apps.core.secrets import SecretUnreadable, decrypt_secret
from apps.downloads.documents import WebhookDelivery, WebhookState
from apps.downloads.selectors import find_job
from apps.downloads.services.answers import job_answer
from apps.downloads.services.flights import Flight
from apps.downloads.services.turning_away import as_seen_by
from apps.keys.documents import ApiKey

if TYPE_CHECKING:
    import aiohttp

TOTAL_S = 5.0
RETRY_AFTER_S = (10, 60, 300, 1800, 7200)  # then it is given up
LEASE_S = 30  # a delivery whose process died is tried again after this
PAUSE_S = 10  # for a key's other deliveries, after one failed
MAX_KEYS = 200  # in one round
ROUND_S = 20.0
LOOK_S = 1.0  # this often a running round looks for other keys that are owed something
SIGNATURE_HEADER = "X-Webhook-Signature"

log = structlog.get_logger(__name__)


def deliver_due() -> None:
    """One round over what is due: keys side by side, each key's deliveries one after another, until one fails.

    Of any number of rounds at once one tells a key: a slow receiver holds up nobody but itself. Nor does the server's
    own care stand behind slow receivers: a round that finds no place ends at once, and those that run, or the next,
    tell its keys.
    """
    with place("webhooks") as is_free:
        if is_free and _keys_due():
            asyncio.run(_deliver())


def send_test(prefix: str) -> str:
    """Send a signed test to a key's webhook, now. Returns what went wrong, in words; empty when it was taken."""
    key = _key_with_webhook(prefix)
    if key is None:
        return "the key has no webhook"

    async def send() -> str:
        content = {"event": "test", "delivery": f"test:{secrets.token_hex(8)}", "job": None}
        async with _session() as session:
            return await _post(session, *_signed(key, content))

    return asyncio.run(_in_words(send()))


def send_again(prefix: str, job_id: str) -> None:
    """Tell a key again that a job ended, with all its tries. Raises NotFound for what was never to be told, and
    Conflict for what has not been given up."""
    due = {"state": WebhookState.PENDING.value, "attempts": 0, "next_at": utcnow()}
    delivery_id = f"{job_id}:{prefix}"
    given_up = {"_id": delivery_id, "state": WebhookState.GIVEN_UP.value}
    if _collection().update_one(given_up, {"$set": due}).matched_count:
        return
    if _collection().find_one({"_id": delivery_id}, {"_id": 1}) is None:
        raise NotFound("There is no such message.")
    raise Conflict("This message was taken, or is still being tried.")


async def _deliver() -> None:
    """Tell every key that is owed something, also those that come to be while others are still told."""
    deadline = time.monotonic() + ROUND_S
    telling: dict[str, asyncio.Task[None]] = {}
    looks = True
    async with _session() as session, asyncio.TaskGroup() as group:
        while looks:
            others = [prefix for prefix in await asyncio.to_thread(_keys_due) if prefix not in telling]
            for prefix in random.sample(others, min(MAX_KEYS - len(telling), len(others))):
                telling[prefix] = group.create_task(_deliver_key(session, prefix, deadline))
            if telling:
                await asyncio.wait(telling.values(), timeout=LOOK_S)
            telling = {prefix: task for prefix, task in telling.items() if not task.done()}
            looks = bool(telling) and time.monotonic() < deadline


def _keys_due() -> list[str]:
    """The keys that are owed something now: one look into the index for each key, however much it is owed."""
    first_due = _collection().aggregate(
        [
            {"$match": {"state": WebhookState.PENDING.value}},
            {"$sort": {"state": 1, "key_prefix": 1, "next_at": 1}},
            {"$group": {"_id": "$key_prefix", "next_at": {"$first": "$next_at"}}},
            {"$match": {"next_at": {"$lte": utcnow()}}},
        ]
    )
    return [row["_id"] for row in first_due]


def _session() -> aiohttp.ClientSession:
    import aiohttp  # not at the top, like its exceptions below: see apps.core.imports

    from apps.core.outbound_aiohttp import guarded_aiohttp_session

    timeout = aiohttp.ClientTimeout(total=TOTAL_S)
    return guarded_aiohttp_session(limit=MAX_KEYS, timeout=timeout, cookie_jar=aiohttp.DummyCookieJar())


@asynccontextmanager
async def _turn_of(prefix: str) -> AsyncIterator[bool]:
    """Whether this round is the one that tells this key now."""
    lead = Flight(kind="webhooks", name=prefix, task="", arguments=()).lead()
    leads = await asyncio.to_thread(lead.__enter__)
    try:
        yield leads
    finally:
        await asyncio.to_thread(lead.__exit__, None, None, None)


async def _deliver_key(session: aiohttp.ClientSession, prefix: str, deadline: float) -> None:
    async with _turn_of(prefix) as is_ours:
        while is_ours and time.monotonic() < deadline:
            is_ours = await _deliver_next(session, prefix)


async def _deliver_next(session: aiohttp.ClientSession, prefix: str) -> bool:
    """Tell a key the next that is due. False when nothing is, and after a failure."""
    delivery = await asyncio.to_thread(_claim, prefix)
    if delivery is None:
        return False
    failure = await _tell(session, delivery)
    await asyncio.to_thread(_note, delivery, failure)
    if failure:
        log.info("webhook failed", key_prefix=prefix, attempt=delivery.attempts, reason=failure)
    return not failure


def _claim(prefix: str) -> WebhookDelivery | None:
    """The key's delivery that has been due longest; nobody else gets it while the lease lasts."""
    now = utcnow()
    due = {"state": WebhookState.PENDING.value, "key_prefix": prefix, "next_at": {"$lte": now}}
    change = {"$set": {"next_at": now + timedelta(seconds=LEASE_S)}, "$inc": {"attempts": 1}}
    line = [("next_at", 1)]
    document = _collection().find_one_and_update(due, change, sort=line, return_document=ReturnDocument.AFTER)
    return WebhookDelivery._from_son(document) if document else None


async def _tell(session: aiohttp.ClientSession, delivery: WebhookDelivery) -> str:
    """Send it. Returns what went wrong, in words for the operator; empty when it was taken (2xx)."""

    async def send() -> str:
        return await _post(session, *await asyncio.to_thread(_message, delivery))

    return await _in_words(send())


async def _post(session: aiohttp.ClientSession, url: str, body: bytes, headers: dict[str, str]) -> str:
    async with session.post(url, data=body, headers=headers, allow_redirects=False) as response:
        return "" if 200 <= response.status < 300 else f"answered with HTTP {response.status}"


async def _in_words(sending: Coroutine[Any, Any, str]) -> str:
    """What came of it; every way in which it can fail, in words."""
    import aiohttp

    try:
        return await sending
    except TimeoutError:
        return f"no answer within {TOTAL_S:.0f} s"
    except (aiohttp.ClientError, OSError) as error:
        words = {
            aiohttp.ClientConnectorCertificateError: "its TLS certificate is not trusted",
            aiohttp.ClientSSLError: "it does not speak TLS",
            aiohttp.ClientConnectorDNSError: "its name is not known",
            aiohttp.ClientConnectorError: "nothing answers at this address",
            aiohttp.ServerDisconnectedError: "it hung up without an answer",
            aiohttp.ClientResponseError: "what it answered is no HTTP",
        }
        return next((text for kind, text in words.items() if isinstance(error, kind)), type(error).__name__)
    except OutboundRefused:
        return "its name leads to an address that this server does not connect to"
    except (_NothingToTellError, SecretUnreadable) as error:
        return str(error)


class _NothingToTellError(Exception):
    """The key has no webhook any more, or the job is forgotten."""


def _message(delivery: WebhookDelivery) -> tuple[str, bytes, dict[str, str]]:
    key, job = _key_with_webhook(delivery.key_prefix), find_job(delivery.job_id)
    if key is None or job is None:
        raise _NothingToTellError("the key has no webhook any more, or the job is forgotten")
    job = as_seen_by(job, delivery.key_prefix)
    return _signed(key, {"event": f"job.{job.state}", "delivery": delivery.id, "job": job_answer(job)})


def _key_with_webhook(prefix: str) -> ApiKey | None:
    key = ApiKey.objects(prefix=prefix, active=True).first()
    return key if key is not None and key.webhook_url else None


def _signed(key: ApiKey, content: dict[str, Any]) -> tuple[str, bytes, dict[str, str]]:
    """Where to, what, and the headers that prove whom it comes from. Raises SecretUnreadable."""
    body = json.dumps(content).encode()
    secret = decrypt_secret(key.webhook_secret_encrypted)
    headers = {
        "Content-Type": "application/json",
        "User-Agent": "ytserver-webhook",
        SIGNATURE_HEADER: sign_body(body, secret=secret, at=int(time.time())),
    }
    return key.webhook_url, body, headers


def sign_body(body: bytes, *, secret: str, at: int) -> str:
    """``t=<seconds>,v1=<hex>``: HMAC-SHA256 with the secret over ``<seconds>.<body>``."""
    digest = hmac.new(secret.encode(), f"{at}.".encode() + body, hashlib.sha256).hexdigest()
    return f"t={at},v1={digest}"


def _note(delivery: WebhookDelivery, failure: str) -> None:
    if not failure:
        change: dict[str, Any] = {"state": WebhookState.DELIVERED.value, "last_error": ""}
    elif delivery.attempts > len(RETRY_AFTER_S):
        change = {"state": WebhookState.GIVEN_UP.value, "last_error": failure}
    else:
        wait_s = RETRY_AFTER_S[delivery.attempts - 1]
        change = {"next_at": utcnow() + timedelta(seconds=wait_s), "last_error": failure}
    _collection().update_one({"_id": delivery.id}, {"$set": change})
    if failure:
        others = {"key_prefix": delivery.key_prefix, "state": WebhookState.PENDING.value, "next_at": {"$lte": utcnow()}}
        _collection().update_many(others, {"$set": {"next_at": utcnow() + timedelta(seconds=PAUSE_S)}})


def _collection() -> Any:
    return WebhookDelivery._get_collection()
