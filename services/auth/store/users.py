"""Users, as they are stored."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

from libs.core.errors import Refusal
from libs.core.mongo import Database, Document, Session
from libs.core.pagination import Page, PageArgs, Paginator
from services.auth.domain.identifiers import Identifier
from services.auth.domain.user_lists import SearchBy, UserFilter, list_keys, name_key
from services.auth.domain.users import User, UserStatus, user_key

# The last character that there is: strings are compared by their bytes.
_BEYOND = "\U0010ffff"
_DATES = ("created_at", "password_changed_at", "tokens_from")


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


async def page_of(
    database: Database,
    paginator: Paginator,
    tenant_id: str,
    wanted: UserFilter,
    args: PageArgs,
    *,
    within: Document | None = None,
) -> Page[User]:
    """Those of one list, the newest first. `within`: whom the caller may see at all."""
    where: Document = {"tenant_id": tenant_id, "listed_under": wanted.key}
    if created := {op: at for op, at in (("$gte", wanted.since), ("$lt", wanted.until)) if at is not None}:
        where["created_at"] = created
    order = [("created_at", -1), ("_id", -1)]
    return (await paginator.page(database["users"], where, args, order=order, also=within)).map(user_from)


async def search(
    database: Database,
    paginator: Paginator,
    tenant_id: str,
    by: SearchBy,
    prefix: str,
    args: PageArgs,
    *,
    within: Document | None = None,
) -> Page[User]:
    """Those of whom one thing begins so, in its order. What is searched for is a value, never a pattern."""
    field = "name_key" if by is SearchBy.NAME else by.value
    where: Document = {"tenant_id": tenant_id, field: {"$gte": prefix, "$lt": prefix + _BEYOND}}
    order = [(field, 1), ("_id", 1)] if by is SearchBy.NAME else [(field, 1)]
    return (await paginator.page(database["users"], where, args, order=order, also=within)).map(user_from)


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
    lists = {"status": user.status.value, "roles": [*user.roles], "second_factors": [*user.second_factors]}
    return {"_id": user.key} | row | lists | {"listed_under": list_keys(user), "name_key": name_key(user.name)}


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
    dates = {name: datetime.fromisoformat(row[name]) for name in _DATES if row.get(name)}
    return user_from({**row, **dates})
