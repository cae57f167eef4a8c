"""``manage.py fetch <link>``: have the running server fetch one file, watch it arrive, save it if wanted."""

from __future__ import annotations

import json
import os
from argparse import ArgumentParser
from pathlib import Path
from typing import Any, NoReturn

from django.core.management.base import BaseCommand, CommandError

from apps.core.api_errors import to_api_error
from apps.core.errors import ApiError, UpstreamTimeout
from apps.core.outages import outage_of
from apps.downloads.fields import check_fields
from apps.downloads.links import parse_video_id
from apps.downloads.management.progress import ProgressLine
from apps.downloads.request_serializers import AudioRequestSerializer, VideoRequestSerializer
from apps.downloads.services.answers import container_of, measured, quality_of
from apps.downloads.services.following import follow_media
from apps.downloads.services.media import MediaAsk, MediaState
from apps.downloads.services.saving import save_asset
from apps.downloads.stream_records import AssetRecord
from apps.downloads.stream_targets import file_name
from apps.downloads.variants import AUDIO_FORMATS, MP3_BITRATES_KBPS, VIDEO_CODECS, VIDEO_CONTAINERS
from apps.telegram_cache.documents import MediaKind

AUDIO_OPTIONS = ("format", "bitrate", "tags")
VIDEO_OPTIONS = ("quality", "container", "codec", "fps")
TRY_LATER = 75  # sysexits.h: EX_TEMPFAIL
INTERRUPTED = 130


class Command(BaseCommand):
    help = (
        "Fetch one video or its sound into the cache of the running server, as the API does, and show its progress. "
        "Exit codes: 0 it is there, 1 it cannot be had, 2 wrong usage, 75 it may work later, 130 Ctrl-C."
    )
    requires_system_checks = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("link", help="a YouTube link of any form, or a video id")
        parser.add_argument("--kind", choices=list(MediaKind), help="default: video; audio with an option for audio")
        parser.add_argument("--quality", help="video: best (default) or a height such as 1080")
        parser.add_argument("--container", choices=VIDEO_CONTAINERS, help="video: default mp4")
        parser.add_argument("--codec", choices=["any", *VIDEO_CODECS], help="video: default any")
        parser.add_argument("--fps", type=int, help="video: at most so many frames a second")
        parser.add_argument("--format", choices=AUDIO_FORMATS, help="audio: default m4a")
        parser.add_argument("--bitrate", type=int, choices=MP3_BITRATES_KBPS, help="audio: kbit/s of an mp3")
        parser.add_argument("--tags", action="store_true", help="audio: title, artist and cover also in an m4a")
        parser.add_argument("--start", type=float, help="a clip: seconds from the start of the video")
        parser.add_argument("--end", type=float, help="a clip: where it ends, in seconds from the start of the video")
        parser.add_argument(
            "-o", "--output", type=Path, help="save it too: a file, or a folder (named after the title)"
        )
        parser.add_argument("--timeout", type=float, default=1800, help="seconds to wait (default: 1800)")
        parser.add_argument("--json", action="store_true", help="print one JSON object at the end, and nothing else")

    def handle(self, *args: Any, **options: Any) -> None:
        shown = ProgressLine(self.stderr, quiet=options["json"])
        try:
            with shown:
                _check_output(options["output"])
                state = _fetch(_ask(options), options["timeout"], shown)
                saved = _save(state, options["output"], shown)
        except KeyboardInterrupt:
            raise CommandError("stopped waiting; a fetch that had begun goes on", returncode=INTERRUPTED) from None
        except OSError as error:
            raise CommandError(f"{options['output']}: {error.strerror or error}") from None
        except Exception as error:  # what people can do something about; any other is raised again
            told = to_api_error(error)
            if told is None:  # a fault of ours keeps its traceback
                raise
            outage = outage_of(error)
            self._fail(told, outage.for_operators if outage else told.message, as_json=options["json"])
        facts = _facts(state, saved)
        if options["json"]:
            self.stdout.write(json.dumps({"status": True, **facts}))
        else:
            self.stdout.write(_words(facts))

    def _fail(self, error: ApiError, message: str, *, as_json: bool) -> NoReturn:
        if as_json:
            content = {"status": False, "error": error.code, "message": message, "retryable": error.retryable}
            self.stdout.write(json.dumps(content))
        wait_s = error.retry_after_s if error.retryable and message is error.message else None
        later = f" Try again in {wait_s:.0f} s." if wait_s else ""
        raise CommandError(f"{error.code}: {message}{later}", returncode=TRY_LATER if error.retryable else 1) from None


def _ask(options: dict[str, Any]) -> MediaAsk:
    """What is asked for, checked as the API checks requests. Raises CommandError, InvalidUrl, InvalidParameter."""
    audio_given = [name for name in AUDIO_OPTIONS if options[name]]
    kind = MediaKind(options["kind"] or (MediaKind.AUDIO if audio_given else MediaKind.VIDEO))
    is_video = kind is MediaKind.VIDEO
    for name in AUDIO_OPTIONS if is_video else VIDEO_OPTIONS:
        if options[name]:
            raise CommandError(f"--{name} is not for {kind.value}", returncode=2)
    given = {"url": options["link"]}
    for name in (*(VIDEO_OPTIONS if is_video else AUDIO_OPTIONS), "start", "end"):
        if options[name] not in (None, False):
            given[name] = options[name]
    fields = check_fields(given, VideoRequestSerializer if is_video else AudioRequestSerializer)
    wish = fields["quality"] if is_video else fields.get("format")
    return MediaAsk(kind=kind, video_id=parse_video_id(fields["url"]), wish=wish, options=fields["options"])


def _fetch(ask: MediaAsk, timeout_s: float, shown: ProgressLine) -> MediaState:
    state: MediaState | None = None
    for state in follow_media(ask, timeout_s=timeout_s):
        shown.show_fetch(state)
    if state is None:
        raise UpstreamTimeout
    return state


def _check_output(output: Path | None) -> None:
    """Raises OSError where there is no folder for the file: that is told before anything is fetched."""
    if output is not None and not output.is_dir():
        with os.scandir(output.parent):
            pass


def _save(state: MediaState, output: Path | None, shown: ProgressLine) -> Path | None:
    if output is None:
        return None
    asset = state.asset
    path = output / file_name(AssetRecord.of(asset)) if output.is_dir() else output
    save_asset(asset, path, on_bytes=lambda done: shown.show_bytes("saving", done, asset.size_bytes))
    return path


def _facts(state: MediaState, saved: Path | None) -> dict[str, Any]:
    asset = state.asset
    return {
        "asset_id": asset.id,
        "video_id": asset.video_id,
        "title": asset.title,
        "file_type": asset.kind,
        "quality": quality_of(asset),
        "container": container_of(asset),
        "file_size": asset.size_bytes,
        "sha256": asset.sha256,
        "media": measured(asset),
        "source": state.tier.value,
        "provider": asset.provider,
        "saved_as": os.fspath(saved.absolute()) if saved else None,
    }


def _words(facts: dict[str, Any]) -> str:
    media = facts["media"] or {}
    codecs = " + ".join(filter(None, (media.get("video_codec"), media.get("audio_codec"))))
    about = ", ".join(filter(None, (facts["quality"], codecs, f"{facts['file_size']} bytes")))
    where = f"\nSaved as {facts['saved_as']}" if facts["saved_as"] else ""
    return f"{facts['title'] or facts['video_id']}: {about}\nAsset {facts['asset_id']}{where}"
