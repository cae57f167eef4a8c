"""The options that the commands about keys and users share."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from apps.keys.documents import LIMIT_NAMES, Scope

ACTOR = "command line"
MAX_DAYS = 36_500
_LIMIT_HELP = {
    "limit_per_hour": "requests in any hour",
    "limit_per_day": "requests in any 24 hours",
    "bytes_per_day": "streamed bytes in any 24 hours",
    "concurrent_streams": "streams at the same time",
    "concurrent_jobs": "running or waiting fetches at the same time",
    "longest_video_s": "seconds of the longest video",
    "largest_file_bytes": "bytes of the largest file",
}


def add_limit_arguments(parser: ArgumentParser) -> None:
    """``--limit-per-hour`` and so on: a number, or ``default``."""
    for name in LIMIT_NAMES:
        least = "" if name == "limit_per_hour" else ", 0: no limit"
        text = f"{_LIMIT_HELP[name]} (a number, or default{least})"
        parser.add_argument(f"--{name.replace('_', '-')}", type=limit, metavar="N", help=text)


def add_key_arguments(parser: ArgumentParser) -> None:
    """What a key may be, whether it is new or changed."""
    parser.add_argument("--owner", help="the username it belongs to")
    parser.add_argument("--scope", nargs="+", action="extend", choices=list(Scope), help="what it may use")
    parser.add_argument("--label", nargs="+", action="extend", metavar="LABEL", help="words to find it by")
    parser.add_argument(
        "--allow", nargs="+", action="extend", metavar="CIDR", help="networks it may be used from; `any` for all"
    )
    parser.add_argument(
        "--origin", action="append", metavar="ORIGIN",
        help="a web page's origin that may use the key from browsers (CORS), such as https://app.example.com; "
        "may be repeated; any: all; none: no page",
    )  # fmt: skip
    parser.add_argument("--bind-links", choices=("yes", "no"), help="links work only from the address that asked")
    parser.add_argument("--expires-days", type=days, help="days until it stops")
    add_limit_arguments(parser)


def limit_fields(options: Mapping[str, Any]) -> dict[str, Any]:
    """The limits that were given. None is ``default``."""
    given = {name: options[name] for name in LIMIT_NAMES if options[name] is not None}
    return {name: None if value == "default" else value for name, value in given.items()}


def key_fields(options: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that were given, as ``create_key`` and ``update_key`` take them."""
    fields = limit_fields(options)
    for option, name in (("owner", "owner"), ("scope", "scopes"), ("label", "labels")):
        if options[option] is not None:
            fields[name] = options[option]
    if options["allow"] is not None:
        fields["allowed_cidrs"] = [] if options["allow"] == ["any"] else options["allow"]
    if options["origin"] is not None:
        fields["allowed_origins"] = {("any",): ["*"], ("none",): []}.get(tuple(options["origin"]), options["origin"])
    if options["bind_links"] is not None:
        fields["bind_links"] = options["bind_links"] == "yes"
    if options["expires_days"] is not None:
        fields["expires_at"] = datetime.now(UTC) + timedelta(days=options["expires_days"])
    return fields


def limit(text: str) -> int | str:
    return text if text == "default" else int(text)


def days(text: str) -> float:
    value = float(text)
    if not 0 < value <= MAX_DAYS:
        raise ValueError
    return value
