"""Which batches are advanced, and by which message: the oldest of each key, so that many cost no more than a few."""

from __future__ import annotations

import secrets
from contextlib import AbstractContextManager

import structlog

from apps.core.places import place
from apps.core.queues import NotSent, send_task
from apps.core.redis import redis_client
from apps.downloads.documents import Batch
from apps.downloads.selectors import batches_in_turn, oldest_open_batches

log = structlog.get_logger(__name__)

ADVANCE_TASK = "apps.downloads.tasks.advance_batch"
AT_ONCE = 3  # open batches of one key that are advanced; the others wait behind them
RESEND_S = 15  # a batch that nobody has advanced for so long has lost its task
REVIVED_AT_ONCE = 500


def is_in_turn(batch: Batch) -> bool:
    """Whether it is among those of its key that are advanced now."""
    return batch.id in oldest_open_batches(key_prefix=batch.key_prefix, limit=AT_ONCE)


def lane() -> AbstractContextManager[bool]:
    """Whether this thread may advance a batch now, so that the server's own care never stands behind batches."""
    return place("batches")


def send_advance(batch_id: str, *, delay_s: float = 0) -> None:
    """Have the batch advanced. When the broker cannot take the task, ``revive_batches`` sends another."""
    token = secrets.token_hex(8)
    redis_client().set(_sent_name(batch_id), token, ex=RESEND_S)
    try:
        send_task(ADVANCE_TASK, batch_id, token, delay_s=delay_s)
    except NotSent as error:
        log.warning("task not sent", batch_id=batch_id, reason=str(error))


def send_next(key_prefix: str) -> None:
    """Have those of this key advanced whose turn it is by now."""
    _send_unsent(oldest_open_batches(key_prefix=key_prefix, limit=AT_ONCE))


def revive(batch: Batch) -> None:
    """Send the task again of a batch whose turn it is, but that nobody seems to advance."""
    if batch.open and not redis_client().exists(_sent_name(batch.id)) and is_in_turn(batch):
        send_advance(batch.id)


def revive_batches() -> int:
    """The same for every batch: its worker was killed, or the broker was away. Returns how many tasks were sent, at
    most REVIVED_AT_ONCE. Idempotent, and cheap for batches that are being advanced."""
    return _send_unsent(batches_in_turn(of_each_key=AT_ONCE))


def is_latest(batch_id: str, token: str) -> bool:
    """Whether no later message of this batch is on its way than the one with this token ("": the caller is none)."""
    return not token or redis_client().get(_sent_name(batch_id)) in (None, token.encode())


def _send_unsent(batch_ids: list[str]) -> int:
    """Have those advanced that nobody seems to advance. Returns how many."""
    sent = redis_client().mget([_sent_name(batch_id) for batch_id in batch_ids]) if batch_ids else []
    lost = [batch_id for batch_id, mark in zip(batch_ids, sent, strict=True) if mark is None]
    for batch_id in lost[:REVIVED_AT_ONCE]:
        send_advance(batch_id)
    return len(lost[:REVIVED_AT_ONCE])


def _sent_name(batch_id: str) -> str:
    return f"yt:batch:sent:{batch_id}"
