"""A file server that misbehaves on demand, and providers that point to it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from aiohttp import web

from apps.core.errors import ApiError
from apps.downloads.providers.base import FetchPlan, RemoteFile, VideoInfo
from apps.telegram_cache.documents import AssetKey
from tests.downloads.samples import video_info
from tests.standins.faults import Fault, answer_instead, send_bytes
from tests.standins.server import StandIn


@dataclass(kw_only=True)
class Served:
    """One file as the origin gives it out."""

    data: bytes
    content_type: str = "application/octet-stream"
    ranges: bool = True
    send_length: bool = True


class Origin(StandIn):
    """Serves ``files`` by name. ``sent`` counts body bytes, ``asked`` keeps the Range headers; faults by file name."""

    def __init__(self) -> None:
        super().__init__()
        self.files: dict[str, Served] = {}
        self.sent = 0
        self.asked: list[str | None] = []

    def put(self, name: str, data: bytes, **options: object) -> str:
        """Serve ``data``; the address of it."""
        self.files[name] = Served(data=data, **options)  # type: ignore[arg-type]
        return f"{self.url}/{name}"

    def make_app(self) -> web.Application:
        app = web.Application()
        app.router.add_get("/{name}", self._get)
        return app

    async def _get(self, request: web.Request) -> web.StreamResponse:
        name = request.match_info["name"]
        self.counts[name] += 1
        self.asked.append(request.headers.get("Range"))
        fault = self.faults.take(name) or Fault()
        if (instead := await answer_instead(fault)) is not None:
            return instead
        file = self.files[name]
        return await send_bytes(
            request,
            file.data,
            content_type=file.content_type,
            fault=fault,
            ranges=file.ranges,
            send_length=file.send_length,
            on_sent=self._count,
        )

    def _count(self, size: int) -> None:
        self.sent += size


@dataclass(kw_only=True)
class SampleProvider:
    """Gives the plan it is told to, or raises; counts."""

    make_plan: Callable[[AssetKey], FetchPlan] | ApiError
    name: str = "sample"
    plans: int = 0
    fresh: int = 0
    before_plan: Callable[[], None] = field(default=lambda: None)

    def resolve(self, video_id: str, *, timeout_s: float) -> VideoInfo:
        return video_info(video_id)

    def plan(self, key: AssetKey, *, timeout_s: float, fresh: bool = False) -> FetchPlan:
        self.plans += 1
        self.fresh += fresh
        self.before_plan()
        if isinstance(self.make_plan, ApiError):
            raise self.make_plan
        return replace(self.make_plan(key), provider=self.name)


def remote(url: str, **options: object) -> RemoteFile:
    fields = {"url": url, "source_id": "sample:" + url.rpartition("/")[2]}
    return RemoteFile(**{**fields, **options})  # type: ignore[arg-type]
