"""Bots and channels: adding, checking, seeding, parking, and how soon processes know."""

from __future__ import annotations

import threading

import pytest

from apps.core.errors import InvalidParameter, NotFound, UpstreamUnreachable
from apps.core.redis import redis_client
from apps.telegram_cache import roster as roster_module
from apps.telegram_cache.clients.bot_api import BotApi
from apps.telegram_cache.clients.errors import TelegramRateLimited, TokenRefused
from apps.telegram_cache.documents import DISABLED_BY_OPERATOR, TelegramBot, TelegramChannel
from apps.telegram_cache.roster import forget_roster, roster
from apps.telegram_cache.selectors import all_bots, all_channels
from apps.telegram_cache.services import pool, seed_from_settings
from apps.telegram_cache.services.bots import (
    add_and_check_bot,
    add_bot,
    check_all,
    disable_bot,
    replace_token,
)
from apps.telegram_cache.services.channels import add_channel, disable_channel, make_channel_default
from tests.telegram_cache.conftest import CHANNEL_ID
from tests.waiting import Clock, wait_until


def seed_with(settings, *, tokens: tuple[str, ...] = (), channel: str = "") -> None:
    settings.ENV = settings.ENV.model_copy(update={"telegram_bot_tokens": tokens, "telegram_channel_id": channel})


class TestAddBot:
    def test_a_good_token_is_stored_encrypted_under_the_numeric_id(self, mongo, telegram):
        bot = telegram.add_bot(111111, username="songs_bot")
        document = add_bot(bot.token)
        assert (document.bot_id, document.username) == ("111111", "songs_bot")
        raw = TelegramBot._get_collection().find_one()
        assert bot.token not in str(raw)
        assert roster().bot("111111").token == bot.token
        assert bot.token not in repr(roster())

    def test_adding_says_what_it_may_do_in_the_channels_and_it_is_not_used_where_it_may_not_post(self, store):
        second = store.telegram.add_bot(222222)
        _, findings = add_and_check_bot(second.token)
        assert [finding.ok for finding in findings] == [False]
        assert "administrator" in findings[0].fix
        assert roster().bot("222222").barred == {str(CHANNEL_ID)}
        store.telegram.make_admin(second, store.channel)
        assert [finding.ok for finding in add_and_check_bot(second.token)[1]] == [True]
        assert roster().bot("222222").barred == frozenset()

    def test_a_reissued_token_replaces_the_old_one(self, mongo, telegram):
        bot = telegram.add_bot(111111)
        add_bot(bot.token)
        fresh = telegram.reissue_token(bot)
        add_bot(fresh.token)
        assert len(all_bots()) == 1
        assert roster().bot("111111").token == fresh.token

    @pytest.mark.parametrize("token", ["", "abc", "12:", "12:a b", "x" * 500])
    def test_nonsense_is_refused_without_asking_telegram(self, mongo, telegram, token):
        with pytest.raises(InvalidParameter, match="BotFather"):
            add_bot(token)
        assert not telegram.counts

    def test_a_wrong_token_says_what_to_do_and_stores_nothing(self, mongo, telegram):
        with pytest.raises(InvalidParameter, match="BotFather"):
            add_bot("999:" + "x" * 35)
        assert all_bots() == []

    def test_telegram_away_stores_nothing(self, mongo, telegram):
        telegram.faults.add("getMe", status=502, times=5)
        with pytest.raises(UpstreamUnreachable):
            add_bot(telegram.add_bot(1).token)
        assert all_bots() == []


class TestAddChannel:
    def test_a_name_is_resolved_to_the_number(self, store):
        store.telegram.channels[CHANNEL_ID].username = "mystore"
        channel, findings = add_channel("@mystore")
        assert channel.channel_id == str(CHANNEL_ID)
        assert [finding.ok for finding in findings] == [True]
        assert len(all_channels()) == 1

    @pytest.mark.parametrize(
        "link",
        ["https://t.me/c/1234567890/5", "t.me/c/1234567890/5?single", "https://t.me/mystore", "https://t.me/mystore/77"],
    )  # fmt: skip
    def test_the_link_of_one_of_its_messages_names_it(self, store, link):
        store.telegram.channels[CHANNEL_ID].username = "mystore"
        channel, _ = add_channel(link)
        assert channel.channel_id == str(CHANNEL_ID) == "-1001234567890"

    @pytest.mark.parametrize(
        "link",
        ["https://t.me.example.com/c/1234567890/5", "https://example.com/t.me/mystore", "https://t.me/+AbCdEfGhIjK",
         "https://t.me/joinchat/AbCdEf", "t.me/c/x/5"],
    )  # fmt: skip
    def test_other_links_name_nothing(self, store, link):
        with pytest.raises(InvalidParameter, match="not a channel"):
            add_channel(link)

    def test_missing_rights_are_named_with_what_to_do(self, store):
        other = store.telegram.add_channel(-1002)
        with pytest.raises(InvalidParameter, match=r"does not see the channel.*administrator"):
            add_channel("-1002")
        store.telegram.make_admin(store.bot, other, post=False)
        with pytest.raises(InvalidParameter, match="allow it to post"):
            add_channel("-1002")
        assert [channel.channel_id for channel in all_channels()] == [str(CHANNEL_ID)]

    def test_there_must_be_a_bot_first(self, mongo, telegram):
        with pytest.raises(InvalidParameter, match="Add a bot first"):
            add_channel("-100123")

    def test_a_bot_that_may_not_post_there_is_barred_the_other_is_used(self, store):
        second = store.telegram.add_bot(222222)
        add_bot(second.token)
        add_channel(str(CHANNEL_ID))
        assert roster().bot("222222").barred == {str(CHANNEL_ID)}
        assert {pool.take_slot().bot.bot_id for _ in range(4)} == {"111111"}

    def test_the_newest_one_is_the_default_and_there_is_only_one(self, store):
        other = store.telegram.add_channel(-1002)
        store.telegram.make_admin(store.bot, other)
        add_channel("-1002")
        assert roster().default_channel.channel_id == "-1002"
        threads = [
            threading.Thread(target=make_channel_default, args=(name,)) for name in (str(CHANNEL_ID), "-1002") * 4
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert TelegramChannel.objects(is_default=True).count() == 1


class TestSeeding:
    def test_an_empty_database_is_filled_once(self, mongo, telegram, settings):
        bots = [telegram.add_bot(1), telegram.add_bot(2)]
        seed_with(settings, tokens=tuple(bot.token for bot in bots), channel=str(CHANNEL_ID))
        seed_from_settings()
        seed_from_settings()
        assert [bot.bot_id for bot in all_bots()] == ["1", "2"]
        assert roster().default_channel.channel_id == str(CHANNEL_ID)
        assert roster().can_upload
        seed_with(settings, tokens=(telegram.add_bot(3).token,), channel="-1009")
        seed_from_settings()
        assert len(all_bots()) == 2
        assert len(all_channels()) == 1

    def test_telegram_away_does_not_stop_the_start(self, mongo, settings):
        settings.ENV = settings.ENV.model_copy(update={"telegram_api_url": "http://127.0.0.1:1"})
        seed_with(settings, tokens=("5:" + "x" * 35,), channel="@later")
        seed_from_settings()
        assert roster().can_upload
        assert roster().default_channel.channel_id == "@later"

    def test_a_name_gets_its_number_at_the_next_check(self, mongo, redis_server, telegram, settings):
        bot = telegram.add_bot(1)
        telegram.make_admin(bot, telegram.add_channel(CHANNEL_ID, username="later"))
        telegram.faults.add("getChat", status=502)
        seed_with(settings, tokens=(bot.token,), channel="@later")
        seed_from_settings()
        assert roster().default_channel.channel_id == "@later"
        assert all(finding.ok for finding in check_all())
        assert [channel.channel_id for channel in all_channels()] == [str(CHANNEL_ID)]
        assert roster().default_channel.channel_id == str(CHANNEL_ID)

    def test_many_starters_make_one_of_each(self, mongo, telegram, settings):
        seed_with(settings, tokens=(telegram.add_bot(1).token,), channel=str(CHANNEL_ID))
        threads = [threading.Thread(target=seed_from_settings) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert (len(all_bots()), len(all_channels())) == (1, 1)


class TestPool:
    def test_at_most_four_uploads_of_a_bot_at_once(self, store):
        slots = [pool.take_slot() for _ in range(4)]
        with pytest.raises(pool.NoBotNow) as busy:
            pool.take_slot()
        assert 0 < busy.value.wait_s <= 1
        with slots[0]:
            pass
        pool.take_slot()

    def test_the_bucket_of_a_channel_empties_and_says_how_long_to_wait(self, store):
        for _ in range(pool.BURST_MESSAGES):
            with pool.take_slot():
                pass
        with pytest.raises(pool.NoBotNow) as busy:
            pool.take_slot()
        assert 0 < busy.value.wait_s <= 1.01

    def test_bots_take_turns(self, store):
        store.add_bot(222222)
        used = []
        for _ in range(6):
            with pool.take_slot() as slot:
                used.append(slot.bot.bot_id)
        assert sorted(used) == ["111111"] * 3 + ["222222"] * 3

    def test_a_cooling_bot_rests_the_other_goes_on(self, store):
        store.add_bot(222222)
        pool.note_error(TelegramRateLimited("x", retry_after_s=30), roster().bot("111111"))
        used = set()
        for _ in range(4):
            with pool.take_slot() as slot:
                used.add(slot.bot.bot_id)
        assert used == {"222222"}
        assert 5 < roster().bot("111111").cooling_s() <= 30.1

    def test_a_shorter_cool_down_does_not_end_a_longer_one(self, store):
        for seconds in (60, 5):
            pool.cool_down("111111", seconds)
        assert roster().bot("111111").cooling_s() > 10

    def test_a_refused_token_parks_the_bot_until_a_check_finds_it_well(self, store):
        pool.note_error(TokenRefused("Unauthorized"), roster().bot("111111"))
        assert roster().bots == ()
        assert "Unauthorized" in all_bots()[0].reason
        assert all(finding.ok for finding in check_all())
        assert [bot.bot_id for bot in roster().bots] == ["111111"]

    def test_a_bot_disabled_by_the_operator_stays_so(self, store):
        disable_bot("111111")
        pool.cool_down("111111", 1)
        check_all()
        assert roster().bots == ()

    def test_an_unknown_bot_or_channel_is_not_found(self, mongo):
        with pytest.raises(NotFound):
            disable_bot("5")
        with pytest.raises(NotFound):
            disable_channel("-5")

    def test_a_change_by_another_process_is_seen_within_a_second(self, store, monkeypatch):
        clock = Clock()
        monkeypatch.setattr(roster_module, "time", clock)
        forget_roster()
        assert roster().bots
        TelegramBot._get_collection().update_one({"_id": "111111"}, {"$set": {"state": "disabled"}})
        clock.ahead_s = roster_module.MAX_AGE_S + 0.001
        assert roster().bots == ()
        assert roster_module.MAX_AGE_S < 1


class TestRacingWithANewToken:
    def test_a_process_that_still_used_the_old_token_does_not_stop_the_bot(self, store):
        old = roster().bot("111111")
        fresh = store.telegram.reissue_token(store.bot)
        replace_token("111111", fresh.token)
        pool.note_error(TokenRefused("Unauthorized"), old)
        assert roster().bot("111111").token == fresh.token

    def test_the_token_that_is_refused_stops_it(self, store):
        pool.note_error(TokenRefused("Unauthorized"), roster().bot("111111"))
        assert roster().bot("111111") is None


class TestAnOperatorsWord:
    """What happens while an operator disables a bot never takes that back."""

    def test_a_refused_token_does_not_overwrite_it(self, store):
        known = roster().bot("111111")
        disable_bot("111111")
        pool.note_error(TokenRefused("Unauthorized"), known)
        assert all_bots()[0].reason == DISABLED_BY_OPERATOR

    def test_a_check_that_was_on_its_way_does_not_overwrite_it(self, store, monkeypatch):
        pool.note_error(TokenRefused("Unauthorized"), roster().bot("111111"))
        asked = BotApi.get_me

        def disabled_meanwhile(api):
            disable_bot("111111")
            return asked(api)

        monkeypatch.setattr(BotApi, "get_me", disabled_meanwhile)
        check_all()
        assert (all_bots()[0].state, all_bots()[0].reason) == ("disabled", DISABLED_BY_OPERATOR)


class TestRate:
    def test_a_rest_counts_at_once_for_a_process_that_has_not_read_it_yet(self, store, monkeypatch):
        known = roster()
        pool.cool_down("111111", 30)
        monkeypatch.setattr(pool, "roster", lambda: known)
        with pytest.raises(pool.NoBotNow) as busy:
            pool.take_slot()
        assert 29 < busy.value.wait_s <= 30.1
        assert 29 < pool.take_token("111111", str(CHANNEL_ID)) <= 30.1

    def test_copies_and_files_share_the_bucket_and_copies_take_no_slot(self, store):
        for _ in range(pool.BURST_MESSAGES - 1):
            assert pool.take_token("111111", str(CHANNEL_ID)) == 0
        with pool.take_slot():
            pass
        assert 0 < pool.take_token("111111", str(CHANNEL_ID)) <= 1.01
        assert pool.take_token("111111", "-1009") == 0

    def test_a_slot_is_renewed_while_it_is_kept(self, store, monkeypatch):
        monkeypatch.setattr(pool, "RENEW_EVERY_S", 0.01)
        with pool.take_slot() as slot, slot.kept():
            key = pool._slots_key("111111")
            redis_client().zadd(key, {slot._name: 1e15}, xx=True)  # until a renewal says when it ends
            wait_until(lambda: redis_client().zscore(key, slot._name) < 1e14)
