import pytest

from apps.core.errors import NotFound
from apps.core.redis import redis_client
from apps.downloads.providers.listing import ListedVideo, Listing
from apps.downloads.services import flights, lookups
from apps.downloads.services.lookups import Lookup, LookupKind, answer_lookup
from apps.keys.documents import Scope
from apps.keys.services import create_key
from tests.downloads.conftest import Api

VIDEO = ListedVideo(video_id="dQw4w9WgXcQ", title="A song", channel="Somebody", channel_id="UCx", duration_s=212.0)
LISTING = Listing(list_id="PLabcdefghijkl", title="A list", channel="Owner", total=3, has_more=True, videos=(VIDEO,))
FIELDS = [
    "status", "kind", "id", "title", "channel", "channel_id", "total", "page", "page_size", "has_more", "videos",
    "response_time",
]  # fmt: skip
VIDEO_FIELDS = [
    "video_id", "url", "title", "channel", "channel_id", "duration", "duration_seconds", "thumbnail", "view_count",
    "live",
]  # fmt: skip


def known(kind: LookupKind, subject: str, detail: str = "1:20", answer: Listing | Exception = LISTING) -> None:
    def ask(lookup, timeout_s):
        if isinstance(answer, Exception):
            raise answer
        return answer.model_dump(mode="json")

    answer_lookup(Lookup(kind=kind, subject=subject, detail=detail), ask)


def test_a_search_has_every_field(api):
    known(LookupKind.SEARCH, "a song")
    response = api.get("search", q="  a \n song ")
    answer = response.json()
    assert list(answer) == FIELDS
    assert list(answer["videos"][0]) == VIDEO_FIELDS
    assert (answer["kind"], answer["id"], answer["title"], answer["has_more"]) == ("search", None, "a song", True)
    video = answer["videos"][0]
    assert (video["video_id"], video["duration"], video["duration_seconds"]) == ("dQw4w9WgXcQ", "3:32", 212)
    assert video["thumbnail"] == "https://i.ytimg.com/vi/dQw4w9WgXcQ/hqdefault.jpg"


def test_a_playlist_is_the_same_by_link_and_id(api):
    known(LookupKind.PLAYLIST, "PLabcdefghijkl")
    by_link = api.get("playlist", url="https://www.youtube.com/playlist?list=PLabcdefghijkl&si=x").json()
    by_id = api.post("playlist", {"url": "PLabcdefghijkl"}).json()
    assert by_link["videos"] == by_id["videos"]
    assert (by_id["kind"], by_id["id"], by_id["title"], by_id["total"]) == ("playlist", "PLabcdefghijkl", "A list", 3)


def test_a_channel_is_asked_for_page_by_page(api):
    known(LookupKind.CHANNEL, "@somebody", "3:50")
    answer = api.get("channel", url="https://www.youtube.com/@somebody/shorts", page=3, page_size=50).json()
    assert (answer["page"], answer["page_size"], answer["kind"]) == (3, 50, "channel")


def test_one_that_does_not_exist_is_not_found(api):
    known(LookupKind.PLAYLIST, "PLabcdefghijkl", answer=NotFound("There is no such playlist."))
    response = api.get("playlist", url="PLabcdefghijkl")
    assert (response.status_code, response.json()["error"]) == (404, "not_found")


def test_gives_up_after_a_while(api, monkeypatch):
    monkeypatch.setattr(lookups, "WAIT_S", 0.0)
    assert api.get("search", q="slow").json()["error"] == "upstream_timeout"


@pytest.mark.parametrize(
    ("route", "fields", "code"),
    [
        ("search", {}, "invalid_parameter"),
        ("search", {"q": " "}, "invalid_parameter"),
        ("search", {"q": "\u200b\u200b"}, "invalid_parameter"),
        ("search", {"q": "x" * 201}, "invalid_parameter"),
        ("search", {"q": "x", "page": 0}, "invalid_parameter"),
        ("search", {"q": "x", "page": 11, "page_size": 50}, "invalid_parameter"),
        ("search", {"q": "x", "page_size": 51}, "invalid_parameter"),
        ("playlist", {"url": "https://evil.example/playlist?list=PLabcdefghijkl"}, "invalid_url"),
        ("playlist", {"url": "dQw4w9WgXcQ"}, "invalid_url"),
        ("channel", {"url": "http://169.254.169.254/@somebody"}, "invalid_url"),
        ("channel", {"url": "somebody"}, "invalid_url"),
    ],
)
def test_nonsense_is_refused_before_anybody_is_asked(api, route, fields, code):
    response = api.get(route, **fields)
    assert (response.status_code, response.json()["error"]) == (400, code)
    assert redis_client().llen(flights.RESOLVE_QUEUE) == 0


def test_needs_the_scope_search(api):
    key = Api(create_key(name="no search", scopes=(Scope.MEDIA, Scope.INFO)).key)
    for route in ("search", "playlist", "channel"):
        assert key.get(route, q="x").json()["error"] == "scope_missing"
