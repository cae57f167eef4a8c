"""The link parser: every shape people paste, and nothing else."""

from __future__ import annotations

import contextlib
import re

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from apps.core.errors import InvalidUrl
from apps.downloads.links import MAX_LINK_CHARS, parse_video_id, watch_url

ID = "dQw4w9WgXcQ"
ID_CHARS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-"
OWN_HOSTS = {
    "youtube.com", "www.youtube.com", "m.youtube.com", "music.youtube.com", "youtube-nocookie.com",
    "www.youtube-nocookie.com", "youtu.be", "www.youtu.be",
}  # fmt: skip

video_ids = st.text(ID_CHARS, min_size=11, max_size=11).filter(lambda text: text not in {"videoseries", "live_stream"})
schemes = st.sampled_from(["", "http://", "https://", "HTTPS://", "//"])
long_hosts = st.sampled_from([*sorted(OWN_HOSTS - {"youtu.be", "www.youtu.be"}), "WWW.YouTube.COM"])
short_hosts = st.sampled_from(["youtu.be", "www.youtu.be", "YOUTU.BE"])
words = st.text(ID_CHARS + ".%~", min_size=1, max_size=12)
parameters = st.lists(
    st.tuples(words.filter(lambda name: name != "v" and "%" not in name), words).map("=".join), max_size=4
)
fragments = st.sampled_from(["", "#", "#t=30", "#ü/?v=abcdefghijk"])
padding = st.text(" \t\r\n", max_size=3)


@st.composite
def links_with_id(draw: st.DrawFn) -> tuple[str, str]:
    video_id = draw(video_ids)
    extra = draw(parameters)
    shape = draw(st.sampled_from(["watch", "short", "page", "bare"]))
    if shape == "bare":
        return draw(padding) + video_id + draw(padding), video_id
    if shape == "watch":
        at = draw(st.integers(0, len(extra)))
        query = "&".join([*extra[:at], f"v={video_id}", *extra[at:]])
        link = f"{draw(long_hosts)}/watch{draw(st.sampled_from(['', '/']))}?{query}"
    else:
        page = draw(st.sampled_from(["shorts", "live", "embed", "v", "e", "watch"]))
        place = draw(short_hosts) if shape == "short" else f"{draw(long_hosts)}/{page}"
        link = f"{place}/{video_id}{draw(st.sampled_from(['', '/']))}" + (f"?{'&'.join(extra)}" if extra else "")
    return draw(padding) + draw(schemes) + link + draw(fragments) + draw(padding), video_id


class TestParseVideoId:
    @given(links_with_id())
    def test_finds_the_id_in_every_shape(self, link_and_id: tuple[str, str]) -> None:
        link, video_id = link_and_id
        assert parse_video_id(link) == video_id

    @given(st.text(max_size=200))
    @example("https://youtube.com/watch?v=" + "9" * 3000)
    @example("https://[youtube.com/watch?v=dQw4w9WgXcQ")
    @example("https://youtube.com/watch?v=\udcff")
    def test_raises_nothing_but_invalid_url(self, text: str) -> None:
        with contextlib.suppress(InvalidUrl):
            assert re.fullmatch(r"[A-Za-z0-9_-]{11}", parse_video_id(text))

    @given(
        st.text("abcdefghijklmnopqrstuvwxyz0123456789.-@:%\\/_\u044b\uff59\u043e\uff55\u3002", min_size=1, max_size=40),
        st.sampled_from(["/watch?v=", "/shorts/", "/embed/", "/"]),
    )
    def test_never_takes_a_foreign_host(self, host: str, place: str) -> None:
        assume(host.split("/")[0] not in OWN_HOSTS)
        assume("/" not in host)
        with pytest.raises(InvalidUrl):
            parse_video_id(f"https://{host}{place}{ID}")

    @pytest.mark.parametrize(
        "link",
        [
            f"https://www.youtube.com/watch?v={ID}&list=PLx&index=3&pp=ygU",
            f"https://www.youtube.com/watch?list=PLx&v={ID}#t=1m",
            f"youtu.be/{ID}?si=abc",
            f"https://music.youtube.com/watch?v={ID}&feature=share",
            "https://www.youtube.com/watch?app=desktop&v=%64Qw4w9WgXcQ&title=grün",
            f"  {ID}\n",
        ],
    )
    def test_takes_links_as_people_copy_them(self, link: str) -> None:
        assert parse_video_id(link) == ID

    @pytest.mark.parametrize(
        "link",
        [
            "",
            " ",
            ID[:-1],
            ID + "x",
            f"{ID[:5]} {ID[5:]}",
            f"https://evil-youtube.com/watch?v={ID}",
            f"https://youtube.com.evil.com/watch?v={ID}",
            f"https://www.youtube.com@evil.com/watch?v={ID}",
            f"https://user:pw@www.youtube.com/watch?v={ID}",
            f"https://evil.com\\@www.youtube.com/watch?v={ID}",
            f"https://www.youtube.com\\.evil.com/watch?v={ID}",
            f"https://www.youtube.com:443/watch?v={ID}",
            f"https://www.youtube.com:8080/watch?v={ID}",
            f"https://www.youtube.com./watch?v={ID}",
            f"https://www.y\u043eutube.com/watch?v={ID}",  # a Cyrillic o
            f"https://www\u3002youtube\u3002com/watch?v={ID}",
            f"https://\uff59outube.com/watch?v={ID}",
            f"https://youtube.com/watch?v={ID[:-1]}\uff41",
            f"https://youtube.com/watch?x=\x00&v={ID}",
            f"https://you\ttube.com/watch?v={ID}",
            f"https://you\ntube.com/watch?v={ID}",
            f"https://127.0.0.1/watch?v={ID}",
            f"ftp://www.youtube.com/watch?v={ID}",
            f"javascript://www.youtube.com/watch?v={ID}",
            f"file:///www.youtube.com/watch?v={ID}",
            f"https://www.youtube.com/attribution_link?u=%2Fwatch%3Fv%3D{ID}",
            f"https://www.youtube.com/redirect?q=https%3A%2F%2Fyoutu.be%2F{ID}",
            f"https://www.youtube.com/oembed?url=https://youtu.be/{ID}",
            f"https://www.youtube.com/playlist?list=PL{ID}",
            f"https://www.youtube.com/{ID}",
            "https://www.youtube.com/embed/videoseries?list=PLx",
            "https://www.youtube.com/embed/live_stream?channel=UCx",
            f"https://www.youtube.com/watch?v=&v={ID}x",
            f"https://www.youtube.com/watch?v={ID}x",
            f"https://www.youtube.com/watch?vi={ID}",
            f"https://www.youtube.com/watch#v={ID}",
            f"https://www.youtube.com/shorts/{ID}/more",
            f"https://youtu.be/{ID}/../evil",
            f"https://www.youtube.com/watch?v={ID}&x=" + "a" * MAX_LINK_CHARS,
            " " * (MAX_LINK_CHARS + 1) + ID,
        ],
    )
    def test_refuses_everything_else(self, link: str) -> None:
        with pytest.raises(InvalidUrl):
            parse_video_id(link)

    def test_the_longest_link_is_still_taken(self) -> None:
        link = f"https://youtu.be/{ID}?x="
        assert parse_video_id(link + "a" * (MAX_LINK_CHARS - len(link))) == ID

    @given(video_ids)
    def test_reads_back_its_own_page_address(self, video_id: str) -> None:
        assert parse_video_id(watch_url(video_id)) == video_id
