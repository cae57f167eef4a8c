"""What is remembered of a request while it is served, in its WSGI environ: no HTTP header can set these names."""

from __future__ import annotations

STARTED_AT = "ytserver.started_at"  # time.monotonic() when the request came in
REQUEST_ID = "ytserver.request_id"
BRIDGE = "ytserver.bridge"  # present when the request came through the ASGI bridge
CHARGED = "ytserver.charged"  # apps.keys.limits.LimitState once the request has been counted
USED = "ytserver.used"  # where each of the key's windows stands, for a request that is not counted
KEY_PREFIX = "ytserver.key_prefix"
REFUSED = "ytserver.refused"  # present once the request has been counted as one without a good key
WAITED_FOR_FETCH = "ytserver.waited_for_fetch"  # present once the request has waited for a fetch from outside
MADE_BATCH = "ytserver.made_batch"  # the id of the batch that the request has made
ASGI_SCOPE = "asgi.scope"  # of the whole request; only behind the bridge
REPLAYED = (STARTED_AT, REQUEST_ID, CHARGED, KEY_PREFIX, WAITED_FOR_FETCH, MADE_BATCH)
"""What a suspended request keeps when it runs again."""
