"""Verifies payment's whole ledger, and says the first thing that is wrong (`make verify`).

    make verify                      # ends with 1 if money does not add up
    make verify HEADS=heads.jsonl    # and every head that was kept is still in the chain

HEADS is a file with a published head a line, as JSON: `journal.head_signed` events, or log lines. With MONGO_URL set it
works on that installation, with JOURNAL_KEY or, for who has only the public keys, KEYS=hex,hex; else on the stack that
is running here. That there is nothing wrong turns an alarm off that was raised before.
"""

import asyncio
import gc
import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from libs.core.clock import SystemClock
from libs.core.errors import CoreError
from libs.core.events import Outbox
from libs.core.mongo import Mongo
from scripts import stack
from scripts.process import Failure
from services.payment.keys import JournalKeys, public_keys
from services.payment.settings import PaymentSettings
from services.payment.verify import Progress, PublishedHead, Verified, verify_all
from services.payment.verify.blocks import RANGE_TRANSFERS
from services.payment.verify.watch import Watch


def main() -> None:
    gc.set_threshold(100_000)  # nothing here makes cycles, and looking for them takes a fifth of the time
    if "MONGO_URL" not in os.environ:
        os.environ.update(stack.environment())
    heads = list(published(Path(os.environ["HEADS"]))) if os.environ.get("HEADS") else []
    verified = asyncio.run(verify(heads))
    if verified.divergence:
        raise Failure(str(verified.divergence))
    cut = ", ".join(f"lane {lane} to block {sequence}" for lane, sequence in sorted(verified.cut.items()))
    rate = verified.spent.transfers / max(verified.seconds, 1e-3)
    print(f"{verified.spent.transfers:,} transfers and {verified.lines:,} transactions add up: {cut or 'no lane'}")
    print(f"{verified.seconds:.1f} s, {rate:,.0f} transfers a second; {len(heads)} kept heads are in the chain")


async def verify(heads: list[PublishedHead]) -> Verified:
    """With public keys alone, nothing is written."""
    given = os.environ.get("KEYS", "")
    namespace = os.environ.get("NAMESPACE", "")
    mongo = Mongo.connect(os.environ["MONGO_URL"], service="payment", namespace=namespace)
    try:
        if given:
            keys = public_keys(key.strip() for key in given.split(","))
            return await verify_all(mongo, keys, published=heads, progress=Line().show)
        watch = Watch(mongo, Outbox(mongo.db), SystemClock(), _keys())
        return await watch.verify_everything(published=heads, progress=Line().show, range_transfers=RANGE_TRANSFERS)
    finally:
        await mongo.close()
        print(file=sys.stderr)


def _keys() -> JournalKeys:
    return PaymentSettings.load().journal_keys()


def published(file: Path) -> Iterator[PublishedHead]:
    """Heads as they were published: events, their data alone, or log lines. Other lines are passed over."""
    for line in file.read_text().splitlines():
        try:
            said: Any = json.loads(line)
        except ValueError:
            continue
        data = said.get("data", said) if isinstance(said, dict) else None
        if isinstance(data, dict) and {"lane", "number", "hash"} <= data.keys():
            yield PublishedHead(int(data["lane"]), int(data["number"]), bytes.fromhex(data["hash"]))


class Line:
    """One line that is written anew, a few times a second."""

    def __init__(self) -> None:
        self._shown_at = 0.0

    def show(self, progress: Progress) -> None:
        if time.monotonic() - self._shown_at > 0.25 or progress.done == progress.total:
            self._shown_at = time.monotonic()
            share = progress.done / max(progress.total, 1)
            text = (
                f"{progress.step}: {progress.done:,} of {progress.total:,} ({share:.0%}), {progress.per_second:,.0f}/s"
            )
            print(f"\r{text:<78}", end="", file=sys.stderr, flush=True)


if __name__ == "__main__":
    try:
        main()
    except Failure as failure:
        sys.exit(str(failure))
    except CoreError as error:
        sys.exit(error.message)
