"""Fault injection that all stand-ins share: a queue of faults a route, taken one a request."""

from __future__ import annotations

import asyncio
import re
import threading
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

SEND_PIECE_BYTES = 64 * 1024
FOREVER = 1_000_000_000
ANY_ROUTE = "*"


@dataclass(frozen=True, kw_only=True)
class Fault:
    """What goes wrong with one request. Several fields may be set; ``delay_s`` and ``until`` come first.

    until: say nothing before the test sets this (it must, in the end).
    status: answer this with ``body`` (a dict is sent as JSON, a text as HTML) in place of the real answer.
    cut_after_bytes / stall_after_bytes: send that much of the body, then close the connection / say nothing more.
    wrong_bytes: the right length, other bytes. size_change_bytes: announce that many bytes more or fewer than are sent.
    bytes_per_s: slow body. name: a fault that only this stand-in knows ("bad_ciphertext", "not_ready", ...).
    times: how many requests it hits. skip: how many requests pass untouched before it.
    """

    delay_s: float = 0.0
    until: threading.Event | None = None
    status: int | None = None
    body: dict[str, Any] | str | bytes | None = None
    retry_after_s: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    cut_after_bytes: int | None = None
    stall_after_bytes: int | None = None
    wrong_bytes: bool = False
    size_change_bytes: int = 0
    bytes_per_s: float | None = None
    name: str = ""
    times: int = 1
    skip: int = 0


class Faults:
    """The faults still to come, by route. Safe to use from the test's thread while the stand-in serves."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._queues: dict[str, list[list[Any]]] = defaultdict(list)  # route -> [[fault, skips left, times left], ...]
        self.taken: list[tuple[str, Fault]] = []

    def add(self, route: str = ANY_ROUTE, fault: Fault | None = None, **fields: Any) -> Fault:
        """Queue ``fault`` (or ``Fault(**fields)``) for a route; ``*`` hits any route that has none of its own."""
        fault = fault or Fault(**fields)
        with self._lock:
            self._queues[route].append([fault, fault.skip, fault.times])
        return fault

    def take(self, route: str) -> Fault | None:
        """The fault that hits this request, if any; counts it."""
        with self._lock:
            for name in (route, ANY_ROUTE):
                queue = self._queues[name]
                if not queue:
                    continue
                entry = queue[0]
                if entry[1] > 0:
                    entry[1] -= 1
                    return None
                entry[2] -= 1
                if entry[2] <= 0:
                    queue.pop(0)
                self.taken.append((route, entry[0]))
                return entry[0]  # type: ignore[no-any-return]
        return None

    def clear(self) -> None:
        with self._lock:
            self._queues.clear()
            self.taken.clear()

    def pending(self) -> int:
        """How many queued faults have not been used up."""
        with self._lock:
            return sum(len(queue) for queue in self._queues.values())


async def answer_instead(fault: Fault | None) -> web.Response | None:
    """Wait as the fault says; the answer it gives in place of the real one, if it gives one."""
    if fault is None:
        return None
    if fault.delay_s:
        await asyncio.sleep(fault.delay_s)
    if fault.until is not None:
        await asyncio.to_thread(fault.until.wait)
    if fault.status is None:
        return None
    headers = dict(fault.headers)
    if fault.retry_after_s is not None:
        headers["Retry-After"] = str(fault.retry_after_s)
    if isinstance(fault.body, dict):
        return web.json_response(fault.body, status=fault.status, headers=headers)
    if isinstance(fault.body, bytes):
        return web.Response(body=fault.body, status=fault.status, headers=headers)
    text = f"<html><body>{fault.status}</body></html>" if fault.body is None else fault.body
    return web.Response(text=text, status=fault.status, headers=headers, content_type="text/html")


def parse_range(header: str | None, size: int) -> tuple[int, int] | None:
    """First and last byte of a single Range; None: send everything. Raises 416 when it lies outside."""
    match = re.fullmatch(r"bytes=(\d*)-(\d*)", header or "")
    if match is None or match.group(0) == "bytes=-":
        return None
    first, last = match.groups()
    if not first:
        start, end = max(0, size - int(last)), size - 1
    else:
        start, end = int(first), min(int(last) if last else size - 1, size - 1)
    if start >= size or end < start:
        raise web.HTTPRequestRangeNotSatisfiable(headers={"Content-Range": f"bytes */{size}"})
    return start, end


async def send_bytes(
    request: web.Request,
    data: bytes,
    *,
    content_type: str,
    fault: Fault | None = None,
    ranges: bool = True,
    send_length: bool = True,
    headers: Mapping[str, str] | None = None,
    on_sent: Callable[[int], None] | None = None,
) -> web.StreamResponse:
    """Answer with ``data`` (Range and HEAD obeyed), with the body faults of ``fault``. ``on_sent`` counts bytes."""
    fault = fault or Fault()
    span = parse_range(request.headers.get("Range"), len(data)) if ranges else None
    start, end = span or (0, len(data) - 1)
    body = memoryview(data)[start : end + 1]
    if fault.wrong_bytes:
        body = memoryview(bytes(byte ^ 0x5A for byte in body))
    response = web.StreamResponse(status=206 if span else 200, headers={**(headers or {}), **fault.headers})
    response.content_type = content_type
    if ranges:
        response.headers["Accept-Ranges"] = "bytes"
    if span:
        response.headers["Content-Range"] = f"bytes {start}-{end}/{len(data) + fault.size_change_bytes}"
    if send_length:
        response.content_length = max(0, len(body) + fault.size_change_bytes)
    await response.prepare(request)
    if request.method == "HEAD":
        return response
    if fault.size_change_bytes < 0:
        body = body[: fault.size_change_bytes]
    limits = [limit for limit in (fault.cut_after_bytes, fault.stall_after_bytes) if limit is not None]
    await _write(response, body[: min(limits)] if limits else body, fault, on_sent)
    if fault.stall_after_bytes is not None:
        await asyncio.Event().wait()  # until the client leaves or the stand-in stops: both cancel the handler
    if fault.cut_after_bytes is not None or fault.size_change_bytes > 0:
        close_connection(request)
        return response
    await response.write_eof()
    return response


async def _write(
    response: web.StreamResponse, body: memoryview, fault: Fault, on_sent: Callable[[int], None] | None
) -> None:
    piece_bytes = SEND_PIECE_BYTES if fault.bytes_per_s is None else max(1, int(fault.bytes_per_s / 20))
    for offset in range(0, len(body), piece_bytes):
        piece = bytes(body[offset : offset + piece_bytes])
        await response.write(piece)
        if on_sent is not None:
            on_sent(len(piece))
        if fault.bytes_per_s is not None:
            await asyncio.sleep(len(piece) / fault.bytes_per_s)


def close_connection(request: web.Request) -> None:
    """End the connection after what has been written, in the middle of the answer."""
    if request.transport is not None:
        request.transport.close()
