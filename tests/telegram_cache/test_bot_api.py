"""The sync Bot API client against the stand-in: answers, errors, and nothing that gives the token away."""

from __future__ import annotations

import logging
import socket
import traceback

import pytest

from apps.core.logs import redact
from apps.telegram_cache.clients import errors
from apps.telegram_cache.clients.answers import read_answer
from apps.telegram_cache.clients.bot_api import BotApi
from tests.standins.telegram import TelegramStandIn
from tests.telegram_cache.conftest import CHANNEL_ID

CANARY = "777:CANARYcanaryCANARYcanaryCANARYcanary"


@pytest.fixture
def api(telegram: TelegramStandIn) -> BotApi:
    bot = telegram.add_bot(111111)
    telegram.make_admin(bot, telegram.add_channel(CHANNEL_ID, username="mystore"))
    return BotApi(bot.token)


def send(api: BotApi, data: bytes = b"x" * 1000, *, announced: int | None = None):
    return api.send_document(
        chat_id=str(CHANNEL_ID), file_name="a.0.bin", caption="yt1|a|0|b|c",
        size_bytes=len(data) if announced is None else announced, pieces=[data],
    )  # fmt: skip


class TestCalls:
    def test_knows_itself_the_chat_by_number_and_by_name_and_its_rights(self, api, telegram):
        assert api.get_me().bot_id == "111111"
        assert api.get_chat("@mystore").chat_id == str(CHANNEL_ID) == api.get_chat(str(CHANNEL_ID)).chat_id
        rights = api.get_chat_member(str(CHANNEL_ID), "111111")
        assert (rights.status, rights.can_post, rights.can_delete) == ("administrator", True, True)

    def test_a_document_is_stored_as_it_was_sent(self, api, telegram):
        message = send(api, b"hello" * 100_000)
        assert message.file_size == 500_000
        assert message.caption == "yt1|a|0|b|c"
        assert telegram.file_of(message.file_unique_id).read_bytes() == b"hello" * 100_000
        assert telegram.originals()[0].file_name == "a.0.bin"

    def test_a_document_that_comes_back_as_a_video_is_recognised(self, api, telegram):
        telegram.faults.add("sendDocument", name="as_video")
        assert send(api).file_size == 1000

    def test_a_forward_gives_the_other_bots_own_file_id(self, api, telegram):
        message = send(api)
        other = telegram.add_bot(222222)
        telegram.make_admin(other, telegram.channels[CHANNEL_ID])
        with pytest.raises(errors.FileUnavailable):
            BotApi(other.token).get_file_path(message.file_id)
        copy = BotApi(other.token).forward_message(
            to_chat_id=str(CHANNEL_ID), from_chat_id=str(CHANNEL_ID), message_id=message.message_id
        )
        assert copy.file.file_unique_id == message.file_unique_id
        assert BotApi(other.token).get_file_path(copy.file.file_id).startswith("documents/")
        BotApi(other.token).delete_message(chat_id=str(CHANNEL_ID), message_id=copy.message_id)
        with pytest.raises(errors.MessageNotFound):
            BotApi(other.token).delete_message(chat_id=str(CHANNEL_ID), message_id=copy.message_id)


class TestErrors:
    def test_above_50_mb_the_html_answer_is_understood(self, api):
        with pytest.raises(errors.FileTooBig):
            send(api, b"x" * 51_000_000)

    def test_above_20_mib_a_file_cannot_be_read_back(self, api):
        message = send(api, b"x" * (20 * 1024 * 1024 + 1))
        with pytest.raises(errors.FileTooBig):
            api.get_file_path(message.file_id)

    def test_refusals_become_their_own_errors(self, api, telegram):
        with pytest.raises(errors.TokenRefused):
            BotApi("999:" + "x" * 35).get_me()
        with pytest.raises(errors.ChatNotFound):
            api.get_chat("-100999")
        with pytest.raises(errors.FileIdInvalid):
            api.get_file_path("nonsense")
        telegram.channels[CHANNEL_ID].kicked.add(111111)
        with pytest.raises(errors.BotForbidden):
            api.get_chat(str(CHANNEL_ID))

    @pytest.mark.parametrize(("said_s", "header_s", "expected_s"), [(7, 3, 7), (3, 9, 9)])
    def test_429_gives_the_larger_delay(self, api, telegram, said_s, header_s, expected_s):
        telegram.rate_limit("getMe", said_s, header_s=header_s)
        with pytest.raises(errors.TelegramRateLimited) as caught:
            api.get_me()
        assert caught.value.retry_after_s == expected_s

    @pytest.mark.parametrize(
        "parameters",
        [{"retry_after": "soon"}, {"retry_after": -5}, {"retry_after": 1e400}, {"retry_after": 10**400}, [], None],
    )
    def test_a_429_with_nonsense_in_it_still_makes_us_wait(self, parameters):
        body = (
            b'{"ok": false, "error_code": 429, "parameters": %s}'
            % str(parameters).replace("'", '"').replace("inf", "1e400").replace("None", "null").encode()
        )
        with pytest.raises(errors.TelegramRateLimited) as caught:
            read_answer(status=429, headers={}, body=body, token=CANARY)
        assert caught.value.retry_after_s > 0

    @pytest.mark.parametrize(
        "body", [b"", b"<html>", b"[]", b'{"ok": true}', b'{"ok": false}', b'"x"', b"\xff", b"[" * 1_000_000]
    )
    def test_an_answer_without_a_result_is_uncertain(self, body):
        with pytest.raises(errors.TelegramUncertain):
            read_answer(status=200, headers={}, body=body, token=CANARY)

    @pytest.mark.parametrize(
        "result",
        [None, [], "x", {}, {"message_id": 1}, {"message_id": "x", "document": {}},
         {"message_id": 1e400, "document": {"file_id": "a", "file_unique_id": "b"}},
         {"message_id": 1, "document": {"file_id": "a", "file_unique_id": "b", "file_size": 2**60}},
         {"message_id": 1, "chat": {"id": -(2**53)}, "document": {"file_id": "a", "file_unique_id": "b"}}],
    )  # fmt: skip
    def test_a_result_that_makes_no_sense_is_uncertain(self, api, telegram, result):
        telegram.faults.add("sendDocument", status=200, body={"ok": True, "result": result})
        with pytest.raises(errors.TelegramUncertain):
            send(api)

    def test_no_connection_means_not_sent(self):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        with pytest.raises(errors.TelegramUnreachable):
            send(BotApi(CANARY, api_url=f"http://127.0.0.1:{port}"))

    @pytest.mark.parametrize("name", ["cut_before_storing", "store_then_cut"])
    def test_a_cut_after_everything_was_sent_is_uncertain(self, api, telegram, name):
        telegram.faults.add("sendDocument", name=name)
        with pytest.raises(errors.TelegramUncertain):
            send(api)

    def test_5xx_is_uncertain(self, api, telegram):
        telegram.faults.add("sendDocument", status=502)
        with pytest.raises(errors.TelegramUncertain):
            send(api)

    def test_an_error_in_the_bytes_comes_out_and_nothing_is_stored(self, api, telegram):
        def pieces():
            yield b"x" * 600_000
            raise KeyError("bad block")

        with pytest.raises(KeyError):
            api.send_document(
                chat_id=str(CHANNEL_ID), file_name="a", caption="c", size_bytes=1_000_000, pieces=pieces()
            )
        assert telegram.messages == {}
        assert api.get_me().bot_id == "111111"  # the client is still good


class TestTheToken:
    def test_is_in_no_error_no_repr_and_no_log(self, telegram, caplog):
        caplog.set_level(logging.DEBUG)
        api = BotApi(CANARY)
        telegram.faults.add("getMe", status=400, body={"ok": False, "error_code": 400, "description": f"{CANARY} bad"})
        telegram.faults.add("getMe", status=302, headers={"Location": f"http://127.0.0.1:1/{CANARY}"})
        telegram.faults.add("getMe", name="cut_before_storing")
        telegram.faults.add("getMe", status=500, body=f"<html>{CANARY}</html>")
        texts = [repr(api)]
        for _ in range(5):
            with pytest.raises(errors.TelegramError) as caught:
                api.get_me()
            texts += [str(caught.value), repr(caught.value), *traceback.format_exception(caught.value)]
        with pytest.raises(errors.TelegramError) as caught:
            BotApi(CANARY, api_url="http://127.0.0.1:1").get_me()
        texts += traceback.format_exception(caught.value)
        logged = [redact(record.getMessage()) for record in caplog.records]
        assert CANARY.partition(":")[2] not in "\n".join([*texts, *logged])
