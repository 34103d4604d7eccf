"""Users, as they are stored."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

from libs.core.errors import Refusal
from libs.core.mongo import Database, Document, Session
from services.auth.domain.identifiers import Identifier
from services.auth.domain.users import User, UserStatus, user_key


async def load(database: Database, session: Session | None, tenant_id: str, user_id: str) -> User | None:
    row = await database["users"].find_one({"_id": user_key(tenant_id, user_id)}, session=session)
    return user_from(row) if row else None


async def by_ids(database: Database, tenant_id: str, ids: Sequence[str]) -> list[User]:
    rows = database["users"].find({"_id": {"$in": [user_key(tenant_id, user_id) for user_id in ids]}})
    return [user_from(row) async for row in rows]


async def by_identifier(
    database: Database, session: Session | None, tenant_id: str, identifier: Identifier
) -> User | None:
    wanted = {"tenant_id": tenant_id, identifier.kind: identifier.value}
    row = await database["users"].find_one(wanted, session=session)
    return user_from(row) if row else None


async def insert(database: Database, session: Session, user: User) -> None:
    """DuplicateKeyError if what they sign in by is another's: in a transaction, that ends it."""
    await database["users"].insert_one(user_row(user), session=session)


async def save(database: Database, session: Session, before: User, after: User) -> User:
    """`Refusal` USER_CHANGED if it is not `before` any more: whoever decided on that has to look again."""
    row = user_row(after) | {"version": before.version + 1}
    replaced = await database["users"].replace_one({"_id": before.key, "version": before.version}, row, session=session)
    if not replaced.matched_count:
        raise Refusal("USER_CHANGED", "the user was changed meanwhile", rule="user.version", userId=before.id)
    return user_from(row)


def user_row(user: User) -> Document:
    row = asdict(user)
    return {"_id": user.key} | row | {"status": user.status.value, "roles": [*user.roles],
                                      "second_factors": [*user.second_factors]}  # fmt: skip


def user_from(row: Mapping[str, Any]) -> User:
    fields = {name: value for name, value in row.items() if name in User.__dataclass_fields__}
    status = UserStatus(row["status"])
    return User(
        **(fields | {"status": status, "roles": tuple(row["roles"]), "second_factors": tuple(row["second_factors"])})
    )


def to_cache(user: User) -> dict[str, Any]:
    """As JSON, and without what only a login needs: of the password, whether there is one."""
    row = user_row(user) | {"password": "*" if user.password else ""}
    return {name: value.isoformat() if isinstance(value, datetime) else value for name, value in row.items()}


def from_cache(row: Mapping[str, Any]) -> User:
    dates = {name: datetime.fromisoformat(row[name]) for name in ("created_at", "password_changed_at") if row[name]}
    return user_from({**row, **dates})
