"""What is asked of payment's operations, and by whom."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from libs.core.ids import new_id
from tests.live import Api

RESULT = """{ __typename
    ... on Transfer { id kind amount currency sourceWalletId destinationWalletId reference operationId holdId reverses
        createdAt transactions { walletId bucket lot direction amount balanceAfter sequence } }
    ... on Problem { code rule details } }"""
ADJUSTED = RESULT[:-1] + "... on AdjustmentRequest { id status amount direction reason requestedBy decidedBy } }"
WALLET_RESULT = """{ __typename ... on Wallet { id status creditLimit balance { real bonus locked } }
    ... on Problem { code rule details } }"""
QUOTE_RESULT = """{ __typename ... on ExchangeQuote { id sourceAmount targetAmount targetCurrency rate expiresAt }
    ... on Problem { code rule details } }"""

_INPUTS = {
    "deposit": ("DepositInput", RESULT),
    "withdraw": ("WithdrawInput", RESULT),
    "transfer": ("TransferInput", RESULT),
    "placeBet": ("PlaceBetInput", RESULT),
    "settleBet": ("SettleBetInput", RESULT),
    "hold": ("HoldInput", RESULT),
    "capture": ("CaptureInput", RESULT),
    "voidHold": ("VoidHoldInput", RESULT),
    "reverseTransfer": ("ReverseTransferInput", RESULT),
    "adjust": ("AdjustInput", ADJUSTED),
    "exchange": ("ExchangeInput", RESULT),
    "quoteExchange": ("QuoteExchangeInput", QUOTE_RESULT),
    "grantLot": ("LotInput", RESULT),
    "convertLot": ("LotInput", RESULT),
    "forfeitLot": ("LotInput", RESULT),
    "freezeWallet": ("WalletStandingInput", WALLET_RESULT),
    "unfreezeWallet": ("WalletStandingInput", WALLET_RESULT),
    "closeWallet": ("WalletStandingInput", WALLET_RESULT),
    "setCreditLimit": ("CreditLimitInput", WALLET_RESULT),
}
OPERATIONS = {
    name: f"mutation ($input: {of}!) {{ {name}(input: $input) {result} }}" for name, (of, result) in _INPUTS.items()
}
# Those whose input has no id: asked twice, nothing happens the second time.
_STANDING = {"freezeWallet", "unfreezeWallet", "closeWallet", "setCreditLimit"}

APPROVE = f"mutation ($id: ID!) {{ approveAdjustment(id: $id) {RESULT} }}"
REJECT = """mutation ($id: ID!) { rejectAdjustment(id: $id) {
    __typename ... on AdjustmentRequest { id status decidedBy } ... on Problem { code } } }"""
CREATE = """mutation ($input: CreateWalletInput!) { createWallet(input: $input) { ... on Wallet { id } } }"""
WALLET = """query ($id: ID!) { wallet(id: $id) { status creditLimit balance { real bonus locked available }
    lots { lot amount } } }"""
HOLD = """query ($id: ID!) { hold(id: $id) { status amount captured released rest purpose expiresAt walletId } }"""
TOGETHER = "query ($id: ID!) { transfer(id: $id) { operationTransfers { id kind amount currency } } }"


def written(operation: str, **given: Any) -> dict[str, Any]:
    """The input of `operation`, with a new id where it has one that is not given, and in euros."""
    own: dict[str, Any] = {} if operation in _STANDING or operation == "exchange" else {"id": new_id()}
    if operation in _STANDING or operation in ("reverseTransfer", "adjust"):
        own["reason"] = "INC-7"
    if "amount" in given and operation not in ("capture", "reverseTransfer", "quoteExchange", "setCreditLimit"):
        own["currency"] = "EUR"
    if "amount" in given:
        given["amount"] = str(given["amount"])
    return own | given


async def do(api: Api, operation: str, **given: Any) -> Any:
    """What `operation` answers: a Transfer, a Problem, or what else it can."""
    return await api.ask(OPERATIONS[operation], input=written(operation, **given))


async def refused(api: Api, operation: str, **given: Any) -> str:
    """The code of the error, not Problem, that `operation` answers."""
    return await api.refused(OPERATIONS[operation], input=written(operation, **given))


async def at_once(times: int, api: Api, operation: str, **given: Any) -> list[Any]:
    return await asyncio.gather(*(do(api, operation, **given) for _ in range(times)))


def codes(answers: Sequence[Any]) -> list[str]:
    """Sorted; "" for what was done."""
    return sorted(answer.get("code", "") for answer in answers)


@dataclass
class Player:
    """Somebody with a wallet."""

    api: Api
    name: str
    wallet: str

    async def look(self, wallet_id: str = "") -> dict[str, Any]:
        """What is in the wallet: {"real": 70, "bonus": 0, "locked": 30, "available": 70}."""
        shown = await self.api.ask(WALLET, id=wallet_id or self.wallet)
        return {bucket: int(amount) for bucket, amount in shown["balance"].items()}

    async def real(self) -> int:
        return int((await self.look())["real"])

    async def locked(self) -> int:
        return int((await self.look())["locked"])

    async def lots(self) -> dict[str, int]:
        return {lot["lot"]: int(lot["amount"]) for lot in (await self.api.ask(WALLET, id=self.wallet))["lots"]}

    async def another_wallet(self, currency: str) -> str:
        made: str = (await self.api.ask(CREATE, input={"currency": currency}))["id"]
        return made


async def together(api: Api, transfer_id: str) -> list[tuple[str, int]]:
    """Kind and amount of each transfer of the operation."""
    found = (await api.ask(TOGETHER, id=transfer_id))["operationTransfers"]
    return [(transfer["kind"], int(transfer["amount"])) for transfer in found]
