"""What the admin does with API keys, one at a time or many at once. Each goes to the audit log."""

from __future__ import annotations

from apps.core.errors import RoleMissing
from apps.dashboard.access import AdminRequest, record_change, who
from apps.keys.changes import delete_key
from apps.keys.documents import ApiKey, Scope
from apps.keys.roles import may_change_key
from apps.keys.services import set_key_active

OWNERS_ONLY = "Only an owner may change a key with the scope admin: it may do what an owner may."


def is_powerful(key: ApiKey) -> bool:
    """Whether it may do what an owner may: for that, people are asked for their password again."""
    return Scope.ADMIN.value in key.scopes


def switch(request: AdminRequest, key: ApiKey, *, active: bool) -> bool:
    """Switch a key on or off; False when it was so already.

    Raises RoleMissing, NotFound, and Conflict for one that was revoked for good.
    """
    _check_role(request, key)
    changed = set_key_active(key.prefix, active=active)
    if changed:
        record_change(
            request,
            "key.activate" if active else "key.deactivate",
            target_kind="key",
            target_id=key.prefix,
            before={"active": not active},
            after={"active": active},
        )
    return changed


def delete(request: AdminRequest, key: ApiKey) -> None:
    """Delete a key for good. Raises RoleMissing, NotFound."""
    _check_role(request, key)
    delete_key(key.prefix, **who(request))


def _check_role(request: AdminRequest, key: ApiKey) -> None:
    if not may_change_key(request.admin_user.role, key.scopes):
        raise RoleMissing(OWNERS_ONLY)
