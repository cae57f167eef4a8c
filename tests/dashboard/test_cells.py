"""What stands in one place of a table, as HTML."""

from datetime import UTC, datetime

import pytest
from django.template import Context, Template

from apps.core import audit
from apps.dashboard.lists import Cell
from apps.dashboard.templatetags.ui import NOT_KNOWN
from apps.downloads.documents import JobState, MediaJob
from apps.keys.services import create_key
from tests.dashboard.samples import make_asset, make_job

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
        make_job(at, state=JobState.RUNNING)
        create_key(name="a key")
        audit.record(actor="sam", action="key.create", target_kind="key", target_id="abcdefgh", after={"name": "a key"})


@pytest.mark.parametrize("path", ["/admin/cache", "/admin/jobs", "/admin/keys", "/admin/audit", "/admin/"])
def test_a_page_renders_as_many_templates_for_many_rows_as_for_few(owner, path):
    add(3)
    few = owner.get(path)
    add(20)
    many = owner.get(path)
    assert len(many.content) > len(few.content) + 1000
    assert len(many.templates) == len(few.templates)
