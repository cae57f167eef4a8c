from __future__ import annotations

import io
import json
import logging
import secrets
import subprocess
import sys
from datetime import datetime
from math import nan

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st
from structlog.stdlib import ProcessorFormatter

from apps.core.logs import REDACTED, LoggedElsewhere, redact, request_id_var, shown_path

KEY_SECRET = "s3cr3tS3cr3tS3cr3tS3cr3tS3cr3tS3cr3tS3cr3t-"
KEY = f"yt_abcdefgh_{KEY_SECRET}"
BOT = "1234567890:" + "AAH4x-secretsecretsecretsecretsecre"  # made up, of the real shape


@pytest.fixture
def log_lines():
    """What the root handler's formatter makes of every line logged in the test."""
    handler = next(handler for handler in logging.getLogger().handlers if hasattr(handler.formatter, "processors"))
    stream = io.StringIO()
    before = handler.setStream(stream)
    yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
    handler.setStream(before)


class TestRedact:
    @pytest.mark.parametrize(
        ("text", "secret"),
        [
            (f"key {KEY} used", KEY_SECRET),
            (f"X-API-Key: {KEY}", KEY_SECRET),
            ("Authorization: Bearer abcdef.ghi-jkl_mno", "abcdef.ghi-jkl_mno"),
            ("authorization: Basic dXNlcjpwYXNzd29yZA==", "dXNlcjpwYXNzd29yZA=="),
            (f"https://api.telegram.org/bot{BOT}/getFile", BOT.split(":")[1]),
            (f"https://api.telegram.org/file/bot{BOT}/music/1.m4a", BOT.split(":")[1]),
            (f"token {BOT}", BOT.split(":")[1]),
            ("mongodb://" + "user:hunter2@db.example/x", "hunter2"),
            ("mongodb+srv://" + "user:hun:ter2@db.example/x", "ter2"),
            ("redis://:hunter2@cache:6379/0", "hunter2"),
            ("rediss://user:p%40ss@cache", "p%40ss"),
            ("http://proxy:hunter2@10.0.0.1:3128", "hunter2"),
            ("/stream/video/x?asset=1&key_id=abcdefgh&expires=1&sig=AbC-dEf_123", "AbC-dEf_123"),
            ("/api/v1/info?api_key=whatever&url=x", "whatever"),
            ("/song/x?api=whatever", "whatever"),
            ("{'api_key': 'whatever-it-is'}", "whatever-it-is"),
            ('{"password": "hunter2hunter2"}', "hunter2hunter2"),
            ("Cookie: ytserver_session=abcdefabcdef; other=1", "abcdefabcdef"),
        ],
    )
    def test_leaves_no_secret_and_the_rest_readable(self, text, secret):
        clean = redact(text)
        assert secret not in clean
        assert REDACTED in clean
        assert clean.split(REDACTED)[0] == text[: len(clean.split(REDACTED)[0])]

    def test_keeps_what_is_no_secret(self):
        for text in (
            "video dQw4w9WgXcQ took 12:34:56",
            "http://127.0.0.1:8000/api/v1/info?url=x",
            "a:b@c",
            "key_prefix=abcdefgh",
        ):
            assert redact(text) == text

    def test_a_keys_prefix_stays_to_find_it_by(self):
        assert redact(KEY) == f"yt_abcdefgh_{REDACTED}"

    @given(st.text(max_size=40), st.text(max_size=40))
    def test_whatever_is_around_a_key(self, before, after):
        assert KEY_SECRET not in redact(f"{before} {KEY} {after}")

    def test_a_long_hostile_line_takes_no_time(self):
        for text in (
            "://" * 50_000,
            "bot1" * 50_000,
            "?key=" * 50_000,
            "a" * 200_000,
            "authorization: " * 20_000,
            "://" + ":" * 100_000,
        ):
            redact(text)  # the test's own time limit is the check


class TestLogging:
    def test_every_way_of_logging_is_redacted_json_with_the_request_id(self, log_lines):
        token = request_id_var.set("req-1")
        logging.getLogger("celery.worker").warning("task with %s", KEY)
        logging.getLogger("uvicorn.error").error("at %s", f"/x?api_key={KEY}")
        structlog.get_logger("apps.x").warning("said", url=f"https://x/bot{BOT}/y", n=3)
        logging.getLogger("x").warning("extra", extra={"detail": KEY, "nested": {"deep": [KEY]}})
        request_id_var.reset(token)
        lines = log_lines()
        assert len(lines) == 4
        assert {line["request_id"] for line in lines} == {"req-1"}
        text = json.dumps(lines)
        assert KEY_SECRET not in text
        assert BOT not in text
        assert lines[2]["n"] == 3

    @pytest.mark.parametrize(
        ("words", "extra"),
        [
            (("plain",), {}),
            (("%s of %d", KEY, 3), {"path": f"/x?api_key={KEY}", "status": 200, "route": None, "took": 1.5}),
            (
                ("a \udcff surrogate",),
                {"number": 2**80, "nested": {"deep": [KEY, {"er": (1, KEY)}]}},
            ),
            (("odd",), {"thing": ValueError(KEY), "set": frozenset({KEY}), "raw": KEY.encode(), "not a number": nan}),
        ],
    )
    def test_the_quick_way_writes_what_structlogs_processors_write(self, words, extra):
        formatter = next(
            handler.formatter for handler in logging.getLogger().handlers if hasattr(handler.formatter, "processors")
        )
        message, *arguments = words
        record = logging.getLogger("x").makeRecord(
            "x", logging.WARNING, "f", 1, message, tuple(arguments), None, extra=extra
        )
        token = request_id_var.set("req-1")
        quick, slow = (
            json.loads(each) for each in (formatter.format(record), ProcessorFormatter.format(formatter, record))
        )
        request_id_var.reset(token)
        ages_s = [datetime.fromisoformat(line.pop("timestamp")).timestamp() - record.created for line in (quick, slow)]
        assert abs(ages_s[0]) < 1e-5  # when it happened, not when it is written
        assert ages_s[1] >= -1e-5
        assert repr(quick.pop("not a number", "")) == repr(slow.pop("not a number", ""))
        assert quick == slow
        assert quick["request_id"] == "req-1"
        assert KEY_SECRET not in str(quick)

    def test_an_exceptions_text_and_chain_are_redacted(self, log_lines):
        address = "mongodb://" + "user:hunter2@host"  # not in the line that raises: a traceback quotes that
        try:
            try:
                raise ValueError(f"bad {address} with {KEY}")
            except ValueError as error:
                raise RuntimeError(f"https://api.telegram.org/bot{BOT}/x") from error
        except RuntimeError:
            logging.getLogger("x").exception("failed")
        (line,) = log_lines()
        text = json.dumps(line)
        assert "Traceback" in text
        assert "ValueError" in text
        for secret in ("hunter2", KEY_SECRET, BOT):
            assert secret not in text

    def test_what_cannot_be_written_as_json_is_written_as_text_and_redacted(self, log_lines):
        class Odd:
            def __repr__(self) -> str:
                return f"<Odd {KEY}>"

        logging.getLogger("x").warning("odd", extra={"thing": Odd(), "raw": KEY.encode()})
        assert KEY_SECRET not in json.dumps(log_lines())

    def test_random_secrets_in_every_place_of_a_line(self, log_lines):
        key = f"yt_{secrets.token_hex(4)}_{secrets.token_urlsafe(32)}"
        logging.getLogger("x").warning("%(a)s", {"a": key})
        logging.getLogger("x").warning("%s %r", ValueError(key), [key])
        assert key[12:] not in json.dumps(log_lines())

    def test_noisy_libraries_do_not_log_addresses(self):
        for name in ("httpx", "httpcore", "uvicorn.access"):
            assert not logging.getLogger(name).isEnabledFor(logging.INFO)

    def test_an_exception_that_only_closes_a_connection_is_not_logged_again(self, log_lines):
        for error in (LoggedElsewhere("closing"), ValueError("a fault")):
            logging.getLogger("uvicorn.error").error("Exception in ASGI application", exc_info=error)
        assert ["ValueError" in line["exception"] for line in log_lines()] == [True]


class TestCelery:
    def test_a_workers_logs_go_through_the_same_redaction(self):
        program = (
            "import django; django.setup(); import logging, sys; from ytserver.celery import app;"
            "app.log.setup(loglevel='INFO', redirect_stdouts=False);"
            "from celery.utils.log import get_task_logger; key = sys.argv[1];"
            "get_task_logger('apps.x.tasks').warning('task %s', key);"
            "logging.getLogger('celery.worker').warning('worker %s', key)"
        )
        done = subprocess.run([sys.executable, "-c", program, KEY], capture_output=True, text=True, check=True)
        assert done.stdout == ""
        lines = [json.loads(line) for line in done.stderr.splitlines()]
        assert [line["event"].split()[0] for line in lines] == ["task", "worker"]
        assert KEY_SECRET not in done.stderr


class TestShownPath:
    def test_a_path_that_a_stranger_made_huge_is_cut(self):
        assert shown_path("/api/v1/info") == "/api/v1/info"
        assert len(shown_path("/" + "x" * 30_000)) < 250
