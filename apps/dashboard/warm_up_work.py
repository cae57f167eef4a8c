"""What the admin does with warm-ups, one or many at once: pause, go on, cancel. Each goes to the audit log."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from apps.dashboard.access import AdminRequest, record_change
from apps.downloads.services.warm_ups import cancel_warm_up, pause_warm_up, resume_warm_up
from apps.downloads.warm_documents import WarmState, WarmUp


@dataclass(frozen=True, kw_only=True)
class Steering:
    """One thing that can be done with a warm-up. ``run`` raises Conflict where it cannot be done, and NotFound."""

    name: str
    label: str
    icon: str
    question: str  # about one list; "{things}" in ``many``
    many: str
    text: str
    done: str
    run: Callable[[str], None]
    after: WarmState
    tone: str = "primary"

    def do(self, request: AdminRequest, warm_up: WarmUp) -> None:
        """Do it, and write it to the audit log."""
        self.run(warm_up.id)
        record_change(
            request,
            f"warm_up.{self.name}",
            target_kind="warm_up",
            target_id=warm_up.id,
            before={"state": warm_up.state, "name": warm_up.name},
            after={"state": self.after.value},
        )


STEERING: Mapping[str, Steering] = {
    steering.name: steering
    for steering in (
        Steering(
            name="pause",
            label="Pause",
            icon="pause",
            question="Pause this list?",
            many="Pause {things}?",
            text="Nothing more is begun until you let it go on. What is being fetched now is finished.",
            done="paused",
            run=pause_warm_up,
            after=WarmState.PAUSED,
        ),
        Steering(
            name="resume",
            label="Go on",
            icon="play",
            question="Go on with this list?",
            many="Go on with {things}?",
            text="What is left is fetched, within the limits.",
            done="going on",
            run=resume_warm_up,
            after=WarmState.RUNNING,
        ),
        Steering(
            name="cancel",
            label="Cancel",
            icon="x",
            question="Cancel this list?",
            many="Cancel {things}?",
            text="What waits is not fetched, and fetches stop that nobody else waits for. Files that are there stay.",
            done="cancelled",
            run=cancel_warm_up,
            after=WarmState.CANCELLED,
            tone="danger",
        ),
    )
}
