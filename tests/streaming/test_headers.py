"""Headers stay well-formed whatever the title is."""

from __future__ import annotations

import re
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.streaming.headers import content_disposition, safe_file_name, stream_headers

FORM = re.compile(
    r"""(inline|attachment); filename="([^"\\]{1,200})"(?:; filename\*=UTF-8''([A-Za-z0-9!#$&+.^_`|~%-]+))?"""
)


class TestContentDisposition:
    @pytest.mark.parametrize(
        ("title", "expected"),
        [
            ("Song.m4a", 'inline; filename="Song.m4a"'),
            ("Café.mp3", "inline; filename=\"Cafe.mp3\"; filename*=UTF-8''Caf%C3%A9.mp3"),
            ("日本語.mp4", "inline; filename=\"file.mp4\"; filename*=UTF-8''%E6%97%A5%E6%9C%AC%E8%AA%9E.mp4"),
            ('a"b\\c.mp4', 'inline; filename="a b c.mp4"'),
            ("a\r\nSet-Cookie: x=1.mp4", 'inline; filename="a Set-Cookie x=1.mp4"'),
            ("../../etc/passwd", 'inline; filename="etc passwd"'),
            ("50% off.mp4", "inline; filename=\"50_ off.mp4\"; filename*=UTF-8''50%25%20off.mp4"),
            ("mp3.\u202eexe", 'inline; filename="mp3. exe"'),
            ("", 'inline; filename="file"'),
            ("...", 'inline; filename="file"'),
            ("\ud800.mp4", 'inline; filename="mp4"'),
        ],
    )
    def test_names_are_written_as_the_standards_have_it(self, title: str, expected: str) -> None:
        assert content_disposition(title, attachment=False) == expected

    def test_attachment_is_said(self) -> None:
        assert content_disposition("a.mp3", attachment=True) == 'attachment; filename="a.mp3"'

    @given(title=st.text(st.characters(), max_size=400), ending=st.sampled_from(["", ".mp4", ".m4a", ".mp3"]))
    def test_any_title_gives_a_well_formed_header_that_reads_back(self, title: str, ending: str) -> None:
        header = content_disposition(title + ending, attachment=True)
        match = FORM.fullmatch(header)
        assert match, header
        assert header.isascii()
        assert len(header) < 900
        name = safe_file_name(title + ending)
        assert len(name.encode()) <= 180
        assert unquote(match[3]) == name if match[3] else match[2] == name

    def test_a_long_title_keeps_its_extension(self) -> None:
        for letter in ("x", "é", "日", "🎵"):
            name = safe_file_name(letter * 500 + ".mp4")
            assert name.endswith(f"{letter}.mp4")
            assert 170 < len(name.encode()) <= 180


class TestStreamHeaders:
    def test_bad_types_and_tags_do_not_get_through(self) -> None:
        headers = dict(
            stream_headers(mime="a/b\r\nx: y", etag='"a"b"', title="t.mp4", attachment=False, request_id="r" * 8)
        )
        assert headers[b"content-type"] == b"application/octet-stream"
        assert b"etag" not in headers
        good = dict(stream_headers(mime="video/mp4", etag='"a-1"', title="t.mp4", attachment=False, request_id="r" * 8))
        assert (good[b"content-type"], good[b"etag"]) == (b"video/mp4", b'"a-1"')
        assert not [name for name in good if name.startswith(b"access-control")]
