"""Step-up: one operation that somebody confirmed with a fresh factor, and nothing but that one.

    operation = SensitiveOperation("transfer", id, amount_minor=900_00, currency="EUR", source=wallet, payee=other)
    await confirm(platform.identity, token, caller, operation)      # or a Refusal: STEP_UP_REQUIRED, STEP_UP_INVALID

A service refuses what is not confirmed and says what it is (`STEP_UP_REQUIRED` carries it). The client hands exactly
that to auth, which shows it to the person, asks for a factor, and signs a step-up token over its digest: a JWT of the
type `step-up+jwt`, so that neither it nor an access token can pass for the other. The service makes the digest of what
it is about to do, and compares.

The token is no secret worth stealing by itself: it needs an access token of the same session beside it, and is good for
that content alone. Sent twice it does nothing twice, for the operation's id is part of the content and is what makes
the operation idempotent.
"""

import json
import re
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from dataclasses import dataclass, fields
from hashlib import sha256
from hmac import compare_digest
from typing import Annotated, Any, Self

from pydantic import Field

from libs.core.context import Caller
from libs.core.errors import InvalidInput, Refusal, Unauthenticated
from libs.core.identity import MAX_TOKEN_BYTES, Identity, SignedClaims
from libs.core.ids import parse_id
from libs.core.money import CURRENCY_PATTERN, INT64_MAX

TYP = "step-up+jwt"
# Part of what is hashed, and of the digest: should what it is made of ever change, no old token means something new.
VERSION = 1

_ACTION = re.compile(r"[a-z][A-Za-z]{0,39}", re.ASCII)
_PAYEE_CHARS = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class SensitiveOperation:
    """What is to be done, as the person who does it is shown it. What does not apply is empty.

    `action` is the mutation's name and `id` the operation's own, by which it is done once. `source` and `payee` are
    between whom: ids of wallets, where it is money that moves. Raises `InvalidInput` for what cannot be shown.
    """

    action: str
    id: str
    amount_minor: int | None = None
    currency: str = ""
    source: str = ""
    payee: str = ""

    def __post_init__(self) -> None:
        parse_id(self.id, "operation.id")
        if not _ACTION.fullmatch(self.action):
            raise InvalidInput("an action is the name of a mutation", field="operation.action")
        if self.amount_minor is not None and not 0 < self.amount_minor <= INT64_MAX:
            raise InvalidInput("an amount is from 1 to 2^63-1 minor units", field="operation.amount")
        if (self.amount_minor is None) != (self.currency == ""):
            raise InvalidInput("an amount has a currency", field="operation.currency")
        if self.currency and not CURRENCY_PATTERN.fullmatch(self.currency):
            raise InvalidInput("a currency is a code such as EUR", field="operation.currency")
        for field in ("source", "payee"):
            text = getattr(self, field)
            if len(text) > _PAYEE_CHARS or not text.isprintable():
                raise InvalidInput(f"at most {_PAYEE_CHARS} printable characters", field=f"operation.{field}")

    @classmethod
    def of(cls, content: Mapping[str, str]) -> Self:
        """The inverse of `content`, and of `asked`."""
        named = {name: value for name, value in content.items() if name != "amount"}
        return cls(**named, amount_minor=int(content["amount"]) if content.get("amount") else None)

    @property
    def content(self) -> dict[str, str]:
        """By the names of auth's GraphQL input, all of them texts."""
        amount = "" if self.amount_minor is None else str(self.amount_minor)
        named = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "amount_minor"}
        return named | {"amount": amount}

    @property
    def asked(self) -> dict[str, str]:
        """The same without what is empty: the `operation` of `startStepUp`."""
        return {name: value for name, value in self.content.items() if value}

    @property
    def digest(self) -> str:
        """Of the content as canonical JSON (RFC 8785): sorted, without spaces, in UTF-8. Texts alone, so no number is

        written in two ways; names and quotes around each, so no two contents are one text.
        """
        canonical = json.dumps(
            {"version": str(VERSION), **self.content}, sort_keys=True, separators=(",", ":"), ensure_ascii=False
        )
        hashed = sha256(b"step-up\n" + canonical.encode()).digest()
        return f"{VERSION}.{urlsafe_b64encode(hashed).rstrip(b'=').decode()}"


class StepUpClaims(SignedClaims):
    """`op` is the operation's digest, `acr` how many factors the session has proven with the one that was asked for."""

    jti: Annotated[str, Field(min_length=1, max_length=64)]
    op: Annotated[str, Field(min_length=1, max_length=64)]
    acr: Annotated[str, Field(pattern=r"^[12]$")]


async def confirm(identity: Identity, token: str, caller: Caller, operation: SensitiveOperation) -> StepUpClaims:
    """Returns if `token` says that `caller`, in the session that asks now, has confirmed `operation`.

    `Refusal` STEP_UP_REQUIRED without a token, STEP_UP_INVALID with one that is not for this; `Unavailable` if the
    issuer's keys could not be had. That the session was not revoked is known: `caller` came with a token of it.
    """
    if not token:
        raise required(operation)
    if len(token) > MAX_TOKEN_BYTES:
        raise _invalid(operation, "a token is not that long")
    try:
        claims = await identity.claims(token, StepUpClaims, typ=TYP)
    except Unauthenticated as error:
        raise _invalid(operation, error.message) from None
    who = (claims.tenant, claims.sub, claims.sid)
    if caller.kind != "user" or who != (caller.tenant_id, caller.subject, caller.session_id):
        raise _invalid(operation, "it was given to another session")
    if not compare_digest(claims.op.encode(), operation.digest.encode()):
        raise _invalid(operation, "it is for another operation")
    return claims


def required(operation: SensitiveOperation) -> Refusal:
    """What to tell whoever has to confirm `operation` first: it carries what `startStepUp` is to be asked."""
    return Refusal(
        "STEP_UP_REQUIRED", "this has to be confirmed first", rule="step_up.required", operation=operation.asked
    )


def _invalid(operation: SensitiveOperation, why: str) -> Refusal:
    details: dict[str, Any] = {"operation": operation.asked, "reason": why}
    return Refusal("STEP_UP_INVALID", f"this does not confirm it: {why}", rule="step_up.token", **details)
