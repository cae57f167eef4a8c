"""Which stored parts the Bot API server that is set gives back at all.

Bot API: the public server's getFile ends at 20 MiB; a self-hosted one (--local, TELEGRAM_LOCAL_ROOT) gives any file.
Parts that were stored by way of such a server are as good as ever when the public one is set, and only out of reach.
"""

from __future__ import annotations

from django.conf import settings

PUBLIC_FILE_MAX_BYTES = 20 * 1024 * 1024
OUT_OF_REACH = (
    "This media is stored in parts that only a self-hosted Bot API server gives back, and the public one is set. "
    "Ask for it again: it is fetched anew."
)


def is_in_reach(size_bytes: int) -> bool:
    """Whether a part of that size can be read back."""
    return size_bytes <= PUBLIC_FILE_MAX_BYTES or settings.ENV.telegram_local_root is not None
