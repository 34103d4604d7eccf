"""What one person asks for and another has to approve."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from libs.core.errors import Refusal
from libs.core.money import Money
from services.payment.domain.operations import Direction


class RequestStatus(StrEnum):
    PENDING = "pending"
    APPROVED = "approved"
    REJECTED = "rejected"


@dataclass(frozen=True, slots=True)
class AdjustmentRequest:
    """An adjustment above the tenant's threshold: its id is the adjustment's."""

    id: str
    tenant_id: str
    wallet_id: str
    direction: Direction
    money: Money
    reason: str
    requested_by: str
    requested_at: datetime
    status: RequestStatus = RequestStatus.PENDING
    decided_by: str = ""
    decided_at: datetime | None = None

    @property
    def key(self) -> str:
        return f"{self.tenant_id}:{self.id}"

    def asks_for_the_same(self, other: "AdjustmentRequest") -> bool:
        mine, others = ((r.wallet_id, r.direction, r.money, r.reason) for r in (self, other))
        return mine == others

    def refusal(self, status: RequestStatus, by: str) -> Refusal | None:
        """Why `by` may not make this `status`; one that was decided so before may be decided so again."""
        if status is RequestStatus.APPROVED and by == self.requested_by:
            return Refusal("FOUR_EYES", "it takes another than who asked", rule="request.four_eyes", id=self.id)
        if self.status not in (RequestStatus.PENDING, status):
            return Refusal(
                "REQUEST_DECIDED",
                f"this request is {self.status}",
                rule="request.status",
                id=self.id,
                status=str(self.status),
            )
        return None
