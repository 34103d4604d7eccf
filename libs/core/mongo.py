"""The way to MongoDB: one client a process, this service's own database, and the one that all services read."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Self, TypeVar

import pymongo
import pymongo.lock
from bson import CodecOptions
from bson.codec_options import TypeDecoder, TypeRegistry
from bson.int64 import Int64
from pymongo import AsyncMongoClient, ReadPreference
from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import ConnectionFailure, PyMongoError
from pymongo.read_concern import ReadConcern
from pymongo.write_concern import WriteConcern

from libs.core.errors import CoreError, OutcomeUnknown, Unavailable

T = TypeVar("T")
Document = dict[str, Any]
Client = AsyncMongoClient[Document]
Collection = AsyncCollection[Document]
Database = AsyncDatabase[Document]
Session = AsyncClientSession

# An acknowledgement means: on the disk of a majority. Money accepts no less.
DURABLE = WriteConcern(w="majority", j=True)


async def _wait_for(awaitable: Awaitable[T], timeout: float | None) -> T:  # noqa: ASYNC109
    """As `asyncio.wait_for` is since Python 3.12, which makes no task of what it waits for.

    That of 3.11 does, and forgets it when cancelled at the wrong moment. The driver waits for its conditions with it:
    what was forgotten comes to hold the lock of all connections, for good. Seen after MongoDB hung for a minute.
    """
    async with asyncio.timeout(timeout):
        return await awaitable


pymongo.lock.wait_for = _wait_for  # type: ignore[assignment,attr-defined]


class _PlainInt(TypeDecoder):
    """The driver reads what needs more than 31 bits as a class of its own, which money does not take for an int."""

    bson_type = Int64

    def transform_bson(self, value: int) -> int:
        return int(value)


_CODEC: CodecOptions[Document] = CodecOptions(tz_aware=True, type_registry=TypeRegistry([_PlainInt()]))


class Mongo:
    """`db` is the service's own database, `core` is `core_service`: tenants, policies and configuration."""

    def __init__(self, client: Client, *, service: str, namespace: str = "") -> None:
        prefix = f"{namespace}_" if namespace else ""
        self.client = client
        self.db = self._database(f"{prefix}{service}_service")
        self.core = self._database(f"{prefix}core_service")

    @classmethod
    def connect(cls, url: str, *, service: str, namespace: str = "") -> Self:
        """Does not wait for the server: the first operation does, and fails after 5 s without one."""
        client: Client = AsyncMongoClient(
            url,
            appname=service,
            tz_aware=True,
            retryWrites=True,
            serverSelectionTimeoutMS=5_000,
            connectTimeoutMS=5_000,
            maxPoolSize=64,
        )
        return cls(client, service=service, namespace=namespace)

    def _database(self, name: str) -> Database:
        return self.client.get_database(
            name,
            codec_options=_CODEC,
            read_preference=ReadPreference.PRIMARY,
            write_concern=DURABLE,
            read_concern=ReadConcern("majority"),
        )

    async def transaction(self, work: Callable[[Session], Awaitable[T]], *, timeout_s: float = 10.0) -> T:
        """Runs `work(session)` in one snapshot transaction, durably committed; what `work` returns is returned.

        `work` may run several times (write conflicts, elections): it must keep nothing from a run before. When time
        runs out the driver's last error is raised; after a commit was sent that may be one whose outcome is unknown
        (`error.has_error_label("UnknownTransactionCommitResult")`).
        """
        with pymongo.timeout(timeout_s):
            async with self.client.start_session() as session:
                return await session.with_transaction(work, read_concern=ReadConcern("snapshot"), write_concern=DURABLE)

    async def ping(self) -> None:
        with pymongo.timeout(2):
            await self.client.admin.command("ping")

    async def close(self) -> None:
        await self.client.close()


def unanswered(error: BaseException | None) -> CoreError | None:
    """What may be said to a client if `error` means that MongoDB gave no answer; None if it means anything else."""
    if not isinstance(error, PyMongoError) or not (isinstance(error, ConnectionFailure) or error.timeout):
        return None
    if error.has_error_label("UnknownTransactionCommitResult"):
        return OutcomeUnknown("the database did not say whether this was done: ask again")
    return Unavailable("the database does not answer: try again in a moment")
