"""Finds out whether a part whose sending ended without an answer is in the channel.

The Bot API cannot list messages, but message ids count up within a channel and a bot can forward any message by its id:
the copy shows the caption, which holds the attempt id. A short message, removed at once, shows which id is the newest
now; those between the newest one known before the attempt and that are forwarded one by one (copies are deleted at
once) until the caption is found.
"""

from __future__ import annotations

from collections.abc import Callable

import structlog

from apps.telegram_cache.administrators import is_administrator
from apps.telegram_cache.clients.answers import ForwardedCopy, StoredMessage
from apps.telegram_cache.clients.bot_api import BotApi
from apps.telegram_cache.clients.errors import (
    BotForbidden,
    ChatNotFound,
    MessageNotFound,
    TelegramError,
    TelegramRateLimited,
    TelegramRefused,
    TelegramUncertain,
    TokenRefused,
)
from apps.telegram_cache.documents import Asset, Part
from apps.telegram_cache.roster import Bot, roster
from apps.telegram_cache.selectors import playable_message_ids, stored_message_ids
from apps.telegram_cache.services.copying import make_copy
from apps.telegram_cache.services.orphan_records import add_lost_message, add_orphan
from apps.telegram_cache.services.pool import Slot, note_error
from apps.telegram_cache.services.upload_records import is_recorded, note_message_id

log = structlog.get_logger(__name__)
LOOKING = "Looking for a file that was sent here."
TOKEN_WAIT_S = 5.0
MAX_LOOKS = 40  # messages of others, in one run
MAX_MISSES = 100  # ids of deleted messages, in one run


class CannotTell(Exception):
    """It could not be found out. ``for_good``: the channel lets no bot look, so trying again will hardly help.

    ``went_on``: the search has come nearer to its end, and the next one begins there.
    """

    def __init__(self, reason: str, *, for_good: bool = False) -> None:
        self.for_good = for_good
        self.went_on = False
        super().__init__(reason)


def caption_of(asset_id: str, part: Part, *, attempt_id: str, sha256: str) -> str:
    return f"yt1|{asset_id}|{part.index}|{attempt_id}|{sha256[:16]}"


def find_sent(
    asset: Asset, part: Part, *, take: Callable[[str], Slot], note_seen: Callable[[int], None] = lambda _: None
) -> tuple[Bot, StoredMessage] | None:
    """The message of an attempt and the bot that saw it, or None when it is certainly not there (by now).

    ``take`` gives a slot in the part's channel for each message looked at. ``note_seen`` is told up to which id the
    message is certainly not there, so that the next search can begin after it. Raises CannotTell, a TelegramError that
    is no refusal, or what ``take`` raises.
    """
    return _Search(asset, part, take, note_seen).run()


class _Search:
    """One search for one attempt's message."""

    def __init__(self, asset: Asset, part: Part, take: Callable[[str], Slot], note_seen: Callable[[int], None]) -> None:
        self.asset = asset
        self.part = part
        self.channel_id = part.channel_id or ""
        self._take = take
        self._note_seen = note_seen
        self._wanted = caption_of(asset.id, part, attempt_id=part.attempt_id or "", sha256=part.sha256 or "")
        self._after = part.after_message_id or 0
        self._ours: set[int] = set()
        self._looks = self._misses = 0
        self._blind: dict[str, TelegramError] = {}  # bots that cannot see the channel's messages, and what was said

    def run(self) -> tuple[Bot, StoredMessage] | None:
        if roster().channel(self.channel_id) is None:
            raise CannotTell("the channel is no longer on record")
        newest = self._newest()
        self._ours |= stored_message_ids(self.channel_id, after=self._after, up_to=newest)
        self._ours |= playable_message_ids(self.channel_id, after=self._after, up_to=newest)
        between = range(self._after + 1, newest)
        seen = self._after
        try:
            # from the first one after the attempt on; from the newest one back when nobody knows which that is
            for message_id in between if self._after else reversed(between):
                if message_id not in self._ours and (found := self._look_at(message_id)) is not None:
                    return found
                seen = message_id
        except Exception as error:  # whatever ends it: what was seen need not be looked at again
            if self._after and seen > self._after:
                self._note_seen(seen)
                if isinstance(error, CannotTell):
                    error.went_on = True
            raise
        return None

    def _check_bounds(self) -> None:
        """Raises CannotTell when this run has looked at enough."""
        if self._looks >= MAX_LOOKS or self._misses >= MAX_MISSES:
            raise CannotTell("there are many messages to look through: it goes on with the next try")

    def _look_at(self, message_id: int) -> tuple[Bot, StoredMessage] | None:
        self._check_bounds()
        seen = self._copy_of(message_id)
        if seen is None:
            self._misses += 1
            return None
        self._looks += 1
        bot, copy, is_there = seen
        file = copy.file
        if file is None or file.caption != self._wanted or file.file_size not in (None, self.part.size):
            return None
        return bot, StoredMessage(
            message_id=message_id,
            chat_id=file.chat_id if is_there else self.channel_id,
            file_id=file.file_id,
            file_unique_id=file.file_unique_id,
            file_size=file.file_size,
            caption=file.caption,
        )

    def _copy_of(self, message_id: int) -> tuple[Bot, ForwardedCopy, bool] | None:
        """The bot, its copy of the message, already removed again, and whether that was in the channel itself.

        None: an administrator says that there is no such message. Raises CannotTell when no bot can say, and
        TelegramRateLimited when one could that has to wait.
        """
        limited: dict[str, TelegramRateLimited] = {}
        for _ in range(2 * len(roster().bots) + 1):
            with self._take(self.channel_id) as slot:
                if slot.bot.bot_id in self._blind:
                    continue
                try:
                    return slot.bot, *self._forward(slot.bot, message_id)
                except MessageNotFound as error:
                    if is_administrator(slot.bot, self.channel_id):
                        return None
                    self._blind[slot.bot.bot_id] = error
                except TelegramRateLimited as error:
                    note_error(error, slot.bot)  # another one may go on
                    limited[slot.bot.bot_id] = error
                except TelegramRefused as error:
                    note_error(error, slot.bot, channel_id=self.channel_id)
                    self._blind[slot.bot.bot_id] = error
        could_say = [error for bot_id, error in limited.items() if bot_id not in self._blind]
        raise could_say[0] if could_say else self._nobody_sees()

    def _nobody_sees(self) -> CannotTell:
        passing = (MessageNotFound, TokenRefused, BotForbidden, ChatNotFound)
        said = list(self._blind.values())
        for_good = bool(said) and not any(isinstance(error, passing) for error in said)
        return CannotTell(str(said[0]) if said else "no bot can look now", for_good=for_good)

    def _forward(self, bot: Bot, message_id: int) -> tuple[ForwardedCopy, bool]:
        target, copy = make_copy(bot, self.asset.id, self.part, message_id=message_id, wait_s=TOKEN_WAIT_S, paid=True)
        if target == self.channel_id:
            note_message_id(self.channel_id, copy.message_id)
            self._ours.add(copy.message_id)
        remove_message(bot, self.asset.id, self.part, chat_id=target, message_id=copy.message_id, reason="copy")
        return copy, target == self.channel_id

    def _newest(self) -> int:
        """The newest id in the channel, of a message sent for this and removed again. What was stored is older."""
        limited: TelegramRateLimited | None = None
        refusal: TelegramError | None = None
        for _ in range(len(roster().bots) + 1):
            with self._take(self.channel_id) as slot:
                try:
                    newest = BotApi(slot.bot.token).send_text(chat_id=self.channel_id, text=LOOKING)
                except TelegramRateLimited as error:
                    note_error(error, slot.bot)  # another one may go on
                    limited = error
                    continue
                except TelegramRefused as error:
                    note_error(error, slot.bot, channel_id=self.channel_id)
                    refusal = error
                    continue
                except TelegramUncertain:
                    add_lost_message(self.asset.id, self.part, channel_id=self.channel_id, reason="looking")
                    raise
                note_message_id(self.channel_id, newest)
                remove_message(
                    slot.bot, self.asset.id, self.part, chat_id=self.channel_id, message_id=newest, reason="looking"
                )
                return newest
        raise limited or CannotTell(str(refusal))


def remove_message(bot: Bot, asset_id: str, part: Part, *, chat_id: str, message_id: int, reason: str) -> None:
    """Delete a message that no part needs; when Telegram does not let us, note it as an orphan.

    A message that the asset's record names stays, whatever the caller thinks.
    """
    if is_recorded(asset_id, channel_id=chat_id, message_id=message_id):
        log.warning("telegram_message_kept", asset_id=asset_id, message_id=message_id, reason=reason)
        return
    try:
        BotApi(bot.token).delete_message(chat_id=chat_id, message_id=message_id)
    except MessageNotFound:
        return
    except TelegramError as error:
        note_error(error, bot)
        log.warning("telegram_message_not_deleted", asset_id=asset_id, message_id=message_id, error=str(error))
        add_orphan(asset_id, part, channel_id=chat_id, message_id=message_id, reason=reason)
