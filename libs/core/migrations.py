"""The database's shape, brought up to what the code expects: collections, indexes, and documents of older versions.

    INDEXES = (
        Index("wallets", (("tenant_id", 1), ("owner_id", 1))),
        Index("sessions", (("expires_at", 1),), ttl_s=0),
        Index("outbox"),                                        # the collection, with its _id index alone
    )
    MIGRATIONS = (Migration(1, "wallets have a category", add_category),)

Forwards only, and while processes of the release before are still running. So a change takes two releases:

- **expand**: the migration adds (a field with its old meaning kept, an index, a collection); old code goes on working
  on what it finds, and new code reads both shapes until the migration has passed;
- **contract**: the *next* release, when no process of the old one is left, removes what nobody reads any more.

A migration may be interrupted and run again from its start, so `apply` is written to be repeated: it looks for
documents that still have the old shape, in batches, and changes those. There is no way back: roll back the code, which
runs on the expanded shape, and mend forwards.

One process migrates at a time, under a lease; the others wait for it. A process that finds the database *ahead* of it
is the older one in a rolling release: it starts, and leaves the shape alone (an index it misses may be one that the
newer release has dropped). Indexes are built online; a long build belongs in `make migrate`, before the roll-out.
"""

import time
import zlib
from asyncio import sleep
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import structlog
from bson import json_util
from pymongo import IndexModel
from pymongo.errors import OperationFailure

from libs.core.errors import Misconfigured, Unavailable
from libs.core.lock import Lease
from libs.core.mongo import Database

COLLECTION = "migrations"
_LEASE_TTL_S = 15.0
_NAMESPACE_EXISTS, _DUPLICATE_KEY = 48, 11000  # MongoDB's error codes
_ID_ONLY: tuple[tuple[str, int], ...] = (("_id", 1),)

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Index:
    """An index that must exist, and with it its collection. A document is deleted `ttl_s` seconds after the key's date.

    The name follows from the definition, so a changed definition is a new index beside the old one, which a later
    migration drops; only `ttl_s` is changed in place.
    """

    collection: str
    keys: Sequence[tuple[str, int | str]] = _ID_ONLY
    unique: bool = False
    partial: Mapping[str, Any] | None = None
    ttl_s: int | None = None

    @property
    def name(self) -> str:
        parts = [f"{field}_{direction}" for field, direction in self.keys]
        if self.unique:
            parts.append("unique")
        if self.partial is not None:
            parts.append(f"partial{zlib.crc32(json_util.dumps(self.partial).encode()):08x}")
        return "_".join(parts) if tuple(self.keys) != _ID_ONLY else "_id_"

    def model(self) -> IndexModel:
        options: dict[str, Any] = {}
        if self.unique:
            options["unique"] = True
        if self.partial is not None:
            options["partialFilterExpression"] = dict(self.partial)
        if self.ttl_s is not None:
            options["expireAfterSeconds"] = self.ttl_s
        return IndexModel(list(self.keys), name=self.name, **options)


@dataclass(frozen=True, slots=True)
class Migration:
    """One step from version `version - 1`. `apply` may be run again after it was interrupted."""

    version: int
    name: str
    apply: Callable[[Database], Awaitable[None]]


async def migrate(
    database: Database, indexes: Iterable[Index] = (), migrations: Sequence[Migration] = (), *, wait_s: float = 60.0
) -> int:
    """Brings `database` to what this code expects and returns the version it is at; costs a few reads if it is there.

    The order is collections, migrations, indexes: a unique index comes after the migration that makes it possible.
    `Misconfigured` names the migration or index that failed (the version before it stays); `Unavailable` when another
    process is still migrating after `wait_s` seconds.
    """
    indexes = tuple(indexes)
    _check_numbering(migrations)
    if not await _outdated(database, indexes, migrations):
        return await _version(database)
    lease = Lease(database, "migrations", ttl_s=_LEASE_TTL_S)
    await _acquire(lease, wait_s)
    try:
        return await lease.during(_bring_up(database, indexes, migrations))
    finally:
        await lease.release()


async def _outdated(database: Database, indexes: Sequence[Index], migrations: Sequence[Migration]) -> bool:
    version = await _version(database)
    if version > len(migrations):
        log.info("database is ahead", database=database.name, version=version, known=len(migrations))
        return False
    await _check_names(database, migrations)
    return version < len(migrations) or any([await _missing(database, *group) for group in _by_collection(indexes)])


async def _acquire(lease: Lease, wait_s: float) -> None:
    give_up = time.monotonic() + wait_s
    while not await lease.acquire():
        if time.monotonic() > give_up:
            raise Unavailable(f"another process is still migrating the database after {wait_s:g} s")
        await sleep(0.1)


async def _bring_up(database: Database, indexes: Sequence[Index], migrations: Sequence[Migration]) -> int:
    for collection, _ in _by_collection(indexes):
        await _create_collection(database, collection)
    version = await _version(database)
    if version > len(migrations):
        return version
    await _check_names(database, migrations)  # again: whoever had the lease before may be of another branch
    for migration in migrations[version:]:
        await _apply(database, migration)
    for collection, wanted in _by_collection(indexes):
        await _ensure(database, collection, wanted)
    return len(migrations)


async def _apply(database: Database, migration: Migration) -> None:
    started = time.monotonic()
    try:
        await migration.apply(database)
    except Exception as error:
        raise Misconfigured(
            f"migration {migration.version} ({migration.name}) of {database.name} failed, "
            f"and the database stays at version {migration.version - 1}: {type(error).__name__}: {error}"
        ) from error
    row = {"_id": migration.version, "name": migration.name}
    await database[COLLECTION].update_one({"_id": migration.version}, [{"$set": {**row, "at": "$$NOW"}}], upsert=True)
    log.info("migrated", database=database.name, **row, seconds=round(time.monotonic() - started, 3))


async def _version(database: Database) -> int:
    newest = await database[COLLECTION].find_one({}, sort=[("_id", -1)])
    return newest["_id"] if newest else 0


def _check_numbering(migrations: Sequence[Migration]) -> None:
    versions = [migration.version for migration in migrations]
    if versions != list(range(1, len(versions) + 1)):
        raise Misconfigured(f"migrations are numbered 1, 2, 3, … without a gap, in order; these are {versions}")


async def _check_names(database: Database, migrations: Sequence[Migration]) -> None:
    """Two branches may each have written a migration of the same number: the second one would silently never run."""
    async for row in database[COLLECTION].find({}):
        known = migrations[row["_id"] - 1].name
        if known != row["name"]:
            raise Misconfigured(
                f"{database.name} has had migration {row['_id']} as '{row['name']}', which this code calls '{known}'"
            )


def _by_collection(indexes: Sequence[Index]) -> Iterable[tuple[str, list[Index]]]:
    grouped: dict[str, list[Index]] = {}
    for index in indexes:
        grouped.setdefault(index.collection, []).append(index)
    return grouped.items()


async def _create_collection(database: Database, name: str) -> None:
    """Before a transaction needs it: one that creates a collection conflicts with every other that tries."""
    try:
        await database.create_collection(name, check_exists=False)
    except OperationFailure as error:
        if error.code != _NAMESPACE_EXISTS:
            raise


async def _missing(database: Database, collection: str, wanted: Sequence[Index]) -> list[Index]:
    """Those of `wanted` that do not exist yet, or with another time to live."""
    existing = await database[collection].index_information()
    return [i for i in wanted if i.name not in existing or existing[i.name].get("expireAfterSeconds") != i.ttl_s]


async def _ensure(database: Database, collection: str, wanted: Sequence[Index]) -> None:
    existing = await database[collection].index_information()
    for index in await _missing(database, collection, wanted):
        try:
            if index.name in existing:
                changed = {"name": index.name, "expireAfterSeconds": index.ttl_s}
                await database.command("collMod", collection, index=changed)
            else:
                await database[collection].create_indexes([index.model()])
        except OperationFailure as error:
            _explain(database, index, error)


def _explain(database: Database, index: Index, error: OperationFailure) -> NoReturn:
    what = f"index {index.name} of {database.name}.{index.collection}"
    if error.code == _DUPLICATE_KEY:
        raise Misconfigured(f"{what} cannot be unique, there are duplicates: {error.details}") from error
    raise Misconfigured(f"{what} cannot be built: {error}") from error
