"""Taking the record elsewhere: a new installation with the same channel serves it all; wrong lines change nothing."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command

from apps.core.errors import InvalidParameter
from apps.streaming.hotstore import HotStore
from apps.telegram_cache.documents import Asset, AssetState, TelegramBot, TelegramChannel
from apps.telegram_cache.roster import forget_roster
from apps.telegram_cache.services import upload_asset
from apps.telegram_cache.services.bots import add_bot
from apps.telegram_cache.services.channels import add_channel
from apps.telegram_cache.services.transfer import ImportOutcome, import_assets
from apps.telegram_cache.services.verifying import verify_sample
from tests.telegram_cache.conftest import CHANNEL_ID, MIB


@pytest.fixture
def exported(store, make_asset, part_bytes, tmp_path) -> Path:
    """The export of two assets in Telegram; a third is not there yet."""
    part_bytes(MIB)
    for seed in (1, 2):
        upload_asset(make_asset(2 * MIB + 5, seed=seed).asset_id)
    Asset.objects.update(set__is_best=True)
    make_asset(MIB, seed=3)
    file = tmp_path / "cache.jsonl"
    call_command("cache", "export", str(file), stderr=io.StringIO())
    return file


def take(file: Path) -> str:
    out = io.StringIO()
    call_command("cache", "import", str(file), stdout=out, stderr=io.StringIO())
    return out.getvalue()


def forget_everything() -> None:
    for document in (Asset, TelegramBot, TelegramChannel):
        document.objects.delete()
    forget_roster()


def lines_of(file: Path) -> list[dict]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def outcomes(*lines: object) -> list[ImportOutcome]:
    text = "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)
    return [item.outcome for item in import_assets(io.BytesIO(text.encode()))]


class TestANewInstallation:
    def test_with_the_same_channel_and_another_bot_it_serves_everything_bit_identical(self, store, exported, hot_root):
        before = {asset.id: asset.sha256 for asset in Asset.objects(state=AssetState.CACHED.value)}
        forget_everything()
        for asset_id in before:
            HotStore(hot_root).remove(asset_id, 1)
        second = store.telegram.add_bot(222222)
        store.telegram.make_admin(second, store.channel)
        store.telegram.bots[store.bot.token].alive = False
        add_bot(second.token)
        add_channel(str(CHANNEL_ID))
        assert "2 assets added" in take(exported)
        assert {asset.id: asset.sha256 for asset in Asset.objects} == before
        assert [result.is_well for result in verify_sample()] == [True, True]
        assert all(asset.is_in_telegram and asset.is_best for asset in Asset.objects)
        assert TelegramChannel.objects.get().last_message_id >= store.channel.last_message_id - 6

    def test_a_second_time_changes_nothing_and_new_file_ids_are_taken_over(self, store, exported):
        assert "2 known already" in take(exported)
        header, first, second = lines_of(exported)
        first["parts"][0]["file_ids"]["999"] = "theirs"
        assert outcomes(header, first, second) == [ImportOutcome.KNOWN] * 2
        assert Asset.objects(video_id=first["video_id"]).get().parts[0].file_ids["999"] == "theirs"

    @pytest.mark.parametrize("state", [AssetState.FETCHING, AssetState.QUEUED, AssetState.READY])
    def test_what_this_installation_is_busy_with_stays(self, exported, state):
        header, first, _ = lines_of(exported)
        Asset.objects(video_id=first["video_id"]).update_one(set__state=state.value, set__parts=[])
        assert outcomes(header, first) == [ImportOutcome.KEPT]
        assert Asset.objects(video_id=first["video_id"]).get().state == state

    def test_what_failed_here_is_replaced(self, exported):
        header, first, _ = lines_of(exported)
        failed = {"set__state": AssetState.FAILED.value, "set__parts": [], "set__error_code": "bot_check"}
        Asset.objects(video_id=first["video_id"]).update_one(**failed)
        assert outcomes(header, first) == [ImportOutcome.ADDED]
        asset = Asset.objects(video_id=first["video_id"]).get()
        assert (asset.is_in_telegram, asset.error_code) == (True, None)


class TestWrongInput:
    def test_no_token_and_nothing_secret_is_in_it(self, store, exported):
        assert store.bot.token not in exported.read_text()

    def test_a_file_that_is_no_export_is_refused(self, mongo):
        for text in (b"hello", b'{"format": "other", "version": 1}', b'{"format": "ytserver-cache", "version": 2}'):
            with pytest.raises(InvalidParameter):
                list(import_assets(io.BytesIO(text)))
        assert list(import_assets(io.BytesIO(b""))) == []

    def test_wrong_lines_are_named_and_the_others_are_taken(self, exported, tmp_path):
        header, first, second = lines_of(exported)
        Asset.objects.delete()
        broken = [
            {**first, "size_bytes": first["size_bytes"] + 1},
            {**first, "video_id": "../../../etc"},
            {**first, "block_sha256": "AAAA"},
            {**first, "block_sha256": "not base64!"},
            {**first, "parts": first["parts"][:1]},
            {**first, "parts": []},
            {**first, "parts": [{**part, "offset": part["offset"] + 1} for part in first["parts"]]},
            {**first, "parts": [{**part, "message_id": 0} for part in first["parts"]]},
            {**first, "parts": [{**part, "file_ids": {"$set": "x"}} for part in first["parts"]]},
            {**first, "state": "cached"},
            {**first, "message_link": "javascript:alert(1)"},
        ]
        file = tmp_path / "mixed.jsonl"
        file.write_text("\n".join([*map(json.dumps, [header, *broken, second]), "{", ""]))
        errors = io.StringIO()
        with pytest.raises(CommandError, match="12 lines are wrong"):
            call_command("cache", "import", str(file), stdout=io.StringIO(), stderr=errors)
        assert [asset.video_id for asset in Asset.objects] == [second["video_id"]]
        assert "line 2: " in errors.getvalue()
        assert "line 14: " in errors.getvalue()

    def test_a_missing_file_is_one_clear_line(self, mongo):
        with pytest.raises(CommandError, match="No such file"):
            call_command("cache", "import", "/nowhere/at/all")
