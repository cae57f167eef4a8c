"""The cache's pages: playing, and what an operator can have done to stored media."""

from __future__ import annotations

from datetime import timedelta
from urllib.parse import parse_qs, urlsplit

import pytest

from apps.core.clock import utcnow
from apps.core.documents import AuditEntry
from apps.core.errors import KeyDisabled, KeyInvalid
from apps.dashboard.asset_work import WORKS, play_link
from apps.downloads.documents import MediaJob
from apps.keys.authentication import authenticate, forget_cached_keys, grant_for_prefix
from apps.keys.documents import Role, User
from apps.keys.people import person_prefix
from apps.streaming.hotstore import HotStore
from apps.streaming.hotstore.layout import HotPath
from apps.streaming.links import check_link
from apps.telegram_cache.documents import Asset, AssetState, Part, PartState
from tests.dashboard.samples import make_asset, make_job

HOUR = timedelta(hours=1)


def stored(number: int = 1, **fields: object) -> Asset:
    part = Part(index=0, offset=0, size=10, channel_id="-100", message_id=5, state=PartState.STORED.value)
    return make_asset(number, title="Evening raga", size_bytes=10, parts=[part], **fields)


class TestPlaying:
    def test_the_page_has_a_player_with_a_link_of_this_persons_own(self, viewer):
        asset = stored()
        page = viewer.get(f"/admin/cache/{asset.id}")
        link = urlsplit(page.context["play_href"])
        signed = check_link(link.path, {name: values[0] for name, values in parse_qs(link.query).items()})
        assert signed.asset_id == asset.id
        user = User.objects.get(username="the-viewer")
        assert grant_for_prefix(signed.key_prefix).name == user.username
        assert b"<audio controls" in page.content

    def test_a_look_at_the_page_brings_nothing_back_from_telegram(self, viewer, hot_root):
        asset = stored()
        assert b'preload="none"' in viewer.get(f"/admin/cache/{asset.id}").content
        with HotStore(hot_root).create(asset.id, 1, resume=False) as writer:
            writer.set_size(10)
            writer.append(b"0123456789")
            writer.finish()
        assert b'preload="metadata"' in viewer.get(f"/admin/cache/{asset.id}").content

    def test_a_verification_that_found_not_everything_right_is_told(self, viewer):
        words, now = b"without a full result", utcnow()
        for times, is_told in (
            ({}, False),
            ({"verify_tried_at": now}, True),
            ({"verify_tried_at": now, "verified_at": now - HOUR}, True),
            ({"verify_tried_at": now - HOUR, "verified_at": now}, False),
        ):
            asset = stored(**times)
            assert (words in viewer.get(f"/admin/cache/{asset.id}").content) == is_told
            asset.delete()

    @pytest.mark.parametrize("change", [{"role": "none"}, {"active": False}, {"inc__session_version": 1}])
    def test_the_link_ends_with_the_persons_entry(self, make_user, change):
        user = make_user(Role.VIEWER)
        prefix = person_prefix(user)
        assert grant_for_prefix(prefix).name == user.username
        User.objects(id=user.id).update_one(**change)
        forget_cached_keys()
        with pytest.raises((KeyInvalid, KeyDisabled)):
            grant_for_prefix(prefix)

    def test_what_the_link_names_lets_nobody_in_as_a_key(self, make_user):
        prefix = person_prefix(make_user(Role.OWNER))
        for raw in (prefix, f"yt_{prefix}_{'x' * 43}"):
            with pytest.raises(KeyInvalid):
                authenticate(raw)

    def test_what_is_not_there_cannot_be_played(self, viewer):
        asset = make_asset(1, state=AssetState.FAILED)
        page = viewer.get(f"/admin/cache/{asset.id}")
        assert b"<audio" not in page.content
        assert page.context["play_href"] == ""

    def test_a_file_whose_fetch_is_just_ending_is_looked_at_again(self, viewer):
        asset = make_asset(1, state=AssetState.FETCHING)
        page = viewer.get(f"/admin/cache/{asset.id}")
        assert page.context["play_href"] == ""
        assert b'id="ending"' in page.content
        assert b"js/job.js" in page.content
        job = make_job(1)
        page = viewer.get(f"/admin/cache/{asset.id}")
        assert page.context["job"] == job
        assert page.context["play_href"]
        assert b'id="ending"' not in page.content


class TestWork:
    def test_every_action_asks_and_a_viewer_has_none(self, operator, log_in):
        asset = stored()
        viewer = log_in(Role.VIEWER)
        for name, work in WORKS.items():
            path = f"/admin/cache/{asset.id}/{name}"
            assert path in operator.get(f"/admin/cache/{asset.id}").content.decode()
            assert work.question in operator.get(path).content.decode()
            assert path not in viewer.get(f"/admin/cache/{asset.id}").content.decode()
            assert viewer.post(path).status_code == 403

    def test_evicting_removes_the_file_and_is_in_the_log(self, operator, hot_root):
        asset = stored()
        path = HotPath.of(hot_root, asset.id, 1).data
        path.parent.mkdir()
        path.write_bytes(b"0123456789")
        assert b"no longer on this server" in operator.post(f"/admin/cache/{asset.id}/evict", follow=True).content
        assert not path.exists()
        assert AuditEntry.objects(action="asset.evict", target_id=asset.id).count() == 1

    def test_the_only_copy_stays(self, operator, hot_root):
        asset = make_asset(1, state=AssetState.READY)
        answer = operator.post(f"/admin/cache/{asset.id}/evict", follow=True)
        assert b"this is the only copy" in answer.content
        assert AuditEntry.objects(target_kind="asset").count() == 0

    def test_fetching_again_makes_a_job_of_a_new_generation(self, operator, hot_root):
        asset = stored()
        operator.post(f"/admin/cache/{asset.id}/refetch", follow=True)
        assert Asset.objects.get(id=asset.id).generation == 2
        assert MediaJob.objects(asset_id=asset.id, active=True).count() == 1

    def test_what_failed_is_fetched_again_by_an_operator_whatever_it_should_wait_for(self, operator, log_in):
        asset = make_asset(1, state=AssetState.FAILED, error_code="upstream_error", retry_at=utcnow() + HOUR)
        path = f"/admin/cache/{asset.id}/refetch"
        assert path not in log_in(Role.VIEWER).get(f"/admin/cache/{asset.id}").content.decode()
        page = operator.get(f"/admin/cache/{asset.id}").content.decode()
        assert path in page
        assert f"/admin/cache/{asset.id}/evict" not in page
        assert MediaJob.objects.count() == 0
        answer = operator.post(path, follow=True).content.decode()
        assert "It is fetched again." in answer
        assert "Being fetched" in answer
        job = MediaJob.objects.get(asset_id=asset.id, active=True)
        assert (job.video_id, job.kind, job.variant) == (asset.video_id, asset.kind, asset.variant)
        assert job.key_prefix == person_prefix(User.objects.get(username="the-operator"))
        assert Asset.objects.get(id=asset.id).state == AssetState.QUEUED
        assert AuditEntry.objects(action="asset.refetch", target_id=asset.id, actor="the-operator").count() == 1
        assert b"It is being fetched already." in operator.post(path, follow=True).content
        assert MediaJob.objects(asset_id=asset.id).count() == 1

    @pytest.mark.parametrize("name", ["repair", "upload"])
    def test_without_a_bot_it_says_what_is_missing(self, operator, name):
        asset = stored()
        answer = operator.post(f"/admin/cache/{asset.id}/{name}", follow=True)
        assert b"no usable bot or channel" in answer.content

    def test_many_at_once(self, operator, hot_root):
        ids = [stored(number).id for number in (1, 3)] + [make_asset(5, state=AssetState.READY).id]
        values = {"action": "evict", "id": ids, "confirmed": "yes"}
        answer = operator.post("/admin/cache", values, follow=True)
        assert b"Evict: 2 files." in answer.content
        assert b"this is the only copy" in answer.content


def test_the_list_says_where_files_are_and_filters_by_it(viewer, hot_root):
    cold = stored(1)
    rows = viewer.get("/admin/cache?tier=cold").context["page"].rows
    assert [row.id for row in rows] == [cold.id]
    assert viewer.get("/admin/cache?tier=hot").context["page"].rows == []
    assert b"telegram" in viewer.get("/admin/cache").content


def test_the_link_is_for_the_stream_of_this_server(make_user):
    link = play_link(make_user(Role.VIEWER), stored())
    assert link.startswith("/stream/audio/video000001?")
