"""Users: who somebody is to a tenant."""

from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Literal, Self

from services.auth.domain.identifiers import Identifier


class UserStatus(StrEnum):
    ACTIVE = "active"
    SUSPENDED = "suspended"
    DELETED = "deleted"


def user_key(tenant_id: str, user_id: str) -> str:
    return f"{tenant_id}:{user_id}"


@dataclass(frozen=True, slots=True)
class User:
    """`email` and `phone` are there once they were verified, and never before: nobody can hold what is another's."""

    tenant_id: str
    id: str
    created_at: datetime
    kind: Literal["user", "service"] = "user"
    status: UserStatus = UserStatus.ACTIVE
    roles: tuple[str, ...] = ()
    email: str = ""
    phone: str = ""
    username: str = ""
    name: str = ""
    locale: str = ""
    # Encoded by argon2; empty: they sign in some other way.
    password: str = ""
    password_changed_at: datetime | None = None
    # The password is not accepted any more: it has to be reset first.
    must_reset: bool = False
    # The kinds that are enabled: "totp", "passkey".
    second_factors: tuple[str, ...] = ()
    # Older tokens are refused: what they say of roles may not be so any more.
    tokens_from: datetime | None = None
    version: int = 1

    @property
    def key(self) -> str:
        return user_key(self.tenant_id, self.id)

    @property
    def active(self) -> bool:
        return self.status is UserStatus.ACTIVE

    def with_identifier(self, identifier: Identifier) -> Self:
        match identifier.kind:
            case "email":
                return replace(self, email=identifier.value)
            case "phone":
                return replace(self, phone=identifier.value)
        return replace(self, username=identifier.value)

    def with_password(self, encoded: str, at: datetime) -> Self:
        return replace(self, password=encoded, password_changed_at=at, must_reset=False)
