"""Trying the server without a program: paste a link, see what it is, choose a quality, watch the job, play it."""

from __future__ import annotations

from contextlib import suppress
from urllib.parse import urlencode

from django import forms
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils.html import format_html

from apps.core.errors import ApiError
from apps.core.suspend import Suspend, suspended, waited_s
from apps.dashboard.access import AdminRequest, admin_page, record_change
from apps.dashboard.forms import AdminForm
from apps.downloads.links import parse_video_id
from apps.downloads.list_links import parse_channel, parse_playlist_id
from apps.downloads.providers.base import VideoInfo
from apps.downloads.services.media import MediaAsk, request_media, wait_for_info
from apps.keys.documents import Role
from apps.keys.people import person_prefix
from apps.telegram_cache.documents import MediaKind

FORM = "dashboard/trying/start.html"
FORMAT_WORDS = {"m4a": "M4A, as it is", "opus": "Opus", "mp3": "MP3", "flac": "FLAC"}


class LinkForm(AdminForm):
    """What somebody pastes. Only the video id is taken from it; the address itself is never asked."""

    link = forms.CharField(
        label="YouTube link or video id",
        max_length=2000,
        widget=forms.TextInput(attrs={"autofocus": True, "autocomplete": "off", "inputmode": "url"}),
    )


@admin_page(Role.OPERATOR, methods=("GET", "HEAD", "POST"))
def start(request: AdminRequest) -> HttpResponse:
    """The field for the link."""
    form = LinkForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        try:
            return redirect("dashboard:try-video", parse_video_id(form.cleaned_data["link"]))
        except ApiError as error:
            form.add_error("link", _of_many(form.cleaned_data["link"]) or error.message)
    return render(request, FORM, {"form": form}, status=422 if form.errors else 200)


def _of_many(link: str) -> str:
    """What to do with a link to many videos; empty for others."""
    with suppress(ApiError):
        parse_playlist_id(link)
        href = f"{reverse('dashboard:warm-ups-new')}?{urlencode({'playlist': link})}"
        text = 'This is a playlist, and one video is tried here. <a href="{}">Warm-ups</a> fetch all of its videos.'
        return format_html(text, href)
    with suppress(ApiError):
        parse_channel(link)
        return format_html(
            "This is a channel. Paste the link of one of its videos here, or give one of its playlists to "
            '<a href="{}">Warm-ups</a>.',
            reverse("dashboard:warm-ups-new"),
        )
    return ""


@admin_page(Role.OPERATOR, methods=("GET", "HEAD", "POST"))
def video(request: AdminRequest, video_id: str) -> HttpResponse:
    """What the link is, once that is known; by POST the chosen quality is fetched, and its page shown."""
    waited = waited_s(request)
    try:
        video_id = parse_video_id(video_id)
        if request.method == "POST":
            return _fetch(request, video_id, waited)
        info = wait_for_info(video_id, waited_s=waited)
    except Suspend as pending:
        return suspended(pending.topic)
    except ApiError as error:
        form = LinkForm({"link": video_id})
        form.add_error("link", error.message)
        return render(request, FORM, {"form": form}, status=error.status)
    return render(request, "dashboard/trying/video.html", {"info": info, "choices": choices(info)})


def choices(info: VideoInfo) -> list[tuple[str, list[tuple[str, str]]]]:
    """What can be asked for: groups of (value of the form, words)."""
    heights = [(f"video:{height}p", f"{height}p") for height in info.video_heights]
    formats = [(f"audio:{name}", FORMAT_WORDS.get(name, name)) for name in info.audio_formats]
    return [
        ("Video", [("video:best", "The best there is"), *heights]),
        ("Sound", [("audio:best", "The best without re-encoding"), *formats]),
    ]


def _fetch(request: AdminRequest, video_id: str, waited: float) -> HttpResponse:
    chosen, _, wish = request.POST.get("choice", "").partition(":")
    kind = MediaKind.AUDIO if chosen == MediaKind.AUDIO else MediaKind.VIDEO
    ask = MediaAsk(kind=kind, video_id=video_id, wish=None if wish in ("", "best") else wish[:16])
    state = request_media(ask, key_prefix=person_prefix(request.admin_user), wait_s=0, waited_s=waited)
    if state.job is not None:
        record_change(
            request,
            "asset.fetch",
            target_kind="asset",
            target_id=state.asset.id,
            after={"video_id": video_id, "variant": state.asset.variant},
        )
    return redirect("dashboard:assets-detail", state.asset.id)
