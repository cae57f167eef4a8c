"""The browsable API's pages."""

from __future__ import annotations

from typing import Any

from rest_framework.renderers import BrowsableAPIRenderer


class PageRenderer(BrowsableAPIRenderer):
    """REST framework's page without anything inline: the content security policy would refuse it."""

    def get_context(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        context: dict[str, Any] = super().get_context(*args, **kwargs)
        return {**context, "code_style": None}  # an inline style sheet for code samples: we have none
