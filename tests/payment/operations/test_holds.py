"""Holds: placed, captured, voided, overdue, and fought over."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from libs.core.testing import eventually
from tests.live import Api
from tests.payment.operations.asking import HOLD, Player, at_once, codes, do, refused, together, written


def in_s(seconds: float) -> str:
    return (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat()


@pytest.fixture
async def ann(player: Any) -> Player:
    """With 100, of which nothing is held."""
    return await player(100)  # type: ignore[no-any-return]


async def place(olga: Api, player: Player, amount: int = 60, **more: Any) -> str:
    given = {"walletId": player.wallet, "amount": amount, "purpose": "WITHDRAWAL"} | more
    held = await do(olga, "hold", **given)
    assert held["__typename"] == "Transfer", held
    return str(held["id"])


async def stands(olga: Api, hold_id: str) -> tuple[str, int, int, int]:
    """Its status, what is captured, what was released, and what is left."""
    hold = await olga.ask(HOLD, id=hold_id)
    return hold["status"], int(hold["captured"]), int(hold["released"]), int(hold["rest"])


class TestHold:
    async def test_sets_money_aside(self, ann: Player, olga: Api) -> None:
        await place(olga, ann)
        assert await ann.look() == {"real": 40, "bonus": 0, "locked": 60, "available": 40}

    async def test_what_is_held_cannot_be_spent(self, ann: Player, olga: Api) -> None:
        await place(olga, ann)
        assert (await do(olga, "withdraw", walletId=ann.wallet, amount=41))["code"] == "INSUFFICIENT_FUNDS"

    async def test_more_than_there_is(self, ann: Player, olga: Api) -> None:
        answer = await do(olga, "hold", walletId=ann.wallet, amount=101, purpose="BET")
        assert answer["code"] == "INSUFFICIENT_FUNDS"

    async def test_its_owner_sees_it(self, ann: Player, olga: Api) -> None:
        held = await place(olga, ann)
        assert await stands(ann.api, held) == ("OPEN", 0, 0, 60)

    async def test_a_stranger_sees_none(self, ann: Player, olga: Api, player: Any, abroad: Api) -> None:
        held, eve = await place(olga, ann), await player()
        listed = "query ($w: ID) { holds(filter: {walletId: $w}) { edges { node { id } } } }"
        for stranger in (eve.api, abroad):
            assert await stranger.ask(HOLD, id=held) is None
            assert (await stranger.ask(listed, w=ann.wallet))["edges"] == []

    async def test_again_is_the_same_though_its_end_is_later_by_default(self, ann: Player, olga: Api) -> None:
        same = written("hold", walletId=ann.wallet, amount=60, purpose="BET")
        first, second = await do(olga, "hold", **same), await do(olga, "hold", **same)
        assert first == second
        assert await ann.locked() == 60

    @pytest.mark.parametrize(
        "other", [{"amount": 59}, {"purpose": "TRANSFER"}, {"reference": "x"}, {"expiresAt": in_s(3600)}]
    )
    async def test_again_with_other_content(self, ann: Player, olga: Api, other: dict[str, Any]) -> None:
        same = {"id": await place(olga, ann), "walletId": ann.wallet, "amount": 60, "purpose": "WITHDRAWAL"}
        assert (await do(olga, "hold", **(same | other)))["code"] == "IDEMPOTENCY_MISMATCH"

    @pytest.mark.parametrize(
        "at", ["2020-01-01T00:00:00Z", "2020-01-01T00:00:00", "0001-01-01", "2020-01-01T00:00:00.123456789+14:00"]
    )
    async def test_that_is_over_before_it_begins(self, ann: Player, olga: Api, at: str) -> None:
        answer = await do(olga, "hold", walletId=ann.wallet, amount=1, purpose="BET", expiresAt=at)
        assert answer["code"] == "HOLD_OVERDUE"

    @pytest.mark.parametrize("at", ["9999-12-31T23:59:59Z", "2199-01-01T00:00:00", "9999-12-31T23:59:59-14:00", "", 1])
    async def test_for_ever(self, ann: Player, olga: Api, at: Any) -> None:
        wanted = {"walletId": ann.wallet, "amount": 1, "purpose": "BET", "expiresAt": at}
        assert await refused(olga, "hold", **wanted) == "BAD_USER_INPUT"

    async def test_end_without_an_offset_is_in_utc(self, ann: Player, olga: Api) -> None:
        naive = (datetime.now(UTC) + timedelta(hours=1)).replace(tzinfo=None, microsecond=0)
        held = await place(olga, ann, expiresAt=naive.isoformat())
        assert (await olga.ask(HOLD, id=held))["expiresAt"] == f"{naive.isoformat()}+00:00"

    async def test_another_currency(self, ann: Player, olga: Api) -> None:
        answer = await do(olga, "hold", walletId=ann.wallet, amount=1, purpose="BET", currency="USD")
        assert answer["code"] == "CURRENCY_MISMATCH"


class TestCapture:
    async def test_to_the_system_is_told_as_what_the_hold_was_for(self, ann: Player, olga: Api, told: Any) -> None:
        held = await place(olga, ann)
        captured = await do(olga, "capture", holdId=held, amount=50)
        await do(olga, "reverseTransfer", transferId=captured["id"], reason="came back")
        facts = [e["type"] for e in await told(ann) if e["type"].startswith("withdrawal.")]
        assert facts == ["withdrawal.completed", "withdrawal.reversed"]

    async def test_a_withdrawal_leaves_for_outside(self, ann: Player, olga: Api) -> None:
        held = await place(olga, ann)
        done = await do(olga, "capture", holdId=held, amount=60)
        assert (done["kind"], done["holdId"]) == ("CAPTURE", held)
        assert await ann.look() == {"real": 40, "bonus": 0, "locked": 0, "available": 40}
        assert await stands(olga, held) == ("CAPTURED", 60, 0, 0)

    async def test_a_transfer_goes_where_it_is_said(self, ann: Player, olga: Api, player: Any) -> None:
        held, ben = await place(olga, ann, purpose="TRANSFER"), await player()
        assert await refused(olga, "capture", holdId=held, amount=60) == "BAD_USER_INPUT"
        await do(olga, "capture", holdId=held, amount=60, destinationWalletId=ben.wallet)
        assert await ben.real() == 60

    async def test_in_parts(self, ann: Player, olga: Api) -> None:
        held = await place(olga, ann)
        for amount in (10, 20):
            await do(olga, "capture", holdId=held, amount=amount)
        assert await stands(olga, held) == ("OPEN", 30, 0, 30)
        assert (await do(olga, "capture", holdId=held, amount=31))["code"] == "HOLD_EXCEEDED"
        await do(olga, "capture", holdId=held, amount=30)
        assert (await do(olga, "capture", holdId=held, amount=1))["code"] == "HOLD_CLOSED"

    async def test_the_final_part_releases_the_rest(self, ann: Player, olga: Api) -> None:
        held = await place(olga, ann)
        done = await do(olga, "capture", holdId=held, amount=10, final=True)
        assert await together(olga, done["id"]) == [("CAPTURE", 10), ("VOID", 50)]
        assert await stands(olga, held) == ("CAPTURED", 10, 50, 0)
        assert await ann.look() == {"real": 90, "bonus": 0, "locked": 0, "available": 90}

    async def test_all_of_it_as_the_final_part(self, ann: Player, olga: Api) -> None:
        held = await place(olga, ann)
        done = await do(olga, "capture", holdId=held, amount=60, final=True)
        assert await together(olga, done["id"]) == [("CAPTURE", 60)]

    async def test_again_is_the_same_after_the_hold_is_closed(self, ann: Player, olga: Api) -> None:
        same = written("capture", holdId=await place(olga, ann), amount=10, final=True)
        assert await do(olga, "capture", **same) == await do(olga, "capture", **same)
        assert (await do(olga, "capture", **same | {"final": False}))["code"] == "IDEMPOTENCY_MISMATCH"
        assert (await do(olga, "capture", **same | {"amount": "9"}))["code"] == "IDEMPOTENCY_MISMATCH"

    async def test_twenty_at_once_never_take_more_than_is_held(self, ann: Player, olga: Api) -> None:
        held = await place(olga, ann)
        done = await at_once(20, olga, "capture", holdId=held, amount=7)
        assert codes(done) == [""] * 8 + ["HOLD_EXCEEDED"] * 12
        assert await stands(olga, held) == ("OPEN", 56, 0, 4)

    async def test_captures_and_voids_at_once(self, ann: Player, olga: Api) -> None:
        held = await place(olga, ann)
        done = await asyncio.gather(
            *(do(olga, "capture", holdId=held, amount=30, final=n % 2 == 0) for n in range(10)),
            *(do(olga, "voidHold", holdId=held) for _ in range(10)),
        )
        status, captured, released, rest = await stands(olga, held)
        assert status in ("CAPTURED", "VOIDED")
        assert (captured + released, rest, await ann.locked()) == (60, 0, 0)
        assert await ann.real() == 40 + released
        assert 1 <= codes(done).count("") <= 2

    async def test_while_it_comes_due(self, ann: Player, olga: Api) -> None:
        """Each part is captured before, or refused after; what is released is the rest."""
        held, captured = await place(olga, ann, expiresAt=in_s(0.5)), 0

        async def capture_until_closed() -> None:
            nonlocal captured
            while (await do(olga, "capture", holdId=held, amount=1)).get("code") is None:
                captured += 1

        await asyncio.gather(*(capture_until_closed() for _ in range(5)))
        status, *amounts = await stands(olga, held)
        assert (status, *amounts) == ("EXPIRED" if captured < 60 else "CAPTURED", captured, 60 - captured, 0)
        assert await ann.look() == {"real": 100 - captured, "bonus": 0, "locked": 0, "available": 100 - captured}

    async def test_while_the_wallet_is_frozen(self, ann: Player, olga: Api) -> None:
        held = await place(olga, ann)
        captures = [do(olga, "capture", holdId=held, amount=1) for _ in range(20)]
        *done, _ = await asyncio.gather(*captures, do(olga, "freezeWallet", walletId=ann.wallet))
        assert set(codes(done)) <= {"", "WALLET_NOT_ACTIVE"}
        assert await ann.locked() == 60 - codes(done).count("")

    async def test_of_another_tenant(self, ann: Player, olga: Api, abroad: Api) -> None:
        held = await place(olga, ann)
        for operation, more in (("capture", {"amount": 1}), ("voidHold", {})):
            assert (await do(abroad, operation, holdId=held, **more))["code"] == "HOLD_NOT_FOUND"

    async def test_into_a_wallet_of_another_tenant(self, ann: Player, olga: Api, player: Any) -> None:
        held, stranger = await place(olga, ann), await player(tenant="other")
        answer = await do(olga, "capture", holdId=held, amount=1, destinationWalletId=stranger.wallet)
        assert answer["code"] == "HOLD_NOT_FOUND"

    async def test_into_another_currency(self, ann: Player, olga: Api, player: Any) -> None:
        held, ben = await place(olga, ann), await player()
        dollars = await ben.another_wallet("USD")
        answer = await do(olga, "capture", holdId=held, amount=1, destinationWalletId=dollars)
        assert answer["code"] == "CURRENCY_MISMATCH"

    async def test_into_a_wallet_of_the_house_by_name(self, ann: Player, olga: Api) -> None:
        listed = await olga.ask('{ wallets(filter: {kind: FEE, currency: "EUR"}) { edges { node { id } } } }')
        held, fees = await place(olga, ann), listed["edges"][0]["node"]["id"]
        answer = await do(olga, "capture", holdId=held, amount=1, destinationWalletId=fees)
        assert answer["code"] == "HOLD_NOT_FOUND"

    async def test_an_empty_destination_is_none(self, ann: Player, olga: Api) -> None:
        """Not left out: money must not leave because a client's variable was empty."""
        held = await place(olga, ann)
        assert await refused(olga, "capture", holdId=held, amount=1, destinationWalletId="") == "BAD_USER_INPUT"

    async def test_nothing(self, ann: Player, olga: Api) -> None:
        held = await place(olga, ann)
        assert await refused(olga, "capture", holdId=held, amount=0) == "BAD_USER_INPUT"

    async def test_a_transfer_that_is_no_hold(self, ann: Player, olga: Api) -> None:
        other = await do(olga, "deposit", walletId=ann.wallet, amount=1)
        assert (await do(olga, "capture", holdId=other["id"], amount=1))["code"] == "HOLD_NOT_FOUND"

    async def test_under_the_id_of_the_hold(self, ann: Player, olga: Api) -> None:
        held = await place(olga, ann)
        assert (await do(olga, "capture", id=held, holdId=held, amount=1))["code"] == "IDEMPOTENCY_MISMATCH"


class TestVoidHold:
    async def test_gives_the_rest_back(self, ann: Player, olga: Api) -> None:
        held = await place(olga, ann)
        await do(olga, "capture", holdId=held, amount=10)
        done = await do(olga, "voidHold", holdId=held)
        assert (done["kind"], done["amount"]) == ("VOID", "50")
        assert await stands(olga, held) == ("VOIDED", 10, 50, 0)

    async def test_again_is_the_same(self, ann: Player, olga: Api) -> None:
        same = written("voidHold", holdId=await place(olga, ann))
        assert await do(olga, "voidHold", **same) == await do(olga, "voidHold", **same)

    async def test_of_a_captured_hold(self, ann: Player, olga: Api) -> None:
        held = await place(olga, ann)
        await do(olga, "capture", holdId=held, amount=60)
        assert (await do(olga, "voidHold", holdId=held))["code"] == "HOLD_CLOSED"


class TestOverdue:
    async def test_gives_way_to_the_owners_next_payment(self, ann: Player, olga: Api, player: Any) -> None:
        held, ben = await place(olga, ann, amount=100, expiresAt=in_s(0.4)), await player()

        async def paid() -> Any:
            answer = await do(ann.api, "transfer", sourceWalletId=ann.wallet, destinationWalletId=ben.wallet, amount=80)
            return answer["__typename"] == "Transfer"

        await eventually(paid)
        assert await stands(olga, held) == ("EXPIRED", 0, 100, 0)

    async def test_cannot_be_captured(self, ann: Player, olga: Api) -> None:
        held = await place(olga, ann, expiresAt=in_s(0.4))

        async def closed() -> Any:
            return (await do(olga, "capture", holdId=held, amount=1, dryRun=True)).get("code") == "HOLD_CLOSED"

        await eventually(closed)
        assert (await do(olga, "capture", holdId=held, amount=1))["code"] == "HOLD_CLOSED"

    async def test_is_released_though_nobody_asks(self, ann: Player, olga: Api, database: Any) -> None:
        held = await place(olga, ann, expiresAt=in_s(0.3))

        async def released() -> Any:
            await database.db["jobs"].delete_many({"_id": "release overdue holds"})  # have it run now
            return (await stands(olga, held))[0] == "EXPIRED"

        await eventually(released, within_s=30)
        assert await ann.real() == 100

    async def test_only_what_is_overdue_is_released(self, ann: Player, olga: Api) -> None:
        short, long = await place(olga, ann, 30, expiresAt=in_s(0.3)), await place(olga, ann, 30)

        async def expired() -> Any:
            await do(olga, "withdraw", walletId=ann.wallet, amount=1000)  # refused, and that is enough
            return (await stands(olga, short))[0] == "EXPIRED"

        await eventually(expired)
        assert await stands(olga, long) == ("OPEN", 0, 0, 30)
        assert await ann.look() == {"real": 70, "bonus": 0, "locked": 30, "available": 70}

    async def test_of_a_frozen_wallet_is_released(self, ann: Player, olga: Api) -> None:
        held = await place(olga, ann, expiresAt=in_s(0.3))
        await do(olga, "freezeWallet", walletId=ann.wallet)

        async def expired() -> Any:
            await do(olga, "withdraw", walletId=ann.wallet, amount=1)
            return (await stands(olga, held))[0] == "EXPIRED"

        await eventually(expired)

    async def test_nobody_can_take_the_id_of_its_end(self, ann: Player, olga: Api, player: Any) -> None:
        """Whoever could would keep the money locked for ever, and fail every group that tries to release it."""
        ben, held = await player(), await place(olga, ann)
        wanted = {"sourceWalletId": ann.wallet, "destinationWalletId": ben.wallet, "amount": 1}
        for taken in (f"{held}.expiry", f"{held}.1"):
            assert await refused(ann.api, "transfer", id=taken, **wanted) == "BAD_USER_INPUT"
