"""Each way out of this server, with a resolver that lies: nothing is connected to but what may be."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from aiohttp import ClientError, web
from django.conf import settings

from apps.core import outbound_aiohttp, outbound_async, outbound_httpx
from apps.core.errors import ApiError
from apps.downloads.fetch.cover import fetch_cover
from apps.downloads.fetch.outcomes import Limits
from apps.downloads.fetch.transfer import Connections, Transfer
from apps.downloads.providers import savetube, ytdlp_pool
from apps.downloads.providers.savetube import SaveTubeProvider
from apps.downloads.providers.ways import Transport
from apps.downloads.services import thumbnail_asking, webhooks
from apps.telegram_cache.services.playable import fetch_thumbnail
from tests.downloads.fetch.origin import remote
from tests.standins.server import StandIn

VIDEO_ID = "aaaaaaaaaaa"
ALLOWED, FORBIDDEN = "127.0.0.1", "127.0.0.2"
TLS = ssl.create_default_context()
QUICK = Limits(connect_s=2, stall_s=2, backoff_s=0.01, backoff_max_s=0.01, failures_in_a_row=1, failures_in_all=1)


def media(url: str, _folder: Path) -> None:
    async def run() -> None:
        async with Connections(QUICK) as session:
            await Transfer(
                remote(url), session=session, limits=QUICK, sink=None, choose_sink=lambda _head: pytest.fail("bytes"),
                head_bytes=1, on_size=lambda _size: None, on_bytes=lambda _size: None,
            ).run()  # fmt: skip

    asyncio.run(run())


def cover(url: str, folder: Path) -> None:
    async def run() -> Path | None:
        async with Connections(QUICK) as session:
            return await fetch_cover(session, remote(url), folder / "cover")

    assert asyncio.run(run()) is None


def webhook(url: str, _folder: Path) -> None:
    async def run() -> str:
        async with webhooks._session() as session:
            return await webhooks._in_words(webhooks._post(session, url, b"{}", {}))

    assert asyncio.run(run())


def thumbnail(_url: str, _folder: Path) -> None:
    asyncio.run(thumbnail_asking._fetch_best(VIDEO_ID, Transport(), 2))


def thumbnail_of_a_stored_file(_url: str, _folder: Path) -> None:
    assert fetch_thumbnail(VIDEO_ID) == b""


def savetube_info(url: str, _folder: Path) -> None:
    provider = SaveTubeProvider(base_url=url.rpartition("/")[0], key_hex="0" * 32, cdn_suffixes=("evil.example",))
    try:
        provider.resolve(VIDEO_ID, timeout_s=3)
    finally:
        provider.close()


Path_ = Callable[[str, Path], None]
TO_AN_ADDRESS: dict[str, Path_] = {"media": media, "cover": cover, "webhook": webhook}
TO_A_KNOWN_HOST: dict[str, Path_] = {
    "thumbnail": thumbnail, "thumbnail of a stored file": thumbnail_of_a_stored_file, "savetube info": savetube_info,
}  # fmt: skip
ALL = TO_AN_ADDRESS | TO_A_KNOWN_HOST


@dataclass
class World:
    """What names resolve to, one answer after the other (the last one stays), and what was connected to."""

    answers: list[list[str]] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    connected: list[str] = field(default_factory=list)
    is_watched: bool = False

    def getaddrinfo(self, host: Any, port: Any, *_: Any, **__: Any) -> list[Any]:
        name = host.decode() if isinstance(host, bytes) else str(host)
        with suppress(ValueError):
            return [_entry(str(ipaddress.ip_address(name)), port)]
        self.asked.append(name)
        found = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return [_entry(address, port) for address in found]


def _entry(address: str, port: Any) -> Any:
    if ":" in address:
        return (socket.AF_INET6, socket.SOCK_STREAM, 6, "", (address, int(port or 0), 0, 0))
    return (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, int(port or 0)))


_worlds: list[World] = []
_hook = threading.Lock()


def _note_connect(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "socket.connect" and _worlds and isinstance(arguments[1], tuple):
        _worlds[-1].connected.append(str(arguments[1][0]))


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """Audit hooks cannot be taken away: one is made for the process, and looks only while this is used."""
    if _hook.acquire(blocking=False):
        sys.addaudithook(_note_connect)
    made = World()
    monkeypatch.setattr(socket, "getaddrinfo", made.getaddrinfo)
    _worlds.append(made)
    yield made
    _worlds.remove(made)


def allow(monkeypatch: pytest.MonkeyPatch, *networks: str) -> None:
    monkeypatch.setattr(savetube, "CDN_RETRY_PAUSE_S", 0.001)
    for module in (
        outbound_aiohttp,
        outbound_async,
        outbound_httpx,
    ):  # reading all authorities anew takes longer than the tests
        monkeypatch.setattr(module, "make_tls_context", lambda **_: TLS)
    monkeypatch.setattr(outbound_aiohttp, "_shared_tls_context", lambda _: TLS)
    changed = {"outbound_allow": tuple(ipaddress.ip_network(network) for network in networks)}
    monkeypatch.setattr(settings, "ENV", settings.ENV.model_copy(update=changed))


def visit(way: Path_, url: str, folder: Path) -> None:
    """Whatever comes of it is one of the errors that callers foresee."""
    with suppress(ApiError, httpx.HTTPError, ClientError):
        way(url, folder)


@pytest.mark.parametrize("way", ALL.values(), ids=ALL.keys())
class TestNames:
    @pytest.mark.parametrize("address", ["127.0.0.1", "169.254.169.254", "::ffff:10.0.0.1"])
    def test_that_resolve_to_a_private_address_are_not_connected_to(self, world, way, address, monkeypatch, tmp_path):
        allow(monkeypatch)
        world.answers = [[address]]
        visit(way, "https://evil.example/a", tmp_path)
        assert world.asked
        assert world.connected == []

    def test_that_change_their_answer_are_connected_to_as_they_were_checked(self, world, way, monkeypatch, tmp_path):
        allow(monkeypatch, f"{ALLOWED}/32")
        world.answers = [[ALLOWED], [FORBIDDEN]]
        visit(way, "https://evil.example:1/a", tmp_path)
        assert set(world.connected) == {ALLOWED}

    def test_with_a_private_address_beside_an_allowed_one_get_no_further_than_that(
        self, world, way, monkeypatch, tmp_path
    ):
        allow(monkeypatch, f"{ALLOWED}/32")
        world.answers = [[ALLOWED, FORBIDDEN]]
        visit(way, "https://evil.example:1/a", tmp_path)
        assert set(world.connected) <= {ALLOWED}


@pytest.mark.parametrize("way", TO_AN_ADDRESS.values(), ids=TO_AN_ADDRESS.keys())
class TestAddresses:
    @pytest.mark.parametrize(
        "url",
        ["http://evil.example/a", "https://127.0.0.1/a", "https://2130706433/a", "https://[::1]/a",
         "ftp://evil.example/a", "https://0x7f.1/a"],
    )  # fmt: skip
    def test_that_are_not_public_https_are_not_even_resolved(self, world, way, url, monkeypatch, tmp_path):
        allow(monkeypatch)
        world.answers = [["8.8.8.8"]]
        visit(way, url, tmp_path)
        assert (world.asked, world.connected) == ([], [])

    @pytest.mark.parametrize("target", ["https://evil.example:1/a", f"http://{FORBIDDEN}:1/a", "/loop"])
    def test_redirects_are_checked_and_bounded(self, world, way, target, monkeypatch, tmp_path):
        allow(monkeypatch, f"{ALLOWED}/32")
        world.answers = [[FORBIDDEN]]
        with Redirects(target) as site:
            visit(way, f"{site.url}/to", tmp_path)
        assert set(world.connected) == {ALLOWED}
        assert 1 <= site.counts["asked"] <= 6


class Redirects(StandIn):
    """Sends everybody to ``target``; /loop to itself."""

    def __init__(self, target: str) -> None:
        super().__init__()
        self._target = target

    def make_app(self) -> web.Application:
        async def to(_request: web.Request) -> web.Response:
            self.counts["asked"] += 1
            raise web.HTTPFound(self._target)

        app = web.Application()
        app.router.add_get("/{any}", to)
        app.router.add_post("/{any}", to)
        return app


CHILD = """
import ipaddress, json, socket, sys
import yt_dlp
from apps.downloads.providers.ytdlp_child import _Extractor
from apps.downloads.providers.ytdlp_jail import Guard
answers, connected = [], []
def lying(host, port, *_, **__):
    address = answers.pop(0) if len(answers) > 1 else answers[0]
    return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]
socket.getaddrinfo = lying
guard = Guard([ipaddress.ip_network("127.0.0.1/32")])
guard.install()
sys.addaudithook(lambda event, arguments: event == "socket.connect" and connected.append(arguments[1][0]))
options = {"quiet": True, "retries": 0, "extractor_retries": 0, "socket_timeout": 2, "cachedir": False}
said = []
for name, question, order in json.loads(sys.argv[1]):
    answers[:], connected[:] = order, []
    answer = _Extractor(yt_dlp.YoutubeDL, options, {}).answer(question)
    said.append([name, order, answer.get("failure", {}).get("text", ""), sorted(set(connected))])
print(json.dumps(said))
"""


def test_yt_dlp_s_process_connects_to_nothing_private_whatever_it_is_asked():
    """The audit hook of the jail comes first, so ``connected`` has only what it let through."""
    questions = {
        "info": {"video_id": VIDEO_ID},
        "search": {"list": "ytsearch3:words", "key": "YoutubeSearch", "items": "1:3"},
        "playlist": {
            "list": f"https://www.youtube.com/playlist?list=PL{'a' * 32}",
            "key": "YoutubeTab",
            "items": "1:3",
        },
        "subtitles": {"subtitles": VIDEO_ID, "language": "en"},
    }
    orders = {"info": [[FORBIDDEN], [ALLOWED, FORBIDDEN]]}
    asked = [
        [name, question, order] for name, question in questions.items() for order in orders.get(name, [["10.0.0.1"]])
    ]
    done = subprocess.run(
        [sys.executable, "-c", CHILD, json.dumps(asked)],
        capture_output=True, text=True, cwd=ytdlp_pool.ROOT, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    said = json.loads(done.stdout.splitlines()[-1])
    assert len(said) == len(asked)
    for name, order, text, connected in said:
        assert text, name
        assert set(connected) <= {ALLOWED} & set(order), name
        if ALLOWED not in order:
            assert "refused: private address" in text, (name, text)
