"""What stands in one place of a table, as HTML, and what a page of many costs."""

from datetime import UTC, datetime
from threading import get_ident

import pytest
from django.template import Context, Template
from pymongo.monitoring import CommandStartedEvent

from apps.core import audit
from apps.dashboard.lists import Cell
from apps.dashboard.templatetags.ui import NOT_KNOWN
from apps.downloads.documents import JobState, MediaJob
from apps.downloads.warm_documents import WarmUp
from apps.keys.documents import Role, User
from apps.keys.services import create_key, create_user
from tests.dashboard.samples import make_asset, make_job
from tests.scans import scans

HOSTILE = """<script>alert('x')</script> & "quoted\""""
ESCAPED = "&lt;script&gt;alert(&#x27;x&#x27;)&lt;/script&gt; &amp; &quot;quoted&quot;"


def shown(**fields) -> str:
    return Template("{{ cell }}").render(Context({"cell": Cell(**fields)}))


@pytest.mark.parametrize(
    ("fields", "html"),
    [
        ({"value": "raga"}, "raga"),
        ({"value": "raga", "href": "/admin/x"}, '<a class="cell-link" href="/admin/x">raga</a>'),
        ({"value": "raga", "note": "live"}, 'raga<div class="note">live</div>'),
        ({}, NOT_KNOWN),
        ({"href": "/admin/x"}, f'<a class="cell-link" href="/admin/x">{NOT_KNOWN}</a>'),
        ({"kind": "code", "value": "abc"}, "<code>abc</code>"),
        ({"kind": "code", "value": "abc", "href": "/x"}, '<a class="cell-link" href="/x"><code>abc</code></a>'),
        ({"kind": "code"}, f"<code>{NOT_KNOWN}</code>"),
        ({"kind": "number", "value": 12000}, "12,000"),
        ({"kind": "number", "value": 0}, "0"),
        ({"kind": "number"}, NOT_KNOWN),
        ({"kind": "bytes", "value": 1536}, "1.5 KB"),
        ({"kind": "bytes"}, NOT_KNOWN),
        ({"kind": "badge", "value": "on", "tone": "success"}, '<span class="state state-success">on</span>'),
        (
            {"kind": "badge", "value": "off", "note": "since May"},
            '<span class="state state-secondary">off</span><div class="note">since May</div>',
        ),
        (
            {"kind": "badges", "value": ["info", "media"]},
            '<span class="tags"><span class="tag">info</span><span class="tag">media</span></span>',
        ),
        ({"kind": "badges", "value": []}, f'<span class="tags">{NOT_KNOWN}</span>'),
        (
            {"kind": "progress", "value": 33, "note": "3 of 9 MB"},
            '<progress max="100" value="33" aria-label="Progress">33 %</progress><div class="note">3 of 9 MB</div>',
        ),
        ({"kind": "progress", "note": "3 MB"}, '<div class="note">3 MB</div>'),
        ({"kind": "progress", "value": 0}, '<progress max="100" value="0" aria-label="Progress">0 %</progress>'),
        (
            {"kind": "time", "value": datetime(2026, 5, 1, 12, 0, 30, tzinfo=UTC)},
            '<time datetime="2026-05-01T12:00:30+00:00" title="2026-05-01 12:00:30 UTC">01 May 2026</time>',
        ),
        ({"kind": "time", "note": "never"}, '<span class="note">never</span>'),
        ({"kind": "time"}, f'<span class="note">{NOT_KNOWN}</span>'),
        (
            {"kind": "changes", "value": [("role", "viewer", "owner"), ("name", None, "sam")]},
            '<div class="change"><span class="note">role</span> <s>viewer</s> → owner</div>'
            '<div class="change"><span class="note">name</span> sam</div>',
        ),
        ({"kind": "changes", "value": []}, f'<span class="note">{NOT_KNOWN}</span>'),
    ],
)
def test_each_kind_has_its_html(monkeypatch, fields, html):
    monkeypatch.setattr("apps.dashboard.templatetags.ui.datetime", LongAfter)
    assert shown(**fields) == html


class LongAfter(datetime):
    @classmethod
    def now(cls, tz=None):
        return datetime(2027, 5, 1, tzinfo=tz)


@pytest.mark.parametrize(
    "fields",
    [
        {"value": HOSTILE},
        {"value": HOSTILE, "href": f"/x?{HOSTILE}", "note": HOSTILE},
        {"kind": "code", "value": HOSTILE},
        {"kind": "code", "value": HOSTILE, "href": f"/x?{HOSTILE}"},
        {"kind": "badge", "value": HOSTILE, "tone": HOSTILE, "note": HOSTILE},
        {"kind": "badges", "value": [HOSTILE, HOSTILE]},
        {"kind": "progress", "value": 5, "note": HOSTILE},
        {"kind": "time", "note": HOSTILE},
        {"kind": "changes", "value": [(HOSTILE, HOSTILE, HOSTILE)]},
    ],
)
def test_no_text_becomes_markup(fields):
    html = shown(**fields)
    texts = str(fields).count(repr(HOSTILE)[1:-1])
    assert html.count(ESCAPED) == texts >= 1
    assert "<script" not in html
    assert HOSTILE not in html


def add(number: int) -> None:
    for _ in range(number):
        at = MediaJob.objects.count()
        make_asset(at, title="a title")
        make_job(at, state=JobState.RUNNING, bytes_done=1, bytes_total=3)
        create_key(name="a key")
        WarmUp(name="a list", kind="audio", total=1).save()
        create_user(username=f"user-{User.objects.count()}", password="a long password", role=Role.OPERATOR)
        audit.record(actor="sam", action="key.create", target_kind="key", target_id="abcdefgh", after={"name": "a key"})


@pytest.fixture
def commands(monkeypatch) -> list[str]:
    """What this thread sends to MongoDB."""
    sent: list[str] = []
    here = get_ident()

    def note(event: CommandStartedEvent) -> None:
        if get_ident() == here:
            sent.append(event.command_name)

    monkeypatch.setattr(scans, "started", note)
    return sent


@pytest.mark.parametrize("page", ["audit", "cache", "jobs", "keys", "warm-ups", "users", "admins"])
def test_many_rows_take_as_many_templates_and_questions_to_mongodb_as_few(owner, commands, page):
    path = f"/admin/{page}"
    add(3)
    owner.get(path)  # some things are read once
    commands.clear()
    few, asked_for_few = owner.get(path), list(commands)
    add(20)
    commands.clear()
    many = owner.get(path)
    assert len(many.content) > len(few.content) + 1000
    assert len(many.templates) == len(few.templates)
    assert commands == asked_for_few != []


def test_the_overview_takes_as_many_templates_for_many_jobs_as_for_few(viewer):
    add(2)
    few = viewer.get("/admin/")
    add(3)
    many = viewer.get("/admin/")
    assert many.content.count(b"<progress") > few.content.count(b"<progress")
    assert len(many.templates) == len(few.templates)
