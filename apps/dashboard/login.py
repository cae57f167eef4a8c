"""Logging in with a password and perhaps a code: bounded tries with growing waits, no hint whether a user exists."""

from __future__ import annotations

import hashlib
import math
import time
from dataclasses import dataclass
from typing import cast

from apps.core import audit
from apps.core.redis import redis_client
from apps.dashboard.access import may
from apps.keys.admins import is_password_of
from apps.keys.documents import Role, User
from apps.keys.limits import network_of
from apps.keys.second_factor import WRONG_CODE, has_second_factor, take_code
from apps.keys.services import check_password

FREE_TRIES = {"pair": 5, "account": 50, "address": 20}
"""Wrong passwords without a wait: for an account from one address, for an account from anywhere, from one address."""
FIRST_WAIT_S = 30
LONGEST_WAIT_S = 15 * 60
FORGOTTEN_S = 3600
"""Failures are forgotten when there was none for this long."""
KNOWN_FOR_S = 30 * 86_400
MAX_KNOWN_NETWORKS = 20
"""Of an account: what others try elsewhere keeps nobody out who logged in from the same network before."""

# Each bucket is a hash {n: attempts, until: when the next one is allowed}. Counted before the password is looked at,
# in one step, so that many attempts at once cannot slip through. Redis's clock decides: another machine's may be wrong.
# KEYS: buckets; ARGV: first wait, longest wait, forgotten, then the free tries of each bucket. Returns the seconds to
# wait, 0 for "go ahead".
_TAKE_ATTEMPT = """
local time = redis.call('TIME')
local now = time[1] + time[2] / 1000000
local wait = 0
for _, key in ipairs(KEYS) do
  local until_at = tonumber(redis.call('HGET', key, 'until') or '0')
  if until_at - now > wait then wait = until_at - now end
end
if wait > 0 then return tostring(wait) end
for index, key in ipairs(KEYS) do
  local n = redis.call('HINCRBY', key, 'n', 1)
  local over = n - tonumber(ARGV[3 + index])
  if over >= 0 then
    local pause = math.min(tonumber(ARGV[1]) * 2 ^ math.min(over, 20), tonumber(ARGV[2]))
    redis.call('HSET', key, 'until', tostring(now + pause))
  end
  redis.call('EXPIRE', key, ARGV[3])
end
return '0'
"""


@dataclass(frozen=True, kw_only=True)
class LoginResult:
    """``user`` who may enter, or with ``needs_code`` after a code of the second factor; else ``problem`` in words."""

    user: User | None = None
    needs_code: bool = False
    problem: str = ""
    wait_s: int = 0


def try_login(*, username: str, password: str, address: str) -> LoginResult:
    """Check a name and a password. Every outcome is in the audit log. Raises redis.RedisError when Redis is away.

    A wrong name, a wrong password, a user who is switched off and one without entry to the admin all get the same
    answer after the same work. Tries are forgotten only when somebody is in: not while a code is still missing.
    """
    buckets = _login_buckets(username, address)
    if wait := _wait(buckets):
        return wait
    user = check_password(username, password)
    if user is None or not may(user, Role.VIEWER):
        _record(username, "login.failed", address)
        return LoginResult(problem="The name or the password is wrong.")
    if has_second_factor(user):
        return LoginResult(user=user, needs_code=True)
    return _let_in(user, buckets, address, "login.done")


def try_code(*, user: User, code: str, address: str) -> LoginResult:
    """Check the second factor of somebody whose password was right. Counts as ``try_login`` does."""
    buckets = _login_buckets(user.username, address)
    if wait := _wait(buckets):
        return wait
    kind = take_code(user, code)
    if not kind:
        _record(user.username, "login.code_failed", address)
        return LoginResult(problem=WRONG_CODE)
    return _let_in(user, buckets, address, "login.done" if kind == "app" else "login.done_by_recovery_code")


def confirm_password(*, user: User, password: str, address: str) -> str:
    """Ask somebody who is logged in for the password again: "" when it is right, else the problem in words.

    Wrong ones count as wrong logins from this address, so that a stolen session cannot guess either; what was tried
    from elsewhere is no reason to wait. Tries are forgotten unless there is a second factor: else whoever has the
    password could guess codes in between.
    """
    buckets = _buckets(user.username, address)
    if problem := _wrong_password(user, password, buckets, address):
        return problem
    if not has_second_factor(user):
        redis_client().delete(*buckets.values())
    return ""


def confirm_person(*, user: User, password: str, code: str, address: str) -> str:
    """Ask somebody who is logged in for all that a login asks for: "" when it is right, else the problem in words.

    Counts as ``confirm_password`` does; ``code`` is looked at when the user has a second factor, and used up. Every
    outcome is in the audit log.
    """
    buckets = _buckets(user.username, address)
    if problem := _wrong_password(user, password, buckets, address):
        return problem
    if has_second_factor(user) and not take_code(user, code):
        _record(user.username, "code.wrong", address)
        return WRONG_CODE
    redis_client().delete(*buckets.values())
    _record(user.username, "identity.confirmed", address)
    return ""


def _wrong_password(user: User, password: str, buckets: dict[str, str], address: str) -> str:
    if wait := _wait(buckets):
        return wait.problem
    if not is_password_of(user, password):
        _record(user.username, "password.wrong", address)
        return "The password is wrong."
    return ""


def _wait(buckets: dict[str, str]) -> LoginResult | None:
    wait_s = _take_attempt(buckets)
    if not wait_s:
        return None
    return LoginResult(problem=f"Too many tries. Wait {_in_words(wait_s)}, then try again.", wait_s=wait_s)


def _let_in(user: User, buckets: dict[str, str], address: str, action: str) -> LoginResult:
    redis_client().delete(*buckets.values())
    _remember_network(user.username, address)
    _record(user.username, action, address)
    return LoginResult(user=user)


def _record(username: str, action: str, address: str) -> None:
    name = username[:64] or "(nobody)"
    audit.record(actor=name, action=action, target_kind="user", target_id=name, address=address)


def _login_buckets(username: str, address: str) -> dict[str, str]:
    """Those that a login from this address counts in. A known network is not stopped by what others try elsewhere."""
    buckets = _buckets(username, address)
    if not _is_known_network(username, address):
        buckets["account"] = _bucket("account", username)
    return buckets


def _buckets(username: str, address: str) -> dict[str, str]:
    network = network_of(address)
    return {"pair": _bucket("pair", f"{username}\0{network}"), "address": _bucket("address", network)}


def _bucket(kind: str, text: str) -> str:
    return f"yt:login:{kind}:{hashlib.sha256(text.casefold().encode()).hexdigest()}"


def _is_known_network(username: str, address: str) -> bool:
    at = redis_client().zscore(_bucket("known", username), network_of(address))
    return at is not None and time.time() - at < KNOWN_FOR_S


def _remember_network(username: str, address: str) -> None:
    """Of the last MAX_KNOWN_NETWORKS from which somebody logged in, for KNOWN_FOR_S. In one transaction."""
    key = _bucket("known", username)
    with redis_client().pipeline() as pipeline:
        pipeline.zadd(key, {network_of(address): time.time()})
        pipeline.zremrangebyrank(key, 0, -MAX_KNOWN_NETWORKS - 1)
        pipeline.expire(key, KNOWN_FOR_S)
        pipeline.execute()


def _take_attempt(buckets: dict[str, str]) -> int:
    free = [FREE_TRIES[kind] for kind in buckets]
    arguments = [FIRST_WAIT_S, LONGEST_WAIT_S, FORGOTTEN_S, *free]
    answer = cast("bytes", redis_client().eval(_TAKE_ATTEMPT, len(buckets), *buckets.values(), *map(str, arguments)))
    return math.ceil(float(answer))


def _in_words(seconds: int) -> str:
    if seconds <= 90:
        return f"{seconds} seconds"
    return f"{math.ceil(seconds / 60)} minutes"
