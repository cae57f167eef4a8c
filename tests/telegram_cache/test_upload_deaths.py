"""Uploads that kill their worker, or meet what nobody expected: counted, waited with, and told about in the end."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from apps.telegram_cache.alerts import alerts
from apps.telegram_cache.documents import Asset
from apps.telegram_cache.services import care_records, hot_bytes, upload_asset, upload_records
from apps.telegram_cache.services.upload import UploadResult
from tests.telegram_cache.conftest import CHANNEL_ID, MIB, make_due


def reload(asset_id: str) -> Asset:
    return Asset.objects.get(id=asset_id)


def die(asset_id: str) -> bool:
    """A worker claims it and is gone. False: it is not due."""
    claimed = upload_records.claim_upload(asset_id, owner="dies") is not None
    Asset.objects(id=asset_id).update(set__upload_lease_until=datetime.now(UTC) - timedelta(seconds=1))
    return claimed


def test_each_death_is_a_try_and_after_several_in_a_row_it_waits(store, make_asset):
    made = make_asset(MIB)
    assert [die(made.asset_id) for _ in range(4)] == [True, True, True, False]
    asset = reload(made.asset_id)
    assert (asset.upload_attempts, asset.upload_deaths, asset.upload_error) == (3, 3, upload_records.DIED)
    assert asset.upload_failing_since is not None
    assert timedelta(seconds=30) < asset.upload_retry_at - datetime.now(UTC) < timedelta(seconds=41)
    make_due(made.asset_id)
    assert upload_asset(made.asset_id) is UploadResult.CACHED
    asset = reload(made.asset_id)
    assert (asset.upload_attempts, asset.upload_deaths, asset.upload_error) == (0, None, None)


def test_one_that_dies_for_a_day_is_given_up_with_an_alert(store, make_asset):
    made = make_asset(MIB)
    die(made.asset_id)
    long_ago = datetime.now(UTC) - timedelta(hours=25)
    Asset.objects(id=made.asset_id).update(set__upload_failing_since=long_ago, set__upload_attempts=11)
    assert upload_asset(made.asset_id) is UploadResult.LATER
    assert store.telegram.counts["sendDocument"] == 0
    assert reload(made.asset_id).upload_gave_up_at is not None
    (alert,) = alerts()
    assert "killed, or crashed" in alert.text
    assert care_records.make_due(made.asset_id)  # `cache repair`
    assert upload_asset(made.asset_id) is UploadResult.CACHED


def test_what_nobody_expected_is_a_failed_try(store, make_asset, monkeypatch):
    made = make_asset(MIB)
    with monkeypatch.context() as broken:
        broken.setattr(hot_bytes.HotBytes, "pieces", raise_eio)
        assert upload_asset(made.asset_id) is UploadResult.LATER
    asset = reload(made.asset_id)
    assert (asset.upload_attempts, asset.upload_owner) == (1, None)
    assert "Input/output error" in asset.upload_error
    make_due(made.asset_id)
    assert upload_asset(made.asset_id) is UploadResult.CACHED
    assert len(store.telegram.originals()) == 1


def raise_eio(*_: object) -> None:
    raise OSError(5, "Input/output error")


@pytest.mark.parametrize("message_id", [2**70, 2**53, 0, -1])
def test_an_answer_with_an_impossible_number_says_nothing(store, make_asset, message_id):
    made = make_asset(MIB)
    document = {"file_id": "a", "file_unique_id": "b", "file_size": MIB}
    answer = {"message_id": message_id, "chat": {"id": CHANNEL_ID}, "document": document}
    store.telegram.faults.add("sendDocument", status=200, body={"ok": True, "result": answer})
    assert upload_asset(made.asset_id) is UploadResult.CACHED
    (message,) = store.telegram.originals()
    assert reload(made.asset_id).parts[0].message_id == message.message_id
