"""The part ``warm`` of ``manage.py cache``: fetching lists and playlists ahead of time."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

from django.core.management.base import CommandError

from apps.core import audit
from apps.core.clock import utcnow
from apps.core.command import shell_actor
from apps.core.errors import InvalidUrl
from apps.downloads.links import parse_video_id
from apps.downloads.list_links import parse_playlist_id
from apps.downloads.services.warm_limits import is_quiet, warm_limits
from apps.downloads.services.warm_ups import make_warm_up
from apps.downloads.services.warming import MAX_LINKS, read_playlist, warm
from apps.telegram_cache.documents import MediaKind

ABOUT = """\
Fetch videos ahead of time, so that they are there when people ask. The server must be running.

In the quiet hours (the admin's page Warm-ups sets them; 01:00 to 06:00 UTC at first) this fetches at once, shows how
it goes, and waits. At other hours it keeps the list, and the server fetches it in quiet hours, within the limits of
that page. --now fetches at once at any hour; --later NAME always leaves it to the server.
"""
EXAMPLES = """\
  manage.py cache warm links.txt                        a file: a link, an id or a playlist on each line, # for notes
  manage.py cache warm https://www.youtube.com/playlist?list=PL...   a playlist: its first 500 videos
  manage.py cache warm dQw4w9WgXcQ PL... more.txt        several of all these
  cat links.txt | manage.py cache warm - --now          standard input, at once
  manage.py cache warm charts.txt --later "Charts" --kind video --quality 720p
"""


MAX_NAME_CHARS = 100


class Out(Protocol):
    def write(self, text: str) -> Any: ...


@dataclass(kw_only=True)
class _Wanted:
    links: list[str] = field(default_factory=list)
    playlists: list[str] = field(default_factory=list)


def add_warm_arguments(actions: Any) -> None:
    parser: ArgumentParser = actions.add_parser(
        "warm",
        help="fetch links and playlists ahead of time, in quiet hours; the server must be running",
        description=ABOUT,
        epilog=f"examples:\n{EXAMPLES}",
        formatter_class=RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "what",
        nargs="*",
        default=["-"],
        help="files, links, ids, playlists (links or ids), or - for standard input (the default)",
    )
    parser.add_argument("--kind", choices=list(MediaKind), default=MediaKind.AUDIO)
    parser.add_argument("--quality", help="for video, such as 720p; default: the best")
    parser.add_argument("--format", help="for audio, such as mp3; default: the best without re-encoding")
    parser.add_argument("--now", action="store_true", help="do not wait for quiet hours")
    parser.add_argument(
        "--later", metavar="NAME", help="leave it to the server, under this name; the command ends at once"
    )
    parser.add_argument("--max", type=int, default=1000, help="how many videos at most (default: 1000)")
    parser.add_argument(
        "--at-once", type=int, default=2, help="while it waits: how many at a time (1 to 20; default: 2)"
    )
    parser.add_argument("--timeout", type=float, default=1800, help="while it waits: seconds for each (default: 1800)")


def run_warm(options: dict[str, Any], out: Out) -> None:
    """Carry it out. Raises CommandError when something could not be fetched or is no link, file or playlist."""
    if not (1 <= options["at_once"] <= 20 and 1 <= options["max"] <= MAX_LINKS and options["timeout"] > 0):
        raise CommandError(f"--at-once goes from 1 to 20, --max from 1 to {MAX_LINKS}, --timeout is above 0.")
    wanted = _read(options["what"], options["max"])
    kind = MediaKind(options["kind"])
    wish = options["quality"] if kind is MediaKind.VIDEO else options["format"]
    if options["later"] or not (options["now"] or is_quiet(warm_limits(), utcnow())):
        _keep(wanted, kind, wish, options, out)
    else:
        _fetch(wanted, kind, wish, options, out)


def _read(given: list[str], most: int) -> _Wanted:
    """What is meant by the arguments. A watch link that also names a playlist means its video."""
    wanted = _Wanted()
    for item in given:
        is_list = item == "-" or Path(item).is_file()
        for text in islice(_lines(item), most) if is_list else [item]:
            playlist_id = _playlist_in(text)
            if playlist_id:
                wanted.playlists.append(playlist_id)
            elif is_list or _is_video(text):
                wanted.links.append(text)
            else:
                raise CommandError(f"{item}: there is no such file, and it is no link, id or playlist of YouTube.")
    wanted.links = wanted.links[:most]
    return wanted


def _lines(name: str) -> Iterator[str]:
    try:
        lines = sys.stdin if name == "-" else Path(name).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        raise CommandError(f"{name}: {error.strerror}") from None
    stripped = (line.strip() for line in lines)
    return (line for line in stripped if line and not line.startswith("#"))


def _is_video(text: str) -> bool:
    try:
        return bool(parse_video_id(text))
    except InvalidUrl:
        return False


def _playlist_in(text: str) -> str:
    if _is_video(text):
        return ""
    try:
        return parse_playlist_id(text)
    except InvalidUrl:
        return ""


def _keep(wanted: _Wanted, kind: MediaKind, wish: str | None, options: dict[str, Any], out: Out) -> None:
    """Leave it to the server: the links as one list, each playlist as one of its own."""
    name = options["later"] or "from the command line"
    about: dict[str, Any] = {"kind": kind, "wish": wish, "any_hour": options["now"], "created_by": "command line"}
    made = [make_warm_up(name=name, links=wanted.links, **about)] if wanted.links or not wanted.playlists else []
    for playlist_id in wanted.playlists:
        made.append(make_warm_up(name=f"{name}: {playlist_id}"[:MAX_NAME_CHARS], playlist_id=playlist_id, **about))
    limits = warm_limits()
    when = "" if options["now"] else f", from {limits.quiet_from} to {limits.quiet_until} {limits.time_zone}"
    for warm_up in made:
        _note({"list": warm_up.id, "links": warm_up.total, "playlist": warm_up.playlist_id})
        what = f"the playlist {warm_up.playlist_id}" if warm_up.playlist_id else f"{warm_up.total} links"
        out.write(f"Kept {what} as {warm_up.id}. The server fetches it{when}; /admin/warm-ups shows how it goes.")
    if not (options["now"] or options["later"]):
        out.write("To fetch at once: the same command with --now.")


def _fetch(wanted: _Wanted, kind: MediaKind, wish: str | None, options: dict[str, Any], out: Out) -> None:
    for playlist_id in wanted.playlists:
        room = max(0, options["max"] - len(wanted.links))
        wanted.links += islice(read_playlist(playlist_id, timeout_s=options["timeout"]), room)
    _note({"links": len(wanted.links), "playlists": wanted.playlists})
    failed = number = 0
    done = warm(wanted.links, kind=kind, wish=wish, max_active=options["at_once"], timeout_s=options["timeout"])
    for number, item in enumerate(done, start=1):
        failed += bool(item.problem)
        words = item.problem or ("was there" if item.was_there else "fetched")
        out.write(f"[{number}/{len(wanted.links)}] {item.link} {words}")
    if failed:
        raise CommandError(f"{failed} of {number} could not be fetched.")


def _note(after: dict[str, Any]) -> None:
    audit.record(actor=shell_actor(), action="cache.warm", target_kind="cache", target_id="all", after=after)
