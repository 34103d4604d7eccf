"""What clients ask for: one `Operation` each, with how one is drawn and what money it moves once it is accepted.

A new operation is one more row of `OPERATIONS`. Its effect is stated here from what was asked alone, and not from what
the service answered: the checker holds the ledger against it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

from libs.core.tenants import SystemWallet, system_wallet_id

TENANT, CURRENCY = "demo", "EUR"
NOSTRO = system_wallet_id(TENANT, SystemWallet.NOSTRO, CURRENCY)
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
    name: str
    accepted: list[tuple[str, Asked]] = field(default_factory=list)
    _made: int = 0

    def new_id(self) -> str:
        self._made += 1
        return f"{self.name}-{self._made}"


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
    moves: Callable[[Asked], dict[str, list[Move]]]
    # What a rule may say here. Anything else is a surprise.
    refusals: frozenset[str] = frozenset({"INSUFFICIENT_FUNDS"})


_ANSWER = """{ __typename
    ... on Transfer { id transactions { walletId bucket direction amount balanceAfter sequence } }
    ... on Problem { code rule details } }"""

DEPOSIT = f"mutation ($input: DepositInput!) {{ deposit(input: $input) {_ANSWER} }}"
TRANSFER = f"mutation ($input: TransferInput!) {{ transfer(input: $input) {_ANSWER} }}"
TRANSFERS = f"""mutation ($input: [TransferInput!]!, $mode: TransfersMode!) {{
    transfers(input: $input, mode: $mode) {_ANSWER} }}"""


def deposit(operation_id: str, wallet_id: str, amount: int) -> Asked:
    return {"input": {"id": operation_id, "walletId": wallet_id, "amount": str(amount), "currency": CURRENCY}}


def _transfer(rng: Random, world: World) -> dict[str, Any]:
    source, destination = rng.sample(world.wallets, 2)
    return {
        "id": world.new_id(),
        "sourceWalletId": source,
        "destinationWalletId": destination,
        "amount": str(rng.randint(1, LARGEST)),
        "currency": CURRENCY,
    }


def _transfers(rng: Random, world: World, mode: str) -> Asked:
    return {"input": [_transfer(rng, world) for _ in range(rng.randint(2, 6))], "mode": mode}


def _deposit_moves(given: Mapping[str, Any]) -> list[Move]:
    amount = int(given["amount"])
    return [Move(NOSTRO, "real", -amount), Move(given["walletId"], "real", amount)]


def _transfer_moves(given: Mapping[str, Any]) -> list[Move]:
    amount = int(given["amount"])
    return [Move(given["sourceWalletId"], "real", -amount), Move(given["destinationWalletId"], "real", amount)]


def _one(moves: Callable[[Mapping[str, Any]], list[Move]]) -> dict[str, Any]:
    """For operations that are asked for one at a time."""
    return {
        "ids": lambda asked: [asked["input"]["id"]],
        "moves": lambda asked: {asked["input"]["id"]: moves(asked["input"])},
    }


def _many(moves: Callable[[Mapping[str, Any]], list[Move]]) -> dict[str, Any]:
    return {
        "ids": lambda asked: [given["id"] for given in asked["input"]],
        "moves": lambda asked: {given["id"]: moves(given) for given in asked["input"]},
    }


OPERATIONS = {
    operation.name: operation
    for operation in (
        Operation(
            name="deposit",
            weight=1,
            document=DEPOSIT,
            draw=lambda rng, world: deposit(world.new_id(), rng.choice(world.wallets), rng.randint(1, LARGEST)),
            refusals=frozenset(),
            **_one(_deposit_moves),
        ),
        Operation(
            name="transfer",
            weight=6,
            document=TRANSFER,
            draw=lambda rng, world: {"input": _transfer(rng, world)},
            **_one(_transfer_moves),
        ),
        Operation(
            name="transfers",
            weight=2,
            document=TRANSFERS,
            draw=lambda rng, world: _transfers(rng, world, "INDEPENDENT"),
            **_many(_transfer_moves),
        ),
        Operation(
            name="transfers, all or none",
            weight=2,
            document=TRANSFERS,
            draw=lambda rng, world: _transfers(rng, world, "ATOMIC"),
            refusals=frozenset({"INSUFFICIENT_FUNDS", "LINKED_OPERATION_REFUSED"}),
            **_many(_transfer_moves),
        ),
    )
}


@dataclass(frozen=True, slots=True)
class Query:
    name: str
    document: str
    draw: Callable[[Random, World, Sequence[str]], Asked]


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
            name="transferHistory",
            document="""query ($owner: ID!) { transferHistory(filter: {ownerId: $owner}, first: 20) { edges { node {
                id kind amount sourceWalletId destinationWalletId } } } }""",
            draw=lambda rng, world, owners: {"owner": rng.choice(owners)},
        ),
    )
}
