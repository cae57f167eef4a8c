"""Which cookies, PO tokens and proxies yt-dlp uses next: healthy ones in turn; what YouTube turned against rests.

Every process decides from the same documents, so a rest counts everywhere at once. Choosing is one conditional update.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Any

import structlog
from pymongo import ReturnDocument
from pymongo.errors import PyMongoError

from apps.core.clock import utcnow
from apps.core.errors import BotCheck, InvalidParameter, UpstreamError
from apps.core.secrets import SecretUnreadable, decrypt_secret, encrypt_secret
from apps.downloads.cookie_files import read_cookies
from apps.downloads.documents import Identity, IdentityKind, ProxyUse
from apps.downloads.po_tokens import read_po_tokens
from apps.downloads.providers.ways import Exit, Way

FIRST_REST_S = 60.0
LONGEST_REST_S = 6 * 3600.0
UNREADABLE_TRIES = 3

log = structlog.get_logger(__name__)


class PooledWays:
    """The ``Ways`` that operators fill. With an empty pool every way is a plain one.

    Cookies stay with one proxy as long as that is healthy: an account that moves between addresses looks stolen. So do
    PO tokens without cookies; those that are bound to a visitor never go along with cookies, which belong to another.
    When all cookies or tokens rest, YouTube is asked without; when all proxies rest, it is not asked (never past
    them). A proxy for downloads only is never asked through, and one that rests keeps nobody from asking.
    """

    def choose(self) -> Way:
        """Raises BotCheck or UpstreamError while every proxy rests, UpstreamError while MongoDB is away."""
        with _readable():
            cookies = _take(IdentityKind.COOKIES)
            tokens = _take(IdentityKind.PO_TOKEN, **({"bound": False} if cookies else {}))
            proxy = _take_proxy((ProxyUse.EXTRACT, ProxyUse.BOTH), cookies or tokens)
        return Way(
            cookies_id=cookies["_id"] if cookies else "",
            cookies_version=cookies["version"] if cookies else 0,
            cookies=cookies["secret"] if cookies else None,
            proxy_id=proxy["_id"] if proxy else "",
            proxy=proxy["secret"] if proxy else None,
            po_token_id=tokens["_id"] if tokens else "",
            po_token_version=tokens["version"] if tokens else 0,
            po_tokens=read_po_tokens(tokens["secret"]) if tokens else None,
        )

    def choose_proxy(self) -> Exit:
        """A proxy for asking, without cookies: for pictures. Raises as ``choose`` does."""
        with _readable():
            proxy = _take_proxy((ProxyUse.EXTRACT, ProxyUse.BOTH), None)
        return _exit_by(proxy)

    def choose_exit(self, way: Way) -> Exit:
        """A proxy that is for downloads only; where there are none, one that is for both: that of ``way`` (media
        addresses are often good from there only), else another. Raises as ``choose`` does while those rest."""
        with _readable():
            media = _take_proxy((ProxyUse.DOWNLOAD,), None)
            if media is None and way.proxy_id:
                media = _take_proxy((ProxyUse.BOTH,), None, only=way.proxy_id)
            return _exit_by(media or _take_proxy((ProxyUse.BOTH,), None))

    def note_answer(self, identity_ids: tuple[str, ...]) -> None:
        """It works. Ends the counting of failures, but not a rest that began meanwhile."""
        used = [identity_id for identity_id in identity_ids if identity_id]
        if not used:
            return
        now = utcnow()
        is_up = {"_id": {"$in": used}, "$or": [{"resting_until": None}, {"resting_until": {"$lte": now}}]}
        change = {"$set": {"strikes": 0, "resting_until": None, "last_answer_at": now}, "$inc": {"answers": 1}}
        _quietly(lambda: _identities().update_many(is_up, change))

    def note_failure(self, identity_ids: tuple[str, ...], reason: str) -> None:
        """Each rests: a minute, doubled for each failure in a row, up to six hours. One that rests already is let be
        (many calls fail at the same moment)."""
        used = [identity_id for identity_id in identity_ids if identity_id]
        if not used:
            return
        is_up = {"_id": {"$in": used}, "$expr": {"$lte": [{"$ifNull": ["$resting_until", "$$NOW"]}, "$$NOW"]}}
        doubled = {"$multiply": [FIRST_REST_S * 1000, {"$pow": [2, {"$min": ["$strikes", 20]}]}]}
        change = {
            "resting_until": {"$add": ["$$NOW", {"$toLong": {"$min": [doubled, LONGEST_REST_S * 1000]}}]},
            "strikes": {"$add": ["$strikes", 1]},
            "failures": {"$add": ["$failures", 1]},
            "last_error": {"$literal": reason},
            "last_failure_at": "$$NOW",
        }
        _quietly(lambda: _identities().update_many(is_up, [{"$set": change}]))
        log.warning("identity rests", identity_ids=used, reason=reason)

    def keep_cookies(self, way: Way, text: str) -> None:
        """Only over the cookies that the way began with: what an operator has put in since then stays."""
        try:
            secret = encrypt_secret(read_cookies(text))
        except InvalidParameter as error:
            log.warning("changed cookies not kept", identity_id=way.cookies_id, reason=error.message)
            return
        same = {"_id": way.cookies_id, "version": way.cookies_version}
        _quietly(lambda: _identities().update_one(same, {"$set": {"secret_encrypted": secret}}))


def _take(kind: IdentityKind, **more: Any) -> dict[str, Any] | None:
    """The one that was used longest ago, of those that are on and do not rest; None when there is none."""
    for _ in range(UNREADABLE_TRIES):
        found = _identities().find_one_and_update(
            {**_ready(kind), **more},
            {"$set": {"last_used_at": utcnow()}},
            sort=[("last_used_at", 1)],
            return_document=ReturnDocument.AFTER,
        )
        if found is None or _open(found):
            return dict(found) if found else None
    return None


def _take_proxy(
    uses: Collection[ProxyUse], companion: dict[str, Any] | None, *, only: str = ""
) -> dict[str, Any] | None:
    """A proxy of one of these uses (``only``: of this id); None when there is none. Raises when there are, but every
    one rests."""
    serves: dict[str, Any] = {"use": {"$in": [use.value for use in uses]}, **({"_id": only} if only else {})}
    known = dict(serves)
    if companion is not None:
        companion_id = str(companion["_id"])
        ready = [found["_id"] for found in _identities().find({**_ready(IdentityKind.PROXY), **serves}, {"_id": 1})]
        if ready:
            serves["_id"] = max(ready, key=lambda proxy_id: _affinity(companion_id, proxy_id))
    found = _take(IdentityKind.PROXY, **serves)
    if found is None:
        known |= {"kind": IdentityKind.PROXY.value, "enabled": True}
        resting = _identities().find_one(known, sort=[("resting_until", 1)])
        if resting is not None:
            raise _all_rest(resting)
    return found


def _exit_by(proxy: dict[str, Any] | None) -> Exit:
    return Exit(proxy_id=proxy["_id"], proxy=proxy["secret"]) if proxy else Exit()


@contextmanager
def _readable() -> Iterator[None]:
    """Never past the proxies: while MongoDB cannot say which there are, nothing is asked."""
    try:
        yield
    except PyMongoError as error:
        log.warning("cookies and proxies not read", reason=type(error).__name__)
        raise UpstreamError from None


def _all_rest(first_back: dict[str, Any]) -> UpstreamError | BotCheck:
    until = first_back.get("resting_until")
    wait_s = max(1.0, (until - utcnow()).total_seconds()) if until else FIRST_REST_S
    error = BotCheck if first_back.get("last_error") == "bot_check" else UpstreamError
    return error(retry_after_s=wait_s)


def _ready(kind: IdentityKind) -> dict[str, Any]:
    awake = [{"resting_until": None}, {"resting_until": {"$lte": utcnow()}}]
    return {"kind": kind.value, "enabled": True, "$or": awake}


def _affinity(companion_id: str, proxy_id: str) -> bytes:
    """Rendezvous hashing: the same cookies meet the same proxy, and few move when a proxy comes or goes."""
    return hashlib.sha256(f"{companion_id}:{proxy_id}".encode()).digest()


def _open(found: dict[str, Any]) -> bool:
    """Add the ``secret``. One that cannot be read rests, so that the next one is taken."""
    try:
        found["secret"] = decrypt_secret(found["secret_encrypted"])
    except SecretUnreadable:
        PooledWays().note_failure((found["_id"],), "secret_unreadable")
        return False
    return True


def _quietly(write: Callable[[], object]) -> None:
    """Keeping count must not fail a question that YouTube has answered."""
    try:
        write()
    except PyMongoError as error:
        log.warning("health of an identity not noted", reason=type(error).__name__)


def _identities() -> Any:
    return Identity._get_collection()
