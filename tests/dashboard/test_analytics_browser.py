"""The analytics page in a real browser, with and without JavaScript."""

from __future__ import annotations

from datetime import timedelta

import pytest

from apps.analytics.rollups import roll_up
from apps.core.clock import utcnow
from apps.keys.services import create_key
from apps.telegram_cache.documents import Asset, AssetKey, MediaKind
from tests.analytics.samples import add_events
from tests.dashboard.test_browser import browser, open_screen, pytestmark, served, site  # noqa: F401 - fixtures

WIDER_THAN_THEIR_CARD = """
() => [...document.querySelectorAll(".table-responsive")]
  .filter((box) => box.scrollWidth > box.clientWidth && !box.closest("details:not([open])"))
  .map((box) => box.closest("section").getAttribute("aria-labelledby"))
"""


@pytest.fixture
def usage(site):  # noqa: F811 - the fixture
    now = utcnow()
    for hour in range(0, 24 * 9, 5):
        at = now - timedelta(hours=hour, minutes=hour % 50)
        add_events(at, 3 + hour % 7, first_byte_s=0.003 * (1 + hour % 5))
        add_events(at, 1, status=404, error="not_found", tier="external", video_id="bbbbbbbbbbb", first_byte_s=0.2)
        add_events(at, hour % 2, status=502, error="upstream_error", tier=None) if hour % 2 else None
    roll_up(wait=False)


@pytest.mark.parametrize("width", [360, 1280])
def test_charts_are_drawn_and_a_range_is_chosen(open_screen, usage, width):  # noqa: F811 - the fixture
    key = AssetKey("abcdefghijk", MediaKind.AUDIO, "m4a")
    Asset(id=key.asset_id, video_id=key.video_id, kind="audio", variant="m4a", state="cached", title="A" * 300).save()
    screen = open_screen(width)
    page = screen.page
    screen.log_in()
    screen.go("analytics")
    page.locator("#charts").wait_for(state="visible")
    page.get_by_role("link", name="7 days").click()
    page.locator("#charts").wait_for(state="visible")
    assert page.locator("canvas").count() == 3
    assert page.get_by_role("link", name="7 days").get_attribute("aria-current") == "true"
    page.get_by_label("Time zone").fill("Europe/Berlin")
    page.get_by_role("button", name="Show").click()
    page.get_by_text("From (Europe/Berlin)").wait_for(state="attached")
    assert screen.overflow_px() <= 0
    assert page.evaluate(WIDER_THAN_THEIR_CARD) == []
    assert screen.problems == []


ROWS = """
() => {
  const rows = Object.groupBy(document.querySelectorAll(".tiles .tile"), (tile) => tile.offsetTop);
  return Object.values(rows).map((row) => row.length);
}
"""


@pytest.mark.parametrize(("width", "in_a_row"), [(360, 2), (1300, 3), (1600, 6)])
def test_every_row_of_figures_is_full(open_screen, usage, width, in_a_row):  # noqa: F811 - the fixture
    screen = open_screen(width)
    screen.log_in()
    screen.go("analytics")
    assert set(screen.page.evaluate(ROWS)) == {in_a_row}


def test_the_page_of_a_key_shows_its_use(open_screen, usage):  # noqa: F811 - the fixture
    key = create_key(name="Bot", owner="the-owner", scopes=("info",)).document
    add_events(utcnow() - timedelta(hours=3), 5, key_prefix=key.prefix)
    roll_up(wait=False)
    screen = open_screen(360)
    screen.log_in()
    screen.go(f"keys/{key.prefix}")
    screen.page.get_by_role("img", name="Requests with this key in the last 7 days: 5 in all").wait_for()
    assert screen.overflow_px() <= 0
    assert screen.problems == []


def test_the_tables_say_the_same_without_javascript(open_screen, usage):  # noqa: F811 - the fixture
    screen = open_screen(1280, java_script_enabled=False)
    screen.log_in()
    screen.go("analytics?range=7d")
    screen.page.get_by_text("By time", exact=True).click()
    assert screen.page.locator("details tbody tr").first.is_visible()
    assert not screen.page.locator("#charts").is_visible()
