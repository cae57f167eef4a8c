"""The admin in a real browser: it works, fits every screen, and breaks neither the CSP nor the console's silence."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import httpx
import pytest
from django.core.wsgi import get_wsgi_application

from apps.core.redis import redis_client
from apps.core.wake import publish
from apps.dashboard.frontend import missing_files
from apps.dashboard.live.publisher import LEASE_KEY
from apps.downloads.documents import JobState, MediaJob
from apps.downloads.services.jobs import finish_job, update_job
from apps.keys.changes import add_user
from apps.keys.documents import ApiKey, Role, Scope
from apps.keys.services import create_key
from apps.telegram_cache.documents import AssetState
from tests.core.serving import serving
from tests.dashboard.conftest import PASSWORD
from tests.dashboard.samples import fill_server, make_asset, make_job
from ytserver.entrance import Entrance

CHROMIUM = shutil.which("chromium")
WIDTHS = (360, 1280)
PAGES = ("", "keys", "keys/new", "cache", "jobs", "telegram", "telegram/bots/new", "telegram/channels/new",
         "telegram/bots/123456", "telegram/channels/-1001234567890", "audit",
         "analytics", "analytics?range=30d")  # fmt: skip

pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed (Debian: apt install chromium)"),
    pytest.mark.skipif(bool(missing_files()), reason="the front-end files are not installed (make setup)"),
]


@dataclass
class Screen:
    """A browser page, and everything it complained about."""

    page: object
    url: str
    problems: list[str] = field(default_factory=list)

    def go(self, path: str) -> None:
        self.page.goto(f"{self.url}/admin/{path}", wait_until="load")

    def note_failure(self, request) -> None:
        if request.failure != "net::ERR_ABORTED":  # the page was left before its answer was read
            self.problems.append(f"{request.failure}: {request.url}")

    def log_in(self) -> None:
        self.go("")
        self.page.get_by_label("Name").fill("the-owner")
        self.page.get_by_label("Password").fill(PASSWORD)
        self.page.get_by_role("button", name="Log in").click()
        self.page.wait_for_url(f"{self.url}/admin/")

    def overflow_px(self) -> int:
        return self.page.evaluate("document.documentElement.scrollWidth - window.innerWidth")


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def served() -> Iterator[str]:
    """The whole server behind real sockets, as ``ytserver.asgi`` puts it together."""
    with serving(Entrance(get_wsgi_application()), ws="websockets-sansio") as url:
        yield url


@pytest.fixture
def site(served, make_user) -> str:
    make_user(Role.OWNER)
    return served


@pytest.fixture
def open_screen(browser, site) -> Iterator[Callable[..., Screen]]:
    contexts = []

    def make(width: int = 1280, **options: object) -> Screen:
        context = browser.new_context(viewport={"width": width, "height": 900}, **options)
        context.set_default_timeout(60_000)
        contexts.append(context)
        screen = Screen(page=context.new_page(), url=site)
        screen.page.on("console", lambda entry: entry.type == "error" and screen.problems.append(entry.text))
        screen.page.on("pageerror", lambda error: screen.problems.append(str(error)))
        screen.page.on("requestfailed", lambda request: screen.note_failure(request))
        return screen

    yield make
    for context in contexts:
        context.close()


@pytest.mark.parametrize("width", WIDTHS)
def test_every_page_fits_and_nothing_complains(open_screen, width):
    key = fill_server()
    screen = open_screen(width)
    screen.log_in()
    for path in (*PAGES, f"keys/{key.prefix}", f"keys/{key.prefix}/deactivate"):
        screen.go(path)
        assert screen.page.locator("h1").count() == 1, path
        assert screen.overflow_px() <= 0, path
    assert screen.problems == []


@pytest.mark.parametrize("width", WIDTHS)
def test_a_key_is_created_copied_used_and_switched_off(open_screen, width):
    screen = open_screen(width, permissions=["clipboard-read", "clipboard-write"])
    page = screen.page
    screen.log_in()
    screen.go("keys")
    page.get_by_role("link", name="Create a key").first.click()
    page.get_by_role("button", name="Create the key").click()
    page.get_by_text("Nothing was saved.").wait_for()
    assert page.get_by_text("This field is required.").count() == 1
    assert page.evaluate("document.activeElement.name") == "name"
    page.get_by_label("Name").fill("Music bot")
    page.get_by_role("button", name="Create the key").click()
    key = page.locator("#key").inner_text()
    assert key in page.locator("#curl").inner_text()
    page.get_by_role("button", name="Copy").first.click()
    page.get_by_text("Copied").wait_for()
    assert page.evaluate("navigator.clipboard.readText()") == key
    headers = {"X-API-Key": key}
    assert httpx.get(f"{screen.url}/api/v1/status", headers=headers, timeout=60).status_code == 200
    page.get_by_role("link", name="I have it").click()
    page.get_by_role("link", name="Switch off").click()
    page.get_by_role("button", name="Switch off").click()
    page.get_by_text("is off.").wait_for()
    assert key not in page.content()
    assert screen.overflow_px() <= 0
    assert screen.problems == [
        "Failed to load resource: the server responded with a status of 422 (Unprocessable Entity)"
    ]


# Whatever stands in a card, and is wider than it: the card cuts it off.
CUT_OFF = """
() => [...document.querySelectorAll("main .card, main h1, main .crumb")].flatMap((card) =>
  [...card.querySelectorAll("a, .state, .tag, th, time, button")]
    .filter((part) => !part.closest(".visually-hidden") && part.getBoundingClientRect().width > 0)
    .filter((part) => part.getBoundingClientRect().right > card.getBoundingClientRect().right + 1)
    .map((part) => part.textContent))
"""


@pytest.mark.parametrize("width", [360, 800, 1280])
def test_names_without_a_space_leave_everything_else_in_sight(open_screen, width):
    add_user("kim", {}, actor="test")
    create_key(name="W" * 100, owner="kim", scopes=(Scope.INFO.value, Scope.MEDIA.value, Scope.SEARCH.value))
    asset = make_asset(1, title="W" * 300, size_bytes=10**9, access_count=10**6, uploader="W" * 90)
    screen = open_screen(width)
    screen.log_in()
    for path in ("keys", "users/of/kim", "cache", f"cache/{asset.id}", f"cache/{asset.id}/evict"):
        screen.go(path)
        assert screen.overflow_px() <= 0, path
        assert screen.page.evaluate(CUT_OFF) == [], path


def test_all_that_match_are_chosen_beyond_the_page(open_screen):
    for number in range(53):
        create_key(name=f"wheelbarrow {number}")
    screen = open_screen()
    page = screen.page
    screen.log_in()
    screen.go("keys?q=wheelbarrow")
    everything = page.get_by_label("All 53 keys that match")
    assert not everything.is_visible()
    ticks = page.locator("tbody .tick input")
    ticks.nth(1).click()
    ticks.nth(4).click(modifiers=["Shift"])
    assert page.locator("tbody .tick input:checked").count() == 4
    page.get_by_label("All rows of this page").check()
    everything.check()
    ticks.nth(0).uncheck()  # then it is not everything
    assert not everything.is_visible()
    ticks.nth(0).check()
    assert not everything.is_checked()
    everything.check()
    page.get_by_role("button", name="Switch off").first.click()
    page.get_by_role("heading", name="Switch 53 keys off?").wait_for()
    page.get_by_role("button", name="Switch off").click()
    page.get_by_text("53 keys switched off.").wait_for()
    assert ApiKey.objects(active=False).count() == 53
    assert screen.problems == []


class TestTicks:
    """Ticks, the question, the password, and the way back."""

    def tick(self, page, *names):
        for name in names:
            page.locator("tbody tr").filter(has_text=name).get_by_role("checkbox").check()

    def ticked(self, page) -> list[str]:
        return page.locator("tbody .tick :checked").evaluate_all("ticks => ticks.map(tick => tick.ariaLabel).sort()")

    def test_are_there_still_for_who_goes_back_and_exactly_those_are_changed(self, open_screen):
        keys = {name: create_key(name=name, scopes=("admin",)).document for name in ("ash", "birch", "cedar")}
        names = sorted(f"{name} ({keys[name].prefix})" for name in ("ash", "cedar"))
        screen = open_screen()
        page = screen.page
        screen.log_in()
        screen.go("keys")
        self.tick(page, "ash", "cedar")
        page.get_by_role("button", name="Delete").click()
        page.get_by_label("Your password").fill("not this one")
        page.get_by_role("button", name="Go on").click()
        page.locator(".field-error", has_text="The password is wrong.").wait_for()
        page.get_by_role("link", name="Go back").click()
        page.wait_for_url(f"{screen.url}/admin/keys")
        assert self.ticked(page) == names
        assert page.locator("[data-bulk-count]").inner_text() == "2 chosen:"
        page.get_by_role("button", name="Delete").click()
        page.get_by_label("Your password").fill(PASSWORD)
        page.get_by_role("button", name="Go on").click()
        page.get_by_role("heading", name="Delete 2 keys?").wait_for()
        page.get_by_role("link", name="Go back").click()
        page.wait_for_url(f"{screen.url}/admin/keys")
        assert self.ticked(page) == names
        page.get_by_role("button", name="Delete").click()
        page.get_by_role("button", name="Delete").click()
        page.get_by_text("2 keys deleted.").wait_for()
        assert [key.name for key in ApiKey.objects] == ["birch"]

    def test_are_everything_still_for_who_goes_back_from_that(self, open_screen):
        for number in range(53):
            create_key(name=f"wheelbarrow {number}")
        screen = open_screen()
        page = screen.page
        screen.log_in()
        screen.go("keys?q=wheelbarrow")
        page.get_by_label("All rows of this page").check()
        page.get_by_label("All 53 keys that match").check()
        page.get_by_role("button", name="Switch off").first.click()
        page.get_by_role("link", name="Go back").click()
        page.wait_for_url(f"{screen.url}/admin/keys?q=wheelbarrow")
        assert page.get_by_label("All 53 keys that match").is_checked()
        assert page.locator("[data-bulk-count]").inner_text() == "All chosen:"
        assert screen.problems == []

    def test_that_were_taken_back_stay_so_in_a_list_that_moves(self, open_screen):
        job, _ = make_job(1), make_job(2)
        screen = open_screen()
        page = screen.page
        screen.log_in()
        screen.go("jobs")
        self.tick(page, job.video_id)
        page.get_by_role("button", name="Cancel").first.click()
        page.get_by_role("link", name="Go back").click()
        box = page.locator("tbody tr").filter(has_text=job.video_id).get_by_role("checkbox")
        box.uncheck()
        page.locator("h1").click()
        late = make_job(3)
        page.locator("tbody tr").filter(has_text=late.video_id).wait_for()
        assert not box.is_checked()


class TestLiveList:
    """The list of jobs reads itself anew every three seconds, and nothing moves under somebody's hands."""

    @pytest.fixture
    def screen(self, open_screen) -> Screen:
        screen = open_screen()
        screen.log_in()
        return screen

    def row(self, screen, job):
        return screen.page.locator("tbody tr").filter(has_text=job.video_id)

    def move(self, job, **fields) -> None:
        MediaJob.objects(id=job.id).update(**fields)

    def test_rows_move_while_one_has_the_focus_and_another_is_ticked(self, screen):
        ticked, focused = make_job(1, bytes_total=100), make_job(2, bytes_total=100)
        screen.go("jobs")
        self.row(screen, ticked).get_by_role("checkbox").check()
        self.row(screen, focused).get_by_role("link", name=focused.video_id).focus()
        for job in (ticked, focused):
            self.move(job, bytes_done=60)
        for job in (ticked, focused):
            self.row(screen, job).locator("progress[value='60']").wait_for()
        assert self.row(screen, ticked).get_by_role("checkbox").is_checked()
        assert "1 chosen:" in screen.page.locator("[data-bulk-count]").inner_text()
        assert screen.page.evaluate("document.activeElement.textContent") == focused.video_id
        assert screen.problems == []

    def test_the_focus_stays_in_its_row_when_what_had_it_is_gone(self, screen):
        job, other = make_job(1), make_job(2)
        screen.go("jobs")
        self.row(screen, job).get_by_role("link", name="Cancel").focus()
        for one in (job, other):
            self.move(one, state=JobState.FAILED.value, active=False)
        self.row(screen, job).get_by_role("link", name="Try again").wait_for()
        assert screen.page.evaluate("document.activeElement.value") == job.id  # its tick: Enter must do nothing else

    def test_rows_come_and_go_only_when_nothing_is_ticked(self, screen):
        job, ends = make_job(1), make_job(2)
        screen.go("jobs?active=yes")
        self.row(screen, job).get_by_role("checkbox").check()
        late = make_job(3)
        self.move(ends, state=JobState.DONE.value, active=False)
        screen.page.locator("tbody tr.gone").filter(has_text=ends.video_id).wait_for()
        assert self.row(screen, late).count() == 0
        self.row(screen, job).get_by_role("checkbox").uncheck()
        screen.page.locator("h1").click()  # the focus is elsewhere too
        self.row(screen, late).wait_for()
        self.row(screen, ends).wait_for(state="detached")
        assert screen.problems == []

    def test_a_search_field_with_the_focus_keeps_nothing_waiting(self, screen):
        make_job(1)
        screen.go("jobs")
        field = screen.page.get_by_role("searchbox")
        field.fill("half a wo")
        late = make_job(2)
        self.row(screen, late).wait_for()
        assert field.input_value() == "half a wo"
        assert screen.page.evaluate("document.activeElement.type") == "search"


def test_the_theme_switch_is_remembered(open_screen):
    screen = open_screen()
    screen.log_in()
    theme = "document.documentElement.dataset.bsTheme"
    assert screen.page.evaluate(theme) == "dark"
    screen.page.get_by_role("button", name="Light theme").click()
    screen.go("keys")
    assert screen.page.evaluate(theme) == "light"
    assert screen.problems == []


def test_the_narrow_menu_opens_and_leads_on(open_screen):
    screen = open_screen(360)
    screen.log_in()
    assert not screen.page.get_by_role("link", name="Jobs", exact=True).is_visible()
    screen.page.get_by_role("button", name="Menu", exact=True).click()
    screen.page.get_by_role("link", name="Jobs", exact=True).click()
    screen.page.get_by_role("heading", name="Jobs", exact=True).wait_for()
    assert screen.problems == []


def test_the_keyboard_is_enough(open_screen):
    fill_server()
    screen = open_screen()
    screen.log_in()
    screen.go("keys")
    screen.page.keyboard.press("Tab")
    assert screen.page.evaluate("document.activeElement.textContent") == "Skip to the content"
    screen.page.keyboard.press("Escape")
    screen.page.locator("body").press("/")
    screen.page.keyboard.type("website")
    screen.page.keyboard.press("Enter")
    screen.page.wait_for_url("**/keys?q=website")
    assert screen.page.locator("tbody tr").count() == 1
    screen.page.locator("h1").press("n")
    screen.page.get_by_role("heading", name="Create a key").wait_for()


def test_a_filter_is_chosen_with_the_arrow_keys_and_enter(open_screen):
    fill_server()
    screen = open_screen()
    screen.log_in()
    screen.go("keys")
    state = screen.page.get_by_label("State")
    wanted = state.locator("option").nth(2).get_attribute("value")
    asked = []
    screen.page.on("request", lambda request: request.is_navigation_request() and asked.append(request.url))
    state.focus()
    for _ in range(2):
        screen.page.keyboard.press("ArrowDown")
    assert state.input_value() == wanted
    screen.page.keyboard.press("Enter")
    screen.page.wait_for_url(f"**/keys?state={wanted}")
    assert asked == [f"{screen.url}/admin/keys?state={wanted}"]  # not one for each step
    screen.page.wait_for_function("document.activeElement.name === 'state'")
    letter = state.locator("option").nth(1).inner_text()[0]
    screen.page.keyboard.press(letter)
    assert state.input_value() != wanted
    screen.page.keyboard.press("Enter")
    screen.page.wait_for_url(lambda address: address != asked[0])
    screen.page.wait_for_function("document.activeElement.name === 'state'")
    assert len(asked) == 2


@pytest.mark.parametrize("opens", ["Space", "Alt+ArrowDown"])
@pytest.mark.parametrize("by_mouse", [False, True])
def test_a_filter_that_was_opened_by_keyboard_applies_what_is_chosen_in_it(open_screen, opens, by_mouse):
    fill_server()
    screen = open_screen()
    screen.log_in()
    screen.go("keys")
    state = screen.page.get_by_label("State")
    wanted = state.locator("option").nth(1).get_attribute("value")
    state.focus()
    screen.page.keyboard.press(opens)
    screen.page.wait_for_function("document.activeElement.matches(':open')")
    if by_mouse:  # a browser's own list is no part of the page: this is what the page hears of a click in it
        state.select_option(wanted)
    else:
        screen.page.keyboard.press("ArrowDown")
        screen.page.keyboard.press("Enter")
    screen.page.wait_for_url(f"**/keys?state={wanted}")
    assert screen.problems == []


def test_who_sorts_by_keyboard_stays_on_the_column_and_who_clicks_gets_no_focus(open_screen):
    fill_server()
    screen = open_screen()
    screen.log_in()
    screen.go("keys")
    column = screen.page.locator("thead a").nth(1)
    column.focus()
    for _ in range(2):
        address = screen.page.url
        screen.page.keyboard.press("Enter")
        screen.page.wait_for_url(lambda now, before=address: now != before)
        screen.page.wait_for_function("document.activeElement === document.querySelectorAll('thead a')[1]")
        assert screen.page.evaluate("document.activeElement.closest('th').ariaSort") in ("ascending", "descending")
    screen.page.locator("thead a").nth(0).click()
    screen.page.wait_for_function("document.activeElement === document.body")
    assert screen.problems == []


def test_enter_on_a_ticked_row_presses_no_button(open_screen):
    fill_server()
    screen = open_screen()
    screen.log_in()
    screen.go("keys")
    asked = []
    screen.page.on("request", lambda request: request.is_navigation_request() and asked.append(request.url))
    screen.page.locator("tbody .tick input").first.check()
    screen.page.keyboard.press("Enter")
    screen.page.locator(".bulk-tools button").last.press("Enter")
    screen.page.locator("tbody .tick input").first.wait_for(state="detached")
    assert len(asked) == 1


# What has the focus and is not to be seen: out of the window, or under something else.
HIDDEN_FOCUS = """
() => {
  const part = document.activeElement;
  if (part === document.body) return "end";
  const box = part.getBoundingClientRect();
  const top = document.elementFromPoint(Math.min(box.left + box.width / 2, innerWidth - 1), box.top + box.height / 2);
  return top && (part.contains(top) || top.contains(part)) ? "" : part.outerHTML.slice(0, 200);
}
"""


@pytest.mark.parametrize("key", ["Tab", "Shift+Tab"])
def test_what_has_the_focus_is_in_sight_also_in_a_low_window(open_screen, key):
    fill_server()
    screen = open_screen(reduced_motion="reduce")  # a smooth scroll is not there yet when it is looked at
    screen.log_in()
    screen.page.set_viewport_size({"width": 1280, "height": 480})
    for path in ("", "keys", "jobs", "settings"):
        screen.go(path)
        hidden, found = [], ""
        for _ in range(400):
            screen.page.keyboard.press(key)
            found = screen.page.evaluate(HIDDEN_FOCUS)
            if found == "end":
                break
            hidden += [found] if found else []
        assert (path, found, hidden) == (path, "end", [])


# What is smaller than a fingertip may be (WCAG 2.5.8), but for links in a sentence.
SMALL = """
() => [...document.querySelectorAll("a[href], button, input:not([type=hidden]), select, textarea, summary")]
  .filter((part) => part.checkVisibility({ visibilityProperty: true }) && !part.closest(".visually-hidden, .skip-link"))
  .filter((part) => !(getComputedStyle(part).display === "inline" && part.closest("p, li, dd, .note, .form-text")
    && [...part.parentElement.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim())))
  .map((part) => [part.getBoundingClientRect(), part.outerHTML.slice(0, 150)])
  .filter(([box]) => box.width && (box.width < 24 || box.height < 24))
  .map(([box, text]) => `${box.width} ${box.height} ${text}`)
"""


def test_fingers_find_everything(open_screen):
    key = fill_server()
    screen = open_screen(360, has_touch=True, is_mobile=True)
    screen.log_in()
    for path in (*PAGES, f"keys/{key.prefix}", f"keys/{key.prefix}/edit", "users", "warm-ups/new", "settings"):
        screen.go(path)
        assert (path, screen.page.evaluate(SMALL)) == (path, [])
        assert screen.overflow_px() <= 0, path
    screen.page.goto(f"{screen.url}/admin/nosuchpage")
    assert screen.page.evaluate("innerWidth") == 360
    screen.page.goto(f"{screen.url}/api/v1/")
    path, bar = screen.page.locator(".breadcrumb").bounding_box(), screen.page.locator(".navbar").bounding_box()
    assert path["y"] >= bar["y"] + bar["height"]


def test_without_scripts_the_main_things_work(open_screen):
    fill_server()
    screen = open_screen(360, java_script_enabled=False)
    screen.log_in()
    screen.page.get_by_role("button", name="Menu", exact=True).click()
    screen.page.get_by_role("link", name="API keys", exact=True).click()
    screen.page.get_by_label("Search name, owner or prefix").fill("website")
    screen.page.get_by_role("button", name="Search").click()
    assert screen.page.locator("tbody tr").count() == 1
    screen.page.get_by_role("link", name="Switch off").click()
    screen.page.get_by_role("button", name="Switch off").click()
    assert screen.page.get_by_text("is off.").is_visible()


def test_the_overview_refreshes_itself(open_screen):
    from playwright.sync_api import expect

    screen = open_screen()
    screen.page.clock.install()
    screen.log_in()
    tile = screen.page.locator(".tile", has_text="Active jobs").locator(".tile-value")
    assert tile.inner_text() == "0"
    fill_server()
    screen.page.clock.fast_forward(31_000)
    expect(tile).to_have_text("3", timeout=15_000)
    assert screen.problems == []


class LiveServer:
    """Stands where the websocket of the overview would be: sends what the test says."""

    START = 1_700_000_000

    def __init__(self, screen: Screen) -> None:
        self.sockets: list[object] = []
        self.closed = 0
        screen.page.route_web_socket("**/ws/admin/live", self._opened)

    def _opened(self, socket) -> None:
        socket.on_close(self._note_close)
        self.sockets.append(socket)

    def _note_close(self, *_: object) -> None:
        self.closed += 1

    def send(self, kind: str, **message: object) -> None:
        self.sockets[-1].send(json.dumps({"type": kind, **message}))

    def history(self, *, last: int, answered: float = 0.0) -> dict[str, object]:
        """An hour up to the step number ``last``."""
        return self.steps(range(last - 359, last + 1), answered)

    def send_moment(self, *, step: int, answered: float, refused_now: float = 0.0) -> None:
        now = {
            "at": self.START + 10 * (step + 1) + 3, "requests_per_s": 4.0, "refused_per_s": refused_now,
            "errors_per_s": 0.0, "error_rate": 1.0, "refused_rate": 1.0, "first_byte_p50_s": None,
            "first_byte_p95_s": None, "bytes_per_s": 0.0, "users": 0, "streams": 0,
        }  # fmt: skip
        self.send("moment", figures=now, step=self.steps(range(step, step + 1), answered), pieces={})

    def steps(self, numbers: range, answered: float) -> dict[str, object]:
        names = ("errors_per_s", "refused_per_s", "bytes_per_s", "first_byte_p50_s", "first_byte_p95_s", "streams")
        starts = [self.START + 10 * number for number in numbers]
        zeros = {name: [0.0] * len(starts) for name in (*names, "users")}
        return {"step_s": 10, "starts": starts, "requests_per_s": [answered] * len(starts), **zeros, "tiers": {}}


class TestLiveOverview:
    ANSWERED = "() => Chart.getChart('chart-requests').data.datasets[0].data"
    LABELS = "() => Chart.getChart('chart-requests').data.labels"

    @pytest.fixture
    def screen(self, open_screen) -> Screen:
        return open_screen()

    @pytest.fixture
    def live(self, screen) -> LiveServer:
        return LiveServer(screen)

    @pytest.fixture
    def page(self, screen, live):
        screen.log_in()
        screen.page.wait_for_function("() => document.getElementById('fresh')")
        wait_for(screen.page, lambda: live.sockets)
        return screen.page

    def test_charts_show_each_step_as_the_server_counted_it_and_then_the_moment(self, page, live):
        live.send("history", **live.history(last=500, answered=2.0))
        live.send_moment(step=501, answered=3.0, refused_now=1.0)
        page.wait_for_function(f"() => ({self.ANSWERED})().at(-1) === 3")  # of now, not of the last minute
        assert page.evaluate(self.ANSWERED)[-3:] == [2.0, 3.0, 3.0]
        live.send_moment(step=501, answered=7.0)  # a process told its counts late
        page.wait_for_function(f"() => ({self.ANSWERED})().at(-1) === 4")
        assert page.evaluate(self.ANSWERED)[-3:] == [2.0, 7.0, 4.0]
        assert len(page.evaluate(self.LABELS)) == 361

    def test_a_page_that_slept_asks_for_what_it_missed(self, page, live):
        live.send_moment(step=500, answered=2.0)
        page.get_by_text("live", exact=True).wait_for()
        page.route("**/admin/overview/history", lambda route: route.fulfill(json=live.history(last=540, answered=9.0)))
        live.send("history", **live.history(last=500, answered=2.0))

        def has_asked() -> bool:
            live.send_moment(step=540, answered=5.0)  # so that it does not ask for want of a connection
            return page.evaluate(self.ANSWERED)[0] == 9.0

        wait_for(page, has_asked)
        assert set(page.evaluate(self.ANSWERED)[:360]) == {9.0}

    def test_a_lost_connection_is_said_at_once_and_made_again(self, page, live):
        live.send("history", **live.history(last=500))
        live.send_moment(step=500, answered=0.0)
        page.get_by_text("live", exact=True).wait_for()
        live.sockets[-1].close()
        page.get_by_text("connection lost, trying again").wait_for()
        wait_for(page, lambda: len(live.sockets) == 2)
        live.send("history", **live.history(last=500))
        live.send_moment(step=500, answered=0.0)
        page.get_by_text("live", exact=True).wait_for()

    def test_a_connection_that_died_without_a_word_is_made_again(self, screen, live):
        screen.page.clock.install()
        screen.log_in()
        wait_for(screen.page, lambda: live.sockets)
        live.send("history", **live.history(last=500))
        live.send_moment(step=500, answered=0.0)
        screen.page.get_by_text("live", exact=True).wait_for()
        screen.page.clock.fast_forward(9_000)
        wait_for(screen.page, lambda: len(live.sockets) == 2)

    def test_a_page_that_comes_back_twice_holds_one_connection(self, page, live):
        for _ in range(2):  # brought back from the browser's memory, then looked at
            page.evaluate("() => window.dispatchEvent(new PageTransitionEvent('pageshow', { persisted: true }))")
        wait_for(page, lambda: len(live.sockets) == 3)
        wait_for(page, lambda: live.closed == 2)

    def test_nothing_is_computed_for_a_page_that_nobody_sees(self, open_screen):
        screen = open_screen()
        screen.page.clock.install()
        screen.log_in()
        screen.page.get_by_text("live", exact=True).wait_for()
        wait_for(screen.page, lambda: redis_client().get(LEASE_KEY))  # it is renewed each second
        see = """(hidden) => {
          Object.defineProperty(document, "hidden", { value: hidden, configurable: true });
          document.dispatchEvent(new Event("visibilitychange"));
        }"""
        screen.page.evaluate(see, True)
        screen.page.clock.fast_forward(61_000)
        wait_for(screen.page, lambda: redis_client().get(LEASE_KEY) is None)
        screen.page.evaluate(see, False)
        screen.page.get_by_text("live", exact=True).wait_for()
        assert screen.problems == []


def wait_for(page, condition: Callable[[], object]) -> None:
    """Wait for something outside the browser, while its events are taken care of."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        page.wait_for_timeout(20)


class TestTheEndOfAFetch:
    """js/job.js, on the page of a file that is being fetched."""

    @pytest.fixture
    def job(self, site):
        make_asset(1, state=AssetState.FETCHING, title="A song", container="m4a", mime="audio/mp4")
        return make_job(1)

    @pytest.fixture
    def screen(self, open_screen, job):
        """It shows the progress over its websocket, so whatever comes later is heard."""
        screen = open_screen()
        screen.log_in()
        screen.go(f"cache/{job.asset_id}")
        update_job(job.id, stage="downloading", bytes_done=1000, bytes_total=4000)
        publish(f"asset:{job.asset_id}")
        screen.page.get_by_text("downloading, 1000 B of 3.9 KB").wait_for()
        screen.page.evaluate("window.isTheFirst = true")
        return screen

    def test_is_shown_by_reading_the_page_anew(self, screen, job):
        with screen.page.expect_navigation():
            finish_job(job.id)
        assert screen.page.evaluate("window.isTheFirst === undefined")

    def test_does_not_interrupt_who_plays(self, screen, job):
        page = screen.page
        page.locator("h1").click()  # browsers play nothing for who has touched nothing
        assert page.evaluate("(() => { const p = document.querySelector('audio'); p.play(); return !p.paused; })()")
        finish_job(job.id)
        page.get_by_text("The fetch has ended.").wait_for()
        assert page.evaluate("window.isTheFirst")
        with page.expect_navigation():
            page.get_by_role("link", name="Show what came of it").click()
        assert page.evaluate("window.isTheFirst === undefined")
