import re
from pathlib import Path

import pytest

from apps.core.errors import ERRORS_BY_CODE, ApiError, InternalError, error_body, error_from_code

ROOT = Path(__file__).parents[2]
DOC = ROOT / "docs" / "errors.md"
ROW = re.compile(r"^\| `(?P<code>[a-z_]+)` \| (?P<status>\d{3}) \| (?P<retry>yes|no) \|", re.MULTILINE)
CATCH_ALL = re.compile(r"except Exception\b[^#]*(?P<comment>#.*)?")
REASON = re.compile(r"#(?! noqa)| - \w")


def test_whatever_catches_everything_says_why_on_its_line():
    lines = {
        f"{path.relative_to(ROOT)}:{number}": found["comment"] or ""
        for folder in ("apps", "ytserver")
        for path in (ROOT / folder).rglob("*.py")
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if (found := CATCH_ALL.search(line))
    }
    assert len(lines) > 20
    assert [place for place, comment in lines.items() if not REASON.search(comment)] == []


class TestErrorTree:
    def test_every_code_is_in_the_docs_with_its_status_and_nothing_else_is(self):
        documented = {m["code"]: (int(m["status"]), m["retry"] == "yes") for m in ROW.finditer(DOC.read_text())}
        assert documented == {code: (error.status, error.retryable) for code, error in ERRORS_BY_CODE.items()}

    def test_no_two_errors_share_a_code_and_no_other_module_adds_one(self):
        def family(base: type[ApiError]) -> list[type[ApiError]]:
            return [base, *(member for child in base.__subclasses__() for member in family(child))]

        own = [error for error in family(ApiError) if error.__module__ == ApiError.__module__]
        assert len({error.code for error in own}) == len(own) - 1  # InternalError stands for the base
        assert {error.code for error in family(ApiError)} == set(ERRORS_BY_CODE)

    @pytest.mark.parametrize("code", sorted(ERRORS_BY_CODE))
    def test_a_stored_code_becomes_its_error_again(self, code):
        error = error_from_code(code, "Plain words.", retry_after_s=3)
        assert (error.code, error.message, error.retry_after_s) == (code, "Plain words.", 3)

    def test_an_unknown_stored_code_is_an_internal_error(self):
        assert type(error_from_code("no_such_code")) is InternalError

    def test_the_body_has_the_fixed_fields_and_the_context(self):
        body = error_body(error_from_code("invalid_parameter", "Too big.", retry_after_s=None), request_id="r1")
        assert body == {
            "status": False,
            "error": "invalid_parameter",
            "message": "Too big.",
            "retryable": False,
            "request_id": "r1",
        }
