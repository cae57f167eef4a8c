"""Who asks for a stream, and for what: the request's key or link is checked, and a key's request counted."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import Any

from apps.core.errors import ApiError, IpNotAllowed, LinkInvalid, ScopeMissing
from apps.downloads.fields import BESIDE_FIELDS, check_fields
from apps.downloads.open_links import read_wish
from apps.downloads.request_serializers import AudioStreamRequestSerializer, VideoStreamRequestSerializer
from apps.downloads.variants import AS_IT_COMES, MediaOptions
from apps.keys.authentication import authenticate, extract_key, grant_for_prefix
from apps.keys.documents import Scope
from apps.keys.grants import KeyGrant
from apps.keys.limits import LimitState, charge, charge_failure, limit_headers, network_of
from apps.keys.meter import StreamMeters
from apps.streaming.links import SIGNATURE_PARAMETER, check_link
from apps.streaming.ports import StreamMeter, StreamRequest
from apps.telegram_cache.documents import MediaKind

MAX_QUERIES = 256  # remembered as they were understood


@dataclass(frozen=True, kw_only=True)
class Admission:
    """A request whose key or link is good. ``asset_id`` (from a link) or ``wish`` says what is wanted."""

    key_prefix: str
    attachment: bool
    kind: MediaKind
    video_id: str
    asset_id: str | None = None
    wish: str | None = None
    options: MediaOptions = AS_IT_COMES
    opened_from: str = ""
    link_expires_at: float | None = None
    headers: tuple[tuple[str, str], ...] = ()
    meter: StreamMeter | None = None
    range_header: str | None = None
    if_range: str | None = None
    if_match: str | None = None
    is_renewal: bool = False  # bytes turned out to be gone: what is left without them will not do


def admit(request: StreamRequest, meters: StreamMeters) -> Admission:
    """Check key or link, and count the request of a key. Raises what is wrong with them, and what MongoDB raises."""
    if SIGNATURE_PARAMETER in request.query:
        return _admit_link(request, MediaKind(request.kind), meters)
    try:
        grant = authenticate(extract_key(request.headers, request.query), request.client_address)
    except ApiError:
        charge_failure(request.client_address)
        raise
    return admission_of(request, grant, charge(grant), meters)


def raw_key_of(request: StreamRequest) -> str:
    """The raw key that it comes with; empty: none, or a link."""
    return "" if SIGNATURE_PARAMETER in request.query else extract_key(request.headers, request.query) or ""


def admission_of(request: StreamRequest, grant: KeyGrant, limit: LimitState, meters: StreamMeters) -> Admission:
    """Of a request whose key is good, and that has been counted. Never waits. Raises ScopeMissing, InvalidParameter."""
    _check_scope(grant)
    kind = MediaKind(request.kind)
    query = tuple((name, value) for name, value in request.query.items() if name not in BESIDE_FIELDS)
    fields = _read_fields(kind, query)
    return Admission(
        key_prefix=grant.prefix,
        attachment=fields["download"],
        kind=kind,
        video_id=request.video_id,
        wish=fields["quality"] if kind is MediaKind.VIDEO else fields.get("format"),
        options=fields["options"],
        opened_from=request.client_address,
        headers=tuple(limit_headers(limit).items()),
        meter=meters.meter(grant),
        range_header=_range_header(request, "range"),
        if_range=_range_header(request, "if-range"),
        if_match=request.headers.get("if-match"),
    )


def _admit_link(request: StreamRequest, kind: MediaKind, meters: StreamMeters) -> Admission:
    """A link is as good as the key that asked for it. Following it is no request, but a stream of that key.

    Forged links count against the address; one that has expired was good, and does not.
    """
    try:
        link = check_link(request.path, request.query)
    except LinkInvalid:
        charge_failure(request.client_address)
        raise
    grant = grant_for_prefix(link.key_prefix)
    _check_scope(grant)
    if link.bound_to and link.bound_to != network_of(request.client_address):
        raise IpNotAllowed("This link was made for another address.")
    wish = read_wish(link.asset_id)
    return Admission(
        key_prefix=link.key_prefix,
        attachment=link.attachment,
        kind=kind,
        video_id=request.video_id,
        asset_id=link.asset_id if wish is None else None,
        wish=wish or None,
        link_expires_at=link.expires_at,
        meter=meters.meter(grant),
        range_header=_range_header(request, "range"),
        if_range=_range_header(request, "if-range"),
        if_match=request.headers.get("if-match"),
    )


def _range_header(request: StreamRequest, name: str) -> str | None:
    return request.headers.get(name) if request.method == "GET" else None  # HEAD knows no ranges


@lru_cache(maxsize=MAX_QUERIES)
def _read_fields(kind: MediaKind, query: tuple[tuple[str, str], ...]) -> Mapping[str, Any]:
    """Raises InvalidParameter. Kept, for a serializer is slow to make, and most ask for the same."""
    serializer_class = VideoStreamRequestSerializer if kind is MediaKind.VIDEO else AudioStreamRequestSerializer
    return MappingProxyType(check_fields(dict(query), serializer_class))


def _check_scope(grant: KeyGrant) -> None:
    if Scope.MEDIA not in grant.scopes:
        raise ScopeMissing(f"This API key does not have the scope {Scope.MEDIA.value}.")


def question_of(admission: Admission) -> Hashable:
    """What two requests of one key have in common that find the same bytes, or fail alike. The range and its conditions
    are part of it: of a file that has lost parts, one may be there and another not."""
    wanted = (admission.asset_id, admission.wish, admission.options)
    some = (admission.range_header, admission.if_range, admission.if_match)
    return admission.key_prefix, admission.kind, admission.video_id, *wanted, *some
