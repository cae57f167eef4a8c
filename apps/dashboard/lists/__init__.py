"""The generic list layer: say which columns, searches and filters a list of documents has; everything else is here."""

from apps.dashboard.lists.cells import Cell
from apps.dashboard.lists.common_actions import delete_action, switch_actions
from apps.dashboard.lists.page import Page, read_page
from apps.dashboard.lists.spec import (
    Action,
    BulkAction,
    Column,
    Empty,
    Filter,
    ListSpec,
    age_filter,
    choices_filter,
)
from apps.dashboard.lists.view import answer_list

__all__ = [
    "Action",
    "BulkAction",
    "Cell",
    "Column",
    "Empty",
    "Filter",
    "ListSpec",
    "Page",
    "age_filter",
    "answer_list",
    "choices_filter",
    "delete_action",
    "read_page",
    "switch_actions",
]
