"""Structured logs: one JSON line an event, with the request id, and nothing secret in any of them."""

from __future__ import annotations

import json
import logging
import logging.config
import re
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

import structlog

request_id_var: ContextVar[str] = ContextVar("request_id", default="")
"""The id of the request being served; in every log line and every error answer."""

REDACTED = "[redacted]"
MAX_DEPTH = 5  # deeper values are written as one text
SHOWN_PATH_CHARS = 200
SHORTEST_SECRET_CHARS = 6  # "?key=x"
_SECRETS = re.compile(
    r"(?P<key>yt_[A-Za-z0-9]{8}_)[A-Za-z0-9_-]{20,}"  # API keys: the prefix stays
    r"|(?P<bot>\bbot\d+:)[A-Za-z0-9_-]{3,}"  # Bot API addresses hold the token
    r"|(?P<token>\b\d{5,20}:)[A-Za-z0-9_-]{30,}"  # bot tokens
    r"|(?P<param>(?:[?&](?:api_key|api|key|sig|token)|\bytserver_session)=)[^&;\s\"']+"
    r"|(?P<header>(?i:\bauthorization[\"']?[:=] ?[\"']?(?:bearer|basic) ))[^\s\"',]+"
    r"|(?P<bearer>(?i:\bbearer ))[A-Za-z0-9._~+/=-]{16,}"
    r"|(?P<quoted>[\"'](?i:api_?key|x-api-key|password|passwd|secret_?key|token|cookie|sig)[\"'] ?: ?[\"'])[^\"']+"
    r"|(?P<userinfo>://[^/\s:@]*:)[^/\s@]+(?=@)"
)


def redact(text: str) -> str:
    """``text`` without keys, bot tokens, signatures and passwords."""
    if len(text) < SHORTEST_SECRET_CHARS:
        return text
    return _SECRETS.sub(lambda match: f"{match[match.lastgroup or 0]}{REDACTED}", text)


def shown_path(path: str) -> str:
    """A request's path for the log: callers can make it tens of kilobytes long, and logs lie on a disk."""
    return path if len(path) <= SHOWN_PATH_CHARS else f"{path[:SHOWN_PATH_CHARS]}..."


def _redact_values(_logger: Any, _name: str, event: structlog.types.EventDict) -> structlog.types.EventDict:
    return {str(name): _clean(value, depth=0) for name, value in event.items()}


def _clean(value: Any, *, depth: int) -> Any:
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, Mapping) and depth < MAX_DEPTH:
        return {redact(str(name)): _clean(item, depth=depth + 1) for name, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset) and depth < MAX_DEPTH:
        return [_clean(item, depth=depth + 1) for item in value]
    return redact(str(value))


def _add_request_id(_logger: Any, _name: str, event: structlog.types.EventDict) -> structlog.types.EventDict:
    if request_id := request_id_var.get():
        event.setdefault("request_id", request_id)
    return event


class LoggedElsewhere(Exception):
    """Raised for its effect on the web server (it closes the connection); what happened is in the log already."""


def write_ready_lines(logger: logging.Logger, lines: Sequence[str]) -> None:
    """Log lines that were made ready elsewhere, as one record of ``logger``: from the busiest path of the program.

    Whoever makes them sees to it that each is JSON, and that nothing secret is in them.
    """
    logger.info("\n".join(lines), extra={"are_ready": True})


class _Formatter(structlog.stdlib.ProcessorFormatter):
    """structlog's, but for the records there are most of (``logging``'s own, without a trace): a third of its time."""

    def format(self, record: logging.LogRecord) -> str:
        if hasattr(record, "are_ready"):
            return record.getMessage()
        if isinstance(record.msg, dict) or record.exc_info or record.stack_info:
            return super().format(record)
        return _json_line(record)


def _json_line(record: logging.LogRecord) -> str:
    """The line that the processors of ``configure_logging`` would make of it."""
    extras = {name: value for name, value in record.__dict__.items() if name not in _OF_EACH_RECORD}
    event = {name: _clean(value, depth=0) for name, value in (("event", record.getMessage()), *extras.items())}
    event |= {"logger": record.name, "level": record.levelname.lower(), "timestamp": _iso(record.created)}
    if request_id := request_id_var.get():
        event.setdefault("request_id", request_id)
    return _to_json(event)


def _iso(unix_s: float) -> str:
    return f"{datetime.fromtimestamp(unix_s, UTC).isoformat(timespec='microseconds')[:-6]}Z"


_OF_EACH_RECORD = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime"}
_to_json = json.JSONEncoder(default=str).encode


def _is_news(record: logging.LogRecord) -> bool:
    return not (record.exc_info and isinstance(record.exc_info[1], LoggedElsewhere))


def configure_logging(options: dict[str, Any]) -> None:
    """Django's LOGGING_CONFIG: everything, also what libraries log, goes through one redacting JSON formatter."""
    shared: list[Any] = [
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _add_request_id,
    ]
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "formatters": {
                "json": {
                    "()": _Formatter,
                    "foreign_pre_chain": shared,
                    "processors": [
                        structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                        structlog.processors.format_exc_info,
                        _redact_values,
                        structlog.processors.JSONRenderer(default=str),
                    ],
                }
            },
            "filters": {"news": {"()": lambda: _is_news}},
            "handlers": {
                "stderr": {"class": "logging.StreamHandler", "formatter": "json", "filters": ["news"]},
                "admin": {"class": "apps.core.error_log.ErrorLogHandler", "formatter": "json", "filters": ["news"]},
            },
            "root": {"handlers": ["stderr", "admin"], "level": options["level"]},
            "loggers": {
                "httpx": {"level": "WARNING"},  # logs whole addresses, bot tokens included
                "uvicorn.access": {"level": "WARNING"},  # logs query strings; ytserver.access says the rest
                "httpcore": {"level": "WARNING"},
                "django.request": {"level": "CRITICAL"},  # ytserver.access and the error handlers say it already
                "django.security.DisallowedHost": {"level": "CRITICAL"},  # the same
            },
        }
    )
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
