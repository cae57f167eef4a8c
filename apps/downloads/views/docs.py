"""The OpenAPI document and the page that shows it, both without a key."""

from __future__ import annotations

from functools import cache
from typing import Any

from django.http import HttpResponse
from drf_spectacular.renderers import (
    OpenApiJsonRenderer,
    OpenApiJsonRenderer2,
    OpenApiYamlRenderer,
    OpenApiYamlRenderer2,
)
from drf_spectacular.utils import extend_schema
from drf_spectacular.views import SpectacularAPIView, SpectacularSwaggerView
from rest_framework.renderers import BaseRenderer
from rest_framework.request import Request


@cache
def _document(renderer_class: type[BaseRenderer]) -> bytes:
    """Made once a process: it takes a tenth of a second, as YAML a whole one, and anybody may ask."""
    generator: Any = SpectacularAPIView.generator_class()
    schema = generator.get_schema(request=None, public=True)
    text: bytes = renderer_class().render(schema)
    return text


class SchemaView(SpectacularAPIView):
    """The OpenAPI document: JSON, or YAML where that is asked for."""

    renderer_classes = [OpenApiJsonRenderer2, OpenApiJsonRenderer, OpenApiYamlRenderer, OpenApiYamlRenderer2]

    @extend_schema(exclude=True)
    def get(self, request: Request, *args: Any, **kwargs: Any) -> HttpResponse:
        renderer: BaseRenderer = request.accepted_renderer
        name = f'inline; filename="ytserver.{renderer.format}"'
        return HttpResponse(
            _document(renderer.__class__), content_type=renderer.media_type, headers={"Content-Disposition": name}
        )


class DocsView(SpectacularSwaggerView):
    """A page to read about and try every route. All its files come from this server; nothing in it is inline."""

    template_name = "api/docs.html"
    url_name = "schema"
