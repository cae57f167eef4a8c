import logging
import os
import subprocess
import sys
import threading

import pytest

from apps.core import error_log
from apps.core.error_log import KEPT, LIST, MAX_CHARS, recent_errors
from apps.core.redis import redis_client
from tests.waiting import wait_until


def test_errors_reach_the_list_without_their_secrets(redis_server):
    logger = logging.getLogger("tests.error_log")
    secret = "s" * 43
    logger.warning("a warning is no error")
    try:
        raise ValueError(f"refused yt_abcdefgh_{secret}")
    except ValueError:
        logger.exception("something broke", extra={"asset_id": "abc"})
    wait_until(recent_errors)
    (error,) = recent_errors()
    assert (error["event"], error["level"], error["asset_id"]) == ("something broke", "error", "abc")
    assert "ValueError" in error["exception"]
    assert secret not in str(error)


def test_an_error_with_a_very_long_trace_keeps_its_time_its_request_and_the_end_of_the_trace(redis_server):
    def fall(depth):
        raise ValueError("the cause") if not depth else fall(depth - 1) or AssertionError

    try:
        fall(150)
    except ValueError:
        logging.getLogger("tests.error_log").exception("something broke", extra={"text": "x" * MAX_CHARS})
    wait_until(recent_errors)
    (error,) = recent_errors()
    assert (error["event"], error["level"]) == ("something broke", "error")
    assert error["timestamp"]
    assert error["exception"].endswith("ValueError: the cause")
    assert len(str(error)) < 2 * MAX_CHARS


def test_the_list_is_bounded_and_survives_nonsense(redis_server):
    redis_client().lpush(LIST, *[b"{cut off" for _ in range(KEPT + 50)])
    logging.getLogger("tests.error_log").error("newest")
    wait_until(lambda: redis_client().llen(LIST) == KEPT)
    assert recent_errors(2) == [recent_errors(1)[0], {"event": "{cut off"}]


def test_the_end_of_a_process_waits_for_the_errors_of_a_storm_too(redis_server, monkeypatch):
    go_on = threading.Event()
    monkeypatch.setattr(error_log, "LAST_WORDS_S", 60)
    monkeypatch.setattr(error_log, "redis_client", lambda: redis_client() if go_on.wait(60) else None)
    handler = error_log.ErrorLogHandler()
    for number in range(error_log.MAX_WAITING + 20):
        handler.handle(logging.makeLogRecord({"msg": f"error {number}", "levelno": logging.ERROR}))
    ending = threading.Thread(target=handler.close)
    ending.start()
    ending.join(0.2)  # it waits for the errors; they cannot be sent yet
    go_on.set()
    ending.join()
    assert len(recent_errors(KEPT)) >= error_log.MAX_WAITING


def test_who_logs_gets_no_error_when_no_thread_can_be_had(redis_server, monkeypatch):
    def refuse(_thread):
        raise RuntimeError("can't start new thread")

    handler = error_log.ErrorLogHandler()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        handler.handle(logging.makeLogRecord({"msg": "first", "levelno": logging.ERROR}))
    handler.handle(logging.makeLogRecord({"msg": "second", "levelno": logging.ERROR}))
    handler.close()
    assert [error["event"] for error in recent_errors()] == ["second", "first"]


BREAKS = """
import logging
import django
django.setup()
logging.getLogger("tests.error_log").error("the last words")
"""


def test_the_error_that_ends_a_process_is_kept(redis_server):
    subprocess.run([sys.executable, "-c", BREAKS], check=True, timeout=120)
    (error,) = recent_errors()
    assert error["event"] == "the last words"


@pytest.mark.parametrize("time", range(4))
def test_a_process_ends_when_its_last_error_cannot_be_kept(time):
    """It hung for ever at its end, three times out of seven."""
    nowhere = {**os.environ, "REDIS_URL": "redis://127.0.0.1:1/0"}
    subprocess.run([sys.executable, "-c", BREAKS], env=nowhere, check=True, timeout=120)
