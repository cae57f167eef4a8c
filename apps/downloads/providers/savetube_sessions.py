"""Info answers of SaveTube that may be used once more, shared by all processes: one call serves metadata and fetch."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections import OrderedDict
from dataclasses import asdict, dataclass, field
from typing import Any, Self

import structlog
from redis.exceptions import RedisError

from apps.core.redis import redis_client
from apps.downloads.providers.savetube_heights import AskedHeights
from apps.downloads.providers.savetube_info import SaveTubeInfo

REMEMBERED_S = 120.0
MAX_REMEMBERED = 512

log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class Session:
    """One checked info answer, and the CDN whose key it holds; and what asking for heights has shown."""

    cdn: str
    info: SaveTubeInfo
    made_at: float = field(default_factory=time.time)
    asked: AskedHeights = field(default_factory=AskedHeights, repr=False)

    @property
    def is_young(self) -> bool:
        return time.time() - self.made_at < REMEMBERED_S

    def as_text(self) -> str:
        return json.dumps({"cdn": self.cdn, "made_at": self.made_at, "info": asdict(self.info)})

    @classmethod
    def read(cls, text: bytes) -> Self | None:
        """None for what another version of the program wrote."""
        try:
            kept: dict[str, Any] = json.loads(text)
            info = kept["info"]
            heights = None if info["heights"] is None else tuple(info["heights"])
            known = SaveTubeInfo(**{**info, "heights": heights, "audio_kbps": tuple(info["audio_kbps"])})
            return cls(cdn=kept["cdn"], info=known, made_at=kept["made_at"])
        except (ValueError, KeyError, TypeError):
            return None


class Sessions:
    """By video: in this process's memory, and in Redis for the others. While Redis is away, only here. Thread-safe."""

    def __init__(self, base_url: str) -> None:
        site = hashlib.sha256(base_url.encode()).hexdigest()[:12]
        self._prefix = f"yt:savetube:session:{site}"
        self._lock = threading.Lock()
        self._here: OrderedDict[str, Session] = OrderedDict()

    def remember(self, video_id: str, session: Session) -> None:
        self._keep(video_id, session)
        try:
            redis_client().set(self._name(video_id), session.as_text(), ex=round(REMEMBERED_S))
        except RedisError as error:
            log.debug("session not shared", reason=type(error).__name__)

    def find(self, video_id: str) -> Session | None:
        """A session that is young enough to be used again."""
        with self._lock:
            session = self._here.get(video_id)
        if session is not None and session.is_young:
            return session
        try:
            text = redis_client().get(self._name(video_id))
        except RedisError:
            return None
        session = Session.read(text) if isinstance(text, bytes) else None
        if session is None or not session.is_young:
            return None
        self._keep(video_id, session)
        return session

    def forget(self, video_id: str) -> None:
        with self._lock:
            self._here.pop(video_id, None)
        try:
            redis_client().delete(self._name(video_id))
        except RedisError as error:
            log.debug("session not forgotten", reason=type(error).__name__)

    def _keep(self, video_id: str, session: Session) -> None:
        with self._lock:
            self._here[video_id] = session
            self._here.move_to_end(video_id)
            while len(self._here) > MAX_REMEMBERED:
                self._here.popitem(last=False)

    def _name(self, video_id: str) -> str:
        return f"{self._prefix}:{video_id}"
