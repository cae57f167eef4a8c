"""Template tags of the admin: icons, sizes, numbers and times as people read them."""

from __future__ import annotations

import functools
from datetime import UTC, datetime
from typing import Any

from django import template
from django.templatetags.static import static
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString

from apps.core.markup import with_code
from apps.dashboard import audit_words
from apps.dashboard.access import may
from apps.dashboard.menu import MENU
from apps.keys.documents import Role, User

register = template.Library()
register.filter(with_code)

NOT_KNOWN = "\N{EN DASH}"
SPRITE = "vendor/feather/feather-sprite.svg"
UNITS = ("B", "KB", "MB", "GB", "TB", "PB")
STEPS = ((60, "s", 1), (3600, "min", 60), (86400, "h", 3600), (30 * 86400, "d", 86400))


@register.simple_tag
@functools.cache  # a page has a hundred, of a few names that stand in the code
def icon(name: str, extra_class: str = "") -> SafeString:
    """A Feather icon from the sprite on this server. Decoration only: screen readers skip it."""
    return format_html(
        '<svg class="icon {}" aria-hidden="true" focusable="false"><use href="{}#{}"/></svg>',
        extra_class,
        static(SPRITE),
        name,
    )


@register.filter
def human_bytes(size: float | None) -> str:
    """Bytes with a binary unit: 1.5 MB is 1.5 * 1024 * 1024 bytes. A dash when not known."""
    if size is None:
        return NOT_KNOWN
    value = float(size)
    for unit in UNITS:
        if abs(value) < 1024 or unit == UNITS[-1]:
            break
        value /= 1024
    text = f"{value:.0f}" if unit == "B" or value >= 100 else f"{value:.1f}".removesuffix(".0")
    return f"{text} {unit}"


@register.filter
def grouped(number: float | None) -> str:
    """A number with its thousands apart. A dash when not known."""
    return NOT_KNOWN if number is None else f"{number:,}"


@register.filter
def percent(share: float | None) -> str:
    """A share (0 to 1) in per cent. A dash when not known."""
    if share is None:
        return NOT_KNOWN
    return f"{share * 100:.1f}".removesuffix(".0") + " %"


@register.filter
def full_stop(text: str) -> str:
    """A message as a sentence, so that another may follow it."""
    return text if text.endswith((".", "!", "?")) else f"{text}."


@register.filter
def human_rate(per_second: float) -> str:
    """Something per second: 0, 0.4, 12."""
    return f"{per_second:,.0f}" if per_second >= 10 or not per_second else f"{per_second:.1f}"


@register.filter
def human_seconds(seconds: float | None) -> str:
    """A short time in ms or s. A dash when not known."""
    if seconds is None:
        return NOT_KNOWN
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms" if seconds >= 0.01 else f"{seconds * 1000:.1f} ms"
    return f"{seconds:.1f} s"


@register.filter
def human_duration(seconds: float | None) -> str:
    """Seconds as 3:25 or 1:02:03. A dash when not known."""
    if seconds is None:
        return NOT_KNOWN
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def relative(moment: datetime, now: datetime) -> str:
    """How far away a moment is, in one unit: "5 min ago", "in 2 h"."""
    seconds = (now - moment).total_seconds()
    distance = abs(seconds)
    for below, unit, size in STEPS:
        if distance < below:
            amount = f"{int(distance // size)} {unit}"
            break
    else:
        return moment.strftime("%d %b %Y")
    if distance < 5:
        return "now"
    return f"{amount} ago" if seconds > 0 else f"in {amount}"


@register.filter
def when(moment: datetime | None) -> SafeString:
    """A time as "5 min ago", with the exact UTC time for the mouse and for machines."""
    if moment is None:
        return format_html('<span class="text-body-secondary">{}</span>', "never")
    exact = moment.astimezone(UTC)
    return format_html(
        '<time datetime="{}" title="{} UTC">{}</time>',
        exact.isoformat(timespec="seconds"),
        exact.strftime("%Y-%m-%d %H:%M:%S"),
        relative(exact, datetime.now(UTC)),
    )


@register.filter
def action_words(action: str) -> str:
    """What the audit log calls it, in words."""
    return audit_words.action_words(action)


@register.filter
def can(user: User | None, role: str) -> bool:
    """Whether the user may do what this role may do."""
    return may(user, Role(role))


@register.simple_tag(takes_context=True)
def menu(context: dict[str, Any]) -> list[dict[str, Any]]:
    """The side bar for this person on this page: groups of entries, without those that the role does not see."""
    request = context["request"]
    here = (request.resolver_match.url_name or "") if request.resolver_match else ""
    groups = []
    for group in MENU:
        items = [
            {
                "label": entry.label,
                "icon": entry.icon,
                "href": reverse(f"dashboard:{entry.url_name}"),
                "is_current": entry.holds(here),
            }
            for entry in group.entries
            if may(request.admin_user, entry.role)
        ]
        if items:
            groups.append({"label": group.label, "items": items})
    return groups
