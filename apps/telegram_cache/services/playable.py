"""Posts an asset of at most 50 MB once more as a song or a video that plays: what ``message_link`` leads to."""

from __future__ import annotations

import secrets
from functools import partial
from typing import TYPE_CHECKING, NoReturn

import structlog
from django.conf import settings

from apps.core.errors import ApiError
from apps.core.wake import publish
from apps.streaming.hotstore import HotStore
from apps.telegram_cache.clients.answers import StoredMessage
from apps.telegram_cache.clients.bot_api import BotApi, Upload
from apps.telegram_cache.clients.errors import TelegramError, TelegramRateLimited, TelegramUncertain
from apps.telegram_cache.documents import Asset, MediaKind, Part
from apps.telegram_cache.roster import Channel, roster
from apps.telegram_cache.services import playable_records as records
from apps.telegram_cache.services.hot_bytes import HotBytes, HotBytesMissing, HotBytesWrong
from apps.telegram_cache.services.pool import NoBotNow, NoBotThere, Slot, note_error, take_slot
from apps.telegram_cache.services.resolving import CannotTell, caption_of, find_sent, remove_message

if TYPE_CHECKING:
    import httpx

log = structlog.get_logger(__name__)
MAX_BYTES = 50 * 1000 * 1000
RETRY_S = 120.0
THUMBNAIL_URL = "https://i.ytimg.com/vi/{video_id}/mqdefault.jpg"  # a JPEG of 320 x 180, what Telegram takes
MAX_THUMBNAIL_BYTES = 200_000
THUMBNAIL_TIMEOUT_S = 4.0


def post_playable(asset_id: str) -> bool:
    """Whether the asset has its playable copy now. Idempotent: never two recorded; one that may exist is looked for.

    Does nothing when the channel does not want copies or the file is too large. A failure only waits for its next try,
    and there are at most five; a bot that is busy or has to rest is no failure.
    """
    channel = roster().default_channel
    if channel is None or not channel.playable:
        return False
    asset = records.claim_playable(asset_id, max_bytes=MAX_BYTES)
    if asset is None:
        return False
    try:
        done = _find_earlier(asset) or _post(asset)
    except (TelegramRateLimited, NoBotNow) as busy:
        wait_s = busy.retry_after_s if isinstance(busy, TelegramRateLimited) else busy.wait_s
        records.release_playable(asset_id, wait_s=wait_s, counts=isinstance(busy, NoBotThere))
        log.info("playable_waits", asset_id=asset_id, reason=str(busy), retry_s=wait_s)
        return False
    except CannotTell as reason:  # no try, as long as the search comes nearer to its end
        records.release_playable(asset_id, wait_s=RETRY_S, counts=not reason.went_on)
        log.info("playable_searched", asset_id=asset_id, reason=str(reason), went_on=reason.went_on)
        return False
    except (TelegramError, HotBytesMissing, HotBytesWrong) as error:
        log.warning("playable_not_posted", asset_id=asset_id, error=f"{type(error).__name__}: {error}")
        done = False
    if done:
        publish(f"asset:{asset_id}")
    else:
        records.release_playable(asset_id, wait_s=RETRY_S, counts=True)
    return done


def message_link(channel: Channel, message_id: int) -> str:
    """For everybody when the channel has a name, else for its members."""
    place = channel.username or f"c/{channel.channel_id.removeprefix('-100')}"
    return f"https://t.me/{place}/{message_id}"


def _find_earlier(asset: Asset) -> bool:
    part = asset.playable
    if part is None:
        return False
    try:
        found = find_sent(asset, part, take=take_slot, note_seen=partial(records.note_seen, asset, part))
    except CannotTell as reason:
        if not reason.for_good:
            raise
        return False
    return found is not None and _commit(asset, part, found[1])


def _commit(asset: Asset, part: Part, message: StoredMessage) -> bool:
    channel = roster().channel(part.channel_id or "")
    if channel is None:
        return False
    return records.commit_playable(asset, part, message, link=message_link(channel, message.message_id))


def _post(asset: Asset) -> bool:
    hot = HotBytes(HotStore(settings.ENV.hot_root), asset)
    thumbnail = fetch_thumbnail(asset.video_id)
    with take_slot() as slot, slot.kept():
        part = records.begin_playable(
            asset, bot_id=slot.bot.bot_id, channel_id=slot.channel.channel_id, attempt_id=secrets.token_hex(8)
        )
        if part is None:
            return False
        try:
            message = BotApi(slot.bot.token).send_playable(
                media=_upload_of(asset), fields=_fields(asset, part, slot), thumbnail=thumbnail,
                pieces=hot.pieces(0, int(asset.size_bytes)),
            )  # fmt: skip
        except TelegramUncertain:
            raise  # it may be there: the next try looks for it first
        except (TelegramError, HotBytesMissing, HotBytesWrong) as error:
            _did_not_send(asset, part, slot, error)
        if message.file_size not in (None, asset.size_bytes) or not _commit(asset, part, message):
            remove_message(
                slot.bot, asset.id, part, chat_id=message.chat_id or slot.channel.channel_id,
                message_id=message.message_id, reason="copy",
            )  # fmt: skip
            records.forget_playable(asset, part)
            return False
    return True


def _did_not_send(asset: Asset, part: Part, slot: Slot, error: Exception) -> NoReturn:
    records.forget_playable(asset, part)
    if isinstance(error, TelegramError):
        note_error(error, slot.bot, channel_id=slot.channel.channel_id)
    raise error


def _upload_of(asset: Asset) -> Upload:
    field = "audio" if asset.kind == MediaKind.AUDIO else "video"
    name = f"{asset.id}.{asset.container or 'bin'}"
    return Upload(field=field, file_name=name, mime=asset.mime, size_bytes=int(asset.size_bytes))


def _fields(asset: Asset, part: Part, slot: Slot) -> dict[str, str]:
    fields = {
        "chat_id": slot.channel.channel_id,
        "caption": caption_of(asset.id, part, attempt_id=part.attempt_id or "", sha256=asset.sha256 or ""),
        "disable_notification": "true",
        "duration": str(round(asset.duration_s or 0)),
    }
    if asset.kind == MediaKind.AUDIO:
        return {**fields, "title": asset.title[:200], "performer": asset.uploader[:200]}
    return {**fields, "supports_streaming": "true"}


def fetch_thumbnail(video_id: str) -> bytes:
    """A small JPEG, or nothing: a copy without a picture plays just as well."""
    import httpx  # not at the top: see apps.core.imports

    from apps.core.outbound_httpx import guarded_httpx_client

    try:
        with (
            guarded_httpx_client(timeout=httpx.Timeout(THUMBNAIL_TIMEOUT_S)) as client,
            client.stream("GET", THUMBNAIL_URL.format(video_id=video_id)) as response,
        ):
            picture = b"".join(response.iter_bytes()) if _is_small_jpeg(response) else b""
    except (ApiError, httpx.HTTPError):
        return b""
    return picture if len(picture) <= MAX_THUMBNAIL_BYTES else b""


def _is_small_jpeg(response: httpx.Response) -> bool:
    length = response.headers.get("Content-Length", "")
    is_jpeg = response.headers.get("Content-Type") == "image/jpeg"
    return response.status_code == 200 and is_jpeg and length.isdecimal() and int(length) <= MAX_THUMBNAIL_BYTES
