"""The steps of the demo, each with what must hold."""

from __future__ import annotations

import asyncio
import json
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import httpx

from apps.core.demo.client import CROWD, REQUEST_TIMEOUT_S, ask, ask_until, crowd, download, expect, same
from apps.core.demo.instance import DemoFailed, Instance, interrupts_held_back

MIB = 1024 * 1024


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


VIDEO = "large000001"
CROWDED = "large000002"


class Demo:
    """The steps, in order. ``say`` gets one line for each."""

    def __init__(self, outside: Outside, say: Callable[[str], None]) -> None:
        self._outside = outside
        self._say = say

    def run(self, *, keep: bool) -> None:
        """Walk through everything and clean up. Raises DemoFailed at the first step that does not hold."""
        folder: Path | None = None
        instance: Instance | None = None
        try:
            with interrupts_held_back():
                folder = Path(tempfile.mkdtemp(prefix="ytserver-demo-"))
                instance = Instance(self._outside.environment, folder=folder)
            began_at = time.monotonic()
            ready = instance.start()
            seconds = time.monotonic() - began_at
            self._say(f"1. Started MongoDB, Redis, the web server and its workers: ready after {seconds:.1f} s")
            self._walk(instance, ready)
        except httpx.HTTPError as error:
            raise DemoFailed(f"the server did not answer ({type(error).__name__})") from error
        finally:
            with interrupts_held_back():  # a second Ctrl-C must leave nothing behind
                if instance is not None:
                    instance.stop()
                if folder is not None and keep:
                    self._say(f"Everything it wrote is in {folder}")
                elif folder is not None:
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
        answer, seconds = ask(api, "/api/v1/info", url=f"https://www.youtube.com/watch?v={VIDEO}&list=ignored")
        expect(answer["video_id"] == VIDEO, "info is about another video")
        self._say(f"2. Metadata of a link: “{answer['title']}”, {answer['duration_seconds']:g} s long, {_ms(seconds)}")

    def _stream_while_fetched(self, api: httpx.Client) -> None:
        original = self._outside.original(VIDEO)
        self._outside.slow_down(len(original) / 3)
        answer, seconds = ask(api, "/api/v1/audio", url=f"https://youtu.be/{VIDEO}")
        expect(answer["source"] == "external", f"a new audio should come from outside, not from {answer['source']}")
        sent_at_first_byte: list[int] = []
        got = download(
            answer["stream_url"], on_first=lambda: sent_at_first_byte.append(self._outside.sent_bytes(VIDEO))
        )
        same(got, original)
        expect(sent_at_first_byte[0] < len(original), "the first byte came only when the source had sent everything")
        self._say(
            f"3. Audio nobody had asked for, streamed while it was fetched: answer {_ms(seconds)}, first byte"
            f" {_ms(got.first_byte_s)} (the source had sent {sent_at_first_byte[0] * 100 // len(original)} %),"
            f" all {_size(original)} in {got.total_s:.1f} s, SHA-256 as the original"
        )

    def _stream_from_the_hot_store(self, api: httpx.Client) -> None:
        before = self._outside.downloads(VIDEO)
        answer, seconds = ask_until(api, lambda answer: answer["cached"], what="finished", url=VIDEO)
        expect(answer["source"] == "hot", f"the second time came from {answer['source']}")
        got = download(answer["stream_url"])
        same(got, self._outside.original(VIDEO))
        expect(self._outside.downloads(VIDEO) == before == 1, "the source was asked a second time")
        self._say(
            f"4. The same again, from the hot store: answer {_ms(seconds)}, first byte {_ms(got.first_byte_s)},"
            f" all in {_ms(got.total_s)}, SHA-256 as the original, downloads from the source so far: {before}"
        )

    def _stream_from_telegram(self, api: httpx.Client, instance: Instance) -> None:
        ask_until(api, lambda answer: answer["telegram"], what="in Telegram", url=VIDEO)
        removed = _remove_hot_files(instance.var_dir / "hot")
        expect(removed > 0, "there was no hot file to remove")
        answer, seconds = ask(api, "/api/v1/audio", url=VIDEO)
        expect(answer["source"] == "telegram", f"without its hot file it came from {answer['source']}")
        before = self._outside.telegram_reads()
        got = download(answer["stream_url"])
        same(got, self._outside.original(VIDEO))
        reads = self._outside.telegram_reads() - before
        expect(reads > 0, "Telegram was not asked")
        expect(self._outside.downloads(VIDEO) == 1, "the source was asked again")
        self._say(
            f"5. The hot file removed, the same from Telegram: answer {_ms(seconds)},"
            f" first byte {_ms(got.first_byte_s)}, all in {_ms(got.total_s)}, files read there: {reads},"
            " SHA-256 as the original"
        )

    def _read_a_range(self, api: httpx.Client) -> None:
        original = self._outside.original(VIDEO)
        answer, _ = ask(api, "/api/v1/audio", url=VIDEO)
        first, last = len(original) // 3, len(original) // 2
        got = download(answer["stream_url"], headers={"Range": f"bytes={first}-{last}"})
        expect(got.status == httpx.codes.PARTIAL_CONTENT, f"a Range got status {got.status}")
        expect(got.headers["Content-Range"] == f"bytes {first}-{last}/{len(original)}", "the Content-Range is wrong")
        same(got, original[first : last + 1])
        self._say(
            f"6. Bytes {first:,} to {last:,} from its middle: {_ms(got.total_s)}, status 206, SHA-256 as the original"
        )

    def _send_a_crowd(self, url: str, key: str) -> None:
        began_at = time.monotonic()
        answers = asyncio.run(crowd(url, key, CROWDED))
        seconds = time.monotonic() - began_at
        refused = [answer.status_code for answer in answers if answer.status_code != httpx.codes.OK]
        expect(not refused, f"{len(refused)} of {CROWD} requests were refused: {sorted(set(refused))}")
        same(download(answers[-1].json()["stream_url"]), self._outside.original(CROWDED))
        downloads = self._outside.downloads(CROWDED)
        expect(downloads == 1, f"the source was asked {downloads} times")
        self._say(
            f"7. {CROWD} simultaneous requests for one new video: all answered within {seconds:.1f} s,"
            f" downloads from the source: {downloads}"
        )

    def _revoke(self, api: httpx.Client, instance: Instance) -> None:
        made = json.loads(instance.manage("create_key", "--name", "demo", "--json"))
        mine = {"X-API-Key": made["key"]}
        answer = api.get("/api/v1/audio", params={"url": VIDEO}, headers=mine)
        expect(answer.status_code == httpx.codes.OK, f"a new key got status {answer.status_code}")
        link = answer.json()["stream_url"]
        instance.manage("revoke_key", made["prefix"])
        time.sleep(1.0)  # what is promised: a revoked key ends within a second, everywhere
        refused = api.get("/api/v1/audio", params={"url": VIDEO}, headers=mine)
        dead = httpx.get(link, trust_env=False)
        expect(refused.status_code in {401, 403}, f"the revoked key still got status {refused.status_code}")
        expect(dead.status_code in {401, 403}, f"a link of the revoked key still got status {dead.status_code}")
        self._say(
            f"8. A key revoked: its next request got {refused.status_code} {refused.json()['error']},"
            f" its stream link {dead.status_code} {dead.json()['error']}"
        )


def _remove_hot_files(folder: Path) -> int:
    files = [path for path in folder.rglob("*") if path.is_file() and not path.name.startswith(".")]
    for path in files:
        path.unlink()
    return len(files)


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms"


def _size(data: bytes) -> str:
    return f"{len(data) / MIB:.1f} MiB"
