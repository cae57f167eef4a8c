"""Every list of the admin, in each of its orders, with each choice and search, and its counts are served by indexes."""

from itertools import combinations

import pytest

from apps.dashboard.admin_list import ADMIN_LIST
from apps.dashboard.asset_list import ASSET_LIST
from apps.dashboard.audit_list import AUDIT_LIST
from apps.dashboard.job_list import JOB_LIST
from apps.dashboard.key_list import KEY_LIST
from apps.dashboard.lists.page import read_page
from apps.dashboard.selectors.figures import figures
from apps.dashboard.user_list import USER_LIST
from apps.dashboard.warm_up_lists import WARM_UP_LIST, entry_list
from apps.dashboard.webhook_list import delivery_list
from apps.keys.services import create_key, create_user
from apps.telegram_cache.documents import Asset, AssetKey, MediaKind
from tests.downloads.library import put_hot
from tests.scans import Scans, scans

pytestmark = pytest.mark.usefixtures("mongo", "redis_server", "hot_root")
LISTS = [
    ADMIN_LIST, ASSET_LIST, AUDIT_LIST, JOB_LIST, KEY_LIST, USER_LIST, WARM_UP_LIST, entry_list("warm"),
    delivery_list("abcdefgh"),
]  # fmt: skip


@pytest.mark.parametrize("spec", LISTS, ids=lambda spec: spec.document.__name__)
def test_lists_read_no_whole_collection(spec):
    scans.found()
    choices = [{item.name: value} for item in spec.filters for value, _ in item.choices]
    both = [{**one, **other} for one, other in combinations(choices, 2) if not one.keys() & other.keys()]
    for chosen in ({}, *choices, *both, {"q": "some"}, *({**one, "q": "some"} for one in choices)):
        for order in spec.sortable | {f"-{field}" for field in spec.sortable}:
            read_page(spec, {**chosen, "sort": order})
    assert scans.found() == []


def test_the_filters_of_the_audit_log_read_no_whole_collection():
    scans.found()
    for item in AUDIT_LIST.filters:
        for value, _ in item.choices:
            read_page(AUDIT_LIST, {item.name: value})
    assert scans.found() == []


def test_the_overview_reads_no_whole_collection():
    put_hot(AssetKey("dQw4w9WgXcQ", MediaKind.AUDIO, "m4a"))
    create_user(username="somebody", password="a long password")
    create_key(name="some key")
    scans.found()
    figures()
    assert scans.found() == []


def test_what_no_index_serves_is_found():
    seen = Scans()
    put_hot(AssetKey("dQw4w9WgXcQ", MediaKind.AUDIO, "m4a"))
    seen._unexplained.append((Asset._get_db().name, {"find": "content_cache", "filter": {"provider": "x"}}, "here"))
    assert len(seen.found()) == 1
    seen._unexplained.append((Asset._get_db().name, {"find": "content_cache", "filter": {"_id": "x"}}, "here"))
    assert seen.found() == []
