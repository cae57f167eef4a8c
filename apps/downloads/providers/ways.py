"""With which cookies and PO tokens and through which proxies yt-dlp asks YouTube, as the provider sees it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

from apps.downloads.po_tokens import PoTokens


@dataclass(frozen=True, kw_only=True)
class Way:
    """One set of cookies, of PO tokens, and one proxy for asking; each may be missing. Ids are no secrets."""

    cookies_id: str = ""
    cookies_version: int = 0
    cookies: str | None = field(default=None, repr=False)  # a cookies.txt
    proxy_id: str = ""
    proxy: str | None = field(default=None, repr=False)
    po_token_id: str = ""
    po_token_version: int = 0
    po_tokens: PoTokens | None = field(default=None, repr=False)

    @property
    def ids(self) -> tuple[str, ...]:
        """Of all that is in it."""
        return tuple(identity_id for identity_id in (self.cookies_id, self.proxy_id, self.po_token_id) if identity_id)

    @property
    def is_plain(self) -> bool:
        """Whether there is nothing in it that could be exchanged for another one."""
        return not self.ids

    def as_question(self) -> dict[str, Any]:
        """What yt-dlp's process needs to know of it."""
        key = f"{self.cookies_id}:{self.cookies_version}:{self.proxy_id}:{self.po_token_id}:{self.po_token_version}"
        asked: dict[str, Any] = {"key": key, "cookies": self.cookies, "proxy": self.proxy}
        if self.po_tokens is not None:
            asked["po_tokens"] = list(self.po_tokens.tokens)
            asked["visitor_data"] = self.po_tokens.visitor_data
            asked["clients"] = list(self.po_tokens.clients)
        return asked


@dataclass(frozen=True, kw_only=True)
class Exit:
    """A proxy through which we fetch something ourselves; none: directly, or as YTDLP_OPTIONS says."""

    proxy_id: str = ""
    proxy: str | None = field(default=None, repr=False)


@dataclass(frozen=True, kw_only=True)
class Transport:
    """How the operator has yt-dlp connect; the fetch engine does the same."""

    proxy: str | None = None
    proxy_id: str = ""  # of the pool
    verify_tls: bool = True


class Ways(Protocol):
    """Where ways come from, and who hears how each did. Thread-safe."""

    def choose(self) -> Way:
        """A healthy one. Raises UpstreamError classes when proxies are to be used and every one of them rests."""
        ...

    def choose_proxy(self) -> Exit:
        """One for asking, without cookies. Raises as ``choose`` does."""
        ...

    def choose_exit(self, way: Way) -> Exit:
        """For the media that were asked for by ``way``. Raises as ``choose`` does."""
        ...

    def note_answer(self, identity_ids: tuple[str, ...]) -> None:
        """These work."""
        ...

    def note_failure(self, identity_ids: tuple[str, ...], reason: str) -> None:
        """These rest for a while, longer each time in a row."""
        ...

    def keep_cookies(self, way: Way, text: str) -> None:
        """YouTube has changed the cookies: they go on with these."""
        ...


class PlainWay:
    """Nothing but what YTDLP_OPTIONS says."""

    def choose(self) -> Way:
        return Way()

    def choose_proxy(self) -> Exit:
        return Exit()

    def choose_exit(self, way: Way) -> Exit:
        return Exit()

    def note_answer(self, identity_ids: tuple[str, ...]) -> None: ...

    def note_failure(self, identity_ids: tuple[str, ...], reason: str) -> None: ...

    def keep_cookies(self, way: Way, text: str) -> None: ...
