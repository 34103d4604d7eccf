"""Signs the heads of the journal's lanes, with a key that is not in the database, and publishes them.

Whoever keeps a head, out of the event stream or the log, can tell later whether the chain up to it is still the same:
even the owner of the database can neither rewrite nor cut it unnoticed. So nothing is signed that does not verify.
"""

import structlog

from libs.core.clock import Clock
from libs.core.events import Event, Outbox
from libs.core.mongo import Mongo, Session
from services.payment.domain.journal import GENESIS, Head, instant
from services.payment.events import PLATFORM, JournalHeadSigned
from services.payment.keys import JournalKeys
from services.payment.store import journal
from services.payment.store.journal import SignedHead, Tip
from services.payment.verify.blocks import Place, check_chain, check_head, check_place
from services.payment.verify.divergence import Diverged, Kind

log = structlog.get_logger(__name__)

# Of one head: its document holds their hashes, 32 KB at the most, and a receipt's path through them takes 0.4 ms.
BLOCKS_A_HEAD = 1_024


class HeadSigner:
    """Remembers what it signed last, so that a head which was taken away from the database is not signed anew."""

    def __init__(self, mongo: Mongo, outbox: Outbox, clock: Clock, keys: JournalKeys) -> None:
        self._mongo = mongo
        self._outbox = outbox
        self._clock = clock
        self._keys = keys
        self._signed: dict[int, SignedHead] = {}

    async def sign(self) -> list[SignedHead]:
        """Whatever is not signed yet, in every lane. `Diverged` if what is there does not verify: nothing is signed."""
        async with journal.snapshot(self._mongo) as session:
            tips = await journal.tips(self._mongo.db, session)
        signed = []
        for tip in tips:
            last = await journal.last_head(self._mongo.db, tip.lane)
            await self._check_remembered(tip.lane)
            while (last.head.last if last else 0) < tip.last:
                last = await self._sign_next(tip, last)
                signed.append(last)
        return signed

    async def _check_remembered(self, lane: int) -> None:
        ours = self._signed.get(lane)
        if ours is None:
            return
        there = await journal.head(self._mongo.db, lane, ours.head.number)
        where = f"head {ours.head.number} of lane {lane}, which this process signed"
        if there is None:
            raise Diverged(Kind.HEAD_MISSING, where, "there", "not there")
        if there.hash != ours.hash:
            raise Diverged(Kind.HEAD_WRONG, where, ours.hash, there.hash)

    async def _sign_next(self, tip: Tip, last: SignedHead | None) -> SignedHead:
        hashes = await self._verified_hashes(tip, last)
        head = Head.of(last.head if last else None, tip.lane, hashes, self._clock.now())
        signed = SignedHead(head, head.hash, b"".join(hashes), self._keys.id, self._keys.sign(head.hash))
        published = Event.new(
            _told(signed),
            source="payment",
            subject=f"{head.lane}:{head.number}",
            tenant_id=PLATFORM,
            partition_key=f"{PLATFORM}:journal",
        )

        async def store(session: Session) -> None:
            await journal.insert_head(self._mongo.db, session, signed)
            await self._outbox.append(session, [published])

        await self._mongo.transaction(store)
        self._outbox.kick()
        self._signed[head.lane] = signed
        log.info("journal head signed", **published.data)
        return signed

    async def _verified_hashes(self, tip: Tip, last: SignedHead | None) -> list[bytes]:
        """Of the blocks that follow `last`: their chain goes on from it, and their leaves are theirs."""
        place = Place(tip.lane)
        if last:
            signed = check_head(last, self._keys.all)
            place = Place(tip.lane, last.head.last, signed[-1] if signed else GENESIS)
            await check_place(self._mongo.db, place)
        hashes: list[bytes] = []
        until = min(tip.last, place.sequence + BLOCKS_A_HEAD)
        async for stored in journal.blocks(self._mongo.db, tip.lane, place.sequence, until):
            check_chain(stored, place, tip)
            place.sequence, place.hash = stored.block.sequence, stored.hash
            hashes.append(stored.hash)
        if place.sequence < until:
            where = f"block {place.sequence + 1} of lane {tip.lane}"
            raise Diverged(Kind.CHAIN_CUT, where, f"blocks up to {tip.last}", f"nothing after {place.sequence}")
        return hashes


def _told(signed: SignedHead) -> JournalHeadSigned:
    head = signed.head
    return JournalHeadSigned(
        lane=head.lane,
        number=head.number,
        first=head.first,
        last=head.last,
        previous=head.previous.hex(),
        root=head.root.hex(),
        hash=signed.hash.hex(),
        signed_at=instant(head.at_ms),
        key_id=signed.key_id,
        signature=signed.signature.hex(),
    )
