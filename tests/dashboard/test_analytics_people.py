"""Somebody logged in to the admin stands in the list of keys by name, without a link: there is no key of theirs."""

from __future__ import annotations

from apps.analytics.rollups import roll_up
from apps.core.clock import utcnow
from apps.keys.documents import Role, User
from apps.keys.people import person_prefix
from apps.keys.services import create_key
from tests.analytics.samples import add_events


def test_people_have_one_row_each_and_their_names_and_keys_their_links(viewer, make_user):
    person = make_user(Role.OPERATOR)
    key = create_key(name="Bot", owner="the-owner", scopes=("info",)).document
    add_events(utcnow(), 2, key_prefix=person_prefix(person))
    add_events(utcnow(), 1, key_prefix=f"admin-{'0' * 24}-7")
    add_events(utcnow(), 1, key_prefix=key.prefix)
    User.objects(id=person.id).update(inc__session_version=1)
    person.reload()
    add_events(utcnow(), 3, key_prefix=person_prefix(person))
    roll_up(wait=False)
    page = viewer.get("/admin/analytics").content.decode()
    assert page.count(f"{person.username} (in the admin)") == 1
    assert "somebody who is gone (in the admin)" in page
    assert "admin-" not in page.partition('id="t-keys"')[2].partition("</section>")[0]
    assert f"/admin/keys/{key.prefix}" in page
