"""The second factor of an admin login: a code from an app (TOTP, RFC 6238), or one of ten recovery codes."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import time
from dataclasses import dataclass

import pyotp
import segno

from apps.core.errors import InvalidParameter
from apps.core.secrets import SecretUnreadable, decrypt_secret, encrypt_secret
from apps.keys.documents import User

ISSUER = "ytserver"
STEP_S = 30
DRIFT_STEPS = 1  # a phone's clock may be off by half a minute
RECOVERY_CODES = 10
_ALPHABET = "abcdefghjkmnpqrstuvwxyz23456789"  # without what people mix up
WRONG_CODE = "The code is wrong. Codes change every 30 seconds: is the clock of your phone right?"


@dataclass(frozen=True, kw_only=True)
class Setup:
    """What an app needs to make codes. ``qr`` is a picture as a data: address."""

    secret: str
    qr: str


def has_second_factor(user: User) -> bool:
    """Whether the user's login asks for a code."""
    return bool(user.totp_encrypted)


def new_pending() -> str:
    """A new secret, encrypted, for the browser's session until ``finish_setup``. Nothing is stored of it."""
    return encrypt_secret(pyotp.random_base32())


def show_setup(user: User, pending: str) -> Setup | None:
    """What to show somebody who sets the second factor up with ``new_pending``. None when it cannot be read."""
    secret = _read(pending)
    if secret is None:
        return None
    address = pyotp.TOTP(secret).provisioning_uri(name=user.username, issuer_name=ISSUER)
    return Setup(secret=secret, qr=segno.make(address, error="m").svg_data_uri(scale=5, border=3, light="#fff"))


def finish_setup(user: User, pending: str, code: str) -> list[str]:
    """Switch the second factor on with a first code; the user's sessions end. Returns the recovery codes, shown once.

    Raises InvalidParameter for a wrong code, and when another browser finished before.
    """
    secret = _read(pending)
    step = _step_of(secret, code) if secret else None
    if step is None:
        raise InvalidParameter(WRONG_CODE, parameter="code")
    codes = _new_codes()
    done = User.objects(id=user.id, totp_encrypted__in=["", None]).update_one(
        totp_encrypted=pending, totp_last_step=step,
        recovery_hashes=[_hash(one) for one in codes], inc__session_version=1,
    )  # fmt: skip
    if not done:
        raise InvalidParameter("The second factor was set up elsewhere meanwhile.", parameter="code")
    user.reload()
    return codes


def renew_recovery_codes(user: User) -> list[str]:
    """New recovery codes, shown once; the old ones are worth nothing any more."""
    codes = _new_codes()
    User.objects(id=user.id).update_one(recovery_hashes=[_hash(one) for one in codes])
    user.reload()
    return codes


def remove_second_factor(user: User) -> bool:
    """Switch it off, and end the user's sessions. Returns whether there was one. Idempotent."""
    done = User.objects(id=user.id, totp_encrypted__nin=["", None]).update_one(
        totp_encrypted="", recovery_hashes=[], inc__session_version=1
    )
    user.reload()
    return bool(done)


def take_code(user: User, code: str) -> str:
    """Use up a code: "app", "recovery", or "" for a wrong one. No code works twice, whatever number come at once."""
    step = _step_of(decrypt_secret(user.totp_encrypted), code) if user.totp_encrypted else None
    if step is not None:
        newer = User.objects(id=user.id, totp_encrypted=user.totp_encrypted, totp_last_step__lt=step)
        return "app" if newer.update_one(totp_last_step=step) else ""
    hashed = _hash(code)
    holders = User.objects(id=user.id, recovery_hashes=hashed)
    return "recovery" if holders.update_one(pull__recovery_hashes=hashed) else ""


def _read(pending: str) -> str | None:
    try:
        return decrypt_secret(pending)
    except SecretUnreadable:
        return None


def _step_now() -> int:
    return int(time.time()) // STEP_S


def _step_of(secret: str, code: str) -> int | None:
    """Which 30 seconds a code belongs to, if it is one of now or of right before or after."""
    code = re.sub(r"\s", "", code)
    if not re.fullmatch(r"[0-9]{6}", code, re.ASCII):
        return None
    totp, now = pyotp.TOTP(secret), _step_now()
    for step in range(now - DRIFT_STEPS, now + DRIFT_STEPS + 1):
        if hmac.compare_digest(totp.generate_otp(step), code):
            return step
    return None


def _new_codes() -> list[str]:
    """Each has 59 random bits, in groups that can be typed."""
    made = ["".join(secrets.choice(_ALPHABET) for _ in range(12)) for _ in range(RECOVERY_CODES)]
    return ["-".join((code[:4], code[4:8], code[8:])) for code in made]


def _hash(code: str) -> str:
    plain = re.sub(r"[\s-]", "", code).lower()
    return hashlib.sha256(plain.encode()).hexdigest()
