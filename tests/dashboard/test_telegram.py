from concurrent.futures import ThreadPoolExecutor

import pytest

from apps.core.documents import AuditEntry
from apps.core.errors import Conflict
from apps.telegram_cache.documents import BotState, TelegramBot, TelegramChannel
from apps.telegram_cache.roster import roster
from apps.telegram_cache.services.bot_records import set_bot
from apps.telegram_cache.services.channels import update_channel
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
        page = operator.get("/admin/telegram/bots/111111/disable").content
        assert b"Stop using this bot?" in page
        assert b"No other bot is in use" in page
        operator.post("/admin/telegram/bots/111111/disable")
        assert TelegramBot.objects.get(bot_id="111111").state == BotState.DISABLED
        (entry,) = AuditEntry.objects(action="bot.disable")
        assert (entry.before, entry.after) == ({"state": "active"}, {"state": "disabled"})

    def test_a_stopped_bot_is_used_again_when_telegram_takes_its_token(self, operator, bot, telegram):  # noqa: F811
        operator.post("/admin/telegram/bots/new", {"token": bot.token})
        operator.post("/admin/telegram/bots/111111/disable")
        assert b"/admin/telegram/bots/111111/enable" in operator.get("/admin/telegram").content
        assert b"Use this bot again?" in operator.get("/admin/telegram/bots/111111/enable").content
        answer = operator.post("/admin/telegram/bots/111111/enable", follow=True)
        assert b"The bot @store_bot is in use." in answer.content
        assert TelegramBot.objects.get(bot_id="111111").state == BotState.ACTIVE
        operator.post("/admin/telegram/bots/111111/disable")
        telegram.reissue_token(bot)
        answer = operator.post("/admin/telegram/bots/111111/enable", follow=True)
        assert b"Ask BotFather for the current one" in answer.content
        assert TelegramBot.objects.get(bot_id="111111").state == BotState.DISABLED
        assert AuditEntry.objects(action="bot.enable").count() == 1

    def test_a_new_token_of_this_bot_replaces_the_old_one(self, operator, bot, telegram):  # noqa: F811
        operator.post("/admin/telegram/bots/new", {"token": bot.token})
        other = telegram.add_bot(222222)
        answer = operator.post("/admin/telegram/bots/111111/token", {"token": other.token})
        assert (answer.status_code, b"the token of another bot" in answer.content) == (422, True)
        fresh = telegram.reissue_token(bot)
        answer = operator.post("/admin/telegram/bots/111111/token", {"token": fresh.token}, follow=True)
        assert b"@store_bot has its new token" in answer.content
        assert roster().bot("111111").token == fresh.token
        (entry,) = AuditEntry.objects(action="bot.token")
        assert fresh.token.partition(":")[2] not in str(entry.to_mongo())

    def test_its_page_says_where_it_cannot_post_and_what_to_do(self, viewer, bot):
        barred = {str(CHANNEL_ID): "@store_bot may not post in Store."}
        fields = {"username": "store_bot", "token_encrypted": "x", "state": "active", "barred": barred}
        set_bot("111111", set_=fields, upsert=True)
        page = viewer.get("/admin/telegram/bots/111111").content
        assert b"@store_bot may not post in Store." in page
        assert b"allow it to post messages" in page
        assert b"New token" not in page  # a viewer may not
        assert viewer.get("/admin/telegram/bots/5").status_code == 404


class TestChannels:
    def test_its_settings_are_changed_and_checked(self, operator, bot, telegram):  # noqa: F811
        operator.post("/admin/telegram/bots/new", {"token": bot.token})
        operator.post("/admin/telegram/channels/new", {"channel": str(CHANNEL_ID), "make_default": "on"})
        page = f"/admin/telegram/channels/{CHANNEL_ID}"
        scratch = telegram.add_channel(-100777, title="Scratch")
        wrong = {"scratch_chat": "-100777", "messages_per_min": "30"}
        answer = operator.post(f"{page}/settings", wrong)
        assert (answer.status_code, b"does not see the channel" in answer.content) == (422, True)
        telegram.make_admin(bot, scratch)
        answer = operator.post(f"{page}/settings", {**wrong, "playable": "on"}, follow=True)
        assert b"The settings are in use." in answer.content
        assert b'value="-100777"' in answer.content
        channel = TelegramChannel.objects.get()
        assert (channel.scratch_chat_id, channel.playable, channel.messages_per_min) == ("-100777", True, 30)
        operator.post(f"{page}/settings", {"scratch_chat": "", "messages_per_min": "60"})
        channel = TelegramChannel.objects.get()
        assert (channel.scratch_chat_id, channel.playable, channel.messages_per_min) == ("", False, 60)
        refused = operator.post(f"{page}/settings", {"messages_per_min": "0"})
        assert (refused.status_code, refused.context["form"].errors["messages_per_min"]) == (422, ["Give 1 or more."])
        first = AuditEntry.objects(action="channel.settings").order_by("at").first()
        assert first.before == {"scratch_chat_id": "", "playable": False, "messages_per_min": 60}
        assert first.after == {"scratch_chat_id": "-100777", "playable": True, "messages_per_min": 30}
        entries = AuditEntry.objects(action="channel.settings").count()
        same = operator.post(f"{page}/settings", {"scratch_chat": "", "messages_per_min": "60"}, follow=True)
        assert b"Nothing changed." in same.content
        assert AuditEntry.objects(action="channel.settings").count() == entries

    def test_what_somebody_else_set_meanwhile_stays_and_the_same_setting_is_asked_about(self, operator, bot, telegram):  # noqa: F811
        operator.post("/admin/telegram/bots/new", {"token": bot.token})
        operator.post("/admin/telegram/channels/new", {"channel": str(CHANNEL_ID), "make_default": "on"})
        page = f"/admin/telegram/channels/{CHANNEL_ID}"

        def shown():
            form = operator.get(page).context["form"]
            return {name: form[name].value() for name in form.fields if form[name].value() not in (None, False)}

        mine, theirs = shown(), shown()
        operator.post(f"{page}/settings", {**theirs, "playable": "on", "messages_per_min": "20"})
        asked = operator.post(f"{page}/settings", {**mine, "messages_per_min": "30"})
        assert (asked.status_code, set(asked.context["form"].errors)) == (422, {"messages_per_min"})
        assert b"Somebody else changed this meanwhile" in asked.content
        again = {**mine, "messages_per_min": "30", "seen": asked.context["form"]["seen"].value()}
        assert operator.post(f"{page}/settings", again).status_code == 302
        channel = TelegramChannel.objects.get()
        assert (channel.playable, channel.messages_per_min) == (True, 30)
        last = AuditEntry.objects(action="channel.settings").order_by("-at").first()
        assert (last.before, last.after) == ({"messages_per_min": 20}, {"messages_per_min": 30})

    def test_of_many_who_saw_the_same_one_changes_it(self, operator, bot, telegram):  # noqa: F811
        operator.post("/admin/telegram/bots/new", {"token": bot.token})
        operator.post("/admin/telegram/channels/new", {"channel": str(CHANNEL_ID), "make_default": "on"})
        TelegramChannel.objects.update(unset__playable=1)  # a channel of an earlier version

        def change(number: int) -> bool:
            fields = {"messages_per_min": number, "playable": True}
            try:
                update_channel(str(CHANNEL_ID), fields, seen={"messages_per_min": 60, "playable": False})
            except Conflict:
                return False
            return True

        with ThreadPoolExecutor(8) as pool:
            outcomes = list(pool.map(change, range(10, 18)))
        assert sum(outcomes) == 1
        assert TelegramChannel.objects.get().messages_per_min == 10 + outcomes.index(True)

    def test_a_stopped_channel_is_used_again_after_a_check(self, operator, bot, telegram):  # noqa: F811
        operator.post("/admin/telegram/bots/new", {"token": bot.token})
        operator.post("/admin/telegram/channels/new", {"channel": str(CHANNEL_ID), "make_default": "on"})
        page = f"/admin/telegram/channels/{CHANNEL_ID}"
        operator.post(f"{page}/disable")
        telegram.channels[CHANNEL_ID].admins[111111]["can_post_messages"] = False
        assert b"may not post in Store" in operator.post(f"{page}/enable", follow=True).content
        assert TelegramChannel.objects.get().state == BotState.DISABLED
        telegram.channels[CHANNEL_ID].admins[111111]["can_post_messages"] = True
        assert b"is in use" in operator.post(f"{page}/enable", follow=True).content
        assert TelegramChannel.objects.get().state == BotState.ACTIVE

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


def test_a_bot_that_may_not_delete_is_not_called_fine(operator, bot, telegram):  # noqa: F811
    operator.post("/admin/telegram/bots/new", {"token": bot.token})
    operator.post("/admin/telegram/channels/new", {"channel": str(CHANNEL_ID), "make_default": "on"})
    telegram.make_admin(bot, telegram.channels[CHANNEL_ID], delete=False)
    page = operator.post("/admin/telegram/check", follow=True).content
    assert b"cannot delete messages" in page
    assert b"is fine" not in page


def test_check_all_says_each_thing_once(operator, bot, telegram):  # noqa: F811
    operator.post("/admin/telegram/bots/new", {"token": bot.token})
    operator.post("/admin/telegram/channels/new", {"channel": str(CHANNEL_ID), "make_default": "on"})
    telegram.channels[CHANNEL_ID].admins[111111]["can_post_messages"] = False

    def said() -> str:  # above the lists, which show the states
        return operator.post("/admin/telegram/check", follow=True).content.decode().partition("<h2>Bots</h2>")[0]

    notices = said()
    assert notices.count("may not post in Store") == 1
    assert "Telegram was asked." in notices
    del telegram.bots[bot.token]
    notices = said()
    assert notices.count("Telegram refuses") == notices.count("current token") == 1


def test_when_the_channel_for_new_parts_is_stopped_the_page_asks_for_another(operator, bot, telegram):  # noqa: F811
    operator.post("/admin/telegram/bots/new", {"token": bot.token})
    telegram.make_admin(bot, telegram.add_channel(-1002, title="Another"))
    for chat in (CHANNEL_ID, -1002):
        operator.post("/admin/telegram/channels/new", {"channel": str(chat), "make_default": "on"})
    words = b"no channel in use is the one for new parts"
    assert words not in operator.get("/admin/telegram").content
    address = "/admin/telegram/channels/-1002/disable"
    assert b"stay on this server only until you choose another" in operator.get(address).content
    operator.post(address)
    assert words in operator.get("/admin/telegram").content
    operator.post(f"/admin/telegram/channels/{CHANNEL_ID}/default")
    assert words not in operator.get("/admin/telegram").content


def test_an_alert_of_a_bot_leads_to_the_bot(operator, bot):
    operator.post("/admin/telegram/bots/new", {"token": bot.token})
    TelegramBot.objects(bot_id="111111").update_one(set__state="disabled", set__reason="Telegram refuses the token")
    page = operator.get("/admin/telegram").content.decode()
    assert '<a href="/admin/telegram/bots/111111">Look at the bot</a>' in page


def test_alerts_are_on_the_page_until_all_is_well(operator, bot):
    operator.post("/admin/telegram/bots/new", {"token": bot.token})
    TelegramBot.objects(bot_id="111111").update_one(set__state="disabled", set__reason="Telegram refuses the token")
    assert b"@store_bot is not used: Telegram refuses the token" in operator.get("/admin/telegram").content
    operator.post("/admin/telegram/check")
    assert b"is not used" not in operator.get("/admin/telegram").content


def test_the_page_names_no_command_where_it_has_a_button(operator, bot, telegram):  # noqa: F811
    operator.post("/admin/telegram/bots/new", {"token": bot.token})
    operator.post("/admin/telegram/channels/new", {"channel": str(CHANNEL_ID), "make_default": "on"})
    operator.post(f"/admin/telegram/channels/{CHANNEL_ID}/disable")
    other = telegram.add_channel(-1002, title="Another")
    telegram.make_admin(bot, other)
    operator.post("/admin/telegram/channels/new", {"channel": "-1002"})
    TelegramBot.objects(bot_id="111111").update_one(set__barred={"-1002": "it may not post"})
    TelegramBot(bot_id="222222", username="gone", token_encrypted="", state="disabled", reason="refused").save()
    page = operator.get("/admin/telegram").content.decode()
    assert "@gone is not used: refused" in page
    assert "no channel in use is the one for new parts" in page
    assert "manage.py" not in page


def test_without_a_bot_the_page_says_that_bots_come_first(operator):
    assert b"Bots come first" in operator.get("/admin/telegram").content
