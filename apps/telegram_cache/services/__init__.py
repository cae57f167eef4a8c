"""What the rest of the program may ask of the Telegram cache."""

from apps.telegram_cache.services.access import touch_asset, touch_assets
from apps.telegram_cache.services.care_records import forget_refetch
from apps.telegram_cache.services.eviction import evict_asset, evict_hot, keep_in_bounds, make_room_now
from apps.telegram_cache.services.operating import repair_upload, request_verification, send_again
from apps.telegram_cache.services.queueing import request_upload, sweep_uploads
from apps.telegram_cache.services.seeding import seed_from_settings
from apps.telegram_cache.services.upload import upload_asset

__all__ = [
    "evict_asset",
    "evict_hot",
    "forget_refetch",
    "keep_in_bounds",
    "make_room_now",
    "repair_upload",
    "request_upload",
    "request_verification",
    "seed_from_settings",
    "send_again",
    "sweep_uploads",
    "touch_asset",
    "touch_assets",
    "upload_asset",
]
