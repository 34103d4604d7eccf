"""Statements and past balances, through the front door."""

import asyncio
import csv
import io
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from libs.core.ids import new_id
from libs.core.mongo import Mongo
from libs.core.tenants import SystemWallet, system_wallet_id
from libs.core.testing import eventually
from services.payment import store
from services.payment.domain import Bucket, user_wallet
from services.payment.statements import decimal
from tests.live import Api, Live, callers, payment_process, shared_namespace
from tests.payment.test_schema import CREATE, DEPOSIT, TRANSFER, As, order

BALANCE_AT = (
    """query ($id: ID!, $at: DateTime!) { balanceAt(walletId: $id, at: $at) { real bonus locked available } }"""
)
Player = Callable[..., Awaitable[tuple[Api, str]]]
BORN = datetime(2026, 1, 1, tzinfo=UTC)
MANY = 50_000


@pytest.fixture(scope="module")
def namespace(mongo_url: str, redis_url: str) -> Iterator[str]:
    with shared_namespace(mongo_url, redis_url) as namespace:
        yield namespace


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory, mongo_url: str, redis_url: str, namespace: str) -> Iterator[Live]:
    folder: Path = tmp_path_factory.mktemp("payment")
    with payment_process(folder, mongo_url, redis_url, namespace) as live:
        yield live


@pytest.fixture
async def database(mongo_url: str, namespace: str, live: Live) -> AsyncIterator[Mongo]:
    mongo = Mongo.connect(mongo_url, service="payment", namespace=namespace)
    yield mongo
    await mongo.close()


@pytest.fixture
async def as_(live: Live) -> AsyncIterator[As]:
    async with callers(live) as as_:
        yield as_


@pytest.fixture
def olga(as_: As) -> Api:
    return as_("olga", "operator")


@pytest.fixture
def player(as_: As, olga: Api) -> Player:
    """`api, wallet_id = await player(100, 50)`: somebody new, with these deposits."""

    async def join(*deposits: int, reference: str = "") -> tuple[Api, str]:
        api = as_(f"p{new_id()}")
        wallet = await api.ask(CREATE, input={"currency": "EUR"})
        for amount in deposits:
            await pay_in(olga, wallet["id"], amount, reference)
        return api, wallet["id"]

    return join


async def pay_in(olga: Api, wallet_id: str, amount: int, reference: str = "") -> datetime:
    given = {"id": new_id(), "walletId": wallet_id, "amount": str(amount), "currency": "EUR", "reference": reference}
    return datetime.fromisoformat((await olga.ask(DEPOSIT, input=given))["createdAt"])


async def get(api: Api, wallet_id: str, accept: str = "", **query: str) -> httpx.Response:
    headers = {"authorization": f"Bearer {api.token}"} if api.token else {}
    headers |= {"accept": accept} if accept else {}
    url = f"{api.url}/wallets/{wallet_id}/statement"
    return await api.client.get(url, params=query, headers=headers)


async def lines(api: Api, wallet_id: str, **query: str) -> list[Any]:
    answer = await get(api, wallet_id, **query)
    assert answer.status_code == 200, answer.text
    found: list[Any] = answer.json()["lines"]
    return found


def rows(answer: httpx.Response) -> list[dict[str, str]]:
    assert answer.status_code == 200, answer.text
    return list(csv.DictReader(io.StringIO(answer.text, newline="")))


def real(balances: list[Mapping[str, str]]) -> str:
    return next(balance["balanceAfter"] for balance in balances if balance["bucket"] == "real")


class TestBalanceAt:
    async def test_each_instant_has_its_own(self, player: Player, olga: Api) -> None:
        ann, wallet = await player()
        instants = [await pay_in(olga, wallet, amount) for amount in (5, 7, 11)]
        asked = [at + timedelta(milliseconds=step) for at in instants for step in (-1, 0)]
        found = [int((await ann.ask(BALANCE_AT, id=wallet, at=at.isoformat()))["real"]) for at in asked]
        assert found == [0, 5, *[5, 12][-2:], 12, 23]

    async def test_what_was_once_said_stays_under_load(self, player: Player) -> None:
        (ann, from_ann), (_, to_ben) = await player(1000), await player()
        told: dict[str, int] = {}

        async def watch() -> None:
            for _ in range(15):
                at = datetime.now(UTC).isoformat()
                told[at] = int((await ann.ask(BALANCE_AT, id=from_ann, at=at))["real"])

        moves = [ann.ask(TRANSFER, input=order(from_ann, to_ben, "1")) for _ in range(100)]
        await asyncio.gather(watch(), *moves)
        for at, before in told.items():
            assert int((await ann.ask(BALANCE_AT, id=from_ann, at=at))["real"]) == before

    async def test_zero_before_there_was_the_wallet(self, player: Player) -> None:
        ann, wallet = await player(5)
        for at in ("0001-01-01T00:00:00Z", "2020-01-01T00:00:00+02:00"):
            assert (await ann.ask(BALANCE_AT, id=wallet, at=at))["available"] == "0"

    @pytest.mark.parametrize("at", ["2999-01-01T00:00:00Z", "9999-12-31T23:59:59.999999Z", "tomorrow", "{$gt: 1}"])
    async def test_nothing_is_foretold(self, player: Player, at: str) -> None:
        ann, wallet = await player(5)
        assert await ann.refused(BALANCE_AT, id=wallet, at=at) == "BAD_USER_INPUT"

    async def test_a_system_wallet_is_the_sum_of_its_stripes(self, player: Player, olga: Api, database: Mongo) -> None:
        nostro = system_wallet_id("demo", SystemWallet.NOSTRO, "EUR")
        _, wallet = await player()
        before, after = await pay_in(olga, wallet, 5), await pay_in(olga, wallet, 8)
        await eventually(lambda: _is_there(olga, nostro))
        found = [int((await olga.ask(BALANCE_AT, id=nostro, at=at.isoformat()))["real"]) for at in (before, after)]
        assert found[0] - found[1] == 8

    async def test_of_others_is_null(self, player: Player, as_: As) -> None:
        _, wallet = await player(5)
        past = {"id": wallet, "at": "2026-01-01T00:00:00Z"}
        assert await as_("eve").ask(BALANCE_AT, **past) is None
        assert await as_("olga", "operator", tenant="other").ask(BALANCE_AT, **past) is None
        assert await as_("").refused(BALANCE_AT, **past) == "UNAUTHENTICATED"


class TestStatement:
    async def test_tells_what_happened(self, player: Player) -> None:
        (ann, wallet), (_, to_ben) = await player(1050), await player()
        await ann.ask(TRANSFER, input=order(wallet, to_ben, "25", reference="lunch"))
        told = (await get(ann, wallet)).json()
        assert [
            (line["direction"], line["amount"], line["amountMinor"], line["balanceAfter"], line["reference"])
            for line in told["lines"]
        ] == [("credit", "10.50", "1050", "10.50", ""), ("debit", "0.25", "25", "10.25", "lunch")]
        assert (real(told["opening"]), real(told["closing"])) == ("0.00", "10.25")
        assert (told["count"], told["complete"], told["scale"]) == (2, True, 2)

    async def test_csv_says_the_same(self, player: Player) -> None:
        ann, wallet = await player(1050, 7)
        told = rows(await get(ann, wallet, format="csv"))
        assert [row["record"] for row in told] == [*["opening"] * 3, "line", "line", *["closing"] * 3, "end"]
        in_json = await lines(ann, wallet)
        assert [{k: row[k] for k in in_json[0]} for row in told if row["record"] == "line"] == in_json
        assert told[-1]["lines"] == "2"

    async def test_a_deposit_is_in_the_statement_that_is_asked_for_next(self, player: Player, olga: Api) -> None:
        ann, wallet = await player()
        for n in range(1, 6):
            await pay_in(olga, wallet, 1)
            assert len(await lines(ann, wallet)) == n

    async def test_the_end_is_excluded_and_the_beginning_is_not(self, player: Player, olga: Api) -> None:
        ann, wallet = await player()
        at = [await pay_in(olga, wallet, amount) for amount in (1, 2, 3)]
        told = (await get(ann, wallet, **{"from": at[1].isoformat(), "until": at[2].isoformat()})).json()
        assert [line["amountMinor"] for line in told["lines"]] == ["2"]
        assert (real(told["opening"]), real(told["closing"])) == ("0.01", "0.03")

    async def test_neighbouring_ranges_have_each_line_once(self, player: Player, olga: Api) -> None:
        ann, wallet = await player(*range(1, 8))
        at = [line["at"] for line in await lines(ann, wallet)]
        cuts = [at[0], at[2], at[2], at[5], at[6], datetime.now(UTC).isoformat()]
        parts = [await lines(ann, wallet, **{"from": a, "until": b}) for a, b in itertools.pairwise(cuts)]
        assert [int(line["amountMinor"]) for part in parts for line in part] == list(range(1, 8))

    async def test_of_a_system_wallet_adds_up(self, player: Player, olga: Api) -> None:
        await player(3, 4)
        nostro = system_wallet_id("demo", SystemWallet.NOSTRO, "EUR")
        await eventually(lambda: _is_there(olga, nostro))
        told = (await get(olga, nostro)).json()
        paid_in = sum(int(line["amountMinor"]) for line in told["lines"])
        assert told["closing"][0]["balanceAfterMinor"] == told["lines"][-1]["balanceAfterMinor"] == str(-paid_in)

    @pytest.mark.parametrize(
        ("reference", "shown"),
        [
            ("=HYPERLINK(0)", "'=HYPERLINK(0)"),
            ("+1", "'+1"),
            ("-1", "'-1"),
            ("@SUM(A1)", "'@SUM(A1)"),
            ("\t=1", "'\t=1"),
            (" =1", "' =1"),
            ('5" x, 7', '5" x, 7'),
            ("two\r\nlines", "two\r\nlines"),
            ("a=b", "a=b"),
        ],
    )
    async def test_no_reference_is_a_formula(self, player: Player, reference: str, shown: str) -> None:
        ann, wallet = await player(1, reference=reference)
        told = rows(await get(ann, wallet, format="csv"))
        assert [row["reference"] for row in told if row["record"] == "line"] == [shown]
        assert [line["reference"] for line in await lines(ann, wallet)] == [reference]

    @pytest.mark.parametrize(
        ("accept", "query", "media"),
        [
            ("text/csv", {}, "text/csv"),
            ("application/json", {}, "application/json"),
            ("*/*", {}, "application/json"),
            ("text/csv, application/json", {}, "application/json"),
            ("application/json", {"format": "csv"}, "text/csv"),
        ],
    )
    async def test_comes_as_asked_for(self, player: Player, accept: str, query: dict[str, str], media: str) -> None:
        ann, wallet = await player()
        answer = await get(ann, wallet, accept, **query)
        assert answer.headers["content-type"].startswith(media)
        assert wallet in answer.headers["content-disposition"]


async def _is_there(api: Api, wallet_id: str) -> bool:
    """Payment hears of a new tenant's currencies a moment after it was created."""
    return (await get(api, wallet_id)).status_code == 200


class TestWhoMayNot:
    async def test_another_owner(self, player: Player, as_: As) -> None:
        _, wallet = await player(5)
        assert (await get(as_("eve"), wallet)).status_code == 404

    async def test_another_tenants_operator(self, player: Player, as_: As) -> None:
        _, wallet = await player(5)
        theirs = await get(as_("olga", "operator", tenant="other"), wallet)
        none = await get(as_("olga", "operator", tenant="other"), "no-such-wallet")
        assert theirs.status_code == none.status_code == 404
        assert theirs.json() == none.json()

    async def test_another_tenant_by_header(self, player: Player, live: Live, as_: As) -> None:
        _, wallet = await player(5)
        ben = as_("ben", "operator", tenant="other")
        headers = {"authorization": f"Bearer {ben.token}", "x-tenant": "demo"}
        answer = await ben.client.get(f"{ben.url}/wallets/{wallet}/statement", headers=headers)
        assert answer.status_code == 403

    async def test_nobody(self, player: Player, as_: As) -> None:
        _, wallet = await player(5)
        assert (await get(as_(""), wallet)).status_code == 401

    async def test_a_token_that_is_none(self, player: Player, as_: As) -> None:
        ann, wallet = await player(5)
        answer = await ann.client.get(
            f"{ann.url}/wallets/{wallet}/statement", headers={"authorization": "Bearer x.y.z"}
        )
        assert answer.status_code == 401

    async def test_a_role_without_the_permission(self, player: Player, as_: As) -> None:
        _, wallet = await player(5)
        assert (await get(as_("hank", "janitor"), wallet)).status_code == 403

    async def test_a_player_a_system_wallet(self, player: Player) -> None:
        ann, _ = await player(5)
        assert (await get(ann, system_wallet_id("demo", SystemWallet.NOSTRO, "EUR"))).status_code == 404


class TestWrongInput:
    @pytest.mark.parametrize(
        "query",
        [
            {"from": "yesterday"},
            {"from": "2026-01-01T00:00:00 01:00"},
            {"from": "0001-01-01T00:00:00+14:00"},
            {"until": "2999-01-01T00:00:00Z"},
            {"from": "2026-02-01", "until": "2026-01-01"},
            {"from": '{"$gt": ""}'},
            {"format": "xml"},
            {"format": ""},
        ],
    )
    async def test_is_named(self, player: Player, query: dict[str, str]) -> None:
        ann, wallet = await player()
        answer = await get(ann, wallet, **query)
        assert (answer.status_code, answer.json()["code"]) == (400, "BAD_USER_INPUT")

    @pytest.mark.parametrize("wallet_id", ["demo:x", "$ne", "x%00", "..", "a" * 65, "=cmd"])
    async def test_an_id_that_is_none(self, olga: Api, wallet_id: str) -> None:
        assert (await get(olga, wallet_id)).status_code in (400, 404)

    async def test_a_range_before_anything(self, player: Player) -> None:
        ann, wallet = await player(5)
        early = {"from": "0001-01-01", "until": "0001-01-01"}
        assert await lines(ann, wallet, **early) == []


@pytest.fixture(scope="module")
def long_story(live: Live, mongo_url: str, namespace: str) -> Any:
    """(owner, wallet id) of a wallet with 50,000 lines, one a minute."""

    async def write() -> tuple[str, str]:
        mongo = Mongo.connect(mongo_url, service="payment", namespace=namespace)
        wallet = user_wallet("demo", f"long{new_id()}", "main", "EUR", BORN)
        told: list[dict[str, Any]] = []
        balance = 0
        for n in range(1, MANY + 1):
            amount, direction = (3, "credit") if n % 2 else (2, "debit")
            balance += amount if direction == "credit" else -amount
            row: dict[str, Any] = {"_id": f"{wallet.key}:{n:012d}"}
            row |= {"tenant_id": "demo", "wallet": wallet.key, "wallet_id": wallet.id}
            row |= {"owner_id": wallet.owner_id, "bucket": "real", "direction": direction, "currency": "EUR"}
            row |= {"transfer_id": f"t{n}", "kind": "transfer", "reference": "r" * 50, "sequence": n, "position": n}
            told.append(row | {"at": BORN + timedelta(minutes=n), "amount": amount, "balance_after": balance})
        wallet.buckets[Bucket.REAL], wallet.sequences[Bucket.REAL], wallet.position = balance, MANY, MANY
        wallet.at = told[-1]["at"]
        await mongo.db["transactions"].insert_many(told)
        await mongo.db["wallets"].insert_one(store.wallet_row(wallet))
        await mongo.close()
        return wallet.owner_id, wallet.id

    return asyncio.run(write())


class TestALongStory:
    @pytest.mark.parametrize("format_", ["csv", "json"])
    async def test_takes_no_more_memory_than_a_short_one(
        self, live: Live, as_: As, player: Player, long_story: Any, format_: str
    ) -> None:
        owner, wallet = long_story
        ann, short = await player(1)
        await get(ann, short, format=format_)
        before, count = peak_mb(live), 0
        headers = {"authorization": f"Bearer {as_(owner).token}"}
        url = f"{ann.url}/wallets/{wallet}/statement?format={format_}"
        async with ann.client.stream("GET", url, headers=headers) as answer:
            async for line in answer.aiter_lines():
                count += line.startswith(("line,", '{"at"'))
        assert count == MANY
        assert peak_mb(live) - before < 10

    async def test_its_end_is_found_without_reading_it(self, as_: As, long_story: Any) -> None:
        owner, wallet = long_story
        ann = as_(owner)
        for n in (1, 16, 17, 18, 289, 12_345, MANY - 1, MANY):
            at = (BORN + timedelta(minutes=n)).isoformat()
            expected = (n + 1) // 2 * 3 - n // 2 * 2
            assert int((await ann.ask(BALANCE_AT, id=wallet, at=at))["real"]) == expected

    async def test_a_client_that_takes_its_time_holds_no_cursor(
        self, live: Live, as_: As, long_story: Any, database: Mongo
    ) -> None:
        owner, wallet = long_story
        host, port = live.server.url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port), limit=1024)
        token = as_(owner).token
        writer.write(
            f"GET /wallets/{wallet}/statement HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\n\r\n".encode()
        )
        assert b"200" in await reader.readline()
        for _ in range(20):
            await reader.read(1024)
            assert await open_cursors(database) == 0
        writer.close()

    async def test_one_that_does_not_add_up_breaks_off(self, as_: As, long_story: Any, database: Mongo) -> None:
        owner, wallet = long_story
        line = {"_id": f"demo:{wallet}:{40_000:012d}"}
        await database.db["transactions"].update_one(line, {"$inc": {"amount": 1}})
        try:
            with pytest.raises(httpx.RemoteProtocolError):
                await get(as_(owner), wallet)
        finally:
            await database.db["transactions"].update_one(line, {"$inc": {"amount": -1}})
        assert len(await lines(as_(owner), wallet)) == MANY

    async def test_a_caller_gets_four_at_once(self, live: Live, as_: As, long_story: Any) -> None:
        owner, wallet = long_story
        ann = as_(owner)
        answers = await asyncio.gather(*(get(ann, wallet) for _ in range(12)))
        codes = [answer.status_code for answer in answers]
        assert set(codes) == {200, 503}
        assert (await get(ann, wallet)).status_code == 200


def peak_mb(live: Live) -> float:
    """The most memory that the service ever had."""
    status = Path(f"/proc/{live.server.pid}/status").read_text()
    return next(int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmHWM"))


async def open_cursors(mongo: Mongo) -> int:
    there = await mongo.client.admin.aggregate(
        [
            {"$currentOp": {"allUsers": True, "idleCursors": True}},
            {"$match": {"ns": f"{mongo.db.name}.transactions", "type": "idleCursor"}},
        ]
    )
    return len(await there.to_list())


class TestDecimal:
    @pytest.mark.parametrize(
        ("minor", "scale", "text"),
        [
            (0, 2, "0.00"),
            (5, 2, "0.05"),
            (-5, 2, "-0.05"),
            (1234, 2, "12.34"),
            (7, 0, "7"),
            (2**63, 18, "9.223372036854775808"),
        ],
    )
    def test_has_the_currencys_digits(self, minor: int, scale: int, text: str) -> None:
        assert decimal(minor, scale) == text
