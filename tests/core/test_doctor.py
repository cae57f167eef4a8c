import json
from collections.abc import Iterator
from io import StringIO
from types import SimpleNamespace

import pytest
from django.conf import settings
from django.core.management import call_command
from pydantic import SecretStr

from apps.core import doctor
from apps.core.heartbeats import QUEUES, beat
from apps.core.management.commands.doctor import _cookies_and_proxies, _hot_store_size
from apps.core.tunables import MIB, set_tunable
from apps.downloads.services.identities import Actor, add_proxy
from apps.downloads.services.ways import PooledWays
from tests.downloads.library import AUDIO, put_hot
from tests.full_redis import full_redis
from tests.ports import free_port
from tests.strangers import mongo_uri_of_a_stranger
from ytserver.env import ServiceUrls

ENV = settings.ENV
NOT_GIVEN = ENV.model_copy(update={"mongo_uri": SecretStr(""), "redis_url": SecretStr("")})
NOBODY = ServiceUrls(mongo_uri=f"mongodb://127.0.0.1:{free_port()}/x", redis_url=f"redis://127.0.0.1:{free_port()}/0")


class TestCookiesAndProxies:
    def test_all_proxies_resting_is_a_problem_that_is_explained(self, mongo):
        proxy = add_proxy("out", "http://user:proxy-word@198.51.100.7:8080", actor=Actor(name="tester"))
        (result,) = _cookies_and_proxies()
        assert (result.ok, result.text) == (True, "1 of 1 are ready")
        PooledWays().note_failure((proxy.id,), "bot_check")
        (result,) = _cookies_and_proxies()
        assert (result.ok, result.fix) == (False, "out: YouTube asked whether we are a bot")


@pytest.mark.usefixtures("mongo", "redis_server", "hot_root")
class TestSizeOfTheHotStore:
    @pytest.fixture(autouse=True)
    def _bound(self, mongo) -> Iterator[None]:
        yield
        set_tunable("hot_max_bytes", None, actor="test")  # this process would remember it for a second

    def test_within_its_bound_it_is_fine(self):
        put_hot(AUDIO, bytes(MIB))
        assert _hot_store_size().ok

    def test_above_it_is_a_problem_with_both_figures(self):
        set_tunable("hot_max_bytes", MIB, actor="test")
        put_hot(AUDIO, bytes(2 * MIB))
        result = _hot_store_size()
        assert not result.ok
        assert "more than the 0.0 GiB it may have" in result.text
        assert "telegram check" in result.fix

    def test_doctor_shows_it(self):
        set_tunable("hot_max_bytes", MIB, actor="test")
        put_hot(AUDIO, bytes(2 * MIB))
        out = StringIO()
        with pytest.raises(SystemExit):
            call_command("doctor", stdout=out)
        assert "PROBLEM  size of the hot store: 0.0 GiB, more than" in out.getvalue()
        assert "eviction: no worker runs now" in out.getvalue()


class TestDoctor:
    def test_finds_nothing_wrong_when_everything_runs(self, mongo, redis_server, hot_root):
        beat(QUEUES)
        out = StringIO()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(settings, "ENV", ENV.model_copy(update={"public_url": ""}))
            call_command("doctor", "--json", stdout=out)
        report = json.loads(out.getvalue())
        assert report["ok"] is True
        assert {check["name"] for check in report["checks"]} >= {"MongoDB", "Redis", "ffmpeg", "Node.js", "yt-dlp"}

    def test_ends_with_1_and_says_what_to_do(self, mongo, redis_server):
        out = StringIO()
        with pytest.raises(SystemExit) as ended:
            call_command("doctor", stdout=out)
        assert ended.value.code == 1
        assert (
            "PROBLEM  workers: nobody works on: resolve, fetch, upload, care\n         -> start them" in out.getvalue()
        )


class TestChecks:
    def test_an_old_python_is_a_problem(self):
        assert not doctor.check_python((3, 10, 9)).ok
        assert doctor.check_python((3, 11, 0)).ok

    def test_missing_and_wrong_packages_are_named(self, tmp_path):
        requirements = tmp_path / "requirements.txt"
        requirements.write_text(
            "# a note\ndjango==1.0\nno-such-package==1\nother==1 ; sys_platform == 'none'\n    # via x\n"
        )
        result = doctor.check_packages(requirements)
        assert not result.ok
        assert "django is 5." in result.text
        assert "no-such-package is missing" in result.text
        assert "other" not in result.text

    @pytest.mark.parametrize("check", [doctor.check_mongodb, doctor.check_redis])
    def test_a_given_server_that_is_silent_is_a_problem_and_an_embedded_one_is_not(self, check):
        assert not check(ENV, NOBODY).ok
        assert check(NOT_GIVEN, NOBODY).ok
        assert "manage.py up" in check(NOT_GIVEN, ServiceUrls()).fix

    def test_a_full_redis_is_a_problem(self):
        with full_redis():
            result = doctor.check_redis(ENV, settings.SERVICES)
        assert (result.ok, result.text) == (False, "is full")
        assert "maxmemory" in result.fix

    @pytest.mark.usefixtures("mongo")
    def test_a_mongodb_that_refuses_our_password_is_told_as_every_command_tells_it(self):
        result = doctor.check_mongodb(ENV, ServiceUrls(mongo_uri=mongo_uri_of_a_stranger()))
        assert not result.ok
        assert (f"{result.name} {result.text}", result.fix) == (
            "MongoDB refuses our user name or password",
            "Check MONGO_URI.",
        )

    def test_a_public_server_in_development_mode_is_a_problem(self):
        assert not doctor.check_settings(ENV.model_copy(update={"public_url": "https://media.example"})).ok

    def test_a_full_disk_is_a_problem(self, monkeypatch):
        monkeypatch.setattr("shutil.disk_usage", lambda _path: SimpleNamespace(total=10**12, free=1000))
        assert not doctor.check_disk(ENV).ok

    def test_a_program_that_does_not_run_is_a_problem(self, monkeypatch, tmp_path):
        monkeypatch.setattr(doctor.imageio_ffmpeg, "get_ffmpeg_exe", lambda: str(tmp_path / "none"))
        assert "does not run" in doctor.check_ffmpeg().text

    def test_scripts_of_another_version_than_yt_dlp_wants_are_a_problem(self, monkeypatch):
        monkeypatch.setattr(doctor.metadata, "requires", lambda name: ["yt-dlp-ejs==0.0.1; extra == 'default'"])
        assert (doctor.check_ytdlp().ok, doctor.check_ytdlp().fix) == (False, "run `make setup`")

    def test_plugins_for_po_tokens_are_named(self, monkeypatch, tmp_path):
        folder = tmp_path / "yt_dlp_plugins" / "extractor"
        folder.mkdir(parents=True)
        (folder / "getpot_example.py").write_text("")
        monkeypatch.syspath_prepend(tmp_path)
        assert doctor.po_token_plugins() == ["getpot_example"]
        assert "getpot_example" in doctor.check_ytdlp().text
