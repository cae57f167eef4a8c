from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pyotp
import pytest

from apps.core.errors import InvalidParameter
from apps.keys import second_factor
from apps.keys.documents import Role, User
from apps.keys.second_factor import (
    finish_setup,
    has_second_factor,
    new_pending,
    remove_second_factor,
    show_setup,
    take_code,
)

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
    pending = new_pending()
    totp = pyotp.TOTP(show_setup(ada, pending).secret)
    finish_setup(ada, pending, totp.at(NOW))
    clock[0] += 60
    return totp


class TestSetUp:
    def test_each_has_a_secret_of_its_own_which_nobody_keeps_in_the_clear(self, ada, clock):
        first, second = new_pending(), new_pending()
        setup = show_setup(ada, first)
        assert setup == show_setup(ada, first)
        assert setup.secret != show_setup(ada, second).secret
        assert setup.secret not in first
        assert setup.qr.startswith("data:image/svg+xml")
        assert not has_second_factor(User.objects.get(id=ada.id))

    def test_what_this_server_did_not_encrypt_is_no_setup(self, ada, clock):
        assert show_setup(ada, "") is show_setup(ada, "nonsense") is None
        for pending in ("", "nonsense"):
            with pytest.raises(InvalidParameter):
                finish_setup(ada, pending, "123456")

    def test_of_two_browsers_one_finishes(self, ada, clock):
        pending = [new_pending(), new_pending()]
        codes = [pyotp.TOTP(show_setup(ada, one).secret).at(NOW) for one in pending]
        finish_setup(User.objects.get(id=ada.id), pending[0], codes[0])
        with pytest.raises(InvalidParameter, match="elsewhere"):
            finish_setup(User.objects.get(id=ada.id), pending[1], codes[1])
        assert User.objects.get(id=ada.id).totp_encrypted == pending[0]

    def test_needs_a_right_code_and_gives_ten_recovery_codes_of_which_hashes_are_kept(self, ada, clock):
        pending = new_pending()
        totp = pyotp.TOTP(show_setup(ada, pending).secret)
        with pytest.raises(InvalidParameter):
            finish_setup(ada, pending, "000000" if totp.at(NOW) != "000000" else "000001")
        version = ada.session_version
        codes = finish_setup(ada, pending, totp.at(NOW))
        assert has_second_factor(ada)
        assert ada.session_version == version + 1
        assert len(set(codes)) == second_factor.RECOVERY_CODES
        assert codes[0] not in str(ada.to_mongo())
        assert take_code(ada, totp.at(NOW)) == ""

    def test_can_be_taken_away(self, ada, app):
        assert remove_second_factor(ada)
        assert not remove_second_factor(ada)
        assert not has_second_factor(ada)
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
