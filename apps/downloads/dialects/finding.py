"""From what a bot sends (a link, an id, words) to a video and its file."""

from __future__ import annotations

import re

from apps.core.asker import asker_var
from apps.core.errors import InvalidParameter, InvalidUrl, NotFound, ScopeMissing, VideoUnavailable
from apps.downloads.links import parse_video_id
from apps.downloads.providers.listing import ListKind, ListQuestion
from apps.downloads.services.lists import clean_words, get_listing
from apps.downloads.services.media import MediaAsk, MediaState, request_media
from apps.keys.documents import Scope
from apps.keys.grants import KeyGrant
from apps.telegram_cache.documents import MediaKind

_LOOKS_LIKE_A_LINK = re.compile(r"[a-z][a-z0-9+.-]*:\S*|(www\.|m\.|music\.)?(youtube\.com|youtu\.be)(/\S*)?", re.I)


def find_video(text: str, *, grant: KeyGrant, waited_s: float) -> str:
    """The video id in a link, the id itself, or that of the first search result for words.

    Raises InvalidUrl for a link to elsewhere, InvalidParameter for nothing, NotFound when a search finds nothing, and
    Suspend while the search runs.
    """
    given = text.strip()
    if not given:
        raise InvalidParameter("Send a YouTube link, a video id, or words to search for.")
    try:
        return parse_video_id(given)
    except InvalidUrl:
        if _LOOKS_LIKE_A_LINK.fullmatch(given):
            raise
    return _first_result(given, grant=grant, waited_s=waited_s)


def find_media(text: str, kind: MediaKind, *, grant: KeyGrant, wait_s: float, waited_s: float) -> MediaState:
    """The best audio or video file for ``text``, found or being fetched. Raises what find_video and request_media do.

    A single word of eleven letters looks like an id; when there is no such video it is searched for.
    """
    asker_var.set(grant.prefix)  # the status of an order is asked for without its key
    video_id = find_video(text, grant=grant, waited_s=waited_s)
    try:
        return request_media(
            MediaAsk(kind=kind, video_id=video_id), key_prefix=grant.prefix, wait_s=wait_s, waited_s=waited_s
        )
    except VideoUnavailable:
        word = text.strip()
        if word != video_id or not word.isalpha() or Scope.SEARCH not in grant.scopes:
            raise
    found = _first_result(word, grant=grant, waited_s=waited_s)
    return request_media(MediaAsk(kind=kind, video_id=found), key_prefix=grant.prefix, wait_s=wait_s, waited_s=waited_s)


def _first_result(words: str, *, grant: KeyGrant, waited_s: float) -> str:
    if Scope.SEARCH not in grant.scopes:
        raise ScopeMissing(f"This API key does not have the scope {Scope.SEARCH.value}.")
    question = ListQuestion(kind=ListKind.SEARCH, subject=clean_words(words))
    for video in get_listing(question, waited_s=waited_s).videos:
        if not video.live:
            return video.video_id
    raise NotFound("Nothing was found for these words.")
