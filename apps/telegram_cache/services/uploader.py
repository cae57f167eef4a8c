"""One run over one asset: its parts are sent to Telegram, and what was sent without an answer is looked for."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Iterator
from functools import partial

import structlog
from django.conf import settings

from apps.streaming.hotstore import HotStore
from apps.telegram_cache.clients.answers import StoredMessage
from apps.telegram_cache.clients.bot_api import BotApi
from apps.telegram_cache.clients.errors import (
    BotForbidden,
    ChatNotFound,
    FileTooBig,
    TelegramError,
    TelegramRateLimited,
    TelegramUncertain,
    TelegramUnreachable,
    TokenRefused,
)
from apps.telegram_cache.documents import Asset, Part, PartState
from apps.telegram_cache.reach import is_in_reach
from apps.telegram_cache.roster import roster
from apps.telegram_cache.selectors import find_asset
from apps.telegram_cache.services import care_records as care
from apps.telegram_cache.services import upload_records as records
from apps.telegram_cache.services.hot_bytes import HotBytes, HotBytesMissing, HotBytesWrong
from apps.telegram_cache.services.lease import LeaseKeeper, LeaseLost
from apps.telegram_cache.services.orphan_records import UNANSWERED
from apps.telegram_cache.services.parallel import in_parallel
from apps.telegram_cache.services.planning import Stretch, plan_around
from apps.telegram_cache.services.pool import (
    EVERY_BOT_IS_BUSY,
    MAX_UPLOADS_PER_BOT,
    NoBotNow,
    NoBotThere,
    Slot,
    note_error,
    take_slot,
)
from apps.telegram_cache.services.resolving import CannotTell, caption_of, find_sent, remove_message
from apps.telegram_cache.services.verifying import read_bad_part

log = structlog.get_logger(__name__)
SHORT_WAIT_S = 5.0  # worth waiting for in the worker's thread; anything longer is left to the sweep
LONGEST_SLOT_WAIT_S = 60.0  # the bots are busy with other parts
MAX_PARTS_AT_ONCE = 8  # of one asset
SETTLE_S = 1.0  # Telegram may still be storing what it did not answer
MAX_TRIES_PER_PART = 4  # in one run
TRIES_TO_FIND_OUT = 3  # failed runs, where the channel lets no bot look whether a part is stored


class TryLater(Exception):
    """This run ends; the sweep starts the next one. ``counts``: it was a failure, so the delay grows."""

    def __init__(self, reason: str, *, retry_s: float | None = None, counts: bool = True) -> None:
        self.retry_s = retry_s
        self.counts = counts
        super().__init__(reason)


class Uploader:
    """One run over one asset, by the holder of its lease."""

    def __init__(self, asset: Asset, keeper: LeaseKeeper) -> None:
        self.asset = asset
        self.keeper = keeper
        self._resolving = threading.Lock()
        self.hot = HotBytes(HotStore(settings.ENV.hot_root), asset)

    def run(self) -> None:
        """Raises TryLater or LeaseLost when it cannot finish."""
        if not self.asset.size_bytes or not self.asset.block_sha256:
            raise TryLater("the record has no size or no block hashes")
        self._plan()
        missing = [part.index for part in self.asset.parts if part.state != PartState.STORED]
        at_once = min(MAX_PARTS_AT_ONCE, MAX_UPLOADS_PER_BOT * max(1, len(roster().bots)))
        in_parallel(self._store, missing, threads=at_once)
        if not records.finish_upload(self.asset, owner=self.keeper.owner):
            raise LeaseLost

    def _plan(self) -> None:
        asset = self.asset
        most = settings.ENV.telegram_part_bytes
        covered = sum(part.size for part in asset.parts) == asset.size_bytes
        is_plan = bool(asset.parts) and covered and asset.parts_generation == asset.generation
        if is_plan and not self._has_parts_to_cut(most):
            return
        kept = [part for part in asset.parts if self._stays(part, most)] if is_plan else []
        stretches = plan_around([Stretch(part.offset, part.size) for part in kept], asset.size_bytes or 0, most)
        planned = records.save_plan(asset, owner=self.keeper.owner, stretches=stretches, kept=kept)
        if planned is None:
            raise LeaseLost
        self.asset = planned

    def _has_parts_to_cut(self, most: int) -> bool:
        """Whether parts that were not sent are larger than Telegram takes now. While a part without an answer can only
        be looked for, the plan stays."""
        unanswered = [part for part in self.asset.parts if part.state in UNANSWERED]
        cut = [part for part in self.asset.parts if part.state == PartState.PLANNED and not self._stays(part, most)]
        return bool(cut) and all(self.hot.has(part.offset, part.size) for part in unanswered)

    def _stays(self, part: Part, most: int) -> bool:
        """What is stored is not sent again, unless it can't be read back; what is not here can't be sent anew."""
        if part.state in UNANSWERED:
            return False  # its caption names its place in the plan: it is sent again, and what may be there is noted
        is_good = is_in_reach(part.size) if part.state == PartState.STORED else part.size <= most
        return is_good or not self.hot.has(part.offset, part.size)

    def _part(self, index: int) -> Part:
        """The part as the record has it now."""
        asset = find_asset(self.asset.id)
        if asset is None or asset.parts_generation != self.asset.parts_generation or index >= len(asset.parts):
            raise LeaseLost
        return asset.parts[index]  # type: ignore[no-any-return]

    def _store(self, index: int) -> None:
        tries, end_at = 0, time.monotonic() + LONGEST_SLOT_WAIT_S
        while tries < MAX_TRIES_PER_PART:
            self.keeper.check()
            part = self._part(index)
            if part.state in (PartState.SENDING, PartState.UNKNOWN) and self._resolve(part):
                return
            if part.state == PartState.BAD and self._is_well_again(part):
                return
            try:
                if self._send(part):
                    return
            except TelegramRateLimited as asked_to_wait:  # no failure: the next slot comes when the bot may send again
                if time.monotonic() > end_at:
                    raise TryLater(str(asked_to_wait), retry_s=asked_to_wait.retry_after_s, counts=False) from None
                continue
            tries += 1
        raise TryLater(f"part {index} could not be stored")

    def _resolve(self, part: Part) -> bool:
        """Whether a part that was sent without an answer is stored; then it is on record."""
        try:
            with self._resolving:  # each looks through the newest messages: several at once would look at each other's
                found = find_sent(
                    self.asset, part, take=self._slot, note_seen=partial(records.note_seen, self.asset, part)
                )
        except CannotTell as reason:
            if reason.for_good and self.asset.upload_attempts >= TRIES_TO_FIND_OUT:
                return False  # it is sent again; what may be there already goes on the list of orphans
            raise TryLater(f"part {part.index}: cannot find out whether it is stored: {reason}") from None
        except TelegramRateLimited as error:
            raise TryLater(str(error), retry_s=error.retry_after_s, counts=False) from None
        except (TelegramUnreachable, TelegramUncertain) as error:
            raise TryLater(f"part {part.index}: cannot find out whether it is stored: {error}") from None
        if found is None:
            return False
        bot, message = found
        return self._commit(part, part.attempt_id or "", bot.bot_id, part.channel_id or "", message)

    def _is_well_again(self, part: Part) -> bool:
        """The last resort before fetching anew: a bad part whose bytes are not here is read back once more."""
        return not self.hot.has(part.offset, part.size) and read_bad_part(self.asset, part)

    def _send(self, part: Part) -> bool:
        """One attempt. True: stored and on record. False: certainly not, or unknown; look at the part again.

        Raises TelegramRateLimited when Telegram asked the bot to wait: nothing was stored.
        """
        sha256 = self._sha256(part)
        with self._slot() as slot, self.keeper.using(slot):
            attempt_id = secrets.token_hex(8)
            if not records.begin_attempt(
                self.asset, part, owner=self.keeper.owner, attempt_id=attempt_id, bot_id=slot.bot.bot_id,
                channel_id=slot.channel.channel_id, sha256=sha256,
            ):  # fmt: skip
                raise LeaseLost
            try:
                message = self._request(slot, part, attempt_id, sha256)
            except TelegramUncertain as error:
                self._note(part, attempt_id, PartState.UNKNOWN)
                log.warning("upload_unknown", asset_id=self.asset.id, part=part.index, error=str(error))
                self.keeper.wait(SETTLE_S)
                return False
            except (TelegramError, LeaseLost, HotBytesMissing, HotBytesWrong) as error:
                self._note(part, attempt_id, PartState.PLANNED)
                self._judge(error, slot, part)
                return False
            if message.file_size is not None and message.file_size != part.size:
                self._drop(slot, part, attempt_id, message, reason="wrong size")
                self._note(part, attempt_id, PartState.PLANNED)
                raise TryLater(f"part {part.index}: Telegram stored {message.file_size} of {part.size} bytes")
            if not self._commit(part, attempt_id, slot.bot.bot_id, slot.channel.channel_id, message):
                self._drop(slot, part, attempt_id, message, reason="sent twice")
                raise LeaseLost
            return True

    def _sha256(self, part: Part) -> str:
        """Of bytes that are certainly here: nothing of a bad part is given up before that."""
        try:
            if part.sha256 and part.state != PartState.BAD:
                return str(part.sha256)
            return self.hot.sha256_of(part.offset, part.size)
        except (HotBytesMissing, HotBytesWrong) as error:
            self._want_refetch(error)
            raise TryLater(str(error)) from None

    def _want_refetch(self, error: HotBytesMissing | HotBytesWrong) -> None:
        """Bytes that are nowhere are fetched anew. A file that is not what the record says serves nobody."""
        if isinstance(error, HotBytesWrong):
            self.hot.discard()
        care.want_refetch(self.asset, owner=self.keeper.owner, reason=str(error))

    def _request(self, slot: Slot, part: Part, attempt_id: str, sha256: str) -> StoredMessage:
        def pieces() -> Iterator[bytes]:
            for piece in self.hot.pieces(part.offset, part.size):
                self.keeper.check()
                yield piece

        return BotApi(slot.bot.token).send_document(
            chat_id=slot.channel.channel_id,
            file_name=f"{self.asset.id}.{part.index}.bin",
            caption=caption_of(self.asset.id, part, attempt_id=attempt_id, sha256=sha256),
            size_bytes=part.size,
            pieces=pieces(),
        )

    def _judge(self, error: Exception, slot: Slot, part: Part) -> None:
        """After an attempt that stored nothing: return to try again with another bot, or raise."""
        if isinstance(error, TelegramError):
            note_error(error, slot.bot, channel_id=slot.channel.channel_id)
        if isinstance(error, (TokenRefused, BotForbidden, ChatNotFound)):
            return
        if isinstance(error, (TelegramRateLimited, LeaseLost)):
            raise error
        if isinstance(error, (HotBytesMissing, HotBytesWrong)):
            self._want_refetch(error)
        if isinstance(error, FileTooBig):
            raise TryLater(
                f"Telegram takes no file of {part.size} bytes: set TELEGRAM_PART_BYTES lower",
                retry_s=records.LONGEST_RETRY_S,
            )
        raise TryLater(f"part {part.index}: {error}")

    def _note(self, part: Part, attempt_id: str, state: PartState) -> None:
        records.set_attempt_state(self.asset, index=part.index, attempt_id=attempt_id, state=state)

    def _commit(self, part: Part, attempt_id: str, bot_id: str, channel_id: str, message: StoredMessage) -> bool:
        return records.commit_part(
            self.asset, index=part.index, attempt_id=attempt_id, bot_id=bot_id, channel_id=channel_id, message=message
        )

    def _drop(self, slot: Slot, part: Part, attempt_id: str, message: StoredMessage, *, reason: str) -> None:
        part.attempt_id = attempt_id
        part.channel_id = message.chat_id or slot.channel.channel_id
        remove_message(
            slot.bot, self.asset.id, part, chat_id=part.channel_id, message_id=message.message_id, reason=reason
        )

    def _slot(self, channel_id: str = "") -> Slot:
        """A slot, after a short wait if need be. Raises TryLater when the wait would be long, or there is no bot.

        While other parts of this asset are being sent the wait may be longer: the worker's thread is in use anyway.
        """
        began_at = time.monotonic()
        while time.monotonic() - began_at < (LONGEST_SLOT_WAIT_S if self.keeper.is_sending else SHORT_WAIT_S):
            try:
                return take_slot(channel_id)
            except NoBotThere as closed:
                if channel_id:  # a part that may be there cannot be found out about: that must come to an end
                    raise TryLater(f"a part may already be stored, but {closed}") from None
                raise TryLater(str(closed), retry_s=closed.wait_s, counts=False) from None
            except NoBotNow as busy:
                if busy.wait_s > SHORT_WAIT_S:
                    raise TryLater(str(busy), retry_s=busy.wait_s, counts=False) from None
                self.keeper.wait(busy.wait_s)
        raise TryLater(EVERY_BOT_IS_BUSY, counts=False, retry_s=SHORT_WAIT_S)
