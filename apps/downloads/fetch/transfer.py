"""Bringing one remote file in: by ranges where asked, going on after cuts, never mixing two files into one."""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import Callable
from typing import Any, Self

import aiohttp
import structlog

from apps.core.errors import ApiError, TooLarge, UpstreamError, UpstreamTimeout, UpstreamUnreachable
from apps.core.outbound_aiohttp import guarded_aiohttp_session
from apps.core.socks import SOCKS_ERRORS, guarded_socks_session
from apps.downloads.fetch.outcomes import AddressRefused, Limits, NotMedia, SourceChanged
from apps.downloads.fetch.sinks import Sink
from apps.downloads.providers.base import RemoteFile

log = structlog.get_logger(__name__)

PARTIAL = 206
OUT_OF_RANGE = 416
REFUSED = frozenset({401, 403, 404, 410})
TOO_MANY_REQUESTS = 429
TRY_LATER = frozenset({408, 425, TOO_MANY_REQUESTS, 500, 502, 503, 504})
NOT_MEDIA_TYPES = frozenset({"text/html", "text/xml", "application/json", "application/xml"})
RETRY_AFTER_MAX_S = 30.0  # is waited for here; a longer time is kept for the next attempt
LONGEST_ASKED_S = 3600.0
RATE_LIMITED_WAIT_S = 60.0
_CONTENT_RANGE = re.compile(r"bytes (?:(\d{1,15})-(\d{1,15})|\*)/(\d{1,15}|\*)", re.ASCII)


class _TryLater(UpstreamError):
    """The source is busy: ask again in a moment. ``limited``: it said that we ask too often (429)."""

    def __init__(self, message: str, *, retry_after_s: float, limited: bool) -> None:
        super().__init__(message, retry_after_s=retry_after_s)
        self.limited = limited

    def as_failure(self) -> UpstreamError:
        """What is said when trying again did not help; 429 keeps the time that the source asked for."""
        asked_s = max(RATE_LIMITED_WAIT_S, self.retry_after_s or 0.0)
        return UpstreamError(self.message, retry_after_s=asked_s if self.limited else None)


class Connections:
    """What all files of one fetch share: a session, and one for each SOCKS proxy that is used. An async context.

    Connects only where the outbound guard allows it.
    """

    def __init__(self, limits: Limits) -> None:
        self._timeout = aiohttp.ClientTimeout(
            total=None, connect=limits.connect_s, sock_connect=limits.connect_s, sock_read=limits.stall_s
        )
        self._plain = guarded_aiohttp_session(timeout=self._timeout, auto_decompress=False)
        self._by_socks: dict[str, aiohttp.ClientSession] = {}

    def get(self, url: str, *, proxy: str | None, **options: Any) -> Any:
        """As aiohttp's ``ClientSession.get``."""
        if proxy is None or not proxy.startswith("socks"):
            return self._plain.get(url, proxy=proxy, **options)
        if proxy not in self._by_socks:
            self._by_socks[proxy] = guarded_socks_session(proxy, timeout=self._timeout, auto_decompress=False)
        return self._by_socks[proxy].get(url, **options)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for session in (self._plain, *self._by_socks.values()):
            await session.close()


class Transfer:
    """One remote file on its way into a sink.

    ``choose_sink(head)`` is called once, with the first ``head_bytes`` (fewer if the file is shorter), when ``sink``
    is None; it may refuse them (NotMedia).
    ``on_size`` hears the whole size as soon as it is known, and may refuse it; ``on_bytes`` hears each arrival.
    """

    def __init__(
        self,
        file: RemoteFile,
        *,
        session: Connections,
        limits: Limits,
        sink: Sink | None,
        choose_sink: Callable[[bytes], Sink],
        head_bytes: int,
        on_size: Callable[[int], None],
        on_bytes: Callable[[int], None],
    ) -> None:
        self.sink = sink
        self.total: int | None = sink.size_bytes if sink else None
        self._file = file
        self._session = session
        self._limits = limits
        self._choose_sink = choose_sink
        self._head_bytes = head_bytes
        self._on_size = on_size
        self._on_bytes = on_bytes
        self._ended = False
        self._compare = bool(sink and sink.frontier)  # bytes of an earlier connection: ask for an overlap

    @property
    def size_was_declared(self) -> bool:
        """Whether the source, or the plan, said how long the file is: then a cut cannot go unnoticed."""
        return self.total is not None or self._exact_bytes is not None

    async def run(self) -> Sink:
        """Until every byte is in the sink. Raises AddressRefused, SourceChanged, NotMedia, TooLarge, HotStoreFull,
        UpstreamTimeout, UpstreamUnreachable or UpstreamError."""
        in_a_row = in_all = 0
        try:
            async with asyncio.timeout(self._limits.total_s):
                while not self._is_complete():
                    before = self._frontier
                    failure, wait_s = await self._try_once()
                    has_come_far = self._frontier - before >= self._limits.progress_bytes
                    in_a_row = 0 if has_come_far else in_a_row + 1
                    if failure is None and (has_come_far or self._is_complete()):
                        continue
                    failure = failure or UpstreamError("The outside source ended the file early.")
                    in_all += 1
                    if in_a_row >= self._limits.failures_in_a_row or in_all >= self._limits.failures_in_all:
                        raise failure
                    if not self._is_complete():
                        await asyncio.sleep(max(wait_s, self._backoff_s(in_a_row)))
        except TimeoutError:
            raise UpstreamTimeout from None
        if self.sink is None or self.sink.frontier == 0:
            raise NotMedia("The outside source gave an empty file.")
        return self.sink

    @property
    def _frontier(self) -> int:
        return self.sink.frontier if self.sink else 0

    @property
    def _exact_bytes(self) -> int | None:
        """The size that the plan is sure of."""
        return self._file.size_bytes if self._file.size_is_exact else None

    def _is_complete(self) -> bool:
        return self._ended if self.total is None else self._frontier >= self.total

    def _backoff_s(self, tries: int) -> float:
        longest = min(self._limits.backoff_s * 2.0**tries, self._limits.backoff_max_s)
        return longest * random.uniform(0.5, 1.0)  # noqa: S311 - spreads retries, no secret

    async def _try_once(self) -> tuple[ApiError | None, float]:
        """One request. Gives what went wrong, if another request may help, and how long the source wants us to wait."""
        failure: ApiError
        wait_s = 0.0
        try:
            await self._ask()
        except aiohttp.SocketTimeoutError:
            failure = UpstreamTimeout("The outside source stopped sending.")
        except aiohttp.ConnectionTimeoutError:
            failure = UpstreamUnreachable()
        except (aiohttp.ClientConnectorError, aiohttp.ClientHttpProxyError, *SOCKS_ERRORS):
            failure = UpstreamUnreachable()
        except (aiohttp.ClientPayloadError, aiohttp.ServerDisconnectedError, aiohttp.ClientOSError):
            failure = UpstreamError("The outside source keeps cutting the connection.")
        except aiohttp.ClientError as error:
            raise UpstreamError from error
        except _TryLater as error:
            wait_s = min(error.retry_after_s or 0.0, RETRY_AFTER_MAX_S)
            failure = error.as_failure()
        else:
            return None, 0.0
        self._compare = True
        log.info("transfer cut", source_id=self._file.source_id, at=self._frontier, reason=failure.message)
        return failure, wait_s

    async def _ask(self) -> None:
        start = max(0, self._frontier - self._limits.overlap_bytes) if self._compare else self._frontier
        headers = {**self._file.headers, "Accept-Encoding": "identity"}
        wanted = self._frontier + self._file.chunk_bytes if self._file.chunk_bytes else None
        if wanted or start:
            headers["Range"] = f"bytes={start}-{wanted - 1 if wanted else ''}"
        async with self._session.get(
            self._file.url, headers=headers, proxy=self._file.proxy, ssl=self._file.verify_tls
        ) as response:
            self._check_status(response)
            if response.status == OUT_OF_RANGE:
                self._learn_end(response)
                return
            offset = self._check_place(response, start)
            await self._take(response, offset)
            if self.total is None:
                self._note_end(response.status != PARTIAL or wanted is None or self._frontier < wanted)

    def _note_end(self, seems_over: bool) -> None:
        """An answer of a file of unknown size ended in good order. Where the plan is sure of the size, only that many
        bytes are the whole file: fewer are gone on from. Raises SourceChanged for more."""
        if self._exact_bytes is not None and self._frontier > self._exact_bytes:
            raise SourceChanged
        self._ended = seems_over if self._exact_bytes is None else self._frontier == self._exact_bytes

    def _check_status(self, response: aiohttp.ClientResponse) -> None:
        status = response.status
        if status in REFUSED:
            raise AddressRefused(f"The outside source refused to give the file (HTTP {status}).")
        if status in TRY_LATER:
            text = response.headers.get("Retry-After", "")
            wait_s = min(float(text[:9]), LONGEST_ASKED_S) if text.isdecimal() else 0.0
            raise _TryLater(
                f"The outside source is in trouble (HTTP {status}).",
                retry_after_s=wait_s,
                limited=status == TOO_MANY_REQUESTS,
            )
        if status not in {200, PARTIAL, OUT_OF_RANGE}:
            raise UpstreamError(f"The outside source gave an answer we cannot use (HTTP {status}).")

    def _learn_end(self, response: aiohttp.ClientResponse) -> None:
        """416: nothing lies beyond what we have, if the source says that this is its size."""
        match = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
        if match is None or match[3] != str(self._frontier):
            raise SourceChanged
        self._learn_total(self._frontier)

    def _check_place(self, response: aiohttp.ClientResponse, start: int) -> int:
        """Check type and place of the body; returns the offset of its first byte."""
        if response.headers.get("Content-Encoding", "identity").lower() != "identity":
            raise UpstreamError("The outside source packed the file in a way we did not ask for.")
        if response.content_type.lower() in NOT_MEDIA_TYPES:
            raise NotMedia
        if response.status != PARTIAL:
            if response.content_length is not None:
                self._learn_total(response.content_length)
            return 0
        match = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
        if match is None or match[1] != str(start):
            raise UpstreamError("The outside source sent another part of the file than we asked for.")
        if match[3] != "*":
            self._learn_total(int(match[3]))
        return start

    def _learn_total(self, total: int) -> None:
        if total > self._limits.file_max_bytes:
            raise TooLarge("This file is larger than we fetch.")
        if self.total is None:
            if total == 0:
                raise NotMedia("The outside source gave an empty file.")
            if self._file.size_is_exact and self._file.size_bytes not in {None, total}:
                raise AddressRefused("The outside source gave a file of another size than it said.")
            if total < self._frontier:
                raise SourceChanged
            self.total = total
            self._on_size(total)
            if self.sink is not None:
                self.sink.set_size(total)
        elif total != self.total:
            raise SourceChanged

    async def _take(self, response: aiohttp.ClientResponse, offset: int) -> None:
        head = bytearray()
        async for data in response.content.iter_any():
            fresh = self._without_known(data, offset)
            offset += len(data)
            if not fresh:
                continue
            whole = self.total or self._exact_bytes
            if self._frontier + len(head) + len(fresh) > (whole or self._limits.file_max_bytes):
                raise TooLarge("This file is larger than we fetch.") if whole is None else SourceChanged
            if self.sink is None:
                head += fresh
                if len(head) < self._head_bytes:
                    continue
                fresh = self._open_sink(head)
            if fresh:
                self._append(fresh)
        if self.sink is None and head:
            self._append(self._open_sink(head))

    def _without_known(self, data: bytes, offset: int) -> bytes | memoryview:
        """The part of ``data`` that is new. What we have already must be the same. Raises SourceChanged."""
        known = self._frontier - offset
        if known <= 0:
            return data
        if self.sink is None or self.sink.read_back(offset, min(offset + len(data), self._frontier)) != data[:known]:
            raise SourceChanged
        self._compare = False
        return memoryview(data)[known:]

    def _open_sink(self, head: bytearray) -> bytes:
        first = bytes(head)
        head.clear()
        self.sink = self._choose_sink(first)
        if self.total is not None:
            self.sink.set_size(self.total)
        return first

    def _append(self, data: bytes | memoryview) -> None:
        if self.sink is not None:
            self.sink.append(data)
            self._on_bytes(len(data))
