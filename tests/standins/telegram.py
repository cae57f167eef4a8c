"""A stand-in for the Telegram Bot API: real HTTP, real limits, real error texts, and faults on demand.

Copies what facts on the Bot API say (https://core.telegram.org/bots/api and tdlib/telegram-bot-api): uploads to 50 MB
(413 as HTML above), getFile to 20 MiB (400 ``file is too big``), a ``file_id`` that is good for one bot only beside a
``file_unique_id`` that is the same for all, file links that expire, forwardMessage answering the whole Message and
copyMessage only an id, membership and rights (403, ``chat not found``), 401 for a wrong token, 429 with
``parameters.retry_after``, message ids that count up within a chat. Files lie on disk, so memory stays flat.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import secrets
import shutil
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web

from tests.standins.faults import Fault, answer_instead, close_connection, send_bytes
from tests.standins.server import StandIn

UPLOAD_MAX_BYTES = 50 * 1000 * 1000
GET_FILE_MAX_BYTES = 20 * 1024 * 1024
SENDING = {"sendDocument": "document", "sendAudio": "audio", "sendVideo": "video"}
MULTIPART_OVERHEAD_BYTES = 64 * 1024


@dataclass(kw_only=True)
class FakeBot:
    token: str
    username: str
    alive: bool = True

    @property
    def bot_id(self) -> int:
        return int(self.token.partition(":")[0])


@dataclass(kw_only=True)
class FakeChannel:
    chat_id: int
    title: str
    username: str = ""
    admins: dict[int, dict[str, bool]] = field(default_factory=dict)  # bot id -> rights
    kicked: set[int] = field(default_factory=set)
    members: set[int] = field(default_factory=set)  # bots that are in it without being administrators
    protected: bool = False  # "restrict saving content": nothing can be forwarded from it
    last_message_id: int = 0


@dataclass(kw_only=True)
class FakeMessage:
    chat_id: int
    message_id: int
    file_unique_id: str
    caption: str
    file_name: str
    sent_by: int
    copy_of: tuple[int, int] | None = None
    media: str = "document"  # what Telegram calls it: document, audio, video; "text" for one without a file
    fields: dict[str, str] = field(default_factory=dict)  # as they were sent


class ApiRefusal(Exception):
    def __init__(self, code: int, description: str, *, retry_after_s: int | None = None) -> None:
        self.code, self.description, self.retry_after_s = code, description, retry_after_s
        super().__init__(description)


class TelegramStandIn(StandIn):
    """``counts`` holds calls by method, ``file`` for file links, and ``stored``. Faults go by method name or ``file``.

    Own fault names: ``store_then_cut`` (the message is stored, the answer never comes), ``cut_before_storing``,
    ``store_then_status`` (stored, then ``status``/``body`` is answered), ``store_then_hang``, ``hang``,
    ``wrong_size`` (the answer's file_size is off), ``as_video`` (the document comes back as a video).
    """

    def __init__(self, *, folder: Path | None = None, local: bool = False) -> None:
        super().__init__()
        self._own_folder = folder is None
        self.folder = folder or Path(tempfile.mkdtemp(prefix="telegram-standin-"))
        self.local = local  # a self-hosted server with --local: absolute paths, 2000 MB
        self.bots: dict[str, FakeBot] = {}
        self.channels: dict[int, FakeChannel] = {}
        self.messages: dict[tuple[int, int], FakeMessage] = {}
        self.sizes: dict[str, int] = {}  # file_unique_id -> bytes
        self.file_ids: dict[str, tuple[int, str]] = {}  # file_id -> (bot id, file_unique_id)
        self.links: dict[str, tuple[int, str]] = {}  # file_path -> (bot id, file_unique_id)
        self.spoiled: set[int] = set()  # bots whose file links give wrong bytes
        self.active_uploads = 0
        self.most_uploads_at_once = 0
        self.uploads_of: Counter[int] = Counter()
        self.most_uploads_of: dict[int, int] = {}
        self._held_until = 0
        self._together = asyncio.Event()
        self.file_bytes_sent = 0
        self.calls_of: Counter[int] = Counter()  # bot id -> method calls that were let in

    # -- what a test sets up and asks --------------------------------------------------------------------------

    def add_bot(self, bot_id: int, *, username: str = "") -> FakeBot:
        bot = FakeBot(token=f"{bot_id}:{secrets.token_urlsafe(26)}", username=username or f"store{bot_id}_bot")
        self.bots[bot.token] = bot
        return bot

    def reissue_token(self, bot: FakeBot) -> FakeBot:
        """BotFather's /revoke: the same bot, a new token; the old one gives 401."""
        del self.bots[bot.token]
        fresh = FakeBot(token=f"{bot.bot_id}:{secrets.token_urlsafe(26)}", username=bot.username)
        self.bots[fresh.token] = fresh
        return fresh

    def add_channel(self, chat_id: int, *, title: str = "Store", username: str = "") -> FakeChannel:
        self.channels[chat_id] = FakeChannel(chat_id=chat_id, title=title, username=username)
        return self.channels[chat_id]

    def make_admin(self, bot: FakeBot, channel: FakeChannel, *, post: bool = True, delete: bool = True) -> None:
        channel.kicked.discard(bot.bot_id)
        channel.members.discard(bot.bot_id)
        channel.admins[bot.bot_id] = {"can_post_messages": post, "can_delete_messages": delete}

    def demote(self, bot: FakeBot, channel: FakeChannel) -> None:
        """The bot stays in the channel, but is no administrator any more: its messages are hidden from it."""
        del channel.admins[bot.bot_id]
        channel.members.add(bot.bot_id)

    def originals(self) -> list[FakeMessage]:
        """Messages that are there and are not forwarded copies."""
        return [message for message in self.messages.values() if message.copy_of is None]

    def rate_limit(self, method: str, retry_after_s: int, *, times: int = 1, header_s: int | None = None) -> None:
        """The next calls of ``method`` get 429, as Telegram words it."""
        body = {"ok": False, "error_code": 429, "description": f"Too Many Requests: retry after {retry_after_s}",
                "parameters": {"retry_after": retry_after_s}}  # fmt: skip
        self.faults.add(method, status=429, retry_after_s=header_s or retry_after_s, body=body, times=times)

    def hold_uploads(self, together: int) -> None:
        """Answer no upload until so many were under way at once; after that each goes on as usual."""
        self._held_until = together

    def expire_links(self) -> None:
        self.links.clear()

    def file_of(self, unique_id: str) -> Path:
        return self.folder / unique_id

    def environment(self) -> dict[str, str]:
        """The settings that point a server here."""
        return {"TELEGRAM_API_URL": self.url, "TELEGRAM_FILE_URL": f"{self.url}/file"}

    async def close(self) -> None:
        await super().close()
        if self._own_folder:
            shutil.rmtree(self.folder, ignore_errors=True)

    # -- HTTP --------------------------------------------------------------------------------------------------

    def make_app(self) -> web.Application:
        app = web.Application(client_max_size=2100 * 1024 * 1024)
        app.router.add_route("*", "/bot{token}/{method}", self._on_method)
        app.router.add_get("/file/bot{token}/{path:.+}", self._on_file)
        return app

    async def _on_method(self, request: web.Request) -> web.StreamResponse:
        method = request.match_info["method"]
        self.counts[method] += 1
        fault = self.faults.take(method)
        if fault is not None and not fault.name.startswith("store_then"):
            if fault.name == "cut_before_storing":
                await self._drain(request)
                close_connection(request)
                return web.Response()
            if method in SENDING and fault.status is not None and not fault.name:
                await self._drain(request)  # a real server reads the request before it answers
            if (answer := await answer_instead(fault)) is not None:
                return answer
        try:
            bot = self._bot(request.match_info["token"])
            if method in SENDING:
                return await self._send_file(bot, request, fault, SENDING[method])
            handler = getattr(self, f"_do_{method}", None)
            if handler is None:
                raise ApiRefusal(404, "Not Found")
            result = handler(bot, await self._fields(request))
        except ApiRefusal as refusal:
            return _refuse(refusal)
        return web.json_response({"ok": True, "result": result})

    async def _drain(self, request: web.Request) -> None:
        async for _ in request.content.iter_any():
            pass

    async def _fields(self, request: web.Request) -> dict[str, Any]:
        if request.content_type == "application/json":
            body = await request.json()
            return body if isinstance(body, dict) else {}
        return {**request.query, **await request.post()}

    def _bot(self, token: str) -> FakeBot:
        if ":" not in token:
            raise ApiRefusal(404, "Not Found")
        bot = self.bots.get(token)
        if bot is None or not bot.alive:
            raise ApiRefusal(401, "Unauthorized")
        self.calls_of[bot.bot_id] += 1
        return bot

    def _chat(self, bot: FakeBot, given: Any) -> FakeChannel:
        text = str(given)
        found = next(
            (c for c in self.channels.values() if text == str(c.chat_id) or (c.username and text == f"@{c.username}")),
            None,
        )
        if found is None:
            raise ApiRefusal(400, "Bad Request: chat not found")
        if bot.bot_id in found.kicked:
            raise ApiRefusal(403, "Forbidden: bot was kicked from the channel chat")
        if bot.bot_id not in found.admins and bot.bot_id not in found.members:
            if not found.username:
                raise ApiRefusal(400, "Bad Request: chat not found")
            raise ApiRefusal(403, "Forbidden: bot is not a member of the channel chat")
        return found

    # -- methods -----------------------------------------------------------------------------------------------

    def _do_getMe(self, bot: FakeBot, _fields: dict[str, Any]) -> dict[str, Any]:  # noqa: N802 - Telegram's name
        return {"id": bot.bot_id, "is_bot": True, "first_name": bot.username, "username": bot.username}

    def _do_getChat(self, bot: FakeBot, fields: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        channel = self._chat(bot, fields.get("chat_id"))
        return {"id": channel.chat_id, "type": "channel", "title": channel.title,
                **({"username": channel.username} if channel.username else {})}  # fmt: skip

    def _do_getChatMember(self, bot: FakeBot, fields: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        channel = self._chat(bot, fields.get("chat_id"))
        rights = channel.admins.get(int(fields["user_id"]))
        user = {"id": int(fields["user_id"]), "is_bot": True, "first_name": "bot"}
        if rights is None or int(fields["user_id"]) in channel.members:
            return {"status": "member" if int(fields["user_id"]) in channel.members else "left", "user": user}
        return {"status": "administrator", "user": user, **rights}

    def _do_getFile(self, bot: FakeBot, fields: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        owner, unique_id = self.file_ids.get(str(fields.get("file_id")), (0, ""))
        if not unique_id:
            raise ApiRefusal(400, "Bad Request: invalid file_id")
        if owner != bot.bot_id:
            raise ApiRefusal(400, "Bad Request: wrong file_id or the file is temporarily unavailable")
        size = self.sizes[unique_id]
        if size > GET_FILE_MAX_BYTES and not self.local:
            raise ApiRefusal(400, "Bad Request: file is too big")
        path = str(self.file_of(unique_id)) if self.local else f"documents/file_{len(self.links)}.bin"
        self.links[path] = (bot.bot_id, unique_id)
        return {"file_id": fields["file_id"], "file_unique_id": unique_id, "file_size": size, "file_path": path}

    def _do_forwardMessage(self, bot: FakeBot, fields: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        source = self._chat(bot, fields.get("from_chat_id"))
        target = self._chat(bot, fields.get("chat_id"))
        if bot.bot_id not in source.members or source is not target:
            self._check_may_post(bot, target)
        original = self.messages.get((source.chat_id, int(fields.get("message_id", 0))))
        if original is None or bot.bot_id in source.members:
            raise ApiRefusal(400, "Bad Request: message to forward not found")
        if source.protected:
            raise ApiRefusal(400, "Bad Request: message can't be forwarded")
        copy = self._post(
            target, bot, original.file_unique_id, original.caption, original.file_name,
            copy_of=(original.chat_id, original.message_id),
        )  # fmt: skip
        copy.media = original.media
        return self._message_json(copy, bot)

    def _do_copyMessage(self, bot: FakeBot, fields: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        return {"message_id": self._do_forwardMessage(bot, fields)["message_id"]}

    def _do_sendMessage(self, bot: FakeBot, fields: dict[str, Any]) -> dict[str, Any]:  # noqa: N802
        channel = self._chat(bot, fields.get("chat_id"))
        self._check_may_post(bot, channel)
        message = self._post(channel, bot, "", str(fields.get("text", "")), "")
        message.media = "text"
        return self._message_json(message, bot)

    def _do_deleteMessage(self, bot: FakeBot, fields: dict[str, Any]) -> bool:  # noqa: N802
        channel = self._chat(bot, fields.get("chat_id"))
        if self.messages.get((channel.chat_id, int(fields.get("message_id", 0)))) is None:
            raise ApiRefusal(400, "Bad Request: message to delete not found")
        if not channel.admins.get(bot.bot_id, {}).get("can_delete_messages"):
            raise ApiRefusal(400, "Bad Request: message can't be deleted")
        del self.messages[channel.chat_id, int(fields["message_id"])]
        return True

    async def _send_file(
        self, bot: FakeBot, request: web.Request, fault: Fault | None, field_name: str
    ) -> web.StreamResponse:
        limit = 2000 * 1024 * 1024 if self.local else UPLOAD_MAX_BYTES
        if (request.content_length or 0) > limit + MULTIPART_OVERHEAD_BYTES:
            await self._drain(request)
            return web.Response(
                status=413,
                content_type="text/html",
                text="<html>\r\n<head><title>413 Request Entity Too Large</title></head>\r\n<body>\r\n"
                "<center><h1>413 Request Entity Too Large</h1></center>\r\n</body>\r\n</html>\r\n",
            )
        self.active_uploads += 1
        self.uploads_of[bot.bot_id] += 1
        self.most_uploads_at_once = max(self.most_uploads_at_once, self.active_uploads)
        self.most_uploads_of[bot.bot_id] = max(self.most_uploads_of.get(bot.bot_id, 0), self.uploads_of[bot.bot_id])
        try:
            fields, unique_id, file_name = await self._read_upload(request, field_name)
            if self.active_uploads >= self._held_until:
                self._together.set()
            await self._together.wait()
        finally:
            self.active_uploads -= 1
            self.uploads_of[bot.bot_id] -= 1
        if not unique_id:
            raise ApiRefusal(400, f"Bad Request: there is no {field_name} in the request")
        channel = self._chat(bot, fields.get("chat_id"))
        self._check_may_post(bot, channel)
        message = self._post(channel, bot, unique_id, fields.get("caption", ""), file_name)
        message.media, message.fields = field_name, fields
        self.counts["stored"] += 1
        return await self._answer_stored(request, self._message_json(message, bot), fault)

    async def _answer_stored(
        self, request: web.Request, result: dict[str, Any], fault: Fault | None
    ) -> web.StreamResponse:
        name = fault.name if fault else ""
        if name == "store_then_cut":
            close_connection(request)
        if name in {"store_then_status", "store_then_hang"} and (answer := await answer_instead(fault)) is not None:
            return answer
        if name == "wrong_size":
            media = next(result[key] for key in SENDING.values() if key in result)
            media["file_size"] += 1
        if name == "as_video":
            result["video"] = result.pop("document")
        return web.json_response({"ok": True, "result": result})

    async def _read_upload(self, request: web.Request, field_name: str) -> tuple[dict[str, str], str, str]:
        fields: dict[str, str] = {}
        unique_id = file_name = ""
        async for part in await request.multipart():
            if part.name == "thumbnail":  # type: ignore[union-attr]
                fields["thumbnail"] = (await part.read()).hex()  # type: ignore[union-attr]
                continue
            if part.name != field_name:  # type: ignore[union-attr]
                fields[part.name] = await part.text()  # type: ignore[union-attr,index]
                continue
            file_name = part.filename or "file"  # type: ignore[union-attr]
            unique_id, size = "AgAD" + secrets.token_hex(8), 0
            with self.file_of(unique_id).open("wb") as file:
                while piece := await part.read_chunk(256 * 1024):  # type: ignore[union-attr]
                    size += len(piece)
                    file.write(piece)
            self.sizes[unique_id] = size
        return fields, unique_id, file_name

    def _check_may_post(self, bot: FakeBot, channel: FakeChannel) -> None:
        if not channel.admins.get(bot.bot_id, {}).get("can_post_messages"):
            raise ApiRefusal(400, "Bad Request: need administrator rights in the channel chat")

    def _post(
        self, channel: FakeChannel, bot: FakeBot, unique_id: str, caption: str, file_name: str,
        copy_of: tuple[int, int] | None = None,
    ) -> FakeMessage:  # fmt: skip
        channel.last_message_id += 1
        message = FakeMessage(
            chat_id=channel.chat_id, message_id=channel.last_message_id, file_unique_id=unique_id, caption=caption,
            file_name=file_name, sent_by=bot.bot_id, copy_of=copy_of,
        )  # fmt: skip
        self.messages[message.chat_id, message.message_id] = message
        return message

    def _message_json(self, message: FakeMessage, bot: FakeBot) -> dict[str, Any]:
        known = {
            "message_id": message.message_id,
            "chat": {"id": message.chat_id, "type": "channel", "title": self.channels[message.chat_id].title},
            "date": 1_780_000_000,
        }
        if message.media == "text":
            return {**known, "text": message.caption}
        digest = hashlib.sha256(f"{bot.bot_id}|{message.file_unique_id}".encode()).hexdigest()
        file_id = f"BQACAg{digest[:48]}"
        self.file_ids[file_id] = (bot.bot_id, message.file_unique_id)
        return {
            **known,
            "caption": message.caption,
            message.media: {
                "file_id": file_id,
                "file_unique_id": message.file_unique_id,
                "file_name": message.file_name,
                "file_size": self.sizes[message.file_unique_id],
                "mime_type": "application/octet-stream",
            },
        }

    async def _on_file(self, request: web.Request) -> web.StreamResponse:
        self.counts["file"] += 1
        fault = self.faults.take("file")
        if (answer := await answer_instead(fault)) is not None:
            return answer
        bot = self.bots.get(request.match_info["token"])
        owner, unique_id = self.links.get(request.match_info["path"], (0, ""))
        if bot is None or self.local or owner != bot.bot_id:
            return _refuse(ApiRefusal(404, "Not Found"))
        data = self.file_of(unique_id).read_bytes()
        if bot.bot_id in self.spoiled:
            fault = Fault(wrong_bytes=True)
        return await send_bytes(
            request, data, content_type="application/octet-stream", fault=fault, ranges=False, on_sent=self._count_sent
        )

    def _count_sent(self, size: int) -> None:
        self.file_bytes_sent += size


def _refuse(refusal: ApiRefusal) -> web.Response:
    body: dict[str, Any] = {"ok": False, "error_code": refusal.code, "description": refusal.description}
    headers = {}
    if refusal.retry_after_s is not None:
        body["parameters"] = {"retry_after": refusal.retry_after_s}
        headers["Retry-After"] = str(refusal.retry_after_s)
    return web.Response(status=refusal.code, text=json.dumps(body), content_type="application/json", headers=headers)
