"""Bot API calls for workers: sync, over httpx, each within connect, write, read and total time limits."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from django.conf import settings

from apps.telegram_cache.clients.answers import (
    MAX_ANSWER_BYTES,
    BotIdentity,
    Chat,
    ForwardedCopy,
    Rights,
    StoredMessage,
    read_answer,
    read_chat,
    read_file_path,
    read_forwarded_copy,
    read_identity,
    read_message_id,
    read_rights,
    read_stored_message,
)
from apps.telegram_cache.clients.errors import TelegramUncertain, TelegramUnreachable

if TYPE_CHECKING:
    import httpx  # where it runs, in functions: see apps.core.imports

CALL_LIMIT_S = 30.0
SEND_LIMIT_S = 600.0
ANSWER_LIMIT_S = 120.0  # a stored file is answered only when Telegram has all of it
_LIMITS = {"connect": 5.0, "write": 30.0, "read": 20.0, "pool": 10.0}
_SEND_LIMITS = {**_LIMITS, "read": ANSWER_LIMIT_S}


@cache
def _http() -> httpx.Client:
    import httpx

    limits = httpx.Limits(max_connections=64, max_keepalive_connections=16, keepalive_expiry=15.0)
    return httpx.Client(limits=limits, timeout=httpx.Timeout(**_LIMITS), follow_redirects=False, trust_env=False)


class _Body:
    """A request body that knows whether all of it was handed over, and stops when its time is up."""

    def __init__(self, pieces: Iterable[bytes], deadline: float) -> None:
        self._pieces = pieces
        self._deadline = deadline
        self.handed_over = False

    def __iter__(self) -> Iterator[bytes]:
        for piece in self._pieces:
            if time.monotonic() > self._deadline:
                raise TelegramUnreachable("sending took too long; it was stopped before the end")
            yield piece
        self.handed_over = True


@dataclass(frozen=True, kw_only=True)
class Upload:
    """How a file is announced. ``field`` is Telegram's name for it."""

    field: str
    file_name: str
    mime: str
    size_bytes: int


def _file_head(boundary: str, upload: Upload) -> bytes:
    return (
        f'--{boundary}\r\nContent-Disposition: form-data; name="{upload.field}"; filename="{upload.file_name}"\r\n'
        f"Content-Type: {upload.mime}\r\n\r\n"
    ).encode()


class BotApi:
    """One bot's calls. Thread-safe. Every method raises TelegramError classes and no other kind."""

    def __init__(self, token: str, *, api_url: str | None = None) -> None:
        self._token = token
        self._api_url = api_url or settings.ENV.telegram_api_url

    def __repr__(self) -> str:
        return f"BotApi(bot_id={self._token.partition(':')[0]!r})"

    def get_me(self) -> BotIdentity:
        return read_identity(self._call("getMe"))

    def get_chat(self, chat_id: str) -> Chat:
        """``chat_id`` may be a number or ``@name``; the answer has the number."""
        return read_chat(self._call("getChat", chat_id=chat_id))

    def get_chat_member(self, chat_id: str, user_id: str) -> Rights:
        return read_rights(self._call("getChatMember", chat_id=chat_id, user_id=user_id))

    def get_file_path(self, file_id: str) -> str:
        """Where the file can be read for at least an hour. Bot API: files up to 20 MiB."""
        return read_file_path(self._call("getFile", file_id=file_id))

    def forward_message(self, *, to_chat_id: str, from_chat_id: str, message_id: int) -> ForwardedCopy:
        """Bot API: answers the whole Message, with this bot's own file_id (copyMessage answers only an id)."""
        return read_forwarded_copy(
            self._call(
                "forwardMessage",
                chat_id=to_chat_id,
                from_chat_id=from_chat_id,
                message_id=str(message_id),
                disable_notification="true",
            )
        )

    def send_text(self, *, chat_id: str, text: str) -> int:
        """Post a silent message; its id."""
        return read_message_id(self._call("sendMessage", chat_id=chat_id, text=text, disable_notification="true"))

    def delete_message(self, *, chat_id: str, message_id: int) -> None:
        """Bot API: bots can delete messages for 48 hours only, so this may be refused."""
        self._call("deleteMessage", chat_id=chat_id, message_id=str(message_id))

    def send_document(
        self, *, chat_id: str, file_name: str, caption: str, size_bytes: int, pieces: Iterable[bytes]
    ) -> StoredMessage:
        """Send ``pieces`` (``size_bytes`` in all) as one document. Memory stays flat: pieces are sent as they come.

        TelegramUnreachable: not stored. TelegramUncertain: may be stored. An error raised by ``pieces`` ends the
        request before its announced length, so nothing is stored, and comes out unchanged.
        """
        fields = {"chat_id": chat_id, "caption": caption, "disable_content_type_detection": "true",
                  "disable_notification": "true"}  # fmt: skip
        upload = Upload(field="document", file_name=file_name, mime="application/octet-stream", size_bytes=size_bytes)
        return self._send_file("sendDocument", fields, upload, pieces)

    def send_playable(
        self, *, media: Upload, fields: Mapping[str, str], pieces: Iterable[bytes], thumbnail: bytes = b""
    ) -> StoredMessage:
        """Send a song (``media.field`` "audio") or a video ("video") that Telegram's apps play. Fails as send_document.

        Bot API: files to 50 MB; the thumbnail is a JPEG below 200 kB and at most 320 pixels wide and high.
        """
        method = "sendAudio" if media.field == "audio" else "sendVideo"
        return self._send_file(method, fields, media, pieces, thumbnail=thumbnail)

    def _send_file(
        self, method: str, fields: Mapping[str, str], upload: Upload, pieces: Iterable[bytes], *, thumbnail: bytes = b""
    ) -> StoredMessage:
        boundary = f"yt{secrets.token_hex(16)}"
        head = b"".join(
            f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
            for name, value in fields.items()
        )
        if thumbnail:
            head += _file_head(boundary, Upload(field="thumbnail", file_name="t.jpg", mime="image/jpeg", size_bytes=0))
            head += thumbnail + b"\r\n"
        head += _file_head(boundary, upload)
        tail = f"\r\n--{boundary}--\r\n".encode()

        def all_pieces() -> Iterator[bytes]:
            yield head
            yield from pieces
            yield tail

        deadline = time.monotonic() + SEND_LIMIT_S
        headers = {
            "Content-Type": f"multipart/form-data; boundary={boundary}",
            "Content-Length": str(len(head) + upload.size_bytes + len(tail)),
        }
        body = _Body(all_pieces(), deadline)
        return read_stored_message(
            self._exchange(method, body, headers, limits=_SEND_LIMITS, deadline=deadline + ANSWER_LIMIT_S)
        )

    def _call(self, method: str, **fields: str) -> Any:
        content = urlencode(fields).encode()
        deadline = time.monotonic() + CALL_LIMIT_S
        headers = {"Content-Type": "application/x-www-form-urlencoded", "Content-Length": str(len(content))}
        return self._exchange(method, _Body([content], deadline), headers, limits=_LIMITS, deadline=deadline)

    def _exchange(
        self, method: str, body: _Body, headers: Mapping[str, str], *, limits: Mapping[str, float], deadline: float
    ) -> Any:
        import httpx

        timeout = httpx.Timeout(**limits)
        url = f"{self._api_url}/bot{self._token}/{method}"
        try:
            with _http().stream("POST", url, content=body, headers=dict(headers), timeout=timeout) as response:
                answer = _read_bounded(response, deadline)
                status, answer_headers = response.status_code, response.headers
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout):
            raise TelegramUnreachable(f"{method}: Telegram cannot be reached") from None
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError) as error:
            kind = type(error).__name__  # its own text may hold the address, and that holds the token
            if body.handed_over:
                raise TelegramUncertain(f"{method}: no answer ({kind})") from None
            raise TelegramUnreachable(f"{method}: the request was cut off ({kind})") from None
        return read_answer(status=status, headers=answer_headers, body=answer, token=self._token)


def _read_bounded(response: httpx.Response, deadline: float) -> bytes:
    answer = bytearray()
    for piece in response.iter_bytes():
        answer += piece
        if len(answer) > MAX_ANSWER_BYTES or time.monotonic() > deadline:
            raise TelegramUncertain("the answer is too long or too slow")
    return bytes(answer)
