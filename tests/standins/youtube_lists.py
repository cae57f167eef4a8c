"""What the YouTube stand-in finds, lists and pages: search, playlists and channels, as yt-dlp's extractors read them.

Copies the renderers that www.youtube.com sends to the WEB client (yt-dlp: extractor/youtube/_tab.py): 20 results a
search page, 100 entries a playlist page, 30 uploads a channel page, each with a continuation token.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

SEARCH_RESULTS, SEARCH_PAGE = 45, 20
PLAYLIST_VIDEOS, PLAYLIST_PAGE = 130, 100
CHANNEL_VIDEOS, CHANNEL_PAGE = 70, 30
CHANNEL_ID = "UC" + "x" * 22
NOTHING = "no such thing"
GONE = "gone"


def listed_ids(subject: str, count: int) -> list[str]:
    """The ids that stand for the videos of a search or list."""
    mark = hashlib.sha256(subject.encode()).hexdigest()[:7]
    return [f"{mark}{number:04}" for number in range(1, count + 1)]


def search_ids(words: str) -> list[str]:
    return [] if words == NOTHING else listed_ids(words, SEARCH_RESULTS)


def playlist_ids(playlist_id: str) -> list[str]:
    return listed_ids(playlist_id, PLAYLIST_VIDEOS)


def channel_ids(path: str) -> list[str]:
    return listed_ids(path, CHANNEL_VIDEOS)


def _renderer(video_id: str, subject: str) -> dict[str, Any]:
    channel = {"browseEndpoint": {"browseId": CHANNEL_ID, "canonicalBaseUrl": "/@standin"}}
    return {
        "videoId": video_id,
        "title": {"runs": [{"text": f"{subject} {int(video_id[7:])}"}]},
        "lengthText": {"simpleText": "3:32"},
        "lengthSeconds": "212",
        "viewCountText": {"simpleText": "1,234 views"},
        "shortBylineText": {"runs": [{"text": "Test Channel", "navigationEndpoint": channel}]},
        "ownerText": {"runs": [{"text": "Test Channel", "navigationEndpoint": channel}]},
    }


def _continuation(kind: str, subject: str, start: int) -> dict[str, Any]:
    token = json.dumps([kind, subject, start])
    return {"continuationItemRenderer": {"continuationEndpoint": {"continuationCommand": {"token": token}}}}


def _page(kind: str, subject: str, start: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The entries from ``start``, and what leads to the next page (nothing on the last one)."""
    ids, size = {
        "search": (search_ids, SEARCH_PAGE),
        "playlist": (playlist_ids, PLAYLIST_PAGE),
        "channel": (channel_ids, CHANNEL_PAGE),
    }[kind]
    found = ids(subject)
    entries = [_renderer(video_id, subject) for video_id in found[start : start + size]]
    more = [_continuation(kind, subject, start + size)] if start + size < len(found) else []
    return entries, more


def search_response(question: dict[str, Any]) -> dict[str, Any]:
    """The answer of /youtubei/v1/search."""
    token = question.get("continuation")
    if token:
        _, words, start = json.loads(token)
        return {
            "onResponseReceivedCommands": [
                {"appendContinuationItemsAction": {"continuationItems": _found(words, start)}}
            ]
        }
    contents = {"sectionListRenderer": {"contents": _found(str(question.get("query", "")), 0)}}
    return {"contents": {"twoColumnSearchResultsRenderer": {"primaryContents": contents}}}


def _found(words: str, start: int) -> list[dict[str, Any]]:
    entries, more = _page("search", words, start)
    section = {"itemSectionRenderer": {"contents": [{"videoRenderer": entry} for entry in entries]}}
    return [section, *more]


def browse_response(question: dict[str, Any]) -> dict[str, Any]:
    """The answer of /youtubei/v1/browse: to a continuation, or to a playlist with its unavailable videos."""
    if "continuation" not in question:
        return playlist_data(str(question.get("browseId", "")).removeprefix("VL"))
    kind, subject, start = json.loads(question["continuation"])
    entries, more = _page(kind, subject, start)
    name = "playlistVideoRenderer" if kind == "playlist" else "richItemRenderer"
    items = [{name: entry if kind == "playlist" else {"content": {"videoRenderer": entry}}} for entry in entries]
    return {"onResponseReceivedActions": [{"appendContinuationItemsAction": {"continuationItems": [*items, *more]}}]}


def playlist_data(playlist_id: str) -> dict[str, Any]:
    """ytInitialData of a playlist's page."""
    if GONE in playlist_id:
        return {
            "alerts": [{"alertRenderer": {"type": "ERROR", "text": {"simpleText": "The playlist does not exist."}}}]
        }
    entries, more = _page("playlist", playlist_id, 0)
    videos = [{"playlistVideoRenderer": entry} for entry in entries]
    listed = {"playlistVideoListRenderer": {"contents": [*videos, *more], "playlistId": playlist_id}}
    section = {"itemSectionRenderer": {"contents": [listed]}}
    tab = {"selected": True, "content": {"sectionListRenderer": {"contents": [section]}}}
    return {
        "contents": {"twoColumnBrowseResultsRenderer": {"tabs": [{"tabRenderer": tab}]}},
        "metadata": {"playlistMetadataRenderer": {"title": f"Playlist {playlist_id}"}},
    }


def channel_data(path: str) -> dict[str, Any]:
    """ytInitialData of a channel's page of uploads."""
    entries, more = _page("channel", path, 0)
    items = [{"richItemRenderer": {"content": {"videoRenderer": entry}}} for entry in entries]
    address = {"commandMetadata": {"webCommandMetadata": {"url": f"/{path}/videos"}}}
    tab = {
        "selected": True,
        "title": "Videos",
        "endpoint": address,
        "content": {"richGridRenderer": {"contents": [*items, *more]}},
    }
    return {
        "contents": {"twoColumnBrowseResultsRenderer": {"tabs": [{"tabRenderer": tab}]}},
        "metadata": {"channelMetadataRenderer": {"title": "Test Channel", "externalId": CHANNEL_ID}},
    }
