"""The address of every page there is, with something on each. A new page is visited without being named here."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from django.urls import reverse

from apps.core.secrets import encrypt_secret
from apps.dashboard.urls import urlpatterns
from apps.downloads.documents import Identity, IdentityKind, JobState, MediaJob, WebhookDelivery, WebhookState
from apps.downloads.services.warm_ups import make_warm_up, pause_warm_up
from apps.keys.admins import create_admin
from apps.keys.documents import ApiKey, Role
from apps.keys.services import create_user
from apps.keys.webhooks import set_webhook
from apps.telegram_cache.documents import Asset, AssetState, BotState, MediaKind
from tests.dashboard.samples import make_channel

NO_PAGES = frozenset({
    "overview-live", "overview-history", "analytics-data", "analytics-key", "analytics-export",  # for scripts
    "logout", "theme", "telegram-check", "telegram-channel-settings", "sources-provider",  # only send something
    "sources-identity-switch",
})  # fmt: skip
VISITED_APART = frozenset({"login", "login-code", "account-recovery-codes"})  # not as the owner without a second factor
BESIDE_THE_ADMIN = ("api/v1/", "api/docs", "api/login")
OFF_CHANNEL = "-1001111111111"


@dataclass(frozen=True)
class Pages:
    """``usual``: what a parameter of an address names; ``special``: where one page needs something else."""

    usual: dict[str, str]
    special: dict[str, dict[str, str]]

    def addresses(self) -> Iterator[str]:
        """All of them, the detail pages of the admin with something on them, and those beside the admin."""
        for pattern in urlpatterns:
            name = str(pattern.name)
            if name not in NO_PAGES | VISITED_APART:
                values = {**self.usual, **self.special.get(name, {})}
                named = re.findall(r"<(?:\w+:)?(\w+)>", str(pattern.pattern))
                yield reverse(f"dashboard:{name}", kwargs={one: values[one] for one in named}).lstrip("/")
        failed: Any = Asset.objects(state=AssetState.FAILED.value).first()
        yield f"admin/cache/{failed.id}"
        yield f"admin/jobs/{self.special['jobs-retry']['job_id']}"
        yield from BESIDE_THE_ADMIN


def fill_pages() -> Pages:
    """Make what the addresses name, beside what ``fill_server`` made. Nothing of it is fetched or told to anybody."""
    key = ApiKey.objects.order_by("created_at").first()
    user = create_user(username="e2e.user", password="correct horse battery")
    admin, _ = create_admin(username="e2e-admin", role=Role.VIEWER)
    proxy = Identity(
        kind=IdentityKind.PROXY.value, name="out", use="both", enabled=False,
        secret_encrypted=encrypt_secret("http://198.51.100.7:8080"),
    ).save(force_insert=True)  # fmt: skip
    make_channel(OFF_CHANNEL, title="Switched off", is_default=False, state=BotState.DISABLED.value)
    warm_up = make_warm_up(name="Charts", kind=MediaKind.AUDIO, links=["abcdefghijk", "nonsense"])
    pause_warm_up(warm_up.id)
    job = {state: MediaJob.objects(state=state.value).first() for state in JobState}
    set_webhook(key.prefix, "https://example.com/done", actor="e2e")
    told = job[JobState.DONE].id
    WebhookDelivery(
        id=f"{told}:{key.prefix}", job_id=told, key_prefix=key.prefix, state=WebhookState.DELIVERED.value
    ).save(force_insert=True)
    return Pages(
        usual={
            "prefix": key.prefix, "username": user.username, "user_id": str(admin.id), "identity_id": proxy.id,
            "kind": proxy.kind, "asset_id": Asset.objects(state=AssetState.CACHED.value).first().id, "name": "evict",
            "job_id": job[JobState.RUNNING].id, "bot_id": "234567", "channel_id": OFF_CHANNEL,
            "warm_up_id": warm_up.id, "video_id": "largeplayed",
        },
        special={"jobs-retry": {"job_id": job[JobState.FAILED].id}, "webhooks-again": {"job_id": told}},
    )  # fmt: skip
