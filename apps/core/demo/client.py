"""The demo's client: asks, downloads and compares, as any other program would."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import httpx

from apps.core.demo.instance import DemoFailed

REQUEST_TIMEOUT_S = 60.0
BACKGROUND_TIMEOUT_S = 60.0
CROWD = 200


@dataclass(frozen=True, kw_only=True)
class Download:
    """One file as a client got it."""

    body: bytes
    headers: httpx.Headers
    status: int
    first_byte_s: float
    total_s: float

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.body).hexdigest()


async def crowd(url: str, key: str, video_id: str) -> list[httpx.Response]:
    limits = httpx.Limits(max_connections=CROWD)
    async with httpx.AsyncClient(
        base_url=url, headers={"X-API-Key": key}, timeout=REQUEST_TIMEOUT_S, limits=limits, trust_env=False
    ) as client:
        asked = [client.get("/api/v1/audio", params={"url": video_id, "wait": 25}) for _ in range(CROWD)]
        return list(await asyncio.gather(*asked))


def ask(api: httpx.Client, path: str, **parameters: str) -> tuple[dict[str, Any], float]:
    began_at = time.monotonic()
    response = api.get(path, params=parameters)
    seconds = time.monotonic() - began_at
    answer: dict[str, Any] = response.json()
    if response.status_code != httpx.codes.OK:
        raise DemoFailed(f"{path} answered {response.status_code} {answer.get('error')}: {answer.get('message')}")
    return answer, seconds


def download(
    url: str, *, headers: Mapping[str, str] | None = None, on_first: Callable[[], object] = lambda: None
) -> Download:
    began_at = time.monotonic()
    first_byte_s = 0.0
    body = bytearray()
    with httpx.stream("GET", url, headers=dict(headers or {}), timeout=REQUEST_TIMEOUT_S, trust_env=False) as response:
        for chunk in response.iter_raw():
            if not body:
                first_byte_s = time.monotonic() - began_at
                on_first()
            body += chunk
    if not response.is_success:
        raise DemoFailed(f"the stream answered {response.status_code}: {bytes(body[:300]).decode(errors='replace')}")
    return Download(
        body=bytes(body), headers=response.headers, status=response.status_code,
        first_byte_s=first_byte_s, total_s=time.monotonic() - began_at,
    )  # fmt: skip


def ask_until(
    api: httpx.Client, condition: Callable[[dict[str, Any]], Any], *, what: str, **parameters: str
) -> tuple[dict[str, Any], float]:
    deadline = time.monotonic() + BACKGROUND_TIMEOUT_S
    while True:
        answer, seconds = ask(api, "/api/v1/audio", **parameters)
        if condition(answer):
            return answer, seconds
        if time.monotonic() > deadline:
            raise DemoFailed(f"the audio was not {what} after {BACKGROUND_TIMEOUT_S:.0f} s")
        time.sleep(0.2)


def same(got: Download, original: bytes) -> None:
    if got.sha256 != hashlib.sha256(original).hexdigest():
        raise DemoFailed(f"the bytes differ from the original ({len(got.body)} and {len(original)} bytes)")


def expect(held: bool, otherwise: str) -> None:
    if not held:
        raise DemoFailed(otherwise)
