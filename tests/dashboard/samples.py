"""A server that has been in use for a while, as documents."""

from __future__ import annotations

import math
from collections import Counter
from datetime import UTC, datetime, timedelta
from random import Random

from apps.analytics import counting
from apps.analytics.documents import ConcurrentPeak, Grain, UsageEvent
from apps.analytics.histogram import bucket_of
from apps.analytics.periods import floor
from apps.analytics.rollups import rebuild
from apps.core.redis import redis_client
from apps.core.secrets import encrypt_secret
from apps.downloads.documents import JobState, MediaJob
from apps.keys.documents import ApiKey, Scope
from apps.keys.services import create_key
from apps.telegram_cache.documents import (
    Asset,
    AssetKey,
    AssetState,
    BotState,
    MediaKind,
    Part,
    PartState,
    TelegramBot,
    TelegramChannel,
)

TITLES = (
    "Evening raga",
    "A very long title that goes on and on: live at the old harbour, part two (official video)",
    "",
)
STATUSES = (*[200] * 80, *[206] * 10, *[404] * 4, *[429] * 4, 502, 502)


def make_asset(number: int = 1, *, state: AssetState = AssetState.CACHED, title: str = "", **fields: object) -> Asset:
    kind = MediaKind.AUDIO if number % 2 else MediaKind.VIDEO
    key = AssetKey(f"video{number:06}", kind, "m4a" if kind == MediaKind.AUDIO else "1080p")
    return Asset(
        id=key.asset_id, video_id=key.video_id, kind=kind.value, variant=key.variant, state=state.value, title=title,
        **fields,
    ).save(force_insert=True)  # fmt: skip


def make_job(number: int = 1, *, state: JobState = JobState.RUNNING, **fields: object) -> MediaJob:
    key = AssetKey(f"video{number:06}", MediaKind.AUDIO, "m4a")
    return MediaJob(
        asset_id=key.asset_id, video_id=key.video_id, kind=key.kind.value, variant=key.variant, state=state.value,
        active=state in (JobState.QUEUED, JobState.RUNNING), **fields,
    ).save(force_insert=True)  # fmt: skip


def event(number: int, *, at: datetime, status: int = 200, key_prefix: str = "abcdefgh") -> UsageEvent:
    return UsageEvent(
        id=f"{number}-0", at=at, key_prefix=key_prefix, route="/api/v1/video", method="GET", status=status,
        duration_s=0.01, bytes_sent=1000,
    )  # fmt: skip


def make_bot(bot_id: str = "123456", **fields: object) -> TelegramBot:
    token = encrypt_secret(f"{bot_id}:a-secret-token-of-a-bot-that-nobody-sees")
    return TelegramBot(bot_id=bot_id, token_encrypted=token, **{"username": "cache_bot", **fields}).save(
        force_insert=True
    )


def make_channel(channel_id: str = "-1001234567890", **fields: object) -> TelegramChannel:
    return TelegramChannel(channel_id=channel_id, **{"title": "Video store", "is_default": True, **fields}).save(
        force_insert=True
    )


def fill_server(*, with_telegram: bool = True) -> ApiKey:
    """Something on every page, in every state. The same each time, but for the clock."""
    random, now = Random(7), datetime.now(UTC)
    states = [*AssetState, *[AssetState.CACHED] * 60]
    for number, state in enumerate(states):
        asset = make_asset(
            number, state=state, title=TITLES[number % len(TITLES)], size_bytes=random.randint(10**6, 10**9),
            access_count=random.randint(0, 5000), last_accessed_at=now - timedelta(minutes=random.randint(0, 10_000)),
            uploader="Some channel", duration_s=215.0, provider="ytdlp",
        )  # fmt: skip
        if state == AssetState.FAILED:
            asset.update(error_code="video_private", error_message="This video is private or for members only.")
        if state == AssetState.CACHED:
            part = Part(
                index=0, offset=0, size=asset.size_bytes, channel_id="-1001234567890", message_id=number,
                state=PartState.STORED.value,
            )  # fmt: skip
            asset.update(parts=[part])
    for number, state in enumerate([*JobState, JobState.RUNNING, *[JobState.DONE] * 5]):
        message = "The outside source took too long." if state == JobState.FAILED else None
        make_job(
            number, state=state, bytes_done=3 * 10**6, bytes_total=9 * 10**6, speed_bytes_per_s=1.5e6,
            stage="downloading", provider="ytdlp", key_prefix="abcdefgh", error_message=message,
        )  # fmt: skip
    UsageEvent.objects.insert(
        [
            event(number, at=now - timedelta(seconds=random.triangular(0, 3599, 900)), status=random.choice(STATUSES))
            for number in range(900)
        ]
    )
    if with_telegram:
        make_bot()
        make_channel()
    make_bot("234567", username="second_bot", state=BotState.COOLING.value, until=now + timedelta(minutes=4))
    make_bot("345678", username="", state=BotState.DISABLED.value, reason="Telegram refuses the token.")
    for name in ("Music bot", "Website", "Phone app of a friend with a rather long name"):
        made = create_key(name=name, owner="sam", scopes=(Scope.INFO.value, Scope.MEDIA.value, Scope.SEARCH.value))
    return made.document


def fill_usage(number: int = 4000) -> None:
    """A day and a bit of requests, more of them in the evening, with the keys and videos that are there, and summed."""
    random, now = Random(11), datetime.now(UTC)
    keys = [key.prefix for key in ApiKey.objects.order_by("created_at")]
    videos = [asset.video_id for asset in Asset.objects.order_by("-access_count").limit(40)]
    events = []
    for count in range(number):
        at = now - timedelta(seconds=random.random() * 26 * 3600)
        if random.random() > 0.35 + 0.65 * math.sin(math.pi * ((at.hour - 4) % 24) / 24) ** 2:
            continue
        status = random.choice(STATUSES)
        events.append(
            {
                "_id": f"day-{count}",
                "at": at,
                "key_prefix": keys[int(len(keys) * random.random() ** 2)],
                "route": random.choice(["/api/v1/audio", "/api/v1/video", "/stream/audio", "/stream/video"]),
                "method": "GET",
                "status": status,
                "tier": random.choice(["hot"] * 7 + ["telegram"] * 2 + ["external"]) if status < 400 else None,
                "video_id": videos[int(len(videos) * random.random() ** 3)],
                "first_byte_s": random.lognormvariate(-5, 0.9),
                "duration_s": 0.2,
                "bytes_sent": int(8e6 * random.random()),
            }
        )
    UsageEvent._get_collection().insert_many(events)
    rebuild(now - timedelta(days=2), now)


def fill_hour() -> None:
    """A busy hour in the live figures, as the web processes and the worker keep it. Its last minute is left alone."""
    random, now = Random(13), datetime.now(UTC)
    last = int(now.timestamp()) // counting.STEP_S
    with redis_client().pipeline(transaction=False) as pipeline:
        for step in range(last - counting.HISTORY_S // counting.STEP_S, last - 7):
            load = 60 + 35 * math.sin(step / 35) + random.random() * 12
            answers = int(load)
            counts = {
                "n": answers,
                "e4": answers // 25,
                "e5": int(random.random() < 0.06),
                "ss": int(load * 4),
                "users": answers,
            }
            times = Counter(f"h:{bucket_of(random.lognormvariate(-5, 0.9))}" for _ in range(answers))
            pipeline.hset(counting.step_key(step), mapping={**counts, "b": int(load * 4e5), **times, "t:hot": answers})
            pipeline.expire(counting.step_key(step), counting.STEP_KEPT_S)
        pipeline.execute()
    for minute in range(1, 61):
        at = floor(now - timedelta(minutes=minute), Grain.MINUTE)
        users = int(70 + 30 * math.sin(minute / 6))
        shape = {"users": users, "api": users, "stream": users // 2, "websocket": 1}
        ConcurrentPeak(id=at, expires_at=now + timedelta(days=1), **shape).save()
