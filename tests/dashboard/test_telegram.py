import pytest

from apps.core.documents import AuditEntry
from apps.telegram_cache.documents import BotState, TelegramBot, TelegramChannel
from tests.telegram_cache.conftest import CHANNEL_ID, telegram  # noqa: F401 - a fixture


@pytest.fixture
def bot(telegram):  # noqa: F811 - the fixture
    bot = telegram.add_bot(111111, username="store_bot")
    telegram.make_admin(bot, telegram.add_channel(CHANNEL_ID, title="Store"))
    return bot


class TestBots:
    def test_a_good_token_adds_a_bot_and_is_never_shown_again(self, operator, bot):
        answer = operator.post("/admin/telegram/bots/new", {"token": bot.token}, follow=True)
        assert b"@store_bot is in use" in answer.content
        assert bot.token.encode() not in answer.content
        (entry,) = AuditEntry.objects(action="bot.add")
        assert entry.target_id == "111111"
        assert bot.token.partition(":")[2] not in str(entry.to_mongo())

    @pytest.mark.parametrize(
        ("token", "words"), [("hello", b"This is not a bot token."), ("999:abcdef", b"Telegram refuses this token.")]
    )
    def test_a_bad_token_is_explained_beside_the_field_and_not_sent_back(self, operator, bot, token, words):
        answer = operator.post("/admin/telegram/bots/new", {"token": token})
        assert answer.status_code == 422
        assert words in answer.content
        assert f'value="{token}"'.encode() not in answer.content
        assert (TelegramBot.objects.count(), AuditEntry.objects(action="bot.add").count()) == (0, 0)

    def test_a_bot_is_stopped_after_a_question(self, operator, bot):
        operator.post("/admin/telegram/bots/new", {"token": bot.token})
        assert b"Stop using this bot?" in operator.get("/admin/telegram/bots/111111/disable").content
        operator.post("/admin/telegram/bots/111111/disable")
        assert TelegramBot.objects.get(bot_id="111111").state == BotState.DISABLED
        (entry,) = AuditEntry.objects(action="bot.disable")
        assert (entry.before, entry.after) == ({"state": "active"}, {"state": "disabled"})


class TestChannels:
    def test_a_channel_is_added_checked_and_stopped(self, operator, bot):
        operator.post("/admin/telegram/bots/new", {"token": bot.token})
        form = {"channel": str(CHANNEL_ID), "make_default": "on"}
        assert b"is in use" in operator.post("/admin/telegram/channels/new", form, follow=True).content
        assert TelegramChannel.objects.get().is_default
        assert b"every bot and channel is fine" in operator.post("/admin/telegram/check", follow=True).content
        operator.post(f"/admin/telegram/channels/{CHANNEL_ID}/disable")
        assert TelegramChannel.objects.get().state == BotState.DISABLED
        assert AuditEntry.objects(target_kind="channel").count() == 2

    def test_a_channel_without_a_bot_says_what_to_fix(self, operator, bot):
        answer = operator.post("/admin/telegram/channels/new", {"channel": str(CHANNEL_ID)})
        assert answer.status_code == 422
        assert answer.context["form"].errors["channel"]
        assert TelegramChannel.objects.count() == 0

    def test_another_channel_becomes_the_one_for_new_parts(self, operator, bot):
        for number, default in ((1, True), (2, False)):
            TelegramChannel(channel_id=f"-100{number}", title=f"store {number}", is_default=default).save()
        assert b"Send new parts to this channel?" in operator.get("/admin/telegram/channels/-1002/default").content
        operator.post("/admin/telegram/channels/-1002/default")
        assert TelegramChannel.objects.get(is_default=True).channel_id == "-1002"
        assert AuditEntry.objects(action="channel.default").count() == 1


def test_alerts_are_on_the_page_until_all_is_well(operator, bot):
    operator.post("/admin/telegram/bots/new", {"token": bot.token})
    TelegramBot.objects(bot_id="111111").update_one(set__state="disabled", set__reason="Telegram refuses the token")
    assert b"@store_bot is not used: Telegram refuses the token" in operator.get("/admin/telegram").content
    operator.post("/admin/telegram/check")
    assert b"is not used" not in operator.get("/admin/telegram").content
