"""For which key the work in this thread is done, without a parameter through every layer: what is scarce is shared."""

from __future__ import annotations

from contextvars import ContextVar

asker_var: ContextVar[str | None] = ContextVar("asker", default="")
"""A key's prefix, or "" for the server itself. None: for nobody in particular, a look that must not begin anything."""
