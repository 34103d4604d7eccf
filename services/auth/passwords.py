"""Passwords: hashed with argon2id, aside from the event loop, and only as many as the machine can take.

    async with Hasher() as hasher:
        encoded = await hasher.hash(password)
        verdict = await hasher.verify(encoded, password)        # verdict.ok, verdict.rehash

The threads that hash stand behind the event loop's in the operating system's queue: a login may wait, what is asked of
the process beside it does not.
"""

import asyncio
import os
import queue
import threading
import unicodedata
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Self, TypeVar

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from prometheus_client import Counter, Gauge

from libs.core.errors import Unavailable
from services.auth.domain.passwords import LONGEST

T = TypeVar("T")

# OWASP's Password Storage Cheat Sheet: argon2id with 19 MiB, 2 iterations, 1 lane. What is stored with others verifies
# as well, and is due to be hashed anew.
MEMORY_KIB = 19_456
ITERATIONS = 2
# At some 25 ms each and core, what is at the end of a full queue has waited for seconds.
WAITING_MAX = 200
# Of 19. How late the event loop was in 1 of 100 turns while 100 passwords waited, on two cores that others used too: 11
# ms at 0, 7 at 5, 5 at 10, with no fewer hashes. The higher, the more others on the machine take from logins.
NICENESS = 5

_COMPUTED = Counter("auth_password_hashes", "Password hashes computed, to store one and to verify one")
_WAITING = Gauge("auth_password_hashes_waiting", "Passwords that wait to be hashed")
_REFUSED = Counter("auth_password_hashes_refused", "Passwords refused because too many were waiting")


@dataclass(frozen=True, slots=True)
class Verdict:
    """`rehash`: it was hashed with other parameters, or in another form, than one is now: store `hash(password)`."""

    ok: bool
    rehash: bool


class Hasher:
    """Open (`async with`) while it is used; one a process."""

    def __init__(
        self,
        *,
        memory_kib: int = MEMORY_KIB,
        iterations: int = ITERATIONS,
        workers: int | None = None,
        waiting_max: int = WAITING_MAX,
        niceness: int = NICENESS,
    ) -> None:
        """As many `workers` as the process has cores, unless told otherwise."""
        self.computed = 0
        self._argon2 = PasswordHasher(time_cost=iterations, memory_cost=memory_kib, parallelism=1)
        self._workers = _Workers(workers or len(os.sched_getaffinity(0)), waiting_max, niceness)
        self._dummy = ""

    async def __aenter__(self) -> Self:
        self._workers.start()
        # Nobody's: of a password that is not known to anyone, this process included.
        self._dummy = await self._workers.run(lambda: self._argon2.hash(os.urandom(32)))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._workers.stop()

    @property
    def waiting(self) -> int:
        """How many are being hashed, or wait for it."""
        return self._workers.waiting

    async def hash(self, password: str) -> str:
        """Encoded as argon2 does, parameters and salt included. `Unavailable` at once if too many are waiting."""
        return await self._compute(lambda: self._argon2.hash(_bytes(password)))

    async def verify(self, encoded: str | None, password: str) -> Verdict:
        """Whether `password` is the one. None or "", where there is no account or it has no password, costs as much as
        a wrong one. `Unavailable` at once if too many are waiting."""
        return await self._compute(lambda: self._verify(encoded, password))

    async def _compute(self, work: Callable[[], T]) -> T:
        result = await self._workers.run(work)
        self.computed += 1
        _COMPUTED.inc()
        return result

    def _verify(self, encoded: str | None, password: str) -> Verdict:
        possible = len(password) <= LONGEST * _MOST_DECOMPOSED
        try:
            self._argon2.verify(encoded or self._dummy, _bytes(password) if possible else b"")
        except (VerificationError, InvalidHashError):
            return Verdict(ok=False, rehash=False)
        if not encoded or not possible:
            return Verdict(ok=False, rehash=False)
        return Verdict(ok=True, rehash=self._argon2.check_needs_rehash(encoded))


# Of one character that NFC composes, in NFD.
_MOST_DECOMPOSED = 4


def _bytes(password: str) -> bytes:
    """As RFC 8265's OpaqueString does: NFC, so that it does not matter which keyboard made an é. Nothing is cut off."""
    return unicodedata.normalize("NFC", password).encode("utf-8", "surrogatepass")


class _Workers:
    """A few threads, a queue before them. Work whose caller has gone away is not begun."""

    def __init__(self, count: int, waiting_max: int, niceness: int) -> None:
        self._count = count
        self._niceness = niceness
        self._queue: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = queue.SimpleQueue()
        self._room = waiting_max + count
        self.waiting = 0
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        for number in range(self._count):
            thread = threading.Thread(target=self._work, name=f"hasher-{number}", daemon=True)
            thread.start()
            self._threads.append(thread)

    async def stop(self) -> None:
        for _ in self._threads:
            self._queue.put(None)
        for thread in self._threads:
            await asyncio.to_thread(thread.join)

    async def run(self, work: Callable[[], T]) -> T:
        if self.waiting >= self._room:
            _REFUSED.inc()
            raise Unavailable("too many passwords are being checked: try again in a moment")
        done: Future[T] = Future()
        self.waiting += 1
        _WAITING.inc()
        waiting = asyncio.wrap_future(done)
        waiting.add_done_callback(self._over)
        self._queue.put((done, work))
        return await waiting

    def _over(self, _: object) -> None:
        self.waiting -= 1
        _WAITING.dec()

    def _work(self) -> None:
        with suppress(OSError, AttributeError):  # Linux gives each thread a priority of its own
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), self._niceness)
        while item := self._queue.get():
            done, work = item
            if not done.set_running_or_notify_cancel():
                continue
            try:
                done.set_result(work())
            except BaseException as error:
                done.set_exception(error)
