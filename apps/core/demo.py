"""The main job, walked through as a client over HTTP against an instance of its own and stand-ins for the outside."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import httpx

from apps.core.embedded import free_port
from apps.core.supervisor import end_with_us
from ytserver.env import BASE_DIR, without_settings

STOP_TIMEOUT_S = 60.0
COMMAND_TIMEOUT_S = 60.0
BACKGROUND_TIMEOUT_S = 60.0
REQUEST_TIMEOUT_S = 60.0
CROWD = 200
MIB = 1024 * 1024


class DemoFailed(Exception):
    """A step did not hold. The text says which and how."""


class Outside(Protocol):
    """The stand-ins for the video source and Telegram."""

    @property
    def environment(self) -> Mapping[str, str]:
        """The settings that point an instance at them."""

    def slow_down(self, bytes_per_s: float) -> None:
        """The next download from the video source is this slow."""

    def original(self, video_id: str) -> bytes:
        """The audio file as the source has it."""

    def downloads(self, video_id: str) -> int:
        """How often the source was asked for the video's file."""

    def sent_bytes(self, video_id: str) -> int:
        """How much of the video's file the source has sent so far."""

    def telegram_reads(self) -> int:
        """How many files Telegram has given back."""


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


class Instance:
    """A whole server in a process of its own, over a temporary folder."""

    def __init__(self, outside: Mapping[str, str], *, folder: Path) -> None:
        self.var_dir = folder
        mine = {"VAR_DIR": str(folder), "PORT": str(free_port()), "OUTBOUND_ALLOW": "127.0.0.0/8", "DEBUG": "true"}
        self._environ = {**without_settings(os.environ), **mine, **outside}
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> dict[str, Any]:
        """Start it and return the line of ``up --json``."""
        command = [sys.executable, str(BASE_DIR / "manage.py"), "up", "--json"]
        with (self.var_dir / "up.log").open("w") as log, _interrupts_held_back():
            self._process = subprocess.Popen(
                end_with_us(command),
                env=self._environ, stdout=subprocess.PIPE, stderr=log, text=True, start_new_session=True,
            )  # fmt: skip
        assert self._process.stdout is not None  # noqa: S101 - it is a pipe
        line = self._process.stdout.readline()
        if not line:
            raise DemoFailed(f"the server did not start: {(self.var_dir / 'up.log').read_text().strip()}")
        ready: dict[str, Any] = json.loads(line)
        return ready

    def manage(self, *arguments: str) -> str:
        """Run a management command against it and return what it prints."""
        done = subprocess.run(
            [sys.executable, str(BASE_DIR / "manage.py"), *arguments],
            env=self._environ, capture_output=True, text=True, timeout=COMMAND_TIMEOUT_S, check=False,
        )  # fmt: skip
        if done.returncode:
            raise DemoFailed(f"manage.py {arguments[0]} failed: {done.stderr.strip()}")
        return done.stdout

    def stop(self) -> None:
        """End it with everything that belongs to it. Idempotent."""
        if self._process is None:
            return
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        try:
            self._process.communicate(timeout=STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()
        self._process = None


@contextmanager
def _interrupts_held_back() -> Iterator[None]:
    """Ctrl-C comes after this block, so that a process which was just started is never forgotten."""
    noted: list[int] = []
    before = {
        number: signal.signal(number, lambda number, _frame: noted.append(number))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if noted:
        raise KeyboardInterrupt


class Demo:
    """The steps, in order. ``say`` gets one line for each."""

    def __init__(self, outside: Outside, say: Callable[[str], None]) -> None:
        self._outside = outside
        self._say = say

    def run(self, *, keep: bool) -> None:
        """Walk through everything and clean up. Raises DemoFailed at the first step that does not hold."""
        folder = Path(tempfile.mkdtemp(prefix="ytserver-demo-"))
        instance = Instance(self._outside.environment, folder=folder)
        try:
            began_at = time.monotonic()
            ready = instance.start()
            seconds = time.monotonic() - began_at
            self._say(f"1. Started MongoDB, Redis, the web server and its workers: ready after {seconds:.1f} s")
            self._walk(instance, ready)
        except httpx.HTTPError as error:
            raise DemoFailed(f"the server did not answer ({type(error).__name__})") from error
        finally:
            instance.stop()
            if keep:
                self._say(f"Everything it wrote is in {folder}")
            else:
                shutil.rmtree(folder, ignore_errors=True)

    def _walk(self, instance: Instance, ready: Mapping[str, Any]) -> None:
        key = ready["first_start"]["api_key"]
        with httpx.Client(
            base_url=ready["url"], headers={"X-API-Key": key}, timeout=REQUEST_TIMEOUT_S, trust_env=False
        ) as api:
            self._show_info(api)
            self._stream_while_fetched(api)
            self._stream_from_the_hot_store(api)
            self._stream_from_telegram(api, instance)
            self._read_a_range(api)
            self._send_a_crowd(ready["url"], key)
            self._revoke(api, instance)

    def _show_info(self, api: httpx.Client) -> None:
        answer, seconds = _ask(api, "/api/v1/info", url=f"https://www.youtube.com/watch?v={VIDEO}&list=ignored")
        _expect(answer["video_id"] == VIDEO, "info is about another video")
        self._say(f"2. Metadata of a link: “{answer['title']}”, {answer['duration_seconds']:g} s long, {_ms(seconds)}")

    def _stream_while_fetched(self, api: httpx.Client) -> None:
        original = self._outside.original(VIDEO)
        self._outside.slow_down(len(original) / 3)
        answer, seconds = _ask(api, "/api/v1/audio", url=f"https://youtu.be/{VIDEO}")
        _expect(answer["source"] == "external", f"a new audio should come from outside, not from {answer['source']}")
        sent_at_first_byte: list[int] = []
        got = _download(
            answer["stream_url"], on_first=lambda: sent_at_first_byte.append(self._outside.sent_bytes(VIDEO))
        )
        _same(got, original)
        _expect(sent_at_first_byte[0] < len(original), "the first byte came only when the source had sent everything")
        self._say(
            f"3. Audio nobody had asked for, streamed while it was fetched: answer {_ms(seconds)}, first byte"
            f" {_ms(got.first_byte_s)} (the source had sent {sent_at_first_byte[0] * 100 // len(original)} %),"
            f" all {_size(original)} in {got.total_s:.1f} s, SHA-256 as the original"
        )

    def _stream_from_the_hot_store(self, api: httpx.Client) -> None:
        before = self._outside.downloads(VIDEO)
        answer, seconds = _ask_until(api, lambda answer: answer["cached"], what="finished", url=VIDEO)
        _expect(answer["source"] == "hot", f"the second time came from {answer['source']}")
        got = _download(answer["stream_url"])
        _same(got, self._outside.original(VIDEO))
        _expect(self._outside.downloads(VIDEO) == before == 1, "the source was asked a second time")
        self._say(
            f"4. The same again, from the hot store: answer {_ms(seconds)}, first byte {_ms(got.first_byte_s)},"
            f" all in {_ms(got.total_s)}, SHA-256 as the original, downloads from the source so far: {before}"
        )

    def _stream_from_telegram(self, api: httpx.Client, instance: Instance) -> None:
        _ask_until(api, lambda answer: answer["telegram"], what="in Telegram", url=VIDEO)
        removed = _remove_hot_files(instance.var_dir / "hot")
        _expect(removed > 0, "there was no hot file to remove")
        answer, seconds = _ask(api, "/api/v1/audio", url=VIDEO)
        _expect(answer["source"] == "telegram", f"without its hot file it came from {answer['source']}")
        before = self._outside.telegram_reads()
        got = _download(answer["stream_url"])
        _same(got, self._outside.original(VIDEO))
        reads = self._outside.telegram_reads() - before
        _expect(reads > 0, "Telegram was not asked")
        _expect(self._outside.downloads(VIDEO) == 1, "the source was asked again")
        self._say(
            f"5. The hot file removed, the same from Telegram: answer {_ms(seconds)},"
            f" first byte {_ms(got.first_byte_s)}, all in {_ms(got.total_s)}, files read there: {reads},"
            " SHA-256 as the original"
        )

    def _read_a_range(self, api: httpx.Client) -> None:
        original = self._outside.original(VIDEO)
        answer, _ = _ask(api, "/api/v1/audio", url=VIDEO)
        first, last = len(original) // 3, len(original) // 2
        got = _download(answer["stream_url"], headers={"Range": f"bytes={first}-{last}"})
        _expect(got.status == httpx.codes.PARTIAL_CONTENT, f"a Range got status {got.status}")
        _expect(got.headers["Content-Range"] == f"bytes {first}-{last}/{len(original)}", "the Content-Range is wrong")
        _same(got, original[first : last + 1])
        self._say(
            f"6. Bytes {first:,} to {last:,} from its middle: {_ms(got.total_s)}, status 206, SHA-256 as the original"
        )

    def _send_a_crowd(self, url: str, key: str) -> None:
        began_at = time.monotonic()
        answers = asyncio.run(_crowd(url, key))
        seconds = time.monotonic() - began_at
        refused = [answer.status_code for answer in answers if answer.status_code != httpx.codes.OK]
        _expect(not refused, f"{len(refused)} of {CROWD} requests were refused: {sorted(set(refused))}")
        _same(_download(answers[-1].json()["stream_url"]), self._outside.original(CROWDED))
        downloads = self._outside.downloads(CROWDED)
        _expect(downloads == 1, f"the source was asked {downloads} times")
        self._say(
            f"7. {CROWD} simultaneous requests for one new video: all answered within {seconds:.1f} s,"
            f" downloads from the source: {downloads}"
        )

    def _revoke(self, api: httpx.Client, instance: Instance) -> None:
        made = json.loads(instance.manage("create_key", "--name", "demo", "--json"))
        mine = {"X-API-Key": made["key"]}
        answer = api.get("/api/v1/audio", params={"url": VIDEO}, headers=mine)
        _expect(answer.status_code == httpx.codes.OK, f"a new key got status {answer.status_code}")
        link = answer.json()["stream_url"]
        instance.manage("revoke_key", made["prefix"])
        time.sleep(1.0)  # what is promised: a revoked key ends within a second, everywhere
        refused = api.get("/api/v1/audio", params={"url": VIDEO}, headers=mine)
        dead = httpx.get(link, trust_env=False)
        _expect(refused.status_code in {401, 403}, f"the revoked key still got status {refused.status_code}")
        _expect(dead.status_code in {401, 403}, f"a link of the revoked key still got status {dead.status_code}")
        self._say(
            f"8. A key revoked: its next request got {refused.status_code} {refused.json()['error']},"
            f" its stream link {dead.status_code} {dead.json()['error']}"
        )


VIDEO = "large000001"
CROWDED = "large000002"


async def _crowd(url: str, key: str) -> list[httpx.Response]:
    limits = httpx.Limits(max_connections=CROWD)
    async with httpx.AsyncClient(
        base_url=url, headers={"X-API-Key": key}, timeout=REQUEST_TIMEOUT_S, limits=limits, trust_env=False
    ) as client:
        asked = [client.get("/api/v1/audio", params={"url": CROWDED, "wait": 25}) for _ in range(CROWD)]
        return list(await asyncio.gather(*asked))


def _ask(api: httpx.Client, path: str, **parameters: str) -> tuple[dict[str, Any], float]:
    began_at = time.monotonic()
    response = api.get(path, params=parameters)
    seconds = time.monotonic() - began_at
    answer: dict[str, Any] = response.json()
    if response.status_code != httpx.codes.OK:
        raise DemoFailed(f"{path} answered {response.status_code} {answer.get('error')}: {answer.get('message')}")
    return answer, seconds


def _download(
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


def _ask_until(
    api: httpx.Client, condition: Callable[[dict[str, Any]], Any], *, what: str, **parameters: str
) -> tuple[dict[str, Any], float]:
    deadline = time.monotonic() + BACKGROUND_TIMEOUT_S
    while True:
        answer, seconds = _ask(api, "/api/v1/audio", **parameters)
        if condition(answer):
            return answer, seconds
        if time.monotonic() > deadline:
            raise DemoFailed(f"the audio was not {what} after {BACKGROUND_TIMEOUT_S:.0f} s")
        time.sleep(0.2)


def _remove_hot_files(folder: Path) -> int:
    files = [path for path in folder.rglob("*") if path.is_file() and not path.name.startswith(".")]
    for path in files:
        path.unlink()
    return len(files)


def _same(got: Download, original: bytes) -> None:
    if got.sha256 != hashlib.sha256(original).hexdigest():
        raise DemoFailed(f"the bytes differ from the original ({len(got.body)} and {len(original)} bytes)")


def _expect(held: bool, otherwise: str) -> None:
    if not held:
        raise DemoFailed(otherwise)


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms"


def _size(data: bytes) -> str:
    return f"{len(data) / MIB:.1f} MiB"
