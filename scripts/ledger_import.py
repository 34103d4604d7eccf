"""Takes a ledger in from a file (`make import FILE=ledger.gz`), into a database that has none, and verifies it there.

With MONGO_URL set it works on that installation, with JOURNAL_KEY, or the file's key in JOURNAL_FORMER_KEYS; else on
the stack that is running here. Payment must not be running. If anything is wrong nothing stays, and the exit code is 1.
"""

import asyncio
import sys
import time
from pathlib import Path

from libs.core.errors import CoreError
from libs.core.mongo import Mongo
from scripts.ledger_export import Line, file_named, settings
from scripts.process import Failure
from services.payment.exports import import_ledger
from services.payment.settings import PaymentSettings
from services.payment.verify import Verified


async def take_in(path: Path, given: PaymentSettings) -> Verified:
    mongo, line = Mongo.connect(given.mongo_url, service=given.service, namespace=given.namespace), Line("wrote")
    try:
        return await import_ledger(mongo, path, given.journal_keys(), line.add)
    finally:
        await mongo.close()
        line.end()


def main() -> None:
    path = file_named(must_exist=True)
    began, given = time.monotonic(), settings()
    from services.payment.app import app

    asyncio.run(app.migrate(wait_s=60))
    verified = asyncio.run(take_in(path, given))
    print(f"{verified.spent.transfers:,} transfers and {verified.lines:,} transactions are in, and add up")
    print(f"{time.monotonic() - began:.1f} s, of which verifying took {verified.seconds:.1f}")


if __name__ == "__main__":
    try:
        main()
    except Failure as failure:
        sys.exit(str(failure))
    except CoreError as error:
        sys.exit(error.message)
