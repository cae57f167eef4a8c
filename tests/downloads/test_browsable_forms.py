"""The forms of the browsable API, sent as a browser sends them: every field of the page, the empty ones too."""

from __future__ import annotations

import json
from html.parser import HTMLParser

import pytest
from django.test import Client

from apps.downloads.warm_documents import WarmUp
from apps.keys.documents import ApiKey, Role
from apps.keys.services import create_user
from tests.downloads.library import VIDEO_ID, known_info

HTML = {"Accept": "text/html"}
OTHER_ID = "jNQXAC9IVRw"
PASSWORD = "correct horse battery"


class PageForm(HTMLParser):
    """The fields of the HTML form of a page with what a browser would send of each, and the JSON of its raw form."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.fields: dict[str, str] = {}
        self.raw = ""
        self._inside = self._select = self._text = ""
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        if given.get("id") in {"post-object-form", "post-generic-content-form"}:
            self._inside = given["id"]
        if self._inside != "post-object-form":
            if tag == "textarea" and self._inside:
                self._text = "raw"
            return
        if tag == "input" and (given.get("type") != "checkbox" or "checked" in given):
            self.fields[given["name"]] = given.get("value", "")
        elif tag == "select":
            self._select = given["name"]
        elif tag == "option" and (self._select not in self.fields or "selected" in given):
            self.fields[self._select] = given.get("value", "")
        elif tag == "textarea":
            self._text = given["name"]
            self.fields[self._text] = ""

    def handle_data(self, data):
        if self._text == "raw":
            self.raw += data
        elif self._text:
            self.fields[self._text] += data

    def handle_endtag(self, tag):
        if tag == "textarea":
            self._text = ""


class Browser:
    def __init__(self, client: Client) -> None:
        self.client = client

    def form(self, path: str) -> PageForm:
        return PageForm(self.client.get(f"/api/v1/{path}", headers=HTML).content.decode())

    def send(self, path: str, **typed: str):
        """The page's form with what somebody typed, everything else left as the page has it."""
        fields = {**self.form(path).fields, **typed}
        assert set(typed) <= set(self.form(path).fields)
        return self.client.post(f"/api/v1/{path}", fields, headers=HTML)

    def send_raw(self, path: str, **typed: object):
        body = json.dumps({**json.loads(self.form(path).raw), **typed})
        return self.client.post(f"/api/v1/{path}", body, content_type="application/json", headers=HTML)


@pytest.fixture
def browser(api) -> Browser:
    client = Client()
    client.post("/api/login", {"key": api.key})
    known_info()
    known_info(OTHER_ID)
    return Browser(client)


@pytest.fixture
def admin(api) -> Browser:
    create_user(username="boss", password=PASSWORD, role=Role.OWNER)
    client = Client()
    client.post("/admin/login", {"username": "boss", "password": PASSWORD})
    return Browser(client)


@pytest.mark.parametrize("path", ["audio", "video"])
def test_a_link_is_all_that_a_download_needs(browser, path):
    page = browser.send(path, url=VIDEO_ID)
    assert page.status_code == 200


@pytest.mark.parametrize("path", ["audio", "video"])
def test_so_it_is_in_the_raw_form(browser, path):
    page = browser.send_raw(path, url=VIDEO_ID)
    assert page.status_code == 200


def test_links_of_a_batch_are_typed_one_a_line(browser):
    page = browser.send("batch", urls=f"{VIDEO_ID}\r\n\r\nhttps://youtu.be/{OTHER_ID}\r\n")
    assert page.status_code == 200
    assert browser.send_raw("batch", urls=[VIDEO_ID]).status_code == 200
    assert browser.send("batch", urls="\r\n").status_code == 400


def test_a_warm_up_is_made_with_the_form(admin):
    page = admin.send("admin/warm-ups", name="Charts", urls=f"{VIDEO_ID}\r\n{OTHER_ID}")
    assert page.status_code in {201, 202}
    assert WarmUp.objects.get(name="Charts").total == 2


def test_a_key_is_made_with_the_form_and_its_lists_have_fields(admin):
    page = admin.send("admin/keys", name="From a form", labels="one, two")
    assert page.status_code == 201
    assert ApiKey.objects.get(name="From a form").labels == ["one", "two"]


def test_the_raw_form_of_a_key_names_nothing_that_would_change_it(admin):
    assert admin.send_raw("admin/keys", name="From JSON").status_code == 201
    assert json.loads(admin.form("admin/keys").raw) == {"name": ""}


def test_what_was_typed_is_still_there_after_an_error(browser):
    page = browser.send("video", url="not a <link>", quality="720", container="webm")
    assert page.status_code == 400
    fields = PageForm(page.content.decode()).fields
    assert (fields["url"], fields["quality"], fields["container"]) == ("not a <link>", "720", "webm")


def test_a_secret_that_was_typed_is_not_shown_again(admin):
    page = admin.send("admin/bots", token="no-token-at-all")
    assert page.status_code == 400
    assert b"no-token-at-all" not in page.content


def test_programs_are_told_of_empty_fields_as_before(api):
    answer = api.client.post("/api/v1/audio", {"url": VIDEO_ID, "format": ""})
    assert (answer.status_code, answer.json()["parameter"]) == (400, "format")
