"""``manage.py cache warm``: what it takes, and when it fetches."""

import io

import pytest
from django.core.management import CommandError, call_command

from apps.core.documents import AuditEntry
from apps.downloads.providers.listing import ListedVideo, Listing
from apps.downloads.services.lookups import Lookup, LookupKind, answer_lookup
from apps.downloads.services.warm_limits import save_warm_limits
from apps.downloads.warm_documents import WarmUp, WarmUpEntry
from apps.telegram_cache.documents import AssetKey, MediaKind
from tests.downloads.library import put_hot

pytestmark = pytest.mark.usefixtures("mongo", "redis_server", "hot_root")
PLAYLIST = "PLabcdefghijklmnop"
IDS = [f"video00000{number}" for number in range(4)]


@pytest.fixture
def quiet():
    """It is always quiet."""
    save_warm_limits(quiet_from="00:00", quiet_until="00:00")


@pytest.fixture
def busy(monkeypatch):
    """It is never quiet."""
    monkeypatch.setattr("apps.downloads.management.warm.is_quiet", lambda *_: False)


@pytest.fixture
def stored():
    """Every file is there; the playlist's two pages are known."""
    for video_id in IDS:
        put_hot(AssetKey(video_id, MediaKind.AUDIO, "m4a"))
    for page, ids, has_more in ((1, IDS[:2], True), (2, IDS[2:3], False)):
        videos = (*(ListedVideo(video_id=video_id) for video_id in ids), ListedVideo(video_id="livelivelix", live=True))
        listing = Listing(has_more=has_more, videos=videos).model_dump(mode="json")
        lookup = Lookup(kind=LookupKind.PLAYLIST, subject=PLAYLIST, detail=f"{page}:50")
        answer_lookup(lookup, lambda *_, listing=listing: listing)


def run(*arguments: str) -> str:
    out = io.StringIO()
    call_command("cache", "warm", "--format", "m4a", *arguments, stdout=out)
    return out.getvalue()


def test_in_quiet_hours_links_files_and_playlists_are_fetched_and_waited_for(quiet, stored, tmp_path, monkeypatch):
    file = tmp_path / "links.txt"
    file.write_text(f"# notes\n\n{IDS[3]}\nhttps://www.youtube.com/playlist?list={PLAYLIST}\n")
    shown = run(str(file))
    assert [line.split()[1] for line in shown.splitlines()] == [
        IDS[3], *(f"https://www.youtube.com/watch?v={video_id}" for video_id in IDS[:3]),
    ]  # fmt: skip
    assert shown.count("was there") == 4
    assert run(PLAYLIST, "--max", "2").count("was there") == 2
    monkeypatch.setattr("sys.stdin", io.StringIO(f"https://youtu.be/{IDS[0]}?list={PLAYLIST}\n"))
    assert run().count("was there") == 1  # a link to a video means that video
    assert [entry.after["links"] for entry in AuditEntry.objects(action="cache.warm").order_by("id")] == [4, 2, 1]


def test_at_other_hours_the_server_is_left_to_do_it_in_quiet_ones(busy, stored):
    shown = run(IDS[0], PLAYLIST)
    assert "from 01:00 to 06:00 UTC" in shown
    assert "--now" in shown
    links, playlist = WarmUp.objects.order_by("playlist_id")
    assert (links.total, links.any_hour, links.wish) == (1, False, "m4a")
    assert (playlist.playlist_id, playlist.reading, playlist.any_hour) == (PLAYLIST, True, False)
    assert WarmUpEntry.objects.get().video_id == IDS[0]


def test_now_does_not_wait_for_them(busy, stored):
    assert run(IDS[0], "--now").count("was there") == 1
    assert WarmUp.objects.count() == 0


def test_later_leaves_it_to_the_server_under_a_name(quiet, stored):
    assert "Kept the playlist" in run(PLAYLIST, "--later", "Charts")
    kept = WarmUp.objects.get()
    assert (kept.name, kept.any_hour) == (f"Charts: {PLAYLIST}", False)
    run(IDS[0], "--later", "Soon", "--now")
    assert WarmUp.objects.get(name="Soon").any_hour


def test_what_is_neither_a_file_nor_a_link_is_said_so(quiet):
    with pytest.raises(CommandError, match="no such file"):
        run("nothing-of-that-name.txt")
    with pytest.raises(CommandError):
        run("-", "--at-once", "0")
