"""Reads a request's fields, the same for GET, POST and PATCH, and says clearly which one is wrong."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from django.http import QueryDict
from rest_framework.request import Request
from rest_framework.serializers import Field, ListField, Serializer

from apps.core.errors import InvalidParameter
from apps.downloads.request_serializers import WordsField

CSRF_FIELD = "csrfmiddlewaretoken"
BESIDE_FIELDS = frozenset({"api_key", CSRF_FIELD})
"""Not fields, yet allowed: the key in the query, and what the browsable API's forms send along."""

SHOWN_NAME_CHARACTERS = 64


def read_fields(request: Request, serializer_class: type[Serializer]) -> dict[str, Any]:
    """The checked fields of a request. Of a POST or PATCH, the body wins over the query. Of a form of our own pages
    what was left empty counts as left out: a browser sends it all.

    Raises InvalidParameter, which names the field, for one that is unknown, missing, given twice or wrong.
    """
    given = dict(_single_values(request.query_params))
    typed = set(given)
    if request.method in {"POST", "PATCH"}:
        is_page_form = isinstance(request.data, QueryDict) and CSRF_FIELD in request.data
        sent = _single_values(request.data)
        given.update((name, value) for name, value in sent if value != "" or not is_page_form)
        typed = set(given) if isinstance(request.data, QueryDict) else typed - request.data.keys()
    return check_fields(given, serializer_class, typed=typed)


def check_fields(
    given: Mapping[str, Any], serializer_class: type[Serializer], *, typed: Collection[str] = ()
) -> dict[str, Any]:
    """``given`` as the serializer understands it, defaults filled in. ``typed`` names what comes from an address or a
    form, where a list is one text. Raises InvalidParameter."""
    serializer = serializer_class(data={name: value for name, value in given.items() if name not in BESIDE_FIELDS})
    for name, value in serializer.initial_data.items():
        if name not in serializer.fields:
            known = ", ".join(serializer.fields) or "none"
            raise InvalidParameter(f"{_shown(name)}: unknown field. Known here: {known}.", parameter=_shown(name))
        if name in typed and isinstance(serializer.fields[name], WordsField):
            serializer.initial_data[name] = WordsField.split(value)
    if not serializer.is_valid():
        name, problems = next(iter(serializer.errors.items()))
        problem = _first_problem(problems, serializer.fields.get(name))
        raise InvalidParameter(f"{name}: {problem}", parameter=name)
    return dict(serializer.validated_data)


def _single_values(source: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(source, QueryDict):
        for name, values in source.lists():
            if len(values) > 1:
                raise InvalidParameter(f"{_shown(name)}: given more than once", parameter=_shown(name))
            yield name, values[0]
    elif isinstance(source, Mapping):
        yield from source.items()
    else:
        raise InvalidParameter("Send a JSON object with the fields.")


def _shown(name: str) -> str:
    """A caller's field name, safe to repeat in an answer."""
    return name[:SHOWN_NAME_CHARACTERS].encode("ascii", "backslashreplace").decode()


def _first_problem(problems: Any, field: Field | None) -> str:
    while isinstance(problems, list | dict):
        if isinstance(problems, dict):  # of a list's entries, by their place
            field = getattr(field, "child", None)
        problems = next(iter(problems.values() if isinstance(problems, dict) else problems))
    code = getattr(problems, "code", "")
    bound = getattr(field, code, None) if code in _BOUNDS else None
    return str(problems) if bound is None else _out_of_bounds(code, bound, is_list=isinstance(field, ListField))


def _out_of_bounds(code: str, bound: Any, *, is_list: bool) -> str:
    """REST framework's own words are hard to read."""
    side, of_what = _BOUNDS[code]
    if of_what == "length":
        unit = ("entry" if bound == 1 else "entries") if is_list else ("character" if bound == 1 else "characters")
        return f"must have {side} {bound} {unit}"
    return f"must be {side} {bound}"


_BOUNDS = {
    "min_value": ("at least", "value"),
    "max_value": ("at most", "value"),
    "min_length": ("at least", "length"),
    "max_length": ("at most", "length"),
}
