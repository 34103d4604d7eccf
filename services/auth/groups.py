"""What waits to be written in a tenant commits together.

Every change leaves a row in the tenant's security log, which is one chain: transactions that append to it can only come
one after another, each with a wait for the disk at its end. Measured, logins in turns: 17 to 23 a second. So while one
group commits, the next gathers.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextvars import Context, copy_context
from dataclasses import dataclass, field
from typing import Any, TypeVar

import pymongo

from libs.core.errors import Unavailable
from libs.core.mongo import Mongo, Session, unanswered

T = TypeVar("T")
Work = Callable[[Session], Awaitable[Any]]

# A conflict with another process runs a whole group again.
GROUP_MAX = 16
# Of one tenant: who came after them would wait for seconds.
WAITING_MAX = 1_000
TIMEOUT_S = 10.0


class _Left(Exception):
    """Somebody whose work was about to be committed has gone away: it is not done for nobody."""


@dataclass(eq=False, slots=True)
class _Waiting:
    """`context`: that of whoever waits, so that what is logged and told belongs to their request."""

    work: Work
    done: "asyncio.Future[Any]"
    context: Context = field(default_factory=copy_context)


class Groups:
    """One a process."""

    def __init__(self, mongo: Mongo) -> None:
        self._mongo = mongo
        self._waiting: dict[str, deque[_Waiting]] = {}
        self._committing: dict[str, asyncio.Task[None]] = {}

    async def transaction(self, tenant_id: str, work: Callable[[Session], Awaitable[T]]) -> T:
        """As `Mongo.transaction`; `work` may find what others of the same group have written. `Unavailable` at once if
        too many are waiting."""
        queue = self._waiting.setdefault(tenant_id, deque())
        if len(queue) >= WAITING_MAX:
            raise Unavailable("too much waits to be written: nothing was done, try again in a moment")
        waiting = _Waiting(work, asyncio.get_running_loop().create_future())
        queue.append(waiting)
        if tenant_id not in self._committing:
            # In no caller's context: the task outlives the request that it began in.
            self._committing[tenant_id] = asyncio.create_task(self._commit_all(tenant_id), context=Context())
        result: T = await waiting.done
        return result

    async def _commit_all(self, tenant_id: str) -> None:
        queue = self._waiting[tenant_id]
        try:
            while queue:
                group = [queue.popleft() for _ in range(min(GROUP_MAX, len(queue)))]
                await self._commit(group)
        finally:
            del self._waiting[tenant_id], self._committing[tenant_id]
            for waiting in queue:  # there are some only if this was cancelled, and nobody else would answer them
                waiting.done.cancel()

    async def _commit(self, group: Sequence[_Waiting]) -> None:
        group = [waiting for waiting in group if not waiting.done.done()]
        if not group:
            return
        try:
            results = await self._mongo.transaction(lambda session: _run(group, session), timeout_s=TIMEOUT_S)
        except _Left:
            await self._commit(group)  # the others of it
        except BaseException as error:
            if not isinstance(error, Exception) or len(group) == 1 or unanswered(error):
                _fail(group, error)
                if not isinstance(error, Exception):
                    raise
                return
            for waiting in group:  # one of them was refused: the others are not
                await self._commit([waiting])
        else:
            for waiting, result in zip(group, results, strict=True):
                if not waiting.done.done():
                    waiting.done.set_result(result)


async def _run(group: Sequence[_Waiting], session: Session) -> list[Any]:
    results = [
        await asyncio.create_task(_timed(waiting.work, session), context=waiting.context.copy()) for waiting in group
    ]
    if any(waiting.done.cancelled() for waiting in group):
        raise _Left
    return results


async def _timed(work: Work, session: Session) -> Any:
    with pymongo.timeout(TIMEOUT_S):  # that of `Mongo.transaction` is in another context
        return await work(session)


def _fail(group: Sequence[_Waiting], error: BaseException) -> None:
    for waiting in group:
        if not waiting.done.done():
            waiting.done.set_exception(error) if isinstance(error, Exception) else waiting.done.cancel()
