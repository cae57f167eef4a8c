"""Streams and their bytes against the limits of keys: counted over all processes, free again at once, or soon after a
process was killed.

A stream takes a slot (a member of a sorted set in Redis, with an expiry that its process renews) and bytes ahead of
what it sends, from the window of the day; what it has not sent it gives back. So no race lets more through than the
limit, and bytes that were taken ahead are missing to others only while the stream runs.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
import secrets
from collections.abc import Awaitable, Sequence
from typing import Any

from redis.exceptions import NoScriptError, RedisError

from apps.core.errors import FileTooLarge, RateLimited, TooManyStreams
from apps.core.redis import make_async_redis, redis_client
from apps.keys.grants import KeyGrant
from apps.keys.limits import refusal
from apps.keys.redis_loss import health, local_counts, share_of
from apps.keys.windows import FUNCTIONS, Window, WindowKind, WindowState

SLOT_LIFE_S = 30.0  # of a stream whose process was killed
RENEW_EVERY_S = 8.0
FIRST_BYTES = 256 * 1024
MORE_BYTES = 4 * 1024 * 1024
RETRY_AFTER_S = 5  # nobody knows when a stream ends

# KEYS: the sorted set of streams, the hash of bytes. ARGV: this stream, life of a slot in ms, most streams (0: any
# number), most bytes (0: any number), buckets of the window, bucket in ms, bytes wanted.
# Returns {0 | 1: too many streams | 2: no bytes left, ms until some are, bytes given, their bucket}.
SCRIPT = (
    FUNCTIONS
    + """
local now, most, limit = clock('0'), tonumber(ARGV[3]), tonumber(ARGV[4])
if most > 0 then
  redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
  if redis.call('ZCARD', KEYS[1]) >= most and not redis.call('ZSCORE', KEYS[1], ARGV[1]) then return {1, 0, 0, 0} end
end
local given, bucket = 0, 0
if limit > 0 then
  local w = open_window(KEYS[2], limit, tonumber(ARGV[5]), tonumber(ARGV[6]), now)
  given, bucket = math.min(tonumber(ARGV[7]), limit - w.total), w.bucket
  if given < 1 then return {2, frees_in_ms(w, 1), 0, 0} end
  add(w, given)
end
if most > 0 then
  redis.call('ZADD', KEYS[1], now + tonumber(ARGV[2]), ARGV[1])
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
end
return {0, 0, given, bucket}
"""
)
# KEYS: the same. ARGV: this stream, the bucket, bytes to give back.
CLOSE_SCRIPT = """
redis.call('ZREM', KEYS[1], ARGV[1])
local back = math.min(tonumber(redis.call('HGET', KEYS[2], ARGV[2])) or 0, tonumber(ARGV[3]))
if back > 0 then
  redis.call('HINCRBY', KEYS[2], ARGV[2], -back)
  redis.call('HINCRBY', KEYS[2], 'total', -back)
end
return back
"""
_UNTIL = """
local time = redis.call('TIME')
local until_ms = time[1] * 1000 + math.floor(time[2] / 1000) + tonumber(ARGV[1])
"""
# KEYS: sorted sets. ARGV: life in ms, then a stream for each set. Returns the numbers of those that have no slot there:
# they have ended meanwhile (and must not get it back), or Redis lost them.
RENEW_SCRIPT = (
    _UNTIL
    + """
local missing = {}
for i, key in ipairs(KEYS) do
  if redis.call('ZSCORE', key, ARGV[i + 1]) then
    redis.call('ZADD', key, until_ms, ARGV[i + 1])
    redis.call('PEXPIRE', key, ARGV[1])
  else
    table.insert(missing, i)
  end
end
return missing
"""
)
# The same, for slots that Redis lost.
TAKE_AGAIN_SCRIPT = (
    _UNTIL
    + """
for i, key in ipairs(KEYS) do
  redis.call('ZADD', key, until_ms, ARGV[i + 1])
  redis.call('PEXPIRE', key, ARGV[1])
end
return #KEYS
"""
)
_SHA = {
    text: hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()
    for text in (SCRIPT, CLOSE_SCRIPT, RENEW_SCRIPT, TAKE_AGAIN_SCRIPT)
}
RENEW_BATCH = 500


def slots_name(prefix: str) -> str:
    """The sorted set of a key's running streams."""
    return f"yt:streams:{prefix}"


def count_streams(prefix: str) -> int | None:
    """The streams of a limited key that run now, in all processes. None when Redis cannot say."""
    client = redis_client()
    try:
        now_ms = float(client.time()[0]) * 1000
        counted: Any = client.zcount(slots_name(prefix), now_ms, "+inf")
    except RedisError:
        return None
    return int(counted)


class StreamMeters:
    """All limited streams of one event loop."""

    def __init__(self) -> None:
        self._client: Any = None
        self._grants: dict[str, tuple[KeyGrant, int]] = {}  # the newest of each key with meters, and how many
        self._held: dict[str, str] = {}  # stream: key, for each slot held in Redis
        self._local: dict[str, int] = {}  # slots by key that were given while Redis was away
        self._renewing: asyncio.Task[None] | None = None
        self._taking_again: asyncio.Future[Any] | None = None
        self._closing: set[asyncio.Task[None]] = set()

    def meter(self, grant: KeyGrant) -> KeyMeter:
        """A meter for one stream of this key."""
        return KeyMeter(self, grant)

    def note_grant(self, grant: KeyGrant) -> None:
        """Limits may have changed since streams of this key began: what they take from now on follows the new ones."""
        known = self._grants.get(grant.prefix)
        if known is not None:
            self._grants[grant.prefix] = (grant, known[1])

    async def aclose(self) -> None:
        """Give back what is still held."""
        if self._renewing is not None:
            self._renewing.cancel()
        if self._closing:
            await asyncio.wait(self._closing, timeout=2)
        if self._client is not None:
            await self._client.aclose()
            self._client = None

    def grant_of(self, prefix: str) -> KeyGrant | None:
        """The newest grant of a key with running streams, as ``note_grant`` was told it."""
        known = self._grants.get(prefix)
        return known[0] if known is not None else None

    def newest(self, grant: KeyGrant) -> KeyGrant:
        return self._grants.get(grant.prefix, (grant, 0))[0]

    def add(self, grant: KeyGrant) -> None:
        self._grants[grant.prefix] = (grant, self._grants.get(grant.prefix, (grant, 0))[1] + 1)

    def discard(self, prefix: str) -> None:
        grant, count = self._grants[prefix]
        if count > 1:
            self._grants[prefix] = (grant, count - 1)
        else:
            del self._grants[prefix]

    def hold(self, stream: str, prefix: str) -> None:
        self._held[stream] = prefix
        if self._renewing is None or self._renewing.done():
            self._renewing = asyncio.create_task(self._renew(), name="stream-slots")

    def hold_locally(self, prefix: str, most: int) -> None:
        """Take a slot of this process's share. Raises TooManyStreams, NotReady."""
        if self._local.get(prefix, 0) >= share_of(most):
            raise TooManyStreams(retry_after_s=RETRY_AFTER_S)
        self._local[prefix] = self._local.get(prefix, 0) + 1

    def release_locally(self, prefix: str) -> None:
        left = self._local.get(prefix, 0) - 1
        if left > 0:
            self._local[prefix] = left
        else:
            self._local.pop(prefix, None)

    def release(
        self, stream: str, keys: tuple[str, str], bucket: int, unsent_bytes: int, asking: asyncio.Future[Any] | None
    ) -> None:
        """At once, but without waiting: whoever ends a stream may be in a hurry. ``asking``: what it asked for last,
        whose answer may still be on its way."""
        self._held.pop(stream, None)
        task = asyncio.create_task(self._close(stream, keys, bucket, unsent_bytes, asking))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    async def _close(
        self, stream: str, keys: tuple[str, str], bucket: int, unsent_bytes: int, asking: asyncio.Future[Any] | None
    ) -> None:
        """After whatever could still give the stream a slot or bytes, so that nothing comes back to life."""
        try:
            if asking is not None:
                _, _, given, bucket_given = await asking
                bucket, unsent_bytes = bucket_given or bucket, unsent_bytes + given
            if self._taking_again is not None:
                await asyncio.wait([self._taking_again])
            await self.run(CLOSE_SCRIPT, keys, (stream, bucket, unsent_bytes))
        except RedisError:
            health.note_failure()  # the slot ends by its expiry

    async def _renew(self) -> None:
        while self._held:
            await asyncio.sleep(RENEW_EVERY_S)
            held = list(self._held.items())
            for first in range(0, len(held), RENEW_BATCH):
                batch = held[first : first + RENEW_BATCH]
                try:
                    missing = await self.run(RENEW_SCRIPT, *_slots(batch))
                    lost = [batch[number - 1] for number in missing if batch[number - 1][0] in self._held]
                    if lost:
                        self._taking_again = asyncio.ensure_future(self.run(TAKE_AGAIN_SCRIPT, *_slots(lost)))
                        await self._taking_again
                except RedisError:
                    health.note_failure()

    async def run(self, script: str, keys: Sequence[str], arguments: Sequence[int | str]) -> Any:
        """Raises RedisError."""
        if self._client is None:
            self._client = make_async_redis()
        pending: Awaitable[Any] = self._client.evalsha(_SHA[script], len(keys), *keys, *arguments)
        try:
            return await pending
        except NoScriptError:
            pending = self._client.eval(script, len(keys), *keys, *arguments)
            return await pending


def _slots(held: Sequence[tuple[str, str]]) -> tuple[list[str], list[int | str]]:
    """Keys and arguments of a script about these streams (stream, prefix of its key)."""
    return [slots_name(prefix) for _, prefix in held], [int(SLOT_LIFE_S * 1000), *(stream for stream, _ in held)]


class KeyMeter:
    """One stream's slot and bytes. ``open`` and ``close`` may be repeated; belongs to one event loop."""

    def __init__(self, meters: StreamMeters, grant: KeyGrant) -> None:
        self._meters = meters
        self._grant = grant
        self._stream = ""  # its name in Redis, once it has to be known there
        self._is_open = False
        self._is_local = False
        self._bucket = 0
        self._left = 0  # bytes that Redis gave and ``take`` did not
        self._taken = 0  # of those
        self._asking: asyncio.Future[Any] | None = None

    async def open(self) -> None:
        """Take a slot and some bytes. Raises TooManyStreams, QuotaExceeded; NotReady by LIMITS_ON_REDIS_LOSS."""
        self._is_open = True
        self._meters.add(self._grant)
        try:
            await self._ask(with_slot=True, wanted=FIRST_BYTES)
        except BaseException:
            self.close()
            raise

    def take(self, wanted: int) -> int:
        """How many of ``wanted`` bytes may leave now; 0: ``refill`` first."""
        if self._meters.newest(self._grant).bytes_per_day is None:
            return wanted
        taken = min(wanted, self._left)
        self._left -= taken
        self._taken += taken
        return taken

    def put_back(self, unsent_bytes: int) -> None:
        """Of what ``take`` gave, so much did not leave. Before ``close``."""
        back = min(unsent_bytes, self._taken)  # none of what was given without a limit
        self._taken -= back
        self._left += back

    async def refill(self) -> None:
        """Make ``take`` give at least one byte. Raises QuotaExceeded; NotReady by LIMITS_ON_REDIS_LOSS.

        Takes nothing after ``close``: the stream can end before the task that refills has begun, and nobody would give
        its bytes back.
        """
        if self._is_open:
            await self._ask(with_slot=False, wanted=MORE_BYTES)

    def check_size(self, size_bytes: int) -> None:
        """Raises FileTooLarge when the key may not have a file of (at least) this size."""
        limit = self._meters.newest(self._grant).largest_file_bytes
        if limit is not None and size_bytes > limit:
            raise FileTooLarge(limit_bytes=limit, size_bytes=size_bytes)

    def close(self) -> None:
        """Give the slot and the unsent bytes back."""
        if not self._is_open:
            return
        self._is_open = False
        grant = self._meters.newest(self._grant)
        self._meters.discard(grant.prefix)
        if self._is_local:
            self._meters.release_locally(grant.prefix)
            self._is_local = False
        if self._bucket or grant.concurrent_streams is not None or self._left or self._asking:
            self._meters.release(self._stream, self._keys(), self._bucket, self._left, self._asking)
        self._left = 0

    def _keys(self) -> tuple[str, str]:
        return slots_name(self._grant.prefix), f"yt:limit:{self._grant.prefix}:{WindowKind.BYTES}"

    async def _ask(self, *, with_slot: bool, wanted: int) -> None:
        grant = self._meters.newest(self._grant)
        window = next((window for window in grant.windows if window.kind is WindowKind.BYTES), None)
        most = grant.concurrent_streams if with_slot else None
        if window is None and most is None:
            return
        if health.is_away():
            self._ask_locally(window, most, wanted)
            return
        self._stream = self._stream or secrets.token_hex(8)
        numbers = (window.limit, window.buckets, window.bucket_s * 1000) if window else (0, 0, 0)
        arguments = (self._stream, int(SLOT_LIFE_S * 1000), most or 0, *numbers, wanted)
        try:
            self._asking = asyncio.ensure_future(self._meters.run(SCRIPT, self._keys(), arguments))
            refused, wait_ms, given, bucket = await asyncio.shield(self._asking)
        except RedisError:
            self._asking = None
            health.note_failure()
            self._ask_locally(window, most, wanted)
            return
        self._asking = None
        if refused == 1:
            raise TooManyStreams(retry_after_s=RETRY_AFTER_S)
        if refused == 2:
            raise _used_up(self._meters.newest(self._grant), wait_ms)
        self._bucket, self._left = bucket, self._left + given
        if most is not None:
            self._meters.hold(self._stream, grant.prefix)

    def _ask_locally(self, window: Window | None, most: int | None, wanted: int) -> None:
        if most is not None:
            self._meters.hold_locally(self._grant.prefix, most)
            self._is_local = True
        if window is not None:
            given, wait_ms = local_counts.take(window, limit=share_of(window.limit), wanted=min(wanted, FIRST_BYTES))
            if not given:
                raise _used_up(self._meters.newest(self._grant), wait_ms)
            self._left, self._bucket = self._left + given, 0  # not from Redis: nothing to give back there


def _used_up(grant: KeyGrant, wait_ms: int) -> RateLimited:
    limit = grant.bytes_per_day or 0
    return refusal(WindowState(kind=WindowKind.BYTES, limit=limit, remaining=0, reset_s=math.ceil(wait_ms / 1000)))
