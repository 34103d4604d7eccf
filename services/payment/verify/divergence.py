"""What can be wrong with a ledger, and where."""

from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """Of a divergence, in the order in which one place is looked at.

    head missing          a head that was published is not there, or one between two is not
    head wrong            a head does not say what was signed, or its signature is nobody's, or it follows no other
    chain cut             blocks that the lane's lease or a signed head tells of are not there
    block missing         one between two blocks is not there
    block surplus         a block that the lane's lease knows nothing of
    block rewritten       a block is not the one that the next block, a signed head or its own hash tells of
    transfer missing      a block tells of it
    transfer altered      it is not what the block's leaf is of
    transaction missing   a transfer, a wallet or the line after it tells of it
    transaction altered   it is not what its transfer says, or does not follow the line before it
    transfer surplus      no block tells of it
    transaction surplus   no transfer or no wallet tells of it
    wallet missing        there are transactions in it
    balance differs       a wallet is not what its transactions make of it
    lots differ           the lots of a bonus bucket are not what its transactions make of them, or do not sum to it
    holds differ          a locked bucket is not the sum of its open holds
    below limit           a guarded bucket is lower than it may be
    sum not zero          a tenant's wallets of one currency do not sum to zero
    """

    HEAD_MISSING = "head_missing"
    HEAD_WRONG = "head_wrong"
    CHAIN_CUT = "chain_cut"
    BLOCK_MISSING = "block_missing"
    BLOCK_SURPLUS = "block_surplus"
    BLOCK_REWRITTEN = "block_rewritten"
    TRANSFER_MISSING = "transfer_missing"
    TRANSFER_ALTERED = "transfer_altered"
    TRANSACTION_MISSING = "transaction_missing"
    TRANSACTION_ALTERED = "transaction_altered"
    TRANSFER_SURPLUS = "transfer_surplus"
    TRANSACTION_SURPLUS = "transaction_surplus"
    WALLET_MISSING = "wallet_missing"
    BALANCE_DIFFERS = "balance_differs"
    LOTS_DIFFER = "lots_differ"
    HOLDS_DIFFER = "holds_differ"
    BELOW_LIMIT = "below_limit"
    SUM_NOT_ZERO = "sum_not_zero"


@dataclass(frozen=True, slots=True)
class Divergence:
    """`where` names one thing in words; `tenant_id` is empty where it is no single tenant's."""

    kind: Kind
    where: str
    expected: str
    found: str
    tenant_id: str = ""

    def __str__(self) -> str:
        return f"{self.kind.replace('_', ' ')}: {self.where}: expected {self.expected}, found {self.found}"


class Diverged(Exception):
    """Ends the search: the first divergence is what counts."""

    def __init__(self, kind: Kind, where: str, expected: object, found: object, tenant_id: str = "") -> None:
        self.divergence = Divergence(kind, where, _shown(expected), _shown(found), tenant_id)
        super().__init__(str(self.divergence))


def _shown(value: object) -> str:
    if isinstance(value, bytes):
        return value.hex() if len(value) == 32 else value.decode(errors="replace")
    return str(value)
