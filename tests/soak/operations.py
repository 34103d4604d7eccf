"""What clients ask for: one `Operation` each, with how one is drawn and what money it moves once it is accepted.

A new operation is one more row of `OPERATIONS`. Its effect is stated here from what was asked alone, and not from what
the service answered: the checker holds the ledger against it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

from libs.core.tenants import SystemWallet, system_wallet_id

TENANT, CURRENCY, OTHER_CURRENCY = "demo", "EUR", "USD"
RATE_PER_MILLE = 1085  # dollars for a thousand euros
WITHDRAWAL_FEE = 1  # on top
# Over a lifetime, of the first owner: what is paid to others, less what comes back.
TRANSFER_LIMIT = 3_000
NOSTRO, HOUSE, FEES, BONUS_POOL = (
    system_wallet_id(TENANT, kind, CURRENCY)
    for kind in (SystemWallet.NOSTRO, SystemWallet.HOUSE, SystemWallet.FEE, SystemWallet.BONUS_POOL)
)
OTHER_NOSTRO = system_wallet_id(TENANT, SystemWallet.NOSTRO, OTHER_CURRENCY)
# Wallets begin with this, and payments are up to a tenth of it, so that some are refused for want of funds.
OPENING = 2_000
LARGEST = 200

Asked = Mapping[str, Any]  # GraphQL variables


@dataclass(frozen=True, slots=True)
class Move:
    """What one accepted operation does to one bucket, in all."""

    wallet_id: str
    bucket: str
    change: int


@dataclass(slots=True)
class World:
    """What one client knows: the wallets that all share, and its own operations that were accepted, the latest last."""

    wallets: Sequence[str]
    dollars: Sequence[str]
    name: str
    accepted: list[tuple[str, Asked]] = field(default_factory=list)
    _made: int = 0

    def new_id(self) -> str:
        self._made += 1
        return f"{self.name}-{self._made}"

    def latest(self, *names: str) -> list[tuple[str, Asked]]:
        """Some of them, of these names."""
        return [(name, asked) for name, asked in self.accepted[-200:] if name in names]


@dataclass
class Known:
    """What the checker knows of other operations: what was asked for under which id, and what was done."""

    asked: Mapping[str, tuple[str, Asked]]
    applied: frozenset[str]

    def __post_init__(self) -> None:
        self._captured: dict[str, dict[str, int]] = {}
        for operation_id, (name, asked) in self.asked.items():
            if name == "capture" and operation_id in self.applied:
                parts = self._captured.setdefault(asked["input"]["holdId"], {})
                parts[operation_id] = int(asked["input"]["amount"])

    def input(self, operation_id: str) -> Mapping[str, Any]:
        """What was asked for under this id."""
        given = self.asked[operation_id][1]["input"]
        one: Mapping[str, Any] = next(g for g in given if g["id"] == operation_id) if isinstance(given, list) else given
        return one

    def uncaptured(self, hold_id: str) -> int:
        return int(self.input(hold_id)["amount"]) - sum(self._captured.get(hold_id, {}).values())


@dataclass(frozen=True, slots=True)
class Operation:
    """`ids` are those in one request's `asked`; `moves` what each of them does, by id. `asked` has been drawn by

    `draw`, which returns None where it can think of nothing to ask for.
    """

    name: str
    weight: int
    document: str
    draw: Callable[[Random, World], Asked | None]
    ids: Callable[[Asked], list[str]]
    moves: Callable[[Asked, Known], dict[str, list[Move]]]
    # What a rule may say here. Anything else is a surprise.
    refusals: frozenset[str] = frozenset({"INSUFFICIENT_FUNDS"})
    # A refusal of one may tell of a balance between two of its steps, which nobody else ever sees.
    in_steps: bool = False
    # What it leads to is an operation of its own.
    moves_nothing: bool = False


_ANSWER = """{ __typename
    ... on Transfer { id transactions { walletId bucket direction amount balanceAfter sequence } }
    ... on Problem { code rule details } }"""


def _mutation(field_name: str, input_type: str) -> str:
    return f"mutation ($input: {input_type}!) {{ {field_name}(input: $input) {_ANSWER} }}"


DEPOSIT = _mutation("deposit", "DepositInput")
TRANSFERS = f"""mutation ($input: [TransferInput!]!, $mode: TransfersMode!) {{
    transfers(input: $input, mode: $mode) {_ANSWER} }}"""


def deposit(operation_id: str, wallet_id: str, amount: int) -> Asked:
    return {"input": {"id": operation_id, "walletId": wallet_id, "amount": str(amount), "currency": CURRENCY}}


def expiry_id(hold_id: str) -> str:
    """Nobody asks for it: its id follows from the hold's."""
    return f"{hold_id}.expiry"


def expiry_moves(hold_id: str, known: Known) -> list[Move]:
    return _release(known.input(hold_id)["walletId"], known.uncaptured(hold_id))


def _amount(rng: Random) -> dict[str, str]:
    return {"amount": str(rng.randint(1, LARGEST)), "currency": CURRENCY}


def _wallet_order(rng: Random, world: World, **more: Any) -> Asked:
    return {"input": {"id": world.new_id(), "walletId": rng.choice(world.wallets), **_amount(rng), **more}}


def _transfer(rng: Random, world: World) -> dict[str, Any]:
    source, destination = rng.sample(world.wallets, 2)
    return {"id": world.new_id(), "sourceWalletId": source, "destinationWalletId": destination, **_amount(rng)}


def _transfers(rng: Random, world: World, mode: str) -> Asked:
    return {"input": [_transfer(rng, world) for _ in range(rng.randint(2, 6))], "mode": mode}


def _hold(rng: Random, world: World) -> Asked:
    """One in five is overdue within seconds, by the clock of whichever process looks."""
    asked = _wallet_order(rng, world, purpose=rng.choice(("WITHDRAWAL", "BET", "TRANSFER")))
    if rng.random() < 0.2:
        due = datetime.now(UTC) + timedelta(seconds=rng.uniform(0.5, 5))
        asked["input"]["expiresAt"] = due.isoformat(timespec="milliseconds")
    return asked


def _capture(rng: Random, world: World) -> Asked | None:
    held = _one_of(rng, world.latest("hold"))
    if held is None:
        return None
    amount = rng.randint(1, int(held["amount"]))
    given = {"id": world.new_id(), "holdId": held["id"], "amount": str(amount), "final": rng.random() < 0.3}
    if held["purpose"] == "TRANSFER":
        given["destinationWalletId"] = rng.choice([w for w in world.wallets if w != held["walletId"]])
    return {"input": given}


def _void(rng: Random, world: World) -> Asked | None:
    held = _one_of(rng, world.latest("hold"))
    return held and {"input": {"id": world.new_id(), "holdId": held["id"]}}


def _reversal(rng: Random, world: World) -> Asked | None:
    original = _one_of(rng, world.latest("transfer", "deposit", "adjustment", "bet", "win"))
    if original is None:
        return None
    given = {"id": world.new_id(), "transferId": original["id"], "reason": "soak"}
    if rng.random() < 0.7:
        given["amount"] = str(rng.randint(1, int(original["amount"])))
    return {"input": given}


def _one_of(rng: Random, accepted: Sequence[tuple[str, Asked]]) -> Any:
    return rng.choice(accepted)[1]["input"] if accepted else None


def _lot(rng: Random, world: World) -> Asked:
    """Few lots, which all clients share."""
    return _wallet_order(rng, world, lot=f"lot-{rng.randint(1, 3)}")


def _mixed_bet(rng: Random, world: World) -> Asked:
    """Real money first, then a lot: two steps, both or neither."""
    stake = {"lot": f"lot-{rng.randint(1, 3)}", "amount": str(rng.randint(1, LARGEST))}
    return _wallet_order(rng, world, lots=[stake])


def _quote(rng: Random, world: World) -> Asked:
    given = {"id": world.new_id(), "amount": str(rng.randint(1, LARGEST)), "sourceCurrency": CURRENCY}
    return {"input": {**given, "targetCurrency": OTHER_CURRENCY}}


def _exchange(rng: Random, world: World) -> Asked | None:
    """A quote is taken up once, so that asking again names the same wallets: they follow from its id."""
    quoted = _one_of(rng, world.latest("quote"))
    if quoted is None:
        return None
    chosen = Random(quoted["id"])
    ends = {"sourceWalletId": chosen.choice(world.wallets), "destinationWalletId": chosen.choice(world.dollars)}
    return {"input": {"quoteId": quoted["id"], **ends}}


def _from_to(source: str, destination: str, amount: int) -> list[Move]:
    return [Move(source, "real", -amount), Move(destination, "real", amount)]


def _release(wallet_id: str, amount: int) -> list[Move]:
    return [Move(wallet_id, "locked", -amount), Move(wallet_id, "real", amount)]


def _transfer_moves(given: Mapping[str, Any]) -> list[Move]:
    return _from_to(given["sourceWalletId"], given["destinationWalletId"], int(given["amount"]))


def _withdrawal_moves(given: Mapping[str, Any], known: Known) -> list[Move]:
    fee = _from_to(given["walletId"], FEES, WITHDRAWAL_FEE)
    return [*_from_to(given["walletId"], NOSTRO, int(given["amount"])), *fee]


def _hold_moves(given: Mapping[str, Any], known: Known) -> list[Move]:
    return _release(given["walletId"], -int(given["amount"]))


def _capture_moves(given: Mapping[str, Any], known: Known) -> list[Move]:
    held, amount = known.input(given["holdId"]), int(given["amount"])
    destination = given.get("destinationWalletId") or {"WITHDRAWAL": NOSTRO, "BET": HOUSE}[held["purpose"]]
    rest = known.uncaptured(held["id"]) if given["final"] else 0
    return [
        Move(held["walletId"], "locked", -amount),
        Move(destination, "real", amount),
        *_release(held["walletId"], rest),
    ]


def _void_moves(given: Mapping[str, Any], known: Known) -> list[Move]:
    return _release(known.input(given["holdId"])["walletId"], known.uncaptured(given["holdId"]))


def _reversal_moves(given: Mapping[str, Any], known: Known) -> list[Move]:
    name, asked = known.asked[given["transferId"]]
    amount = int(asked["input"]["amount"])
    part = int(given.get("amount", amount))
    original = OPERATIONS[name].moves(asked, known)[given["transferId"]]
    return [Move(move.wallet_id, move.bucket, -move.change * part // amount) for move in original]


def _adjustment_moves(given: Mapping[str, Any], known: Known) -> list[Move]:
    amount = int(given["amount"])
    return _from_to(HOUSE, given["walletId"], amount if given["direction"] == "CREDIT" else -amount)


def _grant_moves(given: Mapping[str, Any], known: Known) -> list[Move]:
    amount = int(given["amount"])
    return [Move(BONUS_POOL, "real", -amount), Move(given["walletId"], "bonus", amount)]


def _conversion_moves(given: Mapping[str, Any], known: Known) -> list[Move]:
    amount = int(given["amount"])
    return [Move(given["walletId"], "bonus", -amount), Move(given["walletId"], "real", amount)]


def _forfeit_moves(given: Mapping[str, Any], known: Known) -> list[Move]:
    return [Move(move.wallet_id, move.bucket, -move.change) for move in _grant_moves(given, known)]


def _mixed_bet_moves(given: Mapping[str, Any], known: Known) -> list[Move]:
    bonus = int(given["lots"][0]["amount"])
    real = _from_to(given["walletId"], HOUSE, int(given["amount"]))
    return [*real, Move(given["walletId"], "bonus", -bonus), Move(HOUSE, "real", bonus)]


def _exchange_moves(given: Mapping[str, Any], known: Known) -> list[Move]:
    amount = int(known.input(quote_key(given["quoteId"]))["amount"])
    bought = amount * RATE_PER_MILLE // 1000
    return [
        *_from_to(given["sourceWalletId"], NOSTRO, amount),
        *_from_to(OTHER_NOSTRO, given["destinationWalletId"], bought),
    ]


def quote_key(quote_id: str) -> str:
    """The exchange that takes a quote up has its id; in a history the two must not be mixed up."""
    return f"quote:{quote_id}"


def _one(moves: Callable[[Mapping[str, Any], Known], list[Move]], id_field: str = "id") -> dict[str, Any]:
    """For operations that are asked for one at a time."""
    return {
        "ids": lambda asked: [asked["input"][id_field]],
        "moves": lambda asked, known: {asked["input"][id_field]: moves(asked["input"], known)},
    }


def _many(moves: Callable[[Mapping[str, Any]], list[Move]]) -> dict[str, Any]:
    return {
        "ids": lambda asked: [given["id"] for given in asked["input"]],
        "moves": lambda asked, known: {given["id"]: moves(given) for given in asked["input"]},
    }


def _refusals(*more: str) -> frozenset[str]:
    return frozenset({"INSUFFICIENT_FUNDS", *more})


OPERATIONS = {
    operation.name: operation
    for operation in (
        Operation(
            name="deposit",
            weight=8,
            document=DEPOSIT,
            draw=lambda rng, world: _wallet_order(rng, world),
            refusals=frozenset(),
            **_one(lambda given, known: _from_to(NOSTRO, given["walletId"], int(given["amount"]))),
        ),
        Operation(
            name="withdrawal",
            weight=4,
            document=_mutation("withdraw", "WithdrawInput"),
            draw=lambda rng, world: _wallet_order(rng, world),
            in_steps=True,
            **_one(_withdrawal_moves),
        ),
        Operation(
            name="transfer",
            weight=20,
            document=_mutation("transfer", "TransferInput"),
            draw=lambda rng, world: {"input": _transfer(rng, world)},
            refusals=_refusals("LIMIT_REACHED"),
            **_one(lambda given, known: _transfer_moves(given)),
        ),
        Operation(
            name="transfers",
            weight=6,
            document=TRANSFERS,
            draw=lambda rng, world: _transfers(rng, world, "INDEPENDENT"),
            refusals=_refusals("LIMIT_REACHED"),
            **_many(_transfer_moves),
        ),
        Operation(
            name="transfers, all or none",
            weight=6,
            document=TRANSFERS,
            draw=lambda rng, world: _transfers(rng, world, "ATOMIC"),
            refusals=_refusals("LIMIT_REACHED", "LINKED_OPERATION_REFUSED"),
            in_steps=True,
            **_many(_transfer_moves),
        ),
        Operation(
            name="hold",
            weight=8,
            document=_mutation("hold", "HoldInput"),
            draw=_hold,
            refusals=_refusals("HOLD_OVERDUE", "LIMIT_REACHED"),
            **_one(_hold_moves),
        ),
        Operation(
            name="capture",
            weight=8,
            document=_mutation("capture", "CaptureInput"),
            draw=_capture,
            refusals=frozenset({"HOLD_CLOSED", "HOLD_EXCEEDED"}),
            in_steps=True,
            **_one(_capture_moves),
        ),
        Operation(
            name="void",
            weight=3,
            document=_mutation("voidHold", "VoidHoldInput"),
            draw=_void,
            refusals=frozenset({"HOLD_CLOSED"}),
            **_one(_void_moves),
        ),
        Operation(
            name="reversal",
            weight=6,
            document=_mutation("reverseTransfer", "ReverseTransferInput"),
            draw=_reversal,
            refusals=_refusals("REVERSAL_EXCEEDED"),
            **_one(_reversal_moves),
        ),
        Operation(
            name="adjustment",
            weight=3,
            document=_mutation("adjust", "AdjustInput"),
            draw=lambda rng, world: _wallet_order(rng, world, reason="soak", direction=rng.choice(("CREDIT", "DEBIT"))),
            **_one(_adjustment_moves),
        ),
        Operation(
            name="bet",
            weight=5,
            document=_mutation("placeBet", "PlaceBetInput"),
            draw=lambda rng, world: _wallet_order(rng, world),
            **_one(lambda given, known: _from_to(given["walletId"], HOUSE, int(given["amount"]))),
        ),
        Operation(
            name="bet of real and bonus money",
            weight=4,
            document=_mutation("placeBet", "PlaceBetInput"),
            draw=_mixed_bet,
            in_steps=True,
            **_one(_mixed_bet_moves),
        ),
        Operation(
            name="win",
            weight=4,
            document=_mutation("settleBet", "SettleBetInput"),
            draw=lambda rng, world: _wallet_order(rng, world),
            refusals=frozenset(),
            **_one(lambda given, known: _from_to(HOUSE, given["walletId"], int(given["amount"]))),
        ),
        Operation(
            name="grant",
            weight=5,
            document=_mutation("grantLot", "LotInput"),
            draw=_lot,
            refusals=frozenset(),
            **_one(_grant_moves),
        ),
        Operation(
            name="conversion",
            weight=2,
            document=_mutation("convertLot", "LotInput"),
            draw=_lot,
            in_steps=True,  # it tells of a lot, which no reader sees
            **_one(_conversion_moves),
        ),
        Operation(
            name="forfeit",
            weight=2,
            document=_mutation("forfeitLot", "LotInput"),
            draw=_lot,
            in_steps=True,
            **_one(_forfeit_moves),
        ),
        Operation(
            name="quote",
            weight=3,
            document="""mutation ($input: QuoteExchangeInput!) { quoteExchange(input: $input) { __typename
                ... on ExchangeQuote { id sourceAmount targetAmount } ... on Problem { code rule details } } }""",
            draw=_quote,
            ids=lambda asked: [quote_key(asked["input"]["id"])],
            moves=lambda asked, known: {},
            refusals=frozenset({"AMOUNT_TOO_SMALL"}),
            moves_nothing=True,
        ),
        Operation(
            name="exchange",
            weight=4,
            document=_mutation("exchange", "ExchangeInput"),
            draw=_exchange,
            refusals=_refusals("QUOTE_EXPIRED"),
            in_steps=True,
            **_one(_exchange_moves, "quoteId"),
        ),
    )
}


@dataclass(frozen=True, slots=True)
class Query:
    name: str
    document: str
    draw: Callable[[Random, World, Sequence[str]], Asked]


def _lately(rng: Random) -> str:
    return (datetime.now(UTC) - timedelta(seconds=rng.choice((0.0, 0.05, 1.0, 5.0)))).isoformat(timespec="milliseconds")


_BALANCE = "balance { real bonus locked }"

QUERIES = {
    query.name: query
    for query in (
        Query(
            name="wallet",
            document=f"query ($id: ID!) {{ wallet(id: $id) {{ id {_BALANCE} }} }}",
            draw=lambda rng, world, owners: {"id": rng.choice(world.wallets)},
        ),
        Query(
            name="wallets",
            document=f'{{ wallets(filter: {{kind: USER, currency: "{CURRENCY}"}}, first: 50) {{ edges {{ node '
            f"{{ id {_BALANCE} }} }} }} }}",
            draw=lambda rng, world, owners: {},
        ),
        Query(
            name="userBalances",
            document=f"query ($owner: ID!) {{ userBalances(ownerId: $owner) "
            f"{{ currency {_BALANCE} wallets {{ id {_BALANCE} }} }} }}",
            draw=lambda rng, world, owners: {"owner": rng.choice(owners)},
        ),
        Query(
            name="transactions",
            document="""query ($id: ID!) { transactions(walletId: $id, first: 20) { edges { node {
                id transferId bucket direction amount balanceAfter sequence } } } }""",
            draw=lambda rng, world, owners: {"id": rng.choice(world.wallets)},
        ),
        Query(
            name="balanceAt",
            document="query ($id: ID!, $at: DateTime!) { balanceAt(walletId: $id, at: $at) { real bonus locked } }",
            draw=lambda rng, world, owners: {"id": rng.choice(world.wallets), "at": _lately(rng)},
        ),
        Query(
            name="transferHistory",
            document="""query ($owner: ID!) { transferHistory(filter: {ownerId: $owner}, first: 20) { edges { node {
                id kind amount sourceWalletId destinationWalletId } } } }""",
            draw=lambda rng, world, owners: {"owner": rng.choice(owners)},
        ),
    )
}
