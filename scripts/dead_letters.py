"""Events that a service could not handle, and what to do about them.

    make dead-letters                # each of them, with the reason, and how many wait behind it
    make dead-letters REPLAY=<id>    # its cause was mended: try again, then what waits behind it
    make dead-letters SKIP=<id>      # never handle it; go on with what waits behind it

With MONGO_URL set it works on that installation, else on the stack that is running here.
"""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

from libs.core.errors import NotFound
from libs.core.events.dead_letters import DeadLetters
from libs.core.mongo import Mongo
from scripts import stack
from scripts.process import Failure


async def main() -> None:
    if replay := os.environ.get("REPLAY"):
        await decide(DeadLetters.replay, replay)
    elif skip := os.environ.get("SKIP"):
        await decide(DeadLetters.skip, skip)
    else:
        await show()


async def show() -> None:
    for service in stack.services():
        async with of(service) as letters:
            for letter in await letters.list():
                print(f"{letter.id}  {letter.subscription}  {letter.key}  {letter.parked_at:%Y-%m-%d %H:%M:%S}Z")
                print(f"  after {letter.tries} tries: {letter.error}")
                print(f"  {letter.waiting} more events wait behind it")
                print(f"  {letter.event}")


async def decide(decision: Callable[[DeadLetters, str], Awaitable[None]], dead_letter_id: str) -> None:
    for service in stack.services():
        async with of(service) as letters:
            with suppress(NotFound):  # perhaps another service's
                return await decision(letters, dead_letter_id)
    raise Failure(f"there is no dead letter {dead_letter_id}")


@asynccontextmanager
async def of(service: str) -> AsyncIterator[DeadLetters]:
    environment = os.environ if "MONGO_URL" in os.environ else stack.environment()
    mongo = Mongo.connect(environment["MONGO_URL"], service=service, namespace=environment.get("NAMESPACE", ""))
    try:
        yield DeadLetters(mongo.db)
    finally:
        await mongo.close()


if __name__ == "__main__":
    try:
        asyncio.run(main())
    except Failure as failure:
        sys.exit(str(failure))
