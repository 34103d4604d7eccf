"""Codes of an authenticator app: RFC 6238 with SHA-1, six digits and steps of 30 s, which is what all apps know."""

import hmac
import re
from dataclasses import dataclass
from datetime import datetime

import pyotp

from services.auth.domain.users import user_key

STEP_S, DIGITS = 30, 6
# One step early or late: a phone's clock may be off, and typing takes time (RFC 6238, 5.2).
DRIFT_STEPS = 1

_CODE = re.compile(r"[0-9]{6}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Totp:
    """A user's authenticator app. `last_step` is that of the last code that was taken: no code up to it is again."""

    tenant_id: str
    user_id: str
    sealed: bytes
    sealed_with: str  # the id of the key
    last_step: int
    confirmed_at: datetime

    @property
    def key(self) -> str:
        return user_key(self.tenant_id, self.user_id)


def sealed_for(tenant_id: str, user_id: str) -> str:
    """Whose a sealed secret is: in another user's document it opens nothing."""
    return f"totp:{tenant_id}:{user_id}"


def new_totp_secret() -> str:
    """Base32 of 160 random bits, as RFC 4226 recommends."""
    return pyotp.random_base32()


def provisioning_uri(secret: str, *, issuer: str, account: str) -> str:
    """What the QR code says: `otpauth://totp/Issuer:account?secret=…&issuer=Issuer`."""
    # Apps split the label at its first colon.
    return pyotp.TOTP(secret).provisioning_uri(name=account.replace(":", " "), issuer_name=issuer.replace(":", " "))


def step_of(at: datetime) -> int:
    return int(at.timestamp()) // STEP_S


def accepted_step(secret: str, code: str, at: datetime, *, last_step: int) -> int | None:
    """The step that `code` is of, if it is a step of now that is later than `last_step`; else None."""
    given = code.replace(" ", "")
    if not _CODE.fullmatch(given):
        return None
    generator, now = pyotp.TOTP(secret), step_of(at)
    # All are compared, so that the time taken does not tell which matched. The latest counts: should two steps have
    # the same code, taking the earlier would let it be used twice.
    matching = [
        step
        for step in range(now - DRIFT_STEPS, now + DRIFT_STEPS + 1)
        if hmac.compare_digest(generator.generate_otp(step), given)
    ]
    return max((step for step in matching if step > last_step), default=None)
