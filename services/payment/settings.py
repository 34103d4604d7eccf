"""What payment adds to the environment and to the configuration."""

from datetime import timedelta
from functools import cached_property
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from libs.core.config import ConfigModel
from libs.core.errors import InvalidInput
from libs.core.settings import Settings
from services.payment.domain.limits import ALL_WALLETS, Limit, LimitOperation, LimitSource, LimitWindow


class PaymentSettings(Settings):
    service: str = "payment"
    port: int = 9002


class ProductLimit(BaseModel):
    """One that every account has, unless it has a product limit of its own for the same thing."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    operation: LimitOperation
    window: LimitWindow
    currency: str
    amount_minor: int
    scope: str = ALL_WALLETS

    @model_validator(mode="after")
    def _check(self) -> Self:
        try:
            self.limit()
        except InvalidInput as error:
            raise ValueError(f"{error.field}: {error.message}") from None
        if self.operation is LimitOperation.BALANCE and self.scope == ALL_WALLETS:
            # What all wallets hold is noted from the moment on that an account gets such a limit of its own.
            raise ValueError("a product's balance limit names a category of wallets")
        return self

    def limit(self) -> Limit:
        return Limit(
            self.operation, self.window, LimitSource.PRODUCT, self.currency, self.amount_minor, scope=self.scope
        )


class PaymentConfig(ConfigModel, name="payment"):
    wallet_categories: tuple[str, ...] = ("main", "casino", "sports")
    limits: tuple[ProductLimit, ...] = ()
    # What a player waits until a limit of their own gets laxer. A day is what regulators ask for at least.
    limit_cooling_off_h: Annotated[float, Field(ge=0, le=24 * 365)] = 24.0

    @cached_property
    def product_limits(self) -> tuple[Limit, ...]:
        return tuple(limit.limit() for limit in self.limits)

    @property
    def limit_cooling_off(self) -> timedelta:
        return timedelta(hours=self.limit_cooling_off_h)

    @model_validator(mode="after")
    def _one_limit_for_one_thing(self) -> Self:
        if len({limit.limit().key for limit in self.limits}) < len(self.limits):
            raise ValueError("two limits are for the same thing")
        return self
