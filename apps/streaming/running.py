"""The streams of this process: each ends when its key is revoked, or when its client takes nothing for long."""

from __future__ import annotations

import asyncio
import logging
from typing import Protocol

from apps.core.errors import ApiError, IpNotAllowed, KeyDisabled, UpstreamTimeout
from apps.streaming.ports import StreamBackend, StreamTarget
from apps.streaming.timing import StreamTiming

logger = logging.getLogger(__name__)


class Interruption:
    """Ends the work of one request from outside, whatever it waits for: its client left, or may have no more."""

    def __init__(self) -> None:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a stream runs in a task")
        self._task = task
        self.is_set = False
        self.error: ApiError | None = None

    def interrupt(self, error: ApiError | None) -> None:
        """Cancel what the request does now. ``error`` None: there is nobody left to tell. The first call counts."""
        if not self.is_set:
            self.is_set = True
            self.error = error
            self._task.cancel()

    def taken(self) -> bool:
        """Whether the cancellation that has just arrived is ours; then it is over, and the task may go on."""
        if self.is_set:
            self._task.uncancel()
        return self.is_set


class Interruptible(Protocol):
    """Whatever sends a stream, and can be told to stop."""

    def interrupt(self, error: ApiError | None) -> None: ...


class Running(Protocol):
    """One stream that is being sent."""

    @property
    def target(self) -> StreamTarget: ...
    @property
    def interruption(self) -> Interruptible: ...
    @property
    def sending_since(self) -> float | None: ...


class RunningStream:
    """One stream that is sent by a task."""

    def __init__(self, target: StreamTarget, interruption: Interruption) -> None:
        self.target = target
        self.interruption = interruption
        self.sending_since: float | None = None  # loop time; None while it waits for bytes, not for its client


class RunningStreams:
    """By key: each key with running streams is looked at by one task, not by each stream."""

    def __init__(self, backend: StreamBackend, timing: StreamTiming) -> None:
        self._backend = backend
        self._timing = timing
        self._by_key: dict[str, set[Running]] = {}
        self._checks: dict[str, asyncio.Task[None]] = {}

    def __len__(self) -> int:
        return sum(len(streams) for streams in self._by_key.values())

    def add(self, stream: Running) -> None:
        key = stream.target.key_prefix
        streams = self._by_key.setdefault(key, set())
        streams.add(stream)
        if key not in self._checks:
            self._checks[key] = asyncio.create_task(self._check(key, streams), name=f"key-check-{key}")

    def discard(self, stream: Running) -> None:
        key = stream.target.key_prefix
        streams = self._by_key.get(key)
        if streams is None:
            return
        streams.discard(stream)
        if not streams:
            del self._by_key[key]
            self._checks.pop(key).cancel()

    async def _check(self, key: str, streams: set[Running]) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(self._timing.key_check_s)
            stalled_before = loop.time() - self._timing.client_stall_s
            for stream in list(streams):
                if stream.sending_since is not None and stream.sending_since < stalled_before:
                    stream.interruption.interrupt(UpstreamTimeout("The client took nothing for too long."))
            is_allowed = await self._is_allowed(key, streams)
            for stream in list(streams):
                if not is_allowed:
                    stream.interruption.interrupt(KeyDisabled())
                elif not self._backend.is_let_in(stream.target):
                    stream.interruption.interrupt(IpNotAllowed())

    async def _is_allowed(self, key: str, streams: set[Running]) -> bool:
        """When nobody can say (a time-out, the database away), streams that were allowed go on."""
        stream = next(iter(streams), None)
        if stream is None:
            return True
        try:
            async with asyncio.timeout(self._timing.key_answer_s):
                return await self._backend.still_allowed(stream.target)
        except ApiError as error:
            return error.retryable
        except TimeoutError:
            return True
        except Exception as error:  # the look must go on, or nobody could end these streams any more
            logger.error("a key could not be looked at", exc_info=error)
            return True
