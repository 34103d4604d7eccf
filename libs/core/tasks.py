"""The end of tasks that talk to MongoDB or Redis."""

import asyncio
from typing import Any

_ASK_AGAIN_AFTER_S = 0.5


async def ended(*tasks: "asyncio.Future[Any]") -> None:
    """Cancels `tasks` until every one has ended, however it ends.

    To ask once is not enough. On Python 3.11 the drivers lose a cancellation now and then, one that meets an answer
    from the server, and whoever waits for the end of that task waits for ever (seen: the renewal of a lease).
    """
    pending = {task for task in tasks if not task.done()}
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=_ASK_AGAIN_AFTER_S)
    await asyncio.gather(*tasks, return_exceptions=True)  # nobody else asks for their errors
