"""Cuts, refusals and changed files, seen from the whole engine: what counts is which bytes become the asset."""

from dataclasses import replace

import pytest
from aiohttp import web

from apps.core.clock import utcnow
from apps.core.errors import UpstreamError
from apps.downloads.documents import JobState
from apps.telegram_cache.documents import Asset
from tests.downloads.fetch.origin import remote
from tests.downloads.fetch.test_engine import MIB, VIDEO, asset, serve
from tests.downloads.samples import audio_key
from tests.standins.faults import parse_range, send_bytes
from tests.standins.media import make_media
from tests.standins.socks import SocksStandIn

OVERLAP = 64 * 1024


class TestCuts:
    def test_goes_on_from_where_the_connection_was_cut(self, fetcher, origin, long_audio):
        serve(fetcher, origin.put("a", long_audio), duration_s=100)
        origin.faults.add("a", cut_after_bytes=MIB)
        origin.faults.add("a", cut_after_bytes=MIB)
        assert fetcher.fetch(audio_key()).state == JobState.DONE
        assert (asset().generation, fetcher.read(asset())) == (1, long_audio)
        assert origin.asked[1] == f"bytes={MIB - OVERLAP}-"
        assert origin.sent == len(long_audio) + 2 * OVERLAP

    @pytest.mark.parametrize(("asked_s", "waits_s"), [(1, 60), (900, 900), (10**8, 3600)])
    def test_a_source_that_is_asked_too_often_gets_the_pause_it_wants(self, fetcher, origin, media, asked_s, waits_s):
        serve(fetcher, origin.put("a", media.read("audio.m4a")))
        fetcher.limits = replace(fetcher.limits, failures_in_a_row=1)
        origin.faults.add("a", status=429, retry_after_s=asked_s)
        before = utcnow()
        assert fetcher.fetch(audio_key()).state == JobState.FAILED
        assert 0 <= (asset().retry_at - before).total_seconds() - waits_s < 30

    def test_a_cut_between_ranges_is_gone_on_from(self, fetcher, origin, long_audio):
        serve(fetcher, origin.put("a", long_audio), file={"chunk_bytes": MIB}, duration_s=100)
        origin.faults.add("a", cut_after_bytes=MIB // 2, skip=1)
        assert fetcher.fetch(audio_key()).state == JobState.DONE
        assert fetcher.read(asset()) == long_audio

    def test_a_source_without_ranges_starts_over_and_is_compared(self, fetcher, origin, long_audio):
        serve(fetcher, origin.put("a", long_audio, ranges=False), duration_s=100)
        origin.faults.add("a", cut_after_bytes=MIB)
        assert fetcher.fetch(audio_key()).state == JobState.DONE
        assert (asset().generation, fetcher.read(asset())) == (1, long_audio)
        assert origin.sent == len(long_audio) + MIB

    def test_a_stalled_source_is_asked_again(self, fetcher, origin, long_audio):
        serve(fetcher, origin.put("a", long_audio), duration_s=100)
        origin.faults.add("a", stall_after_bytes=MIB)
        assert fetcher.fetch(audio_key()).state == JobState.DONE
        assert fetcher.read(asset()) == long_audio

    def test_a_source_that_never_gets_further_is_given_up(self, fetcher, origin, long_audio):
        serve(fetcher, origin.put("a", long_audio), duration_s=100)
        origin.faults.add("a", cut_after_bytes=MIB)
        origin.faults.add("a", cut_after_bytes=0, times=1000)
        assert fetcher.fetch(audio_key()).error_code == "upstream_error"
        assert origin.counts["a"] <= 1 + fetcher.limits.failures_in_a_row

    def test_a_source_that_gives_little_each_time_is_given_up(self, fetcher, origin, long_audio):
        fetcher.limits = replace(fetcher.limits, failures_in_all=12)
        serve(fetcher, origin.put("a", long_audio), duration_s=100)
        origin.faults.add("a", cut_after_bytes=2 * OVERLAP, times=1000)
        assert fetcher.fetch(audio_key()).error_code == "upstream_error"
        assert origin.counts["a"] == 12

    def test_a_source_that_gives_a_byte_at_a_time_is_given_up(self, fetcher, origin, long_audio, monkeypatch):
        async def trickle(request: web.Request, data: bytes, **_: object) -> web.StreamResponse:
            start, end = parse_range(request.headers["Range"], len(data))
            end = start if start else end
            told = {"Content-Range": f"bytes {start}-{end}/{len(data)}"}
            return web.Response(status=206, body=data[start : end + 1], headers=told)

        monkeypatch.setattr("tests.downloads.fetch.origin.send_bytes", trickle)
        serve(fetcher, origin.put("a", long_audio), file={"chunk_bytes": MIB}, duration_s=100)
        fetcher.limits = replace(fetcher.limits, total_s=3)
        assert fetcher.fetch(audio_key()).error_code == "upstream_error"
        assert origin.counts["a"] == 1 + fetcher.limits.failures_in_a_row

    def test_silence_from_the_start_is_a_timeout(self, fetcher, origin, media):
        fetcher.limits = replace(fetcher.limits, stall_s=0.1)
        serve(fetcher, origin.put("a", media.read("audio.m4a")))
        origin.faults.add("a", stall_after_bytes=0, times=99)
        assert fetcher.fetch(audio_key()).error_code == "upstream_timeout"

    def test_the_whole_has_a_time_limit(self, fetcher, origin, long_audio):
        fetcher.limits = replace(fetcher.limits, total_s=0.5)
        serve(fetcher, origin.put("a", long_audio), duration_s=100)
        origin.faults.add("a", bytes_per_s=100_000)
        assert fetcher.fetch(audio_key()).error_code == "upstream_timeout"

    def test_nobody_there_is_unreachable(self, fetcher, origin):
        serve(fetcher, "http://127.0.0.1:1/a")
        assert fetcher.fetch(audio_key()).error_code == "upstream_unreachable"

    def test_trouble_at_the_source_is_waited_out(self, fetcher, origin, media):
        serve(fetcher, origin.put("a", media.read("audio.m4a")))
        origin.faults.add("a", status=503)
        origin.faults.add("a", status=429, retry_after_s=0)
        assert fetcher.fetch(audio_key()).state == JobState.DONE

    def test_a_file_shorter_than_announced_never_becomes_an_asset(self, fetcher, origin, media):
        serve(fetcher, origin.put("a", media.read("audio.m4a")))
        origin.faults.add("a", size_change_bytes=1000, times=99)
        assert fetcher.fetch(audio_key()).error_code == "upstream_error"

    def test_a_file_that_ends_well_but_short_of_its_planned_size_is_gone_on_from(self, fetcher, origin, long_audio):
        exact = {"size_bytes": len(long_audio), "size_is_exact": True}
        serve(fetcher, origin.put("a", long_audio, send_length=False), file=exact, duration_s=100)
        origin.faults.add("a", size_change_bytes=-MIB)
        assert fetcher.fetch(audio_key()).state == JobState.DONE
        assert fetcher.read(asset()) == long_audio

    def test_one_that_is_never_as_long_as_planned_is_no_asset(self, fetcher, origin, long_audio):
        exact = {"size_bytes": len(long_audio), "size_is_exact": True}
        url = origin.put("a", long_audio[:-OVERLAP], send_length=False, ranges=False)
        serve(fetcher, url, file=exact, duration_s=100)
        assert fetcher.fetch(audio_key()).error_code == "upstream_error"
        assert origin.counts["a"] <= 1 + fetcher.limits.failures_in_a_row

    def test_a_picture_that_ends_before_its_sound_is_no_asset(self, fetcher, origin, long_audio):
        picture = make_media("large").read("video360.mp4")
        urls = [
            origin.put("v", picture[: len(picture) // 2], send_length=False, ranges=False),
            origin.put("a", long_audio, send_length=False),
        ]
        files = tuple(remote(url) for url in urls)
        serve(fetcher, "", files=files, finish="mux", container="mp4", mime="video/mp4", duration_s=100)
        job = fetcher.fetch(VIDEO)
        assert (job.state, job.error_message) == (
            JobState.FAILED,
            "The outside source gave a file of another length than the video has.",
        )
        origin.put("v", picture, send_length=False)
        Asset.objects.update(set__retry_at=utcnow())
        assert fetcher.fetch(VIDEO).state == JobState.DONE

    def test_a_cut_in_one_of_two_files_is_gone_on_from(self, fetcher, origin, media):
        urls = {name: origin.put(name, media.read(name)) for name in ("video360.mp4", "audio.m4a")}
        files = tuple(remote(url) for url in urls.values())
        serve(fetcher, "", files=files, finish="mux", container="mp4", mime="video/mp4")
        origin.faults.add("audio.m4a", cut_after_bytes=30_000)
        assert fetcher.fetch(VIDEO).state == JobState.DONE
        assert origin.counts == {"video360.mp4": 1, "audio.m4a": 2}


class TestRefusals:
    def test_refused_addresses_are_planned_again_and_the_bytes_kept(self, fetcher, origin, long_audio):
        provider = serve(fetcher, origin.put("a", long_audio), duration_s=100)
        origin.faults.add("a", cut_after_bytes=2 * MIB)
        origin.faults.add("a", status=403)
        assert fetcher.fetch(audio_key()).state == JobState.DONE
        assert (provider.plans, provider.fresh) == (2, 1)
        assert (asset().generation, fetcher.read(asset())) == (1, long_audio)
        assert origin.sent == len(long_audio) + OVERLAP

    def test_addresses_that_stay_refused_fail_the_source(self, fetcher, origin):
        provider = serve(fetcher, origin.put("a", b""))
        origin.faults.add("a", status=403, times=99)
        job = fetcher.fetch(audio_key())
        assert (job.error_code, provider.fresh) == ("upstream_error", fetcher.limits.plans_again)
        [failure] = job.provider_errors
        assert failure.pop("took_s") >= 0
        assert failure == {
            "provider": "sample",
            "code": "upstream_error",
            "message": "The outside source refused to give the file (HTTP 403).",
            "attempt": 1,
        }

    def test_a_size_other_than_the_planned_one_is_planned_again(self, fetcher, origin, media):
        data = media.read("audio.m4a")
        file = {"size_bytes": len(data) + 1, "size_is_exact": True}
        provider = serve(fetcher, origin.put("a", data), file=file)
        assert fetcher.fetch(audio_key()).error_code == "upstream_error"
        assert provider.fresh == fetcher.limits.plans_again

    def test_an_address_on_a_network_that_is_off_limits_is_not_asked(self, fetcher, origin):
        serve(fetcher, "https://10.1.2.3/secret")
        assert fetcher.fetch(audio_key()).error_code == "upstream_error"


class TestChangedSource:
    def test_another_size_after_a_cut_starts_a_new_generation(self, fetcher, origin, long_audio):
        serve(fetcher, origin.put("a", long_audio), duration_s=100)
        origin.faults.add("a", cut_after_bytes=MIB)
        origin.faults.add("a", size_change_bytes=5)
        assert fetcher.fetch(audio_key()).state == JobState.DONE
        assert (asset().generation, fetcher.read(asset())) == (2, long_audio)
        assert fetcher.store.open(asset().id, 1) is None

    def test_other_bytes_after_a_cut_start_a_new_generation(self, fetcher, origin, long_audio):
        serve(fetcher, origin.put("a", long_audio), duration_s=100)
        origin.faults.add("a", cut_after_bytes=MIB)
        origin.faults.add("a", wrong_bytes=True)
        assert fetcher.fetch(audio_key()).state == JobState.DONE
        assert (asset().generation, fetcher.read(asset())) == (2, long_audio)

    def test_a_source_that_changes_all_the_time_is_given_up(self, fetcher, origin, long_audio):
        serve(fetcher, origin.put("a", long_audio), duration_s=100)
        for _ in range(9):
            origin.faults.add("a", cut_after_bytes=MIB)
            origin.faults.add("a", wrong_bytes=True)
        assert fetcher.fetch(audio_key()).error_code == "upstream_error"

    @pytest.mark.parametrize("header", ["bytes 5-9/10", "bytes */10", "nonsense", ""])
    def test_a_range_that_was_not_asked_for_is_refused(self, fetcher, origin, media, header, monkeypatch):
        async def lie(request: web.Request) -> web.StreamResponse:
            return web.Response(status=206, body=b"12345", headers={"Content-Range": header})

        monkeypatch.setattr("tests.downloads.fetch.origin.send_bytes", lambda request, *_, **__: lie(request))
        serve(fetcher, origin.put("a", b""), file={"chunk_bytes": MIB})
        assert fetcher.fetch(audio_key()).error_code == "upstream_error"

    def test_packed_content_is_refused(self, fetcher, origin, media, monkeypatch):
        async def pack(request: web.Request, data: bytes, **options: object) -> web.StreamResponse:
            return await send_bytes(request, data, headers={"Content-Encoding": "br"}, content_type="audio/mp4")

        monkeypatch.setattr("tests.downloads.fetch.origin.send_bytes", pack)
        serve(fetcher, origin.put("a", media.read("audio.m4a")))
        assert fetcher.fetch(audio_key()).error_code == UpstreamError.code


class TestSocks:
    def test_media_comes_through_a_socks_proxy(self, fetcher, origin, media):
        with SocksStandIn(target_port=origin.port, password="word") as socks:
            data = media.read("audio.m4a")
            serve(fetcher, origin.put("a", data), file={"proxy": socks.url})
            origin.faults.add("a", cut_after_bytes=1000)
            assert fetcher.fetch(audio_key()).state == JobState.DONE
            assert fetcher.read(asset()) == data
            assert set(socks.users) == {"user"}

    def test_one_that_does_not_let_us_in_is_unreachable(self, fetcher, origin, media):
        with SocksStandIn(target_port=origin.port, password="word") as socks:
            wrong = socks.url.replace("word", "other")
            serve(fetcher, origin.put("a", media.read("audio.m4a")), file={"proxy": wrong})
            assert fetcher.fetch(audio_key()).error_code == "upstream_unreachable"
        assert origin.counts["a"] == 0
