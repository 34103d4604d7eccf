"""Limits, suspension and self-exclusion through payment's front door, and in the database."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from libs.core.audit import AuditLog
from libs.core.config import Config
from libs.core.events import Outbox
from libs.core.ids import new_id
from libs.core.mongo import Mongo
from libs.core.redis import Redis
from libs.core.tenants import Tenant, Tenants
from libs.core.testing import eventually, scratch_mongo, scratch_namespace
from services.payment.settings import PaymentConfig
from tests.live import CURRENCIES, Api, Live, callers, payment_process

As = Callable[..., Api]
Ask = Callable[..., Awaitable[Any]]

LIMIT = """operation window source scope currency amount used rest resetsAt resetsAtLocal since
    pendingAmount pendingFrom"""
ACCOUNT = f"""{{ __typename ... on AccountStanding {{ ownerId status excludedUntil limits {{ {LIMIT} }} }}
    ... on Problem {{ code rule details }} }}"""
SET_MINE = f"mutation ($input: SetMyLimitInput!) {{ setMyLimit(input: $input) {ACCOUNT} }}"
REMOVE_MINE = f"mutation ($input: MyLimitInput!) {{ removeMyLimit(input: $input) {ACCOUNT} }}"
EXCLUDE = f"mutation ($until: DateTime!) {{ excludeMyself(until: $until) {ACCOUNT} }}"
SET = f"mutation ($input: SetLimitInput!) {{ setLimit(input: $input) {ACCOUNT} }}"
REMOVE = f"mutation ($input: LimitInput!) {{ removeLimit(input: $input) {ACCOUNT} }}"
SUSPEND = f"mutation ($input: AccountInput!) {{ suspendAccount(input: $input) {ACCOUNT} }}"
RESUME = f"mutation ($input: AccountInput!) {{ resumeAccount(input: $input) {ACCOUNT} }}"
MY_LIMITS = f"{{ myLimits {{ {LIMIT} }} }}"
LIMITS = f"query ($ownerId: ID!) {{ limits(ownerId: $ownerId) {{ {LIMIT} }} }}"
STANDING = "query ($ownerId: ID) { accountStanding(ownerId: $ownerId) { status excludedUntil } }"
CREATE = "mutation ($input: CreateWalletInput!) { createWallet(input: $input) { ... on Wallet { id } } }"
DEPOSIT = """mutation ($input: DepositInput!) { deposit(input: $input) { __typename ... on Transfer { id }
    ... on Problem { code rule } } }"""

BALANCE = {"source": "KYC", "operation": "BALANCE", "window": "LIFETIME", "currency": "EUR", "reason": "tier 0"}
DAILY = {"operation": "DEPOSIT", "window": "DAILY", "currency": "EUR"}


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory, mongo_url: str, redis_url: str) -> Iterator[Live]:
    folder: Path = tmp_path_factory.mktemp("limits")
    namespace = scratch_namespace()
    with payment_process(folder, mongo_url, redis_url, namespace) as live:
        asyncio.run(_create_tenant(live, Tenant("malta", "Malta", time_zone="Europe/Malta", currencies=CURRENCIES)))
        yield live

    async def drop() -> None:
        async with scratch_mongo(mongo_url, namespace=namespace):
            pass

    asyncio.run(drop())


async def _create_tenant(live: Live, tenant: Tenant) -> None:
    mongo, redis = servers_of(live)
    await Tenants(mongo, redis, Outbox(mongo.core)).create(tenant, actor="test")
    await redis.close()
    await mongo.close()


def servers_of(live: Live) -> tuple[Mongo, Redis]:
    namespace = live.environment["NAMESPACE"]
    mongo = Mongo.connect(live.environment["MONGO_URL"], service="payment", namespace=namespace)
    return mongo, Redis.connect(live.environment["REDIS_URL"], namespace=namespace)


@pytest.fixture
async def database(live: Live) -> AsyncIterator[Mongo]:
    mongo, redis = servers_of(live)
    yield mongo
    await redis.close()
    await mongo.close()


@pytest.fixture
async def as_(live: Live) -> AsyncIterator[As]:
    async with callers(live) as as_:
        yield as_


@pytest.fixture
def name() -> str:
    return f"p{new_id()}"


@pytest.fixture
def ann(as_: As, name: str) -> Api:
    return as_(name)


@pytest.fixture
def olga(as_: As) -> Api:
    return as_("olga", "operator")


@pytest.fixture
def told(database: Mongo, name: str) -> Callable[[], Awaitable[list[dict[str, Any]]]]:
    """The events about the player, in their order."""

    async def read() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        async for batch in database.db["outbox"].find({}, sort=[("at", 1)]):
            events = map(json.loads, batch["events"].splitlines()[1::2])  # each is a line after its stream and type
            found += [event for event in events if event["partitionkey"] == f"demo:{name}"]
        return found

    return read


class TestSetMyLimit:
    async def test_is_there_at_once(self, ann: Api) -> None:
        account = await ann.ask(SET_MINE, input=DAILY | {"amount": "5000"})
        assert account["limits"] == await ann.ask(MY_LIMITS)
        (mine,) = account["limits"]
        assert (mine["source"], mine["scope"], mine["amount"]) == ("PLAYER", "*", "5000")
        assert (mine["used"], mine["rest"], mine["pendingFrom"]) == ("0", "5000", None)

    async def test_resets_are_told_in_the_tenants_time_zone(self, as_: As, name: str) -> None:
        account = await as_(name, tenant="malta").ask(SET_MINE, input=DAILY | {"amount": "5000"})
        (mine,) = account["limits"]
        local = datetime.fromisoformat(mine["resetsAtLocal"])
        tomorrow = datetime.now(ZoneInfo("Europe/Malta")).date() + timedelta(days=1)
        assert local == datetime(tomorrow.year, tomorrow.month, tomorrow.day, tzinfo=ZoneInfo("Europe/Malta"))
        assert local.utcoffset() in (timedelta(hours=1), timedelta(hours=2))
        assert datetime.fromisoformat(mine["resetsAt"]) == local

    async def test_stricter_is_at_once_and_laxer_waits_a_day(self, ann: Api) -> None:
        for amount in ("5000", "3000", "9000"):
            account = await ann.ask(SET_MINE, input=DAILY | {"amount": amount})
        (mine,) = account["limits"]
        assert (mine["amount"], mine["pendingAmount"]) == ("3000", "9000")
        waits = datetime.fromisoformat(mine["pendingFrom"]) - datetime.now(UTC)
        assert timedelta(hours=23, minutes=59) < waits <= timedelta(days=1)

    async def test_an_end_waits_too(self, ann: Api) -> None:
        await ann.ask(SET_MINE, input=DAILY | {"amount": "5000"})
        (mine,) = (await ann.ask(REMOVE_MINE, input=DAILY))["limits"]
        assert (mine["amount"], mine["pendingAmount"]) == ("5000", None)
        assert mine["pendingFrom"]

    async def test_there_is_none_to_remove(self, ann: Api) -> None:
        assert await ann.refused(REMOVE_MINE, input=DAILY) == "NOT_FOUND"

    @pytest.mark.parametrize(
        ("changes", "field"),
        [
            ({"currency": "XXX"}, "input.currency"),
            ({"currency": "eur"}, "input.currency"),
            ({"scope": "yacht"}, "input.scope"),
            ({"operation": "LOSS", "window": "SINGLE"}, "input.window"),
            ({"operation": "BALANCE"}, "input.window"),
        ],
    )
    async def test_wrong_input_is_named(self, ann: Api, changes: dict[str, str], field: str) -> None:
        answer = (await ann.post(SET_MINE, input=DAILY | {"amount": "1"} | changes)).json()
        extensions = answer["errors"][0]["extensions"]
        assert (extensions["code"], extensions["details"]["field"]) == ("BAD_USER_INPUT", field)

    async def test_a_hundred_at_most(self, ann: Api, database: Mongo, name: str) -> None:
        await ann.ask(SET_MINE, input=DAILY | {"amount": "1"})
        account = await database.db["accounts"].find_one({"_id": f"demo:{name}"})
        assert account
        many = [account["limits"][0] | {"currency": f"C{n:03}"} for n in range(100)]
        await database.db["accounts"].update_one({"_id": account["_id"]}, {"$set": {"limits": many}})
        assert (await ann.ask(SET_MINE, input=DAILY | {"amount": "1"}))["code"] == "TOO_MANY_LIMITS"

    async def test_twenty_at_once_are_all_there(self, ann: Api) -> None:
        wanted = [
            {"operation": operation, "window": window, "currency": currency, "amount": "7"}
            for operation in ("DEPOSIT", "WITHDRAWAL", "WAGER", "TRANSFER", "LOSS")
            for window in ("DAILY", "WEEKLY")
            for currency in ("EUR", "USD")
        ]
        await asyncio.gather(*(ann.ask(SET_MINE, input=each) for each in wanted))
        assert len(await ann.ask(MY_LIMITS)) == 20


class TestSetLimit:
    def given(self, name: str, **changes: Any) -> dict[str, Any]:
        return {"ownerId": name, "source": "OPERATOR", "reason": "affordability", **DAILY, **changes}

    async def test_the_player_sees_it_and_cannot_change_it(self, olga: Api, ann: Api, name: str) -> None:
        await olga.ask(SET, input=self.given(name, amount="100"))
        await ann.ask(SET_MINE, input=DAILY | {"amount": "999"})
        theirs = {(limit["source"], limit["amount"]) for limit in await ann.ask(MY_LIMITS)}
        assert theirs == {("OPERATOR", "100"), ("PLAYER", "999")}

    async def test_laxer_is_at_once(self, olga: Api, name: str) -> None:
        for amount in ("100", "200"):
            account = await olga.ask(SET, input=self.given(name, amount=amount))
        assert [(limit["amount"], limit["pendingFrom"]) for limit in account["limits"]] == [("200", None)]
        assert (await olga.ask(REMOVE, input=self.given(name)))["limits"] == []

    async def test_is_told_and_audited(self, olga: Api, name: str, told: Ask, database: Mongo) -> None:
        for _ in range(2):  # the second changes nothing
            await olga.ask(SET, input=self.given(name, amount="100"))
        (event,) = await told()
        assert (event["type"], event["actor"], int(event["sequence"])) == ("limit.changed", "olga", 1)
        assert (event["data"]["amount"], event["data"]["limit_source"]) == ("100", "operator")
        (row,) = await AuditLog(database.db, "accounts.demo").read(resource=f"account:{name}")
        assert (row.actor, row.action, row.reason) == ("olga", "limit.set", "affordability")
        assert row.after["limits"] == {"deposit:daily:operator:EUR:*": {"amount": 100, "pending": None}}

    @pytest.mark.parametrize(
        ("changes", "field"),
        [
            ({"source": "PLAYER"}, "input.source"),
            ({"reason": " "}, "input.reason"),
            ({"ownerId": "$"}, "input.ownerId"),
        ],
    )
    async def test_wrong_input_is_named(self, olga: Api, name: str, changes: dict[str, Any], field: str) -> None:
        answer = (await olga.post(SET, input=self.given(name, amount="1") | changes)).json()
        assert answer["errors"][0]["extensions"]["details"]["field"] == field

    async def test_is_not_for_players(self, ann: Api, name: str) -> None:
        assert await ann.refused(SET, input=self.given(name, amount="1")) == "FORBIDDEN"

    async def test_only_in_the_own_tenant(self, as_: As, ann: Api, name: str) -> None:
        await as_("oscar", "operator", tenant="other").ask(SET, input=self.given(name, amount="1"))
        assert await ann.ask(MY_LIMITS) == []


class TestBalanceLimit:
    @pytest.fixture
    async def wallets(self, ann: Api) -> list[str]:
        """Ids: main, casino."""
        made = [await ann.ask(CREATE, input={"currency": "EUR", "category": each}) for each in ("main", "casino")]
        return [wallet["id"] for wallet in made]

    @pytest.fixture
    def pay_in(self, olga: Api) -> Ask:
        """`await pay_in(wallet_id, amount)`: the problem's rule, or null."""

        async def ask(wallet_id: str, amount: int) -> str | None:
            given = {"id": new_id(), "walletId": wallet_id, "amount": str(amount), "currency": "EUR"}
            rule: str | None = (await olga.ask(DEPOSIT, input=given)).get("rule")
            return rule

        return ask

    async def test_over_all_wallets(self, olga: Api, ann: Api, name: str, wallets: list[str], pay_in: Ask) -> None:
        main, casino = wallets
        await pay_in(main, 100)
        await pay_in(casino, 50)
        await olga.ask(SET, input=BALANCE | {"ownerId": name, "amount": "200"})
        (limit,) = await ann.ask(MY_LIMITS)
        assert (limit["used"], limit["rest"], limit["resetsAt"]) == ("150", "50", None)
        assert await pay_in(casino, 51) == "limit.balance.lifetime.kyc"
        assert await pay_in(main, 30) is None
        assert await pay_in(casino, 21) == "limit.balance.lifetime.kyc"
        assert await pay_in(casino, 20) is None

    async def test_money_that_comes_in_meanwhile_is_known(
        self, olga: Api, name: str, wallets: list[str], pay_in: Ask, database: Mongo
    ) -> None:
        limiting = olga.ask(SET, input=BALANCE | {"ownerId": name, "amount": "1000"})
        await asyncio.gather(*(pay_in(wallets[n % 2], 1) for n in range(20)), limiting)
        account = await database.db["accounts"].find_one({"_id": f"demo:{name}"})
        assert account
        noted = [account["counters"][f"balance:{category}:EUR"][6] for category in ("main", "casino")]
        assert noted == [10, 10]


class TestLimits:
    async def test_operators_see_anybodys_and_players_their_own(self, olga: Api, ann: Api, as_: As, name: str) -> None:
        await ann.ask(SET_MINE, input=DAILY | {"amount": "5000"})
        assert len(await olga.ask(LIMITS, ownerId=name)) == 1
        assert await as_("eve").ask(LIMITS, ownerId=name) == []
        assert await as_("eve").ask(STANDING, ownerId=name) is None

    async def test_what_all_accounts_have(self, live: Live, database: Mongo, as_: As, name: str) -> None:
        redis = servers_of(live)[1]
        limits = [{"operation": "wager", "window": "weekly", "currency": "USD", "amount_minor": 70_000}]
        async with Config(database, redis, [PaymentConfig]) as config:
            await config.set(
                PaymentConfig, {"limits": limits}, tenant_id="malta", actor="op", reason="law", expected_version=0
            )
        player = as_(name, tenant="malta")

        await redis.close()
        (limit,) = await eventually(lambda: player.ask(MY_LIMITS))
        assert (limit["source"], limit["amount"], limit["since"]) == ("PRODUCT", "70000", None)


class TestSuspendAccount:
    async def test_and_resume(self, olga: Api, ann: Api, name: str, told: Ask) -> None:
        why = {"ownerId": name, "reason": "fraud desk, case 7"}
        for _ in range(2):
            assert (await olga.ask(SUSPEND, input=why))["status"] == "SUSPENDED"
        assert (await ann.ask(STANDING))["status"] == "SUSPENDED"
        assert (await olga.ask(RESUME, input=why))["status"] == "ACTIVE"
        assert [event["type"] for event in await told()] == ["account.suspended", "account.resumed"]
        assert [int(event["sequence"]) for event in await told()] == [1, 2]

    async def test_needs_a_reason(self, olga: Api, name: str) -> None:
        assert await olga.refused(SUSPEND, input={"ownerId": name, "reason": ""}) == "BAD_USER_INPUT"

    async def test_is_not_for_players(self, ann: Api, name: str) -> None:
        assert await ann.refused(RESUME, input={"ownerId": name, "reason": "please"}) == "FORBIDDEN"


class TestExcludeMyself:
    NEXT_YEAR = datetime(datetime.now(UTC).year + 1, 7, 1, tzinfo=UTC)

    async def test_can_be_made_longer_and_never_shorter(self, ann: Api, told: Ask) -> None:
        until = [(self.NEXT_YEAR + timedelta(days=days)).isoformat() for days in (0, 0, 7)]
        for each in until:
            assert (await ann.ask(EXCLUDE, until=each))["excludedUntil"] == each
        refused = await ann.ask(EXCLUDE, until=until[0])
        assert (refused["code"], refused["details"]["until"]) == ("EXCLUSION_IS_LONGER", until[-1])
        assert [event["type"] for event in await told()] == ["account.self_excluded"] * 2

    async def test_not_in_the_past(self, ann: Api) -> None:
        assert await ann.refused(EXCLUDE, until="2020-01-01T00:00:00Z") == "BAD_USER_INPUT"

    async def test_a_suspension_and_its_end_leave_it(self, ann: Api, olga: Api, name: str) -> None:
        await ann.ask(EXCLUDE, until=self.NEXT_YEAR.isoformat())
        for change in (SUSPEND, RESUME):
            await olga.ask(change, input={"ownerId": name, "reason": "check"})
        assert (await ann.ask(STANDING))["excludedUntil"] == self.NEXT_YEAR.isoformat()
