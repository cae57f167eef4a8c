"""The browsable API's pages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rest_framework.renderers import BrowsableAPIRenderer
from rest_framework.request import Request

from apps.core.errors import ApiError

if TYPE_CHECKING:
    from rest_framework.views import APIView  # it imports this module, by the settings


class PageRenderer(BrowsableAPIRenderer):
    """Leaves out the forms that this caller may not use, and everything inline.

    REST framework does the first by itself, but for its own exceptions only.
    """

    def get_context(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        context: dict[str, Any] = super().get_context(*args, **kwargs)
        return {**context, "code_style": None}  # an inline style sheet for code samples: we have none

    def show_form_for_method(self, view: APIView, method: str, request: Request, instance: Any) -> bool:
        try:
            return bool(super().show_form_for_method(view, method, request, instance))
        except ApiError:
            return False

    def get_rendered_html_form(self, data: Any, view: APIView, method: str, request: Request) -> Any:
        try:
            return super().get_rendered_html_form(data, view, method, request)
        except ApiError:
            return None
