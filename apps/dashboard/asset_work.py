"""What the admin does with stored media, one or many at once. Each goes to the audit log."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from apps.core.errors import Conflict
from apps.dashboard.access import AdminRequest, may, record_change
from apps.downloads.services.jobs import fetch_missing, refetch_asset
from apps.keys.documents import Role, User
from apps.keys.people import person_prefix
from apps.streaming.links import sign_link
from apps.telegram_cache.documents import Asset, AssetState
from apps.telegram_cache.services import evict_asset, repair_upload, request_verification, send_again

PLAY_LINK_S = 4 * 3600
MISSING = (AssetState.ABSENT, AssetState.FAILED)


@dataclass(frozen=True, kw_only=True)
class Work:
    """One thing that can be done with an asset. ``run`` raises ApiError where it cannot be done."""

    name: str
    label: str
    icon: str
    question: str  # about one asset; "{things}" in ``many``
    many: str
    text: str
    done: str
    run: Callable[[AdminRequest, Asset], object]
    tone: str = "primary"

    def do(self, request: AdminRequest, asset: Asset) -> None:
        """Do it, and write it to the audit log."""
        self.run(request, asset)
        record_change(
            request,
            f"asset.{self.name}",
            target_kind="asset",
            target_id=asset.id,
            before={"title": asset.title or asset.video_id, "state": asset.state},
        )


def _fetch_again(request: AdminRequest, asset: Asset) -> None:
    if asset.is_finished:
        refetch_asset(asset.id)
    elif asset.state in MISSING:
        fetch_missing(asset, key_prefix=person_prefix(request.admin_user))
    else:
        raise Conflict("It is being fetched already.")


WORKS: Mapping[str, Work] = {
    work.name: work
    for work in (
        Work(
            name="verify",
            label="Verify",
            icon="check-circle",
            question="Verify this in Telegram?",
            many="Verify {things} in Telegram?",
            text="Every part is read back from Telegram and compared with the record. Bad parts are stored again.",
            done="A worker verifies it now. Reload in a moment to see the result.",
            run=lambda _, asset: request_verification(asset),
        ),
        Work(
            name="repair",
            label="Repair",
            icon="tool",
            question="Repair this upload now?",
            many="Repair the uploads of {things} now?",
            text="Interrupted uploads go on and bad parts are stored again, without waiting for the next try.",
            done="The upload goes on now.",
            run=lambda _, asset: repair_upload(asset),
        ),
        Work(
            name="upload",
            label="Upload again",
            icon="upload-cloud",
            question="Send this to Telegram again?",
            many="Send {things} to Telegram again?",
            text="Every part is sent anew from the file on this server. Old messages go where Telegram allows.",
            done="It is sent to Telegram again.",
            run=lambda _, asset: send_again(asset),
        ),
        Work(
            name="refetch",
            label="Fetch again",
            icon="rotate-cw",
            question="Fetch this again from outside?",
            many="Fetch {things} again from outside?",
            text="The media is fetched anew from its source, at once. A stored copy is given up.",
            done="It is fetched again.",
            run=_fetch_again,
            tone="danger",
        ),
        Work(
            name="evict",
            label="Evict",
            icon="hard-drive",
            question="Remove this from the hot store?",
            many="Remove {things} from the hot store?",
            text="The file on this server goes; it stays in Telegram and comes back when somebody asks. "
            "What is nowhere else stays.",
            done="It is no longer on this server.",
            run=lambda _, asset: evict_asset(asset.id),
            tone="danger",
        ),
    )
}


def works_for(user: User, asset: Asset) -> Sequence[Work]:
    """What this person can do with the asset as it is."""
    if not may(user, Role.OPERATOR):
        return ()
    if asset.state in MISSING:
        return (WORKS["refetch"],)
    return tuple(WORKS.values()) if asset.is_finished else ()


def play_link(user: User, asset: Asset) -> str:
    """A link to the bytes for this person, for PLAY_LINK_S. It ends with their sessions."""
    return sign_link(
        path=f"/stream/{asset.kind}/{asset.video_id}",
        asset_id=asset.id,
        key_prefix=person_prefix(user),
        expires_at=int(time.time()) + PLAY_LINK_S,
        attachment=False,
    )
