import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest

from apps.core.clock import utcnow
from apps.core.errors import UpstreamError, VideoPrivate
from apps.core.owners import is_owner_dead, make_owner
from apps.downloads.services import claims
from apps.downloads.services.claims import Claim, ClaimLost, claim_asset
from apps.telegram_cache.documents import Asset, AssetState
from tests.downloads.racers import claim_once, race
from tests.downloads.samples import VIDEO_ID, audio_key, audio_plan

pytestmark = pytest.mark.usefixtures("mongo", "redis_server")


def claim(owner: str = "one") -> Claim:
    return claim_asset(key=audio_key(), owner=owner, lease_s=30)


def expire_lease() -> None:
    Asset.objects.update_one(set__lease_until=utcnow() - timedelta(seconds=1))


def commit(held: Claim) -> None:
    claims.commit_ready(held, size_bytes=3, sha256="a" * 64, block_hashes=[b"x" * 32], duration_s=12.5)


class TestClaimAsset:
    def test_one_winner_among_many_processes_and_threads(self):
        outcomes = race(claim_once, VIDEO_ID, processes=6, threads=8)
        assert len(outcomes) == 48
        assert [won for won, _ in outcomes].count(True) == 1
        assert {attempt for _, attempt in outcomes} == {1}

    def test_the_loser_learns_who_won(self):
        claim("one")
        lost = claim("two")
        assert not lost.won
        assert (lost.owner, lost.state) == ("one", AssetState.FETCHING)

    def test_an_expired_lease_is_taken_over_and_its_owner_cannot_commit(self):
        old = claim("one")
        expire_lease()
        new = claim("two")
        assert new.won
        assert new.attempt == old.attempt + 1
        for act in (
            lambda: commit(old),
            lambda: claims.commit_failed(old, UpstreamError()),
            lambda: claims.renew_claim(old, lease_s=30),
            lambda: claims.record_plan(old, audio_plan(), generation=1),
        ):
            with pytest.raises(ClaimLost):
                act()
        claims.release_claim(old, state=AssetState.ABSENT)
        commit(new)
        assert Asset.objects.get().state == AssetState.READY

    def test_one_process_takes_over_an_expired_lease(self):
        claim("one")
        expire_lease()
        outcomes = race(claim_once, VIDEO_ID, processes=3, threads=4)
        assert [won for won, _ in outcomes].count(True) == 1

    def test_a_renewed_lease_is_not_taken_over(self):
        held = claim("one")
        expire_lease()
        claims.renew_claim(held, lease_s=30)
        assert not claim("two").won

    def test_a_finished_asset_cannot_be_claimed_again(self):
        commit(claim())
        again = claim("two")
        assert not again.won
        assert again.state == AssetState.READY


class TestRecordPlan:
    def test_title_and_type_are_known_before_the_first_byte(self):
        held = claim()
        assert not held.generation_is_used
        claims.record_plan(held, audio_plan(), generation=4)
        asset = Asset.objects.get()
        assert (asset.title, asset.mime, asset.container, asset.provider) == ("A song $5", "audio/mp4", "m4a", "sample")
        assert asset.generation == 4
        expire_lease()
        assert claim("two").generation_is_used


class TestCommit:
    def test_ready_has_size_hashes_and_no_lease(self):
        commit(claim())
        asset = Asset.objects.get()
        assert (asset.size_bytes, asset.block_hashes, asset.sha256) == (3, [b"x" * 32], "a" * 64)
        assert asset.lease_owner is None
        assert asset.duration_s == 12.5

    def test_a_failure_of_the_video_itself_waits_ten_minutes(self):
        retry_at = claims.commit_failed(claim(), VideoPrivate())
        assert timedelta(minutes=9) < retry_at - utcnow() <= timedelta(minutes=10)
        asset = Asset.objects.get()
        assert (asset.state, asset.error_code) == (AssetState.FAILED, "video_private")
        assert not claim("two").won

    def test_failures_of_the_sources_wait_longer_each_time(self, monkeypatch):
        now = utcnow()
        monkeypatch.setattr(claims, "utcnow", lambda: now)
        waits = []
        for _ in range(8):
            waits.append((claims.commit_failed(claim(), UpstreamError()) - now).total_seconds())
            Asset.objects.update_one(set__retry_at=now - timedelta(seconds=1))
        assert waits == [15, 30, 60, 120, 240, 480, 600, 600]

    @pytest.mark.parametrize(("asked_s", "waits_s"), [(5, 15), (90, 90), (10**6, 3600)])
    def test_a_source_that_asks_for_more_time_gets_it(self, monkeypatch, asked_s, waits_s):
        now = utcnow()
        monkeypatch.setattr(claims, "utcnow", lambda: now)
        retry_at = claims.commit_failed(claim(), UpstreamError(retry_after_s=asked_s))
        assert (retry_at - now).total_seconds() == waits_s

    def test_a_success_ends_the_row_of_failures(self):
        claims.commit_failed(claim(), UpstreamError())
        Asset.objects.update_one(set__retry_at=utcnow() - timedelta(seconds=1))
        commit(claim())
        asset = Asset.objects.get()
        assert (asset.fetch_failures, asset.error_code, asset.retry_at) == (0, None, None)


class TestOwners:
    def test_the_running_process_is_alive(self):
        assert not is_owner_dead(make_owner())

    def test_a_process_that_has_ended_is_dead(self):
        child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
        owner = make_owner().rsplit(":", 2)[0] + f":{child.pid}:" + _start_ticks(child.pid)
        assert not is_owner_dead(owner)
        child.communicate()
        assert is_owner_dead(owner)

    def test_a_new_process_with_the_old_number_does_not_count(self):
        assert is_owner_dead(make_owner() + "1")

    @pytest.mark.parametrize("owner", [None, "", "elsewhere/1/2:3:4", "nonsense", f"{os.uname().nodename}:x:y"])
    def test_what_cannot_be_told_from_here_is_not_dead(self, owner):
        assert not is_owner_dead(owner)


def _start_ticks(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
