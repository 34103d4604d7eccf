"""Takes payment's ledger out to a file (`make export FILE=ledger.gz`), of all tenants, up to now; payments may go on.

With MONGO_URL set it works on that installation, with JOURNAL_KEY, which signs the file; else on the stack that is
running here. The file holds everybody's money: it is readable for its owner alone, and is yours to guard.
"""

import asyncio
import os
import sys
import time
from collections import Counter
from pathlib import Path

from libs.core.errors import CoreError
from libs.core.mongo import Mongo
from scripts import stack
from scripts.process import Failure
from services.payment.exports import export_ledger
from services.payment.settings import PaymentSettings


class Line:
    """One line that is written anew, a few times a second."""

    def __init__(self, verb: str) -> None:
        self._verb, self._counts, self._shown_at = verb, Counter[str](), 0.0

    def add(self, collection: str, count: int) -> None:
        self._counts[collection] += count
        if time.monotonic() - self._shown_at > 0.25:
            self._shown_at = time.monotonic()
            text = f"{self._verb} {collection}: {self._counts[collection]:,}"
            print(f"\r{text:<78}", end="", file=sys.stderr, flush=True)

    def end(self) -> None:
        print(f"\r{'':<78}\r", end="", file=sys.stderr, flush=True)


def file_named(must_exist: bool) -> Path:
    if not os.environ.get("FILE"):
        raise Failure("say which file: FILE=ledger.gz")
    path = Path(os.environ["FILE"])
    if path.exists() is not must_exist:
        raise Failure(f"{path} {'does not exist' if must_exist else 'is there already'}")
    return path


def settings() -> PaymentSettings:
    if "MONGO_URL" not in os.environ:
        os.environ.update(stack.environment())
    return PaymentSettings.load()


async def export(path: Path, given: PaymentSettings) -> dict[str, int]:
    mongo, line = Mongo.connect(given.mongo_url, service=given.service, namespace=given.namespace), Line("read")
    try:
        return await export_ledger(mongo, path, given.journal_keys(), line.add)
    finally:
        await mongo.close()
        line.end()


def main() -> None:
    path = file_named(must_exist=False)
    began = time.monotonic()
    counts = asyncio.run(export(path, settings()))
    said = ", ".join(f"{count:,} {name}" for name, count in counts.items())
    print(f"{path}: {said or 'an empty ledger'}; {path.stat().st_size:,} bytes in {time.monotonic() - began:.1f} s")


if __name__ == "__main__":
    try:
        main()
    except Failure as failure:
        sys.exit(str(failure))
    except CoreError as error:
        sys.exit(error.message)
