"""One whole instance, with stand-ins for what is outside, and one browser, for all of these tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pyotp
import pytest

from apps.core.secrets import decrypt_secret
from apps.dashboard.frontend import missing_files
from apps.downloads.documents import JobState, MediaJob
from apps.keys.documents import Role
from apps.keys.second_factor import finish_setup, new_pending
from apps.keys.services import create_key, create_user
from tests.dashboard.samples import fill_hour, fill_server, fill_usage
from tests.e2e.pages import Pages, fill_pages
from tests.e2e.screen import CHROMIUM, PICTURE, Screen, axe_source
from tests.emptying import empty_everything
from tests.instance import Instance
from tests.standins.demo import StandInWorld

OWNER, PASSWORD = "the-owner", "correct horse battery"
NO_WAY_OUT = ("--no-proxy-server", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1")  # asks this machine only


def _why_not() -> str:
    if CHROMIUM is None:
        return "chromium is not installed (Debian: apt install chromium)"
    if missing_files() or not axe_source().is_file():
        return "the front-end files are not installed (make setup)"
    return ""


@pytest.fixture(scope="package")
def world() -> Iterator[StandInWorld]:
    if reason := _why_not():
        pytest.skip(reason)
    with StandInWorld() as outside:
        yield outside


@pytest.fixture(scope="package")
def instance(world, tmp_path_factory) -> Iterator[Instance]:
    empty_everything()
    create_user(username=OWNER, password=PASSWORD, role=Role.OWNER)
    running = Instance(tmp_path_factory.mktemp("e2e"), world.environment)
    try:
        running.start()
        fill_server(with_telegram=False)
        fill_usage()
        fill_hour()
        MediaJob.objects(state=JobState.QUEUED.value).delete()  # nobody was told of it: it would take a real job's turn
        yield running
    finally:
        running.stop()


@pytest.fixture(scope="package")
def pages(instance) -> Pages:
    return fill_pages()


@dataclass(frozen=True)
class SecondFactor:
    """Somebody who logs in with a code too; each of ``codes`` works one time."""

    name: str
    codes: list[str]


@pytest.fixture(scope="package")
def with_second_factor(instance) -> SecondFactor:
    user = create_user(username="e2e-careful", password=PASSWORD, role=Role.OPERATOR)
    pending = new_pending()
    return SecondFactor(user.username, finish_setup(user, pending, pyotp.TOTP(decrypt_secret(pending)).now()))


@pytest.fixture(scope="package")
def api_key(instance) -> str:
    return create_key(name="e2e", owner="sam").key


@pytest.fixture(scope="package")
def browser(instance) -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", *NO_WAY_OUT])
        yield browser
        browser.close()


@pytest.fixture(scope="package")
def session(browser, instance) -> Any:
    """The cookies of the owner, logged in once by the form, who has just given the password again."""
    context = browser.new_context()
    context.set_default_timeout(60_000)
    screen = Screen(page=context.new_page(), url=instance.url)
    screen.log_in(OWNER, PASSWORD)
    screen.page.wait_for_url(f"{instance.url}/admin/")
    screen.go("admin/account/confirm?next=/admin/account")
    screen.page.get_by_label("Your password").fill(PASSWORD)
    screen.page.get_by_role("button", name="Go on").click()
    screen.page.wait_for_url(f"{instance.url}/admin/account")
    state = context.storage_state()
    context.close()
    return state


@pytest.fixture
def open_screen(browser, instance, session) -> Iterator[Callable[..., Screen]]:
    """A page of the owner's browser; ``known=False``: of somebody who has not logged in."""
    contexts = []

    def make(width: int = 1280, *, known: bool = True, theme: str = "dark", **options: Any) -> Screen:
        state = session if known else None
        context = browser.new_context(viewport={"width": width, "height": 900}, storage_state=state, **options)
        context.set_default_timeout(60_000)
        context.add_cookies([{"name": "theme", "value": theme, "url": instance.url}])
        context.route("https://i.ytimg.com/**", lambda route: route.fulfill(content_type="image/svg+xml", body=PICTURE))
        contexts.append(context)
        screen = Screen(page=context.new_page(), url=instance.url)
        screen.watch()
        return screen

    yield make
    for context in contexts:
        context.close()
