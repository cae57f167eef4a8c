"""Range, If-Range, If-Match and If-None-Match, checked against the words of RFC 9110."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.streaming.ranges import ByteRange, Unsatisfiable, is_as_named, is_unchanged, parse_range, range_applies

SIZES = st.integers(1, 10**13)


class TestParseRange:
    @pytest.mark.parametrize(
        ("header", "expected"),
        [
            ("bytes=0-0", (0, 1)),
            ("bytes=0-99", (0, 100)),
            ("bytes=10-", (10, 100)),
            ("bytes=-30", (70, 100)),
            ("bytes=-1000", (0, 100)),
            ("bytes=90-1000", (90, 100)),
            ("BYTES=5-6", (5, 7)),
            ("bytes= 5-6 ", (5, 7)),
            ("bytes=,5-6,", (5, 7)),
            ("bytes=00005-0006", (5, 7)),
            ("bytes=5-" + "9" * 900, (5, 100)),
            ("bytes=-" + "9" * 900, (0, 100)),
        ],
    )
    def test_gives_the_bytes_asked_for(self, header: str, expected: tuple[int, int]) -> None:
        assert parse_range(header, 100) == ByteRange(*expected)

    @pytest.mark.parametrize(
        "header",
        [
            None, "", "bytes", "bytes=", "bytes=-", "bytes=a-b", "bytes=5", "bytes=6-5", "bytes=1-2,4-5", "bytes=5--6",
            "items=0-5", "bytes=0x1-2", "bytes=+1-2", "bytes=1 - 2", "bytes=\u0661-\u0662", "bytes:0-5",
            "bytes=1-2;3-4", "bytes=" + "1" * 5000 + "-",
        ],
    )  # fmt: skip
    def test_ignores_nonsense_and_several_ranges(self, header: str | None) -> None:
        assert parse_range(header, 100) is None

    @pytest.mark.parametrize("header", ["bytes=100-", "bytes=100-200", "bytes=-0", "bytes=" + "9" * 900 + "-"])
    def test_refuses_what_lies_outside(self, header: str) -> None:
        with pytest.raises(Unsatisfiable):
            parse_range(header, 100)

    @given(size=SIZES, first=st.integers(0, 10**14), length=st.integers(1, 10**14))
    def test_any_first_to_last_is_cut_to_the_file(self, size: int, first: int, length: int) -> None:
        header = f"bytes={first}-{first + length - 1}"
        if first >= size:
            with pytest.raises(Unsatisfiable):
                parse_range(header, size)
        else:
            assert parse_range(header, size) == ByteRange(first, min(size, first + length))

    @given(size=SIZES, suffix=st.integers(1, 10**14))
    def test_any_suffix_ends_at_the_end(self, size: int, suffix: int) -> None:
        assert parse_range(f"bytes=-{suffix}", size) == ByteRange(max(0, size - suffix), size)

    @given(header=st.one_of(st.text(), st.text("bytes=-,0123456789 \t").map(lambda text: f"bytes={text}")), size=SIZES)
    def test_whatever_is_sent_the_answer_lies_inside_the_file(self, header: str, size: int) -> None:
        try:
            found = parse_range(header, size)
        except Unsatisfiable:
            return
        assert found is None or 0 <= found.start < found.stop <= size


class TestConditions:
    def test_if_range_needs_exactly_the_strong_tag(self) -> None:
        assert range_applies(None, '"a"')
        assert range_applies(' "a" ', '"a"')
        for other in ('W/"a"', '"b"', "a", "", "Wed, 21 Oct 2015 07:28:00 GMT", '"a", "b"'):
            assert not range_applies(other, '"a"')

    def test_if_none_match_knows_lists_and_weak_tags(self) -> None:
        for same in ('"a"', 'W/"a"', '"b", "a"', "*", ' "b",W/"a" '):
            assert is_unchanged(same, '"a"')
        for other in (None, "", '"b"', "a", '"ba"', '"b", "aa"'):
            assert not is_unchanged(other, '"a"')

    def test_if_match_knows_lists_and_takes_no_weak_tags(self) -> None:
        for fits in (None, "*", " * ", '"a"', ' "a" ', '"b", "a"', '"b","a"', '"a","b"', ',,"a",', 'W/"a", "a"'):
            assert is_as_named(fits, '"a"'), fits
        for other in ("", '"b"', 'W/"a"', '"b", W/"a"', "a", '"ba"', '"a', '"b, "a"', '*, "b"', '""'):
            assert not is_as_named(other, '"a"'), other
        assert is_as_named('"a, b", "c"', '"a, b"')

    @given(tags=st.lists(st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E, exclude_characters='"'))))
    def test_any_list_of_tags_names_each_of_them_and_no_other(self, tags: list[str]) -> None:
        header = ", ".join(f'"{tag}"' for tag in tags)
        assert all(is_as_named(header, f'"{tag}"') for tag in tags)
        assert not is_as_named(header, '"not one of them "')
        assert not any(is_as_named(f'W/"{tag}"', f'"{tag}"') for tag in tags)
