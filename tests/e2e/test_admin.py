"""The admin as people use it: a real browser, a whole instance, only YouTube and Telegram are stood in for."""

from __future__ import annotations

import re

import httpx
import pytest

from tests.e2e.conftest import OWNER, PASSWORD
from tests.waiting import wait_until

THEMES = [(360, "light"), (1440, "dark")]


class TestLoggingIn:
    def test_a_wrong_password_is_said_and_too_many_have_to_wait(self, open_screen):
        screen = open_screen(known=False)
        for _ in range(5):
            screen.log_in("somebody", "wrong password")
            screen.page.get_by_text("The name or the password is wrong.").wait_for()
        screen.log_in("somebody", "wrong password")
        screen.page.get_by_text("Too many tries.").wait_for()

    @pytest.mark.parametrize(("width", "theme"), THEMES)
    def test_the_login_page_is_accessible_and_leads_back(self, open_screen, width, theme):
        screen = open_screen(width, known=False, theme=theme)
        screen.go("admin/jobs")
        assert "next=" in screen.page.url
        assert found(screen) == NOTHING
        assert screen.problems == []

    @pytest.mark.parametrize(("width", "theme"), THEMES)
    def test_so_is_what_somebody_with_a_second_factor_sees(self, open_screen, with_second_factor, width, theme):
        screen = open_screen(width, known=False, theme=theme)
        page, wrong = screen.page, {}
        screen.log_in(with_second_factor.name, PASSWORD)
        page.get_by_role("heading", name="Your code").wait_for()
        wrong["login/code"] = found(screen)
        page.get_by_label("Code from your app").fill(with_second_factor.codes.pop())
        page.get_by_role("button", name="Log in").click()
        page.get_by_role("heading", name="Overview").wait_for()
        screen.go("admin/account/recovery-codes")
        wrong["account/confirm"] = found(screen)
        page.get_by_label("Password").fill(PASSWORD)
        page.get_by_label("Code from the app").fill(with_second_factor.codes.pop())
        page.get_by_role("button", name="Go on").click()
        for path in ("account/second-factor/off", "account", "account/recovery-codes"):
            screen.go(f"admin/{path}")
            assert page.url.endswith(path)
            wrong[path] = found(screen)
        page.get_by_role("button", name="Make them").click()
        page.locator("#codes").wait_for()
        wrong["new codes"] = found(screen)
        with_second_factor.codes[:] = page.locator("#codes").inner_text().split()
        assert {name: faults for name, faults in wrong.items() if faults != NOTHING} == {}
        assert screen.problems == []

    def test_the_right_password_lets_in_and_logging_out_ends_it(self, open_screen):
        screen = open_screen(known=False)
        screen.log_in(OWNER, PASSWORD)
        screen.page.get_by_role("heading", name="Overview").wait_for()
        screen.page.get_by_role("button", name="Log out").click()
        screen.page.get_by_role("button", name="Log in").wait_for()
        screen.go("admin/keys")
        assert "next=" in screen.page.url
        assert (screen.refused(), screen.problems) == ([], [])


class TestEveryPage:
    @pytest.mark.parametrize(("width", "theme"), THEMES)
    def test_fits_is_accessible_and_nothing_complains(self, open_screen, pages, width, theme):
        screens = [open_screen(width, theme=theme) for _ in range(2)]
        paths, wrong = list(pages.addresses()), {}
        for at in range(len(paths) + 1):  # a page loads in one while axe looks at the page before it in the other
            if at < len(paths):
                screens[at % 2].go(paths[at])
                screens[at % 2].begin_faults()
            if at:
                last, path = screens[1 - at % 2], paths[at - 1]
                came = {"elsewhere": last.page.url.removeprefix(f"{last.url}/{path}")}
                if any((faults := {**found(last, begun=True), **came}).values()):
                    wrong[path] = faults
        assert wrong == {}
        assert [screen.problems for screen in screens] == [[], []]

    @pytest.mark.parametrize(("width", "theme"), THEMES)
    def test_so_does_what_comes_after_a_button(self, open_screen, pages, width, theme):
        screen = open_screen(width, theme=theme)
        page, wrong = screen.page, {}
        screen.go("admin/keys/new")
        page.get_by_role("button", name="Create the key").click()
        page.get_by_text("This field is required.").wait_for()
        wrong["a form that was refused"] = found(screen)
        page.get_by_label("Name", exact=True).fill(f"For {theme}")
        page.get_by_role("button", name="Create the key").click()
        page.locator("#key").wait_for()
        wrong["the new key"] = found(screen)
        screen.go("admin/warm-ups")
        page.locator("tbody input[type=checkbox]").first.check()
        page.get_by_role("button", name="Go on", exact=True).click()
        page.get_by_role("heading", name="Go on with 1 list?").wait_for()
        wrong["a question about many"] = found(screen)
        screen.go("admin/keys/nosuchky")
        wrong["what is not there"] = found(screen)
        assert {name: faults for name, faults in wrong.items() if faults != NOTHING} == {}
        assert [int(re.search(r"status of (\d+)", problem)[1]) for problem in screen.problems] == [422, 404]


NOTHING = {"headings": 0, "overflow": 0, "faults": [], "refused": []}


def found(screen, *, begun=False):
    """What is wrong with a page, once it has its styles and its heading: a text may be there before the styles, and
    the heading of the API's documentation is drawn by its script."""
    screen.page.wait_for_load_state("load")
    screen.page.locator("h1").first.wait_for(state="attached")
    return {
        "headings": screen.page.locator("h1").count() - 1,
        "overflow": max(0, screen.overflow_px()),
        "faults": screen.end_faults() if begun else screen.faults(),
        "refused": screen.refused(),
    }


FOCUS = """
() => {
  const at = document.activeElement, style = getComputedStyle(at), box = at.getBoundingClientRect();
  const isSeen = box.width > 1 && box.height > 1 && box.left >= 0 && box.right <= innerWidth + 1;
  const isMarked = style.outlineStyle !== "none" || style.boxShadow !== "none";
  return { name: at.outerHTML.slice(0, 120), end: at === document.body, fine: isSeen && isMarked };
}
"""


class TestKeyboard:
    @pytest.mark.parametrize("width", [360, 1440])
    def test_every_stop_of_the_tab_key_is_seen(self, open_screen, width):
        screen = open_screen(width)
        screen.go("admin/keys")
        stops = []
        for _ in range(200):
            screen.page.keyboard.press("Tab")
            stop = screen.page.evaluate(FOCUS)
            if stop["end"]:
                break
            stops.append(stop)
        assert "skip-link" in stops[0]["name"]
        assert len(stops) > 15
        assert [stop["name"] for stop in stops if not stop["fine"]] == []

    def test_the_skip_link_leads_to_the_content(self, open_screen):
        screen = open_screen()
        screen.go("admin/keys")
        screen.page.keyboard.press("Tab")
        screen.page.keyboard.press("Enter")
        assert screen.page.evaluate("document.activeElement.id") == "main"

    def test_the_menu_of_a_phone_holds_the_focus_and_gives_it_back(self, open_screen):
        screen = open_screen(360)
        screen.go("admin/keys")
        page = screen.page
        button = page.get_by_role("button", name="Menu", exact=True)
        for key in ("Enter", "Space"):
            button.focus()
            page.keyboard.press(key)
            page.wait_for_function("() => document.getElementById('menu').matches('.show:focus-within')")
            for _ in range(25):
                page.keyboard.press("Tab")
                assert page.evaluate("document.getElementById('menu').contains(document.activeElement)")
            assert page.get_by_role("link", name="Your account").is_visible()
            page.keyboard.press("Escape")
            page.wait_for_function("() => !document.getElementById('menu').matches('.show, .hiding')")
            assert page.evaluate("document.activeElement.getAttribute('aria-controls')") == "menu"


class TestKeys:
    def test_a_key_is_created_used_and_switched_off(self, open_screen):
        screen = open_screen()
        page = screen.page
        screen.go("admin/keys/new")
        page.get_by_label("Name", exact=True).fill("From the browser")
        page.get_by_role("button", name="Create the key").click()
        key = page.locator("#key").inner_text()
        ask = {"headers": {"X-API-Key": key}, "timeout": 60}
        assert httpx.get(f"{screen.url}/api/v1/status", **ask).status_code == 200
        page.get_by_role("link", name="I have it").click()
        page.get_by_role("link", name="Switch off").click()
        page.get_by_role("button", name="Switch off").click()
        page.get_by_text("is off.").wait_for()
        wait_until(lambda: httpx.get(f"{screen.url}/api/v1/status", **ask).status_code == 403)
        assert httpx.get(f"{screen.url}/api/v1/status", **ask).json()["error"] == "key_disabled"
        assert screen.problems == []


class TestLive:
    def test_figures_move_while_requests_run(self, open_screen, api_key):
        screen = open_screen(1440)
        screen.go("admin/")
        screen.page.get_by_text("live", exact=True).wait_for()
        note = screen.page.locator("#live-tiles .tile").first.locator(".tile-note")

        def shown() -> int:
            return int(note.inner_text().split()[0].replace(",", ""))

        before = shown()
        for _ in range(60):
            httpx.get(f"{screen.url}/api/v1/cache/stats", headers={"X-API-Key": api_key}, timeout=60)
        wait_until(lambda: shown() >= before + 30, timeout_s=60)
        assert screen.problems == []
        screen.shoot("overview")


ROWS = """
() => {
  const rows = Object.groupBy(document.querySelectorAll("#live-tiles .tile"), (tile) => tile.offsetTop);
  return Object.values(rows).map((row) => row.length);
}
"""  # in one go: the tiles are made anew each second


class TestOverview:
    @pytest.mark.parametrize(("width", "in_a_row"), [(360, 2), (800, 4), (1000, 4), (1920, 4)])
    def test_every_row_of_figures_is_full(self, open_screen, width, in_a_row):
        screen = open_screen(width)
        screen.go("admin/")
        assert set(screen.page.evaluate(ROWS)) == {in_a_row}


class TestTelegram:
    def test_a_bad_token_is_explained(self, open_screen):
        screen = open_screen()
        screen.go("admin/telegram/bots/new")
        screen.page.get_by_label("Token").fill("999999:not-a-token-that-telegram-knows")
        screen.page.get_by_role("button", name="Check and add").click()
        screen.page.get_by_text("Telegram refuses this token.").wait_for()


def test_pictures_for_the_documentation(open_screen):
    for name, path, width, theme in (
        ("cache", "admin/cache", 1280, "dark"),
        ("analytics", "admin/analytics", 1280, "light"),
        ("overview-phone", "admin/", 390, "light"),
    ):
        screen = open_screen(width, theme=theme)
        screen.go(path)
        assert screen.page.locator("h1").count() == 1
        if name == "analytics":
            screen.page.locator("#charts").wait_for(state="visible")
            assert screen.page.locator("#t-videos").locator("xpath=../..").locator("tbody tr").count() == 10
        screen.shoot(name)
