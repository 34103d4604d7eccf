"""Payment through its front door: a real process, real tokens, GraphQL over HTTP."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import websockets

from libs.core.ids import new_id
from libs.core.mongo import Mongo
from tests.live import Api, Live, callers, payment_process, shared_namespace

As = Callable[..., Api]

CREATE = """mutation ($input: CreateWalletInput!) { createWallet(input: $input) {
    ... on Wallet { id ownerId currency category balance { real } } ... on Problem { code } } }"""
RESULT = """{ __typename ... on Transfer { id amount createdAt sourceWalletId destinationWalletId metadata
    transactions { id walletId direction amount balanceAfter sequence } } ... on Problem { code rule details } }"""
DEPOSIT = f"mutation ($input: DepositInput!) {{ deposit(input: $input) {RESULT} }}"
TRANSFER = f"mutation ($input: TransferInput!) {{ transfer(input: $input) {RESULT} }}"
TRANSFERS = f"""mutation ($input: [TransferInput!]!, $mode: TransfersMode!) {{
    transfers(input: $input, mode: $mode) {RESULT} }}"""
WALLET = "query ($id: ID!) { wallet(id: $id) { id balance { real available } } }"
TRANSACTIONS = """query ($id: ID!, $first: Int, $after: String, $last: Int, $before: String, $bucket: Bucket) {
    transactions(walletId: $id, first: $first, after: $after, last: $last, before: $before, bucket: $bucket) {
        edges { cursor node { id amount balanceAfter sequence direction } }
        pageInfo { hasNextPage hasPreviousPage endCursor } } }"""
HISTORY = "query ($filter: TransferFilter) { transferHistory(filter: $filter) { edges { node { id } } } }"


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory, mongo_url: str, redis_url: str) -> Iterator[Live]:
    folder: Path = tmp_path_factory.mktemp("payment")
    with (
        shared_namespace(mongo_url, redis_url) as namespace,
        payment_process(folder, mongo_url, redis_url, namespace) as live,
    ):
        yield live


@pytest.fixture
async def as_(live: Live) -> AsyncIterator[As]:
    async with callers(live) as as_:
        yield as_


@pytest.fixture
def olga(as_: As) -> Api:
    return as_("olga", "operator")


@pytest.fixture
def player(as_: As, olga: Api) -> Callable[..., Awaitable[tuple[Api, str]]]:
    """`api, wallet_id = await player(100)`: somebody new, with that much."""

    async def join(real: int = 0, tenant: str = "demo") -> tuple[Api, str]:
        name = f"p{new_id()}"
        api = as_(name, tenant=tenant)
        wallet = await api.ask(CREATE, input={"currency": "EUR"})
        if real:
            operator = as_("olga", "operator", tenant=tenant)
            given = {"id": new_id(), "walletId": wallet["id"], "amount": str(real), "currency": "EUR"}
            assert (await operator.ask(DEPOSIT, input=given))["__typename"] == "Transfer"
        return api, wallet["id"]

    return join


def order(source: str, destination: str, amount: Any = "10", **more: Any) -> dict[str, Any]:
    ends = {"sourceWalletId": source, "destinationWalletId": destination}
    return {"id": new_id(), **ends, "amount": amount, "currency": "EUR"} | more


async def real(api: Api, wallet_id: str) -> int:
    return int((await api.ask(WALLET, id=wallet_id))["balance"]["real"])


class TestCreateWallet:
    async def test_twenty_at_once_are_one(self, as_: As) -> None:
        ann = as_(new_id())
        made = await asyncio.gather(*(ann.ask(CREATE, input={"currency": "EUR"}) for _ in range(20)))
        assert len({wallet["id"] for wallet in made}) == 1

    async def test_one_per_category_and_currency(self, as_: As) -> None:
        ann = as_(new_id())
        wanted = [(category, currency) for category in ("main", "casino") for currency in ("EUR", "USD")]
        for category, currency in wanted:
            await ann.ask(CREATE, input={"currency": currency, "category": category})
        found = await ann.ask("{ wallets { edges { node { category currency } } } }")
        assert sorted((e["node"]["category"], e["node"]["currency"]) for e in found["edges"]) == sorted(wanted)

    async def test_for_another_is_forbidden(self, as_: As) -> None:
        assert await as_("eve").refused(CREATE, input={"currency": "EUR", "ownerId": "victim"}) == "FORBIDDEN"

    @pytest.mark.parametrize(
        "changes",
        [{"currency": "XXX"}, {"currency": "eur"}, {"currency": ""}, {"category": "yacht"}, {"ownerId": "$ne"}],
    )
    async def test_wrong_input_is_named(self, olga: Api, changes: dict[str, str]) -> None:
        assert await olga.refused(CREATE, input={"currency": "EUR", "ownerId": "ann"} | changes) == "BAD_USER_INPUT"


class TestTransfer:
    async def test_moves_money(self, player: Any) -> None:
        (ann, from_ann), (ben, to_ben) = await player(100), await player()
        done = await ann.ask(TRANSFER, input=order(from_ann, to_ben, "30"))
        assert [(t["direction"], t["balanceAfter"]) for t in done["transactions"]] == [("DEBIT", "70")]
        assert (await real(ann, from_ann), await real(ben, to_ben)) == (70, 30)

    async def test_twenty_racing_for_the_same_balance(self, player: Any) -> None:
        (ann, from_ann), (_, to_ben) = await player(75), await player()
        done = await asyncio.gather(*(ann.ask(TRANSFER, input=order(from_ann, to_ben)) for _ in range(20)))
        assert Counter(d.get("code", "accepted") for d in done) == {"accepted": 7, "INSUFFICIENT_FUNDS": 13}
        assert await real(ann, from_ann) == 5

    async def test_one_id_a_hundred_times_at_once(self, player: Any) -> None:
        (ann, from_ann), (_, to_ben) = await player(100), await player()
        same = order(from_ann, to_ben, metadata={"order": 7})
        done = await asyncio.gather(*(ann.ask(TRANSFER, input=same) for _ in range(100)))
        assert all(d == done[0] for d in done)
        assert await real(ann, from_ann) == 90

    async def test_same_id_other_content(self, player: Any) -> None:
        (ann, from_ann), (_, to_ben) = await player(100), await player()
        first = order(from_ann, to_ben)
        await ann.ask(TRANSFER, input=first)
        assert (await ann.ask(TRANSFER, input=first | {"amount": "11"}))["code"] == "IDEMPOTENCY_MISMATCH"

    @pytest.mark.parametrize("amount", [2**31 - 1, 2**31, 2**53 + 1, 2**62])
    async def test_a_fortune(self, player: Any, amount: int) -> None:
        (ann, from_ann), (ben, to_ben) = await player(amount), await player()
        big = order(from_ann, to_ben, str(amount))
        done = await ann.ask(TRANSFER, input=big)
        assert await ann.ask(TRANSFER, input=big) == done
        assert await real(ben, to_ben) == amount
        [line] = (await ben.ask(TRANSACTIONS, id=to_ben))["edges"]
        assert line["node"]["amount"] == line["node"]["balanceAfter"] == str(amount)

    async def test_to_itself(self, player: Any) -> None:
        ann, wallet = await player(100)
        assert (await ann.ask(TRANSFER, input=order(wallet, wallet)))["code"] == "SAME_BUCKET"

    @pytest.mark.parametrize(
        "amount",
        [
            *("0", "-1", "1.5", "1e3", "9223372036854775808", "9" * 40, "", "NaN", " 1", "１", "0x10", "+1"),
            *(0, -1, 1.5, True, None, 9007199254740992.0, [], {}),
        ],
    )
    async def test_an_amount_that_is_none(self, player: Any, amount: Any) -> None:
        ann, wallet = await player()
        assert await ann.refused(TRANSFER, input=order(wallet, "other", amount)) == "BAD_USER_INPUT"

    @pytest.mark.parametrize("field", ["id", "sourceWalletId", "destinationWalletId"])
    @pytest.mark.parametrize(
        "value", ["", "a" * 65, "$where", "a:b", "a b", "a\0b", "demo:x", "../x", "é", {"$ne": ""}]
    )
    async def test_an_id_that_is_none(self, as_: As, field: str, value: Any) -> None:
        assert await as_("ann").refused(TRANSFER, input=order("a", "b") | {field: value}) == "BAD_USER_INPUT"

    @pytest.mark.parametrize(
        ("more", "field"),
        [
            pytest.param({"reference": "x" * 201}, "input.reference", id="long reference"),
            pytest.param({"metadata": {"x": "x" * 5000}}, "input.metadata", id="large metadata"),
            pytest.param({"metadata": "text"}, "input.metadata", id="metadata that is no object"),
            pytest.param({"currency": "eur"}, "input.currency", id="lower-case currency"),
        ],
    )
    async def test_wrong_input_is_named(self, player: Any, more: dict[str, Any], field: str) -> None:
        ann, wallet = await player(100)
        [error] = (await ann.post(TRANSFER, input=order(wallet, "b", **more))).json()["errors"]
        assert error["extensions"]["details"]["field"] == field

    async def test_operators_in_free_text_are_text(self, player: Any) -> None:
        (ann, from_ann), (_, to_ben) = await player(100), await player()
        metadata = {"$where": "sleep(1)", "a.b": {"$ne": None}, "": "\0"}
        done = await ann.ask(TRANSFER, input=order(from_ann, to_ben, reference="$where", metadata=metadata))
        assert done["metadata"] == metadata


class TestTransfers:
    async def test_independent_ones_answer_for_themselves(self, player: Any) -> None:
        (ann, from_ann), (_, to_ben) = await player(15), await player()
        orders = [order(from_ann, to_ben), order(from_ann, to_ben), order(from_ann, "nowhere", "1")]
        done = await ann.ask(TRANSFERS, input=orders, mode="INDEPENDENT")
        assert [d.get("code") for d in done] == [None, "INSUFFICIENT_FUNDS", "WALLET_NOT_FOUND"]

    async def test_atomic_ones_stand_or_fall_together(self, player: Any) -> None:
        (ann, from_ann), (_, to_ben) = await player(15), await player()
        done = await ann.ask(TRANSFERS, input=[order(from_ann, to_ben) for _ in range(2)], mode="ATOMIC")
        assert [d["code"] for d in done] == ["LINKED_OPERATION_REFUSED", "INSUFFICIENT_FUNDS"]
        assert await real(ann, from_ann) == 15

    async def test_a_thousand(self, player: Any) -> None:
        (ann, from_ann), (_, to_ben) = await player(1000), await player()
        orders = [order(from_ann, to_ben, "1") for _ in range(1000)]
        done = await ann.ask(TRANSFERS, input=orders, mode="INDEPENDENT")
        assert {d["__typename"] for d in done} == {"Transfer"}
        assert await real(ann, from_ann) == 0

    @pytest.mark.parametrize("mode", ["ATOMIC", "INDEPENDENT"])
    async def test_none_too_many_or_one_twice_is_refused(self, as_: As, mode: str) -> None:
        ann, one = as_("ann"), order("a", "b")
        for orders in ([], [one, one], [order("a", "b") for _ in range(1001)]):
            assert await ann.refused(TRANSFERS, input=orders, mode=mode) == "BAD_USER_INPUT"


class TestStrangers:
    """No argument, filter, cursor, alias, reference or subscription reaches what is another's."""

    async def test_cannot_take(self, player: Any, as_: As) -> None:
        (ann, hers), (eve, eves) = await player(100), await player()
        elsewhere = as_("olga", "operator", tenant="other")
        for thief in (eve, elsewhere):
            assert (await thief.ask(TRANSFER, input=order(hers, eves)))["code"] == "WALLET_NOT_FOUND"
        assert await real(ann, hers) == 100

    async def test_cannot_pay_into_another_tenant(self, player: Any) -> None:
        (ann, hers), (_, abroad) = await player(100), await player(tenant="other")
        assert (await ann.ask(TRANSFER, input=order(hers, abroad)))["code"] == "WALLET_NOT_FOUND"

    async def test_cannot_deposit(self, player: Any, as_: As) -> None:
        ann, hers = await player()
        given = {"id": new_id(), "walletId": hers, "amount": "10", "currency": "EUR"}
        assert await ann.refused(DEPOSIT, input=given) == "FORBIDDEN"
        assert await as_("").refused(DEPOSIT, input=given) == "UNAUTHENTICATED"
        abroad = as_("olga", "operator", tenant="other")
        assert (await abroad.ask(DEPOSIT, input=given))["code"] == "WALLET_NOT_FOUND"

    async def test_cannot_use_the_tenants_own_wallets(self, player: Any, olga: Api) -> None:
        ann, hers = await player(100)
        system = await olga.ask('{ wallets(filter: {kind: HOUSE, currency: "EUR"}) { edges { node { id } } } }')
        house = system["edges"][0]["node"]["id"]
        for thief, source, destination in ((ann, house, hers), (ann, hers, house), (olga, house, hers)):
            assert (await thief.ask(TRANSFER, input=order(source, destination)))["code"] == "WALLET_NOT_FOUND"

    async def test_see_nothing_by_id(self, player: Any, as_: As) -> None:
        (_, hers), (eve, _) = await player(100), await player()
        entity = """query ($r: [_Any!]!) { _entities(representations: $r) { ... on Wallet { id } } }"""
        reference = [{"__typename": "Wallet", "id": hers}]
        for stranger in (eve, as_("olga", "operator", tenant="other")):
            assert await stranger.ask(WALLET, id=hers) is None
            assert (await stranger.ask(TRANSACTIONS, id=hers))["edges"] == []
            assert await stranger.ask(entity, r=reference) == [None]

    async def test_see_nothing_by_filter(self, player: Any, as_: As) -> None:
        (ann, hers), (eve, _) = await player(100), await player()
        [mine] = (await ann.ask("{ wallets { edges { node { ownerId } } } }"))["edges"]
        owner = mine["node"]["ownerId"]
        for stranger in (eve, as_("olga", "operator", tenant="other")):
            lists = "query ($o: ID!) { wallets(filter: {ownerId: $o}) { edges { node { id } } } }"
            assert (await stranger.ask(lists, o=owner))["edges"] == []
            assert await stranger.ask("query ($o: ID!) { userBalances(ownerId: $o) { currency } }", o=owner) == []
            assert (await stranger.ask(HISTORY, filter={"ownerId": owner}))["edges"] == []
            user = "query ($r: [_Any!]!) { _entities(representations: $r) { ... on User { balances { currency } } } }"
            assert await stranger.ask(user, r=[{"__typename": "User", "id": owner}]) == [{"balances": []}]
        assert hers

    async def test_see_no_transfer_of_others(self, player: Any) -> None:
        (ann, hers), (_, bens), (eve, _) = await player(100), await player(), await player()
        done = await ann.ask(TRANSFER, input=order(hers, bens))
        entity = "query ($r: [_Any!]!) { _entities(representations: $r) { ... on Transfer { id } } }"
        assert await eve.ask(entity, r=[{"__typename": "Transfer", "id": done["id"]}]) == [None]

    async def test_the_payee_does_not_see_the_payers_balance(self, player: Any) -> None:
        (ann, hers), (ben, his) = await player(100), await player()
        await ann.ask(TRANSFER, input=order(hers, his))
        seen = await ben.ask("{ transferHistory { edges { node { transactions { walletId } } } } }")
        assert [t["walletId"] for e in seen["edges"] for t in e["node"]["transactions"]] == [his]

    async def test_cannot_use_anothers_cursor(self, player: Any) -> None:
        (ann, hers), (eve, eves) = await player(100), await player(100)
        cursor = (await ann.ask(TRANSACTIONS, id=hers))["pageInfo"]["endCursor"]
        assert await eve.refused(TRANSACTIONS, id=eves, after=cursor) == "BAD_USER_INPUT"
        assert (await eve.ask(TRANSACTIONS, id=hers, after=cursor))["edges"] == []

    async def test_cannot_learn_an_outcome_by_its_id(self, player: Any) -> None:
        (ann, hers), (_, bens), (eve, _) = await player(100), await player(), await player()
        same = order(hers, bens)
        await ann.ask(TRANSFER, input=same)
        assert (await eve.ask(TRANSFER, input=same))["code"] == "IDEMPOTENCY_MISMATCH"

    @pytest.mark.parametrize("token", ["", "x", "Bearer", "eyJhbGciOiJub25lIn0.e30."])
    async def test_without_a_token_see_nothing(self, as_: As, token: str) -> None:
        nobody = as_("")
        nobody.token = token
        assert await nobody.refused("{ wallets { edges { node { id } } } }") == "UNAUTHENTICATED"


class TestOwner:
    async def test_of_a_player(self, player: Any) -> None:
        api, wallet_id = await player(100)
        owner = (
            await api.ask("query ($id: ID!) { wallet(id: $id) { owner { balances { currency } } } }", id=wallet_id)
        )["owner"]
        assert owner == {"balances": [{"currency": "EUR"}]}

    async def test_of_the_systems_own(self, player: Any, olga: Api) -> None:
        await player(100)
        found = await olga.ask("{ wallets(filter: { kind: PROVIDER }) { edges { node { owner { id } } } } }")
        assert found["edges"]
        assert all(edge["node"]["owner"] is None for edge in found["edges"])


class TestTransactions:
    async def test_pages_forwards_and_backwards_while_money_moves(self, player: Any) -> None:
        (ann, hers), (_, bens) = await player(100), await player()
        for _ in range(5):
            await ann.ask(TRANSFER, input=order(hers, bens, "1"))
        seen, after = [], None
        while True:
            page = await ann.ask(TRANSACTIONS, id=hers, first=2, after=after)
            seen += [e["node"]["sequence"] for e in page["edges"]]
            await ann.ask(TRANSFER, input=order(hers, bens, "1"))
            if not page["pageInfo"]["hasNextPage"]:
                break
            after = page["pageInfo"]["endCursor"]
        assert seen == ["6", "5", "4", "3", "2", "1"]
        back = await ann.ask(TRANSACTIONS, id=hers, last=2, before=page["edges"][0]["cursor"])
        assert [e["node"]["sequence"] for e in back["edges"]] == ["4", "3"]

    async def test_of_a_bucket(self, player: Any) -> None:
        ann, hers = await player(100)
        assert len((await ann.ask(TRANSACTIONS, id=hers, bucket="REAL"))["edges"]) == 1
        assert (await ann.ask(TRANSACTIONS, id=hers, bucket="BONUS"))["edges"] == []

    async def test_of_a_system_wallet_are_for_operators(self, player: Any, olga: Api) -> None:
        await player(100)
        system = await olga.ask(
            '{ wallets(filter: {kind: NOSTRO, currency: "EUR"}) { edges { node { id balance { real } } } } }'
        )
        [nostro] = [e["node"] for e in system["edges"]]
        lines = (await olga.ask(TRANSACTIONS, id=nostro["id"]))["edges"]
        assert lines[0]["node"]["balanceAfter"] == nostro["balance"]["real"]

    @pytest.mark.parametrize(
        "page", [{"first": 0}, {"first": 101}, {"first": -1}, {"first": 1, "last": 1}, {"after": "x"}]
    )
    async def test_a_wrong_page_is_refused(self, player: Any, page: dict[str, Any]) -> None:
        ann, hers = await player()
        assert await ann.refused(TRANSACTIONS, id=hers, **page) == "BAD_USER_INPUT"


class TestTransferHistory:
    @pytest.mark.parametrize("until", ["2020-01-01", "2020-01-01T00:00:00Z", "2020-01-01T00:00:00.123456789+01:00"])
    async def test_until_an_instant(self, player: Any, until: str) -> None:
        ann, _ = await player(100)
        assert (await ann.ask(HISTORY, filter={"until": until}))["edges"] == []

    @pytest.mark.parametrize(
        "until", ["", "now", "2020-13-01", 1, "9999-12-31T23:00:00-14:00", "0001-01-01T00:00+14:00"]
    )
    async def test_until_what_is_no_instant(self, as_: As, until: Any) -> None:
        assert await as_("ann").refused(HISTORY, filter={"until": until}) == "BAD_USER_INPUT"


class TestHostileRequests:
    async def test_ten_megabytes(self, as_: As) -> None:
        answer = await as_("ann").post(TRANSFER, input="x" * 10_000_000)
        assert answer.status_code == 413

    async def test_two_thousand_aliases(self, as_: As) -> None:
        query = "{" + " ".join(f"a{n}: userBalances {{ currency }}" for n in range(2000)) + "}"
        answer = await as_("ann").post(query)
        assert answer.status_code == 400
        assert answer.json()["errors"][0]["extensions"]["code"]

    async def test_deep_and_cyclic_queries(self, as_: As) -> None:
        deep = "{ userBalances { wallets " + "{ transactions { edges { node " * 300 + "{ id }" + "} } }" * 300 + " } }"
        cyclic = "{ ...A } fragment A on Query { ...B } fragment B on Query { ...A }"
        for query in (deep, cyclic):
            assert (await as_("ann").post(query)).status_code == 400

    async def test_a_mutation_by_get(self, as_: As, live: Live) -> None:
        ann = as_("ann")
        headers = {"authorization": f"Bearer {ann.token}", "accept": "application/graphql-response+json"}
        answer = await ann.client.get(
            f"{live.server.url}/graphql", params={"query": "mutation { __typename }"}, headers=headers
        )
        assert answer.status_code == 405

    async def test_another_content_type(self, as_: As, live: Live) -> None:
        answer = await as_("ann").client.post(f"{live.server.url}/graphql", data={"query": "{ __typename }"})
        assert answer.status_code == 415

    async def test_the_process_survives(self, live: Live, as_: As) -> None:
        assert live.server.running
        assert (await as_("").client.get(f"{live.server.url}/health/ready")).status_code == 200


class Socket:
    """A subscription over graphql-transport-ws."""

    def __init__(self, connection: websockets.ClientConnection) -> None:
        self._connection = connection

    async def send(self, **message: Any) -> None:
        await self._connection.send(json.dumps(message))

    async def receive(self) -> Any:
        return json.loads(await asyncio.wait_for(self._connection.recv(), 10))


@pytest.fixture
async def subscribed(live: Live) -> AsyncIterator[Callable[..., Awaitable[Socket]]]:
    """`socket = await subscribed(token, walletIds=[…])`: the server listens when this returns."""
    opened: list[websockets.ClientConnection] = []

    async def subscribe(token: str, **variables: Any) -> Socket:
        url = live.server.url.replace("http", "ws") + "/graphql"
        connection = await websockets.connect(url, subprotocols=[websockets.Subprotocol("graphql-transport-ws")])
        opened.append(connection)
        socket = Socket(connection)
        await socket.send(type="connection_init", payload={"authorization": f"Bearer {token}"} if token else {})
        assert (await socket.receive())["type"] == "connection_ack"
        query = "subscription ($walletIds: [ID!]) { balanceChanged(walletIds: $walletIds) { id balance { real } } }"
        await socket.send(id="1", type="subscribe", payload={"query": query, "variables": variables})
        return socket

    yield subscribe
    for connection in opened:
        await connection.close()


class TestBalanceChanged:
    async def test_tells_the_owner_of_what_comes_and_goes(self, player: Any, subscribed: Any) -> None:
        (ann, hers), (ben, his) = await player(100), await player()
        socket = await subscribed(ben.token)
        seen = asyncio.create_task(socket.receive())
        paid = 0
        while not seen.done():  # the first payments may come before the server listens
            paid += 1
            await ann.ask(TRANSFER, input=order(hers, his, "1"))
        changed = (await seen)["payload"]["data"]["balanceChanged"]
        assert changed["id"] == his
        assert 1 <= int(changed["balance"]["real"]) <= paid

    async def test_tells_a_stranger_nothing(self, player: Any, subscribed: Any, olga: Api) -> None:
        (ann, hers), (_, his), (eve, eves) = await player(100), await player(), await player()
        refused = await subscribed(eve.token, walletIds=[hers])
        answer = await refused.receive()
        assert answer["payload"][0]["extensions"]["code"] == "NOT_FOUND"
        hears = await subscribed(eve.token)
        first = asyncio.create_task(hears.receive())
        while not first.done():
            await ann.ask(TRANSFER, input=order(hers, his, "1"))
            await ann.ask(TRANSFER, input=order(hers, eves, "1"))
        assert (await first)["payload"]["data"]["balanceChanged"]["id"] == eves

    async def test_reads_nothing_for_what_concerns_others(
        self, player: Any, subscribed: Any, live: Live, mongo_url: str
    ) -> None:
        (ann, hers), (_, his), (eve, eves) = await player(100), await player(), await player()
        mongo = Mongo.connect(mongo_url, service="payment", namespace=live.environment["NAMESPACE"])
        hears = await subscribed(eve.token)
        first = asyncio.create_task(hears.receive())
        await mongo.db.command("profile", 2)
        while not first.done():
            await ann.ask(TRANSFER, input=order(hers, his, "1"))
            await ann.ask(TRANSFER, input=order(hers, eves, "1"))
        await mongo.db.command("profile", 0)
        in_vain = await mongo.db["system.profile"].count_documents({"command.filter._id.$in": {"$size": 0}})
        await mongo.close()
        assert in_vain == 0

    async def test_needs_a_token(self, subscribed: Any) -> None:
        socket = await subscribed("")
        assert (await socket.receive())["payload"][0]["extensions"]["code"] == "UNAUTHENTICATED"
