"""The browsable API's pages."""

from __future__ import annotations

import json
from typing import Any

from django.utils.html import format_html_join
from rest_framework.renderers import BrowsableAPIRenderer
from rest_framework.request import override_method
from rest_framework.status import HTTP_401_UNAUTHORIZED, HTTP_403_FORBIDDEN

from apps.core.errors import RoleMissing
from apps.core.markup import with_code
from apps.keys.browser_key import SESSION_FIELD


class PageRenderer(BrowsableAPIRenderer):
    """REST framework's page without anything inline: the content security policy would refuse it."""

    def show_form_for_method(self, view: Any, method: str, request: Any, obj: Any) -> bool:
        try:
            return bool(super().show_form_for_method(view, method, request, obj))
        except RoleMissing:  # somebody of the admin who may look, and change nothing here
            return False

    def render(self, *args: Any, **kwargs: Any) -> str:
        page: str = super().render(*args, **kwargs)
        return page.replace("<html>", '<html lang="en">', 1)  # its template says no language and has no place for it

    def render_form_for_serializer(self, serializer: Any) -> Any:
        """The form with what was typed into it and sent, but for secrets: whoever mistyped one word types one word."""
        request = self.renderer_context["request"]
        typed = request.POST if request.method == "POST" else {}
        for name, field in serializer.fields.items():
            if name in typed and not field.write_only:
                field.initial = typed[name]
        return super().render_form_for_serializer(serializer)

    def get_raw_data_form(self, data: Any, view: Any, method: str, request: Any) -> Any:
        """JSON to fill in that can be sent: without the fields that nobody must fill in and that have no value."""
        form = super().get_raw_data_form(data, view, method, request)
        if form is not None and hasattr(form, "fields"):
            with override_method(view, request, method):
                fields = view.get_serializer().fields
            content = form.fields["_content"]
            shown = json.loads(content.initial)
            kept = {name: value for name, value in shown.items() if value or fields[name].required}
            content.initial = json.dumps(kept, indent=4)
        return form

    def get_description(self, view: Any, status_code: int) -> str:
        if status_code in {HTTP_401_UNAUTHORIZED, HTTP_403_FORBIDDEN}:
            return ""
        paragraphs: list[str] = view.get_view_description().split("\n\n")
        return format_html_join("", "<p>{}</p>", ((with_code(paragraph),) for paragraph in paragraphs if paragraph))

    def get_context(self, data: Any, accepted_media_type: str | None, renderer_context: Any) -> dict[str, Any]:
        request = renderer_context["request"]
        if not hasattr(request, "_user"):  # a key that was refused: the page would ask again, and fail again
            request._not_authenticated()
        context: dict[str, Any] = super().get_context(data, accepted_media_type, renderer_context)
        key_name = getattr(request.user, "name", "") or getattr(request.user, "username", "")
        key_is_kept = SESSION_FIELD in request.session
        return {
            **context,
            "code_style": None,  # an inline style sheet for code samples: we have none
            "key_name": key_name,
            "key_is_kept": key_is_kept,
            # the list of routes asks nobody who they are; a kept key that was refused needs another one
            "may_log_in": not key_name and (not key_is_kept or renderer_context["response"].status_code >= 400),
        }
