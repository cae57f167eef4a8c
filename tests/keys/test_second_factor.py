from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pyotp
import pytest

from apps.core.errors import InvalidParameter
from apps.core.secrets import decrypt_secret
from apps.keys import second_factor
from apps.keys.documents import Role, User
from apps.keys.second_factor import begin_setup, finish_setup, has_second_factor, remove_second_factor, take_code

pytestmark = pytest.mark.usefixtures("mongo")
NOW = 1_800_000_000


@pytest.fixture
def clock(monkeypatch):
    now = [NOW]
    monkeypatch.setattr(second_factor, "_step_now", lambda: now[0] // 30)
    return now


@pytest.fixture
def ada() -> User:
    return User(username="ada", role=Role.OWNER.value).save()


@pytest.fixture
def app(ada, clock) -> pyotp.TOTP:
    """Ada's phone; her second factor is on, and its code of two steps ago is used up."""
    totp = pyotp.TOTP(begin_setup(ada).secret)
    finish_setup(ada, totp.at(NOW))
    clock[0] += 60
    return totp


class TestSetUp:
    def test_shows_the_same_secret_until_it_is_finished_and_stores_it_encrypted(self, ada, clock):
        first, again = begin_setup(ada), begin_setup(User.objects.get(id=ada.id))
        assert first == again
        assert first.qr.startswith("data:image/svg+xml")
        stored = str(User.objects.get(id=ada.id).to_mongo())
        assert first.secret not in stored
        assert not has_second_factor(ada)

    def test_needs_a_right_code_and_gives_ten_recovery_codes_of_which_hashes_are_kept(self, ada, clock):
        totp = pyotp.TOTP(begin_setup(ada).secret)
        with pytest.raises(InvalidParameter):
            finish_setup(ada, "000000" if totp.at(NOW) != "000000" else "000001")
        version = ada.session_version
        codes = finish_setup(ada, totp.at(NOW))
        assert has_second_factor(ada)
        assert ada.session_version == version + 1
        assert len(set(codes)) == second_factor.RECOVERY_CODES
        assert codes[0] not in str(ada.to_mongo())
        assert take_code(ada, totp.at(NOW)) == ""

    def test_can_be_taken_away_and_set_up_anew_with_another_secret(self, ada, app):
        old = decrypt_secret(ada.totp_encrypted)
        assert remove_second_factor(ada)
        assert not remove_second_factor(ada)
        assert not has_second_factor(ada)
        assert begin_setup(ada).secret != old
        assert take_code(ada, app.now()) == ""


class TestCodes:
    def test_a_code_works_once_and_no_older_one_after_it(self, ada, app, clock):
        assert take_code(ada, f" {app.at(clock[0])[:3]} {app.at(clock[0])[3:]} ") == "app"
        assert take_code(ada, app.at(clock[0])) == ""
        assert take_code(ada, app.at(clock[0] - 30)) == ""
        clock[0] += 30
        assert take_code(ada, app.at(clock[0])) == "app"

    def test_a_clock_may_be_half_a_minute_off_and_no_more(self, ada, app, clock):
        clock[0] += 600
        assert take_code(ada, app.at(clock[0] - 60)) == ""
        assert take_code(ada, app.at(clock[0] - 30)) == "app"
        assert take_code(ada, app.at(clock[0] + 30)) == "app"
        assert take_code(ada, app.at(clock[0] + 60)) == ""

    @pytest.mark.parametrize("code", ["", "12345", "1234567", "abcdef", "١٢٣٤٥٦", "0" * 40])
    def test_nonsense_is_wrong(self, ada, app, code):
        assert take_code(ada, code) == ""

    def test_of_many_at_once_one_gets_in(self, ada, app, clock):
        code = app.at(clock[0])
        with ThreadPoolExecutor(8) as pool:
            taken = list(pool.map(lambda _: take_code(User.objects.get(id=ada.id), code), range(16)))
        assert sorted(taken) == [*[""] * 15, "app"]

    def test_a_recovery_code_works_once_however_it_is_typed(self, ada, app):
        codes = second_factor.renew_recovery_codes(ada)
        with ThreadPoolExecutor(8) as pool:
            taken = list(pool.map(lambda _: take_code(ada, codes[0].upper().replace("-", " ")), range(8)))
        assert sorted(taken) == [*[""] * 7, "recovery"]
        assert take_code(ada, codes[1]) == "recovery"
        assert len(User.objects.get(id=ada.id).recovery_hashes) == second_factor.RECOVERY_CODES - 2

    def test_without_a_second_factor_no_code_is_right(self, ada):
        assert take_code(ada, "123456") == ""
