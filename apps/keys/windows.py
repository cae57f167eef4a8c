"""Sliding windows in Redis: what a key may use in an hour or a day, decided by one script for all processes.

A window is one hash of counts by bucket (a few seconds or minutes). A bucket counts until its last possible request is
out of the window, so never more than the limit is let through in any ``window_s``, and a slot frees at most one bucket
late. What is refused does not count. Redis's own clock decides.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

HOUR_S = 3600
DAY_S = 86_400
HOUR_BUCKET_S = 10
DAY_BUCKET_S = 300


class WindowKind(StrEnum):
    """What a window counts."""

    HOUR = "hour"  # requests in an hour
    DAY = "day"  # requests in a day
    BYTES = "bytes"  # streamed bytes in a day
    REFUSED = "refused"  # requests of an address without a good key, in a minute


@dataclass(frozen=True, kw_only=True)
class Window:
    """One limit. ``cost`` is what a request adds to it; 0: a request adds nothing, but needs something to be left."""

    kind: WindowKind
    name: str  # of the hash in Redis
    limit: int
    window_s: int
    bucket_s: int
    cost: int = 1

    @property
    def buckets(self) -> int:
        return self.window_s // self.bucket_s


class WindowState(NamedTuple):
    """Where a window stands. ``reset_s``: seconds until the oldest that counts leaves the window."""

    kind: WindowKind
    limit: int
    remaining: int
    reset_s: int


# The parts that scripts share. A hash has a count per bucket number; "total", "oldest" (first bucket that may hold a
# count), "newest".
FUNCTIONS = """
local function clock(given)
  local now = tonumber(given)
  if now > 0 then return now end
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end
local function open_window(key, limit, buckets, bucket_ms, now)
  local bucket = math.floor(now / bucket_ms)
  local state = redis.call('HMGET', key, 'total', 'oldest', 'newest')
  local total, oldest, newest = tonumber(state[1]) or 0, tonumber(state[2]) or bucket, tonumber(state[3]) or bucket
  if newest > bucket + buckets or bucket > newest + buckets then
    redis.call('DEL', key)
    total, oldest, newest = 0, bucket, bucket
  end
  bucket = math.max(bucket, newest)
  now = math.max(now, bucket * bucket_ms)
  local first = oldest
  while oldest < bucket do
    local count = tonumber(redis.call('HGET', key, oldest))
    if count and oldest >= bucket - buckets then break end
    if count then
      total = total - count
      redis.call('HDEL', key, oldest)
    end
    oldest = oldest + 1
  end
  if oldest > first then redis.call('HSET', key, 'total', total, 'oldest', oldest) end
  return {key = key, limit = limit, buckets = buckets, bucket_ms = bucket_ms,
          now = now, bucket = bucket, oldest = oldest, total = total}
end
local function add(w, amount)
  w.total = w.total + amount
  redis.call('HINCRBY', w.key, w.bucket, amount)
  redis.call('HSET', w.key, 'total', w.total, 'oldest', w.oldest, 'newest', w.bucket)
  redis.call('PEXPIRE', w.key, (w.buckets + 2) * w.bucket_ms)
end
local function frees_in_ms(w, needed)
  local left, freed = w.total, w.oldest
  while freed < w.bucket do
    left = left - (tonumber(redis.call('HGET', w.key, freed)) or 0)
    if left + needed <= w.limit then break end
    freed = freed + 1
  end
  return (freed + w.buckets + 1) * w.bucket_ms - w.now
end
"""

# KEYS: a hash for each window. ARGV: now in ms (0: Redis's clock), then for each window limit, buckets in the window,
# bucket in ms, cost. Returns {0, or the number of the window that refuses longest; then for each window: total,
# ms until the next slot frees}. Either every window counts the request, or none does.
SCRIPT = (
    FUNCTIONS
    + """
local now, windows, costs = clock(ARGV[1]), {}, {}
local refuses, longest, answer = 0, -1, {0}
for i, key in ipairs(KEYS) do
  local at = 4 * i - 2
  local w = open_window(key, tonumber(ARGV[at]), tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2]), now)
  windows[i], costs[i] = w, tonumber(ARGV[at + 3])
  local needed = math.max(costs[i], 1)
  local frees = (w.oldest + w.buckets + 1) * w.bucket_ms - w.now
  if w.total + needed > w.limit then
    frees = frees_in_ms(w, needed)
    if frees > longest then refuses, longest = i, frees end
  end
  answer[2 * i], answer[2 * i + 1] = w.total, frees
end
answer[1] = refuses
if refuses == 0 then
  for i, w in ipairs(windows) do
    if costs[i] > 0 then
      add(w, costs[i])
      answer[2 * i] = w.total
    end
  end
end
return answer
"""
)
SCRIPT_SHA = hashlib.sha1(SCRIPT.encode(), usedforsecurity=False).hexdigest()  # Redis names scripts by SHA-1

Arguments = tuple[int | str, ...]


def window_arguments(windows: tuple[Window, ...]) -> Arguments:
    """What follows EVALSHA's script: the number of hashes, the hashes, and SCRIPT's arguments, by Redis's clock."""
    numbers = [n for w in windows for n in (w.limit, w.buckets, w.bucket_s * 1000, w.cost)]
    return len(windows), *(window.name for window in windows), 0, *numbers


def at_time(arguments: Arguments, now_s: float) -> Arguments:
    """The same at a time of the caller's (UNIX seconds), for tests."""
    clock_at = int(arguments[0]) + 1
    return *arguments[:clock_at], int(now_s * 1000), *arguments[clock_at + 1 :]
