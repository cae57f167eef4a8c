"""What a request asks, read from its line, headers and body. Whatever is unusual is None: Django reads it then."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple
from urllib.parse import parse_qsl

import orjson
from django.conf import settings
from django.http.request import split_domain_port, validate_host
from django.urls import Resolver404, resolve
from rest_framework.exceptions import ParseError

from apps.analytics.recorder import route_of
from apps.core.asgi import Scope
from apps.core.errors import ApiError
from apps.core.logs import redact, shown_path
from apps.core.middleware import request_id_from
from apps.core.parsers import JSONParser
from apps.core.tunables import dialects
from apps.downloads.dialects.base import is_yes, kind_of
from apps.downloads.dialects.query import song
from apps.downloads.dialects.song import done
from apps.downloads.dialects.track import track
from apps.downloads.dialects.v2 import ready
from apps.downloads.fields import check_fields
from apps.downloads.links import parse_video_id
from apps.downloads.ready import Question, Shape
from apps.downloads.services.media import MediaAsk
from apps.downloads.views.media import AudioViewSet, InfoViewSet, MediaViewSet, VideoViewSet
from apps.keys.authentication import extract_key
from apps.keys.documents import Scope as KeyScope
from apps.telegram_cache.documents import MediaKind

MAX_REMEMBERED = 10_000
MAX_BODY_BYTES = 4096
MAX_LINE_BYTES = 1024  # of what is remembered of a request, whose sender may be anybody
MAX_HOST_CHARACTERS = 300
MAX_FIELDS = 20
JSON_TYPES = frozenset({b"application/json", b"application/json; charset=utf-8", b"application/json;charset=utf-8"})
FORM_TYPE = b"application/x-www-form-urlencoded"
ACCEPTS = frozenset(
    {
        b"*/*",
        b"application/json",
        b"application/json, */*",
        b"application/json, text/plain, */*",
        b"application/json,*/*",
    }
)
"""Accept headers that mean our JSON, as it comes. Others are for Django to weigh."""
DECIDED_BY_DJANGO = frozenset(
    {b"cookie", b"origin", b"if-none-match", b"if-modified-since", b"x-http-method-override", b"expect", b"range"}
)
_READ = frozenset({b"host", b"accept", b"x-api-key", b"authorization", b"x-request-id", b"content-type"})
_DIALECT_KEYS = frozenset({"api", "api_key"})

Fields = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A request's line and body, understood. ``keys``: the fields in which a key was sent."""

    question: Question
    scope: KeyScope
    keys: Mapping[str, str]
    polled: bool  # a dialect, in which callers ask again and again
    route: str  # the URL pattern
    log_fields: str  # JSON of path and route, for the access log
    event_route: str  # the route in the event record


class Head(NamedTuple):
    """What counts of a request's headers."""

    key: str  # empty: in none of them
    host: str
    request_id: str
    content_type: bytes


def read_head(scope: Scope) -> Head | None:
    """None: something in the headers is Django's to decide."""
    pairs = scope["headers"]
    read: dict[bytes, bytes] = dict(pairs)
    if not DECIDED_BY_DJANGO.isdisjoint(read) or (len(read) < len(pairs) and _is_any_twice(pairs)):
        return None
    host, request_id = read.get(b"host"), read.get(b"x-request-id")
    if host is None or read.get(b"accept", b"*/*") not in ACCEPTS:
        return None
    key = read.get(b"x-api-key", b"").decode("latin-1").strip()
    if not key and b"authorization" in read:
        key = extract_key({"authorization": read[b"authorization"].decode("latin-1")}, {}) or ""
    return Head(
        key,
        host.decode("latin-1"),
        request_id_from(request_id.decode("latin-1") if request_id else None),
        read.get(b"content-type", b"").lower(),
    )


def _is_any_twice(pairs: Sequence[tuple[bytes, bytes]]) -> bool:
    """Whether one of the headers that count is there more than once."""
    names = [name for name, _ in pairs if name in _READ]
    return len(set(names)) < len(names)


class Reader:
    """Understands requests, and remembers those it has seen: reading is done by the views' own, slow, serializers."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, bytes, bytes, bytes], Asked | None] = {}
        self._base_urls: dict[tuple[str, str], str | None] = {}
        self._public_url = settings.ENV.public_url

    def may_read(self, path: str) -> bool:
        """Whether the path could be one of the lane's. Cheap; most others are told apart here."""
        if path in _API:
            return True
        dialect = "song" if path.startswith(_SONGS) else _DIALECT_NAMES.get(path)
        return dialect is not None and dialects[dialect]() == 1

    def base_url(self, scope: Scope, host: str) -> str | None:
        """As ``views.base.base_url``; None for a host that Django would refuse."""
        known = (scope["scheme"], host)
        if known in self._base_urls:
            return self._base_urls[known]
        if len(host) > MAX_HOST_CHARACTERS:
            return None
        if len(self._base_urls) >= MAX_REMEMBERED:
            self._base_urls.clear()
        domain, _ = split_domain_port(host)
        is_good = bool(domain) and validate_host(domain, settings.ALLOWED_HOSTS)
        is_good = is_good and _is_plain(self._public_url or host)
        base_url = self._base_urls[known] = (self._public_url or f"{known[0]}://{host}") if is_good else None
        return base_url

    def read(self, scope: Scope, content_type: bytes = b"", body: bytes = b"") -> Asked | None:
        """None: this is not for the lane."""
        line = (scope["path"], scope["query_string"], content_type, body)
        if line in self._known:
            return self._known[line]
        if sum(map(len, line)) > MAX_LINE_BYTES:
            return None
        if len(self._known) >= MAX_REMEMBERED:
            self._known.clear()
        asked = self._known[line] = self._understand(*line)
        return asked

    def _understand(self, path: str, query: bytes, content_type: bytes, body: bytes) -> Asked | None:
        try:
            in_query = _pairs(query)
            if path in _API:
                return self._api(path, in_query, _body_fields(content_type, body) if body else {})
            return None if body else self._dialect(path, in_query)
        except (ApiError, ParseError, Resolver404, _Unusual):
            return None

    def _api(self, path: str, in_query: Fields, in_body: Fields) -> Asked:
        view = _API[path]
        checked = check_fields({**in_query, **in_body}, view.serializer_class)
        if issubclass(view, MediaViewSet):
            if "link_ip" in checked:
                raise _Unusual
            ask = view.ask_of(checked)
            question = Question(video_id=ask.video_id, ask=ask)
        else:
            if checked["refresh"]:
                raise _Unusual
            question = Question(video_id=parse_video_id(checked["url"]))
        scope = view.required_scope or KeyScope.ADMIN
        keys = {name: in_query[name] for name in ("api_key",) if name in in_query}
        return _asked(path, question, scope=scope, keys=keys, polled=False)

    def _dialect(self, path: str, fields: Fields) -> Asked:
        if path.startswith(_SONGS):
            word, _, text = path[1:].partition("/")
            wish = _Wish(text, kind_of(word == "video"), done, frozenset())
        else:
            wish = _DIALECTS[path](fields)
        if not fields.keys() <= _DIALECT_KEYS | wish.fields:
            raise _Unusual
        video_id = parse_video_id(wish.text.strip())
        question = Question(video_id=video_id, ask=MediaAsk(kind=wish.kind, video_id=video_id), shape=wish.shape)
        keys = {name: fields[name] for name in _DIALECT_KEYS if name in fields}
        return _asked(path, question, scope=KeyScope.MEDIA, keys=keys, polled=True)


class _Unusual(Exception):
    """For Django to read."""


class _Wish(NamedTuple):
    """What a dialect's address and fields mean. ``fields``: the names that may be there beside a key."""

    text: str
    kind: MediaKind
    shape: Shape
    fields: frozenset[str]


def _track(fields: Fields) -> _Wish:
    is_video = is_yes(fields.get("video"))
    return _Wish(fields.get("url", ""), kind_of(is_video), track, frozenset({"url", "video"}))


def _song(fields: Fields) -> _Wish:
    if is_yes(fields.get("download")):
        raise _Unusual  # the bytes themselves
    return _Wish(fields.get("query", ""), MediaKind.AUDIO, song, frozenset({"query", "download"}))


def _v2(fields: Fields) -> _Wish:
    is_video = is_yes(fields.get("isVideo"))
    return _Wish(fields.get("query", ""), kind_of(is_video), ready, frozenset({"query", "isVideo"}))


_API: dict[str, type[MediaViewSet] | type[InfoViewSet]] = {
    "/api/v1/info": InfoViewSet,
    "/api/v1/video": VideoViewSet,
    "/api/v1/audio": AudioViewSet,
}
_SONGS = ("/song/", "/video/")
_DIALECTS: dict[str, Callable[[Fields], _Wish]] = {
    "/api/track": _track,
    "/api/song": _song,
    "/youtube/v2/download": _v2,
}
_DIALECT_NAMES = {"/api/track": "track", "/api/song": "query", "/youtube/v2/download": "v2"}


def _is_plain(address: str) -> bool:
    """Whether it stands for itself in JSON."""
    return address.isascii() and address.isprintable() and '"' not in address and "\\" not in address


def _asked(path: str, question: Question, *, scope: KeyScope, keys: Mapping[str, str], polled: bool) -> Asked:
    route: str = resolve(path).route
    return Asked(
        question=question,
        scope=scope,
        keys=keys,
        polled=polled,
        route=route,
        log_fields=orjson.dumps({"path": redact(shown_path(path)), "route": route}).decode()[1:-1],
        event_route=route_of(path),
    )


def _pairs(query: bytes) -> Fields:
    """Raises _Unusual for a field given twice, or more of them than anybody needs."""
    try:
        pairs = parse_qsl(query.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=MAX_FIELDS)
    except ValueError:
        raise _Unusual from None
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise _Unusual
    return fields


def _body_fields(content_type: bytes, body: bytes) -> Fields:
    if content_type == FORM_TYPE:
        return _pairs(body)
    if content_type not in JSON_TYPES:
        raise _Unusual
    data = JSONParser().parse(io.BytesIO(body))
    if not isinstance(data, dict):
        raise _Unusual
    return data
