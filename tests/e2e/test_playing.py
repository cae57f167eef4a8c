"""A video is fetched from the admin, played and sought in a real browser: from this server, then from Telegram."""

from __future__ import annotations

import pytest

from apps.telegram_cache.documents import Asset, AssetState
from tests.waiting import wait_until

VIDEO = "largeplayed"  # 100 s, several MiB: a browser does not hold all of it before it seeks
SEEK = """
async (video, seconds) => {
  video.muted = true;
  await video.play();
  video.currentTime = seconds;
  await new Promise((done) => video.addEventListener("seeked", done, { once: true }));
  return [video.currentTime, video.videoWidth, video.error === null];
}
"""


@pytest.fixture(scope="module")
def asset_page(instance, browser, session) -> str:
    """The address of the asset's page, after an admin pasted the link and chose a quality."""
    context = browser.new_context(storage_state=session)
    context.set_default_timeout(60_000)
    page = context.new_page()
    page.goto(f"{instance.url}/admin/try")
    page.get_by_label("YouTube link or video id").fill(f"https://youtu.be/{VIDEO}")
    page.get_by_role("button", name="Look it up").click()
    page.get_by_label("What would you like?").select_option("video:360p")
    page.get_by_role("button", name="Get it").click()
    page.wait_for_url("**/admin/cache/*")
    path = page.url.removeprefix(f"{instance.url}/")
    context.close()
    return path


def play_and_seek(screen, seconds: float) -> None:
    video = screen.page.locator("video")
    reached, width, fine = video.evaluate(SEEK, seconds)
    assert (abs(reached - seconds) < 5, width, fine) == (True, 640, True)
    screen.page.wait_for_function("from => document.querySelector('video').currentTime > from", arg=seconds)


class TestPlaying:
    def test_from_this_server_while_it_may_still_be_fetched(self, open_screen, asset_page):
        screen = open_screen()
        screen.go(asset_page)
        play_and_seek(screen, 60)
        play_and_seek(screen, 20)
        assert (screen.refused(), screen.problems) == ([], [])

    def test_from_telegram_when_the_file_left_this_server(self, open_screen, asset_page):
        def state() -> str:
            return Asset.objects.get(video_id=VIDEO).state

        wait_until(lambda: state() == AssetState.CACHED.value, timeout_s=120)
        screen = open_screen()
        screen.go(f"{asset_page}/evict")
        screen.page.get_by_role("button", name="Evict").click()
        screen.page.get_by_text("It is no longer on this server.").wait_for()
        play_and_seek(screen, 70)
        assert (screen.refused(), screen.problems) == ([], [])
