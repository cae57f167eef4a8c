"""A video is fetched from the admin, watched while it comes, played and sought: from this server and from Telegram."""

from __future__ import annotations

import pytest

from apps.downloads.documents import JobState, MediaJob
from apps.telegram_cache.documents import Asset, AssetState
from tests.waiting import wait_until

VIDEO = "largeplayed"  # 100 s, several MiB: a browser does not hold all of it before it seeks
WATCHED = "largewatchd"
TICKED = "largeticked"
SLOW_BYTES_PER_S = 800_000
MOVED_ON = """
(before) => {
  const bar = document.getElementById("job-bar");
  return window.sameDocument && bar.hasAttribute("value") && bar.value > before && bar.value < 100;
}
"""
SEEK = """
async (video, seconds) => {
  video.muted = true;
  await video.play();
  video.currentTime = seconds;
  await new Promise((done) => video.addEventListener("seeked", done, { once: true }));
  return [video.currentTime, video.videoWidth, video.error === null];
}
"""


def try_it(page, url: str, video_id: str) -> None:
    """Paste the link, look at what it is, choose a quality; ends on the asset's page."""
    page.goto(f"{url}/admin/try")
    page.get_by_label("YouTube link or video id").fill(f"https://youtu.be/{video_id}")
    page.get_by_role("button", name="Look it up").click()
    page.get_by_label("What would you like?").select_option("video:360p")
    page.get_by_role("button", name="Get it").click()
    page.wait_for_url("**/admin/cache/*")


@pytest.fixture(scope="module")
def asset_page(instance, browser, session) -> str:
    """The address of the asset's page, after an admin pasted the link and chose a quality."""
    context = browser.new_context(storage_state=session)
    context.set_default_timeout(60_000)
    page = context.new_page()
    try_it(page, instance.url, VIDEO)
    path = page.url.removeprefix(f"{instance.url}/")
    context.close()
    return path


class TestWatching:
    def test_the_progress_of_a_job_moves_over_its_websocket_until_the_page_tells_the_end(self, open_screen, world):
        world.slow_down(SLOW_BYTES_PER_S)
        screen = open_screen()
        page, sockets = screen.page, []
        page.on("websocket", lambda socket: sockets.append(socket.url))
        try_it(page, screen.url, WATCHED)
        page.get_by_role("link", name="Its job").click()
        page.get_by_role("heading", name="Progress").wait_for()
        page.evaluate("window.sameDocument = true")
        seen = 0.0
        for _ in range(3):
            page.wait_for_function(MOVED_ON, arg=seen)
            seen = page.evaluate("document.getElementById('job-bar').value")
        assert 0 < seen < 100
        assert " of " in page.locator("#job-words").inner_text()
        page.locator("h1 .state", has_text="done").wait_for()
        assert MediaJob.objects.get(video_id=WATCHED).state == JobState.DONE
        assert any("/ws/jobs/" in address for address in sockets)
        assert (screen.refused(), screen.problems) == ([], [])

    def test_a_list_of_jobs_goes_on_telling_while_a_row_is_ticked(self, open_screen, world):
        world.slow_down(SLOW_BYTES_PER_S)
        screen = open_screen()
        try_it(screen.page, screen.url, TICKED)
        screen.go("admin/jobs")
        row = screen.page.locator("tbody tr", has_text=TICKED)
        row.locator(".tick input").check()
        row.locator("progress").wait_for()
        screen.page.evaluate("row => { window.ofBefore = row; }", row.element_handle())
        for words in ("running", "done"):
            row.locator(".state", has_text=words).wait_for()
            assert row.locator(".tick input").is_checked()
        assert row.evaluate("row => row === window.ofBefore && document.activeElement.matches('.tick input')")
        assert (screen.refused(), screen.problems) == ([], [])


def play_and_seek(screen, seconds: float) -> None:
    video = screen.page.locator("video")
    reached, width, fine = video.evaluate(SEEK, seconds)
    assert (abs(reached - seconds) < 5, width, fine) == (True, 640, True)
    screen.page.wait_for_function("from => document.querySelector('video').currentTime > from", arg=seconds)


class TestPlaying:
    def test_from_this_server(self, open_screen, asset_page):
        wait_until(lambda: not MediaJob.objects.get(video_id=VIDEO).active, timeout_s=120)
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
