from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.downloads.fetch.outcomes import NotMedia
from apps.downloads.fetch.sniff import INDEX_BYTES, check_head, is_streamable_mp4, sniff_family


def box(name: bytes, content: bytes = b"") -> bytes:
    return (8 + len(content)).to_bytes(4, "big") + name + content


FTYP = box(b"ftyp", b"isom")


class TestSniffFamily:
    @pytest.mark.parametrize(
        ("name", "family"),
        [("audio.m4a", "mp4"), ("audio.webm", "webm"), ("audio.mp3", "mp3"), ("muxed360.mp4", "mp4")],
    )
    def test_knows_real_files(self, media, name, family):
        assert sniff_family(media.read(name)[:64]) == family

    @pytest.mark.parametrize("head", [b"", b"<html>", b'{"status": false}', b"#EXTM3U", b"\xff\xd8\xff\xe0", b"RIFF"])
    def test_nothing_else_is_media(self, head):
        assert sniff_family(head) is None
        with pytest.raises(NotMedia):
            check_head(head, container=None)

    @given(st.binary(max_size=200), st.sampled_from(["mp4", "m4a", "webm", "opus", "mp3", None]))
    def test_any_bytes_are_judged_without_a_fault(self, head, container):
        is_streamable_mp4(head)
        with suppress(NotMedia):
            check_head(head, container=container)


class TestIsStreamableMp4:
    @pytest.mark.parametrize(
        ("head", "streamable"),
        [
            (FTYP + box(b"moov", b"x" * 50), True),
            (FTYP + box(b"free") + box(b"moov", b"x" * 50)[:20], True),  # the rest of the index is still to come
            (FTYP + box(b"mdat") + box(b"moov"), False),
            (FTYP + box(b"moov", box(b"mvex")), False),
            (FTYP, False),
            (FTYP + b"\0\0\0\0moov", True),
            (FTYP + b"\0\0\0\1free" + bytes(20), False),
        ],
    )
    def test_the_index_must_come_before_the_data(self, head, streamable):
        assert is_streamable_mp4(head) is streamable

    def test_of_real_files_only_the_faststart_one_can_be_streamed(self, media):
        found = {name: is_streamable_mp4(media.read(name)[:INDEX_BYTES]) for name in media.files if "360" in name}
        assert found == {"fast360.mp4": True, "muxed360.mp4": False, "video360.mp4": False}
