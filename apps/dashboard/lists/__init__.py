"""The generic list layer: say which columns, searches and filters a list of documents has; everything else is here."""

from apps.dashboard.lists.page import Page, read_page
from apps.dashboard.lists.spec import Action, Cell, Column, Filter, ListSpec

__all__ = ["Action", "Cell", "Column", "Filter", "ListSpec", "Page", "read_page"]
