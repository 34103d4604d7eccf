"""What payment adds to the environment and to the configuration."""

from datetime import timedelta
from functools import cached_property
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator

from libs.core.config import ConfigModel
from libs.core.errors import InvalidInput
from libs.core.money import INT64_MAX
from libs.core.settings import DEVELOPMENT_SECRET, Settings
from services.payment.domain.fees import BASIS_POINTS, Fee, FeePayer
from services.payment.domain.limits import ALL_WALLETS, Limit, LimitOperation, LimitSource, LimitWindow
from services.payment.keys import JournalKeys


class PaymentSettings(Settings):
    service: str = "payment"
    port: int = 9002

    # Seals the secrets of webhooks. Several, the newest first, while one takes another's place: `new,old`.
    webhook_key: SecretStr = SecretStr(DEVELOPMENT_SECRET)

    # Signs the journal's heads: 32 bytes in base64, or any text. Whoever has it and the database can rewrite history.
    journal_key: SecretStr = SecretStr(DEVELOPMENT_SECRET)
    # Public keys, in hex, with commas between them: heads that were signed before the key was changed stay good.
    journal_former_keys: str = ""

    def journal_keys(self) -> JournalKeys:
        former = [key.strip() for key in self.journal_former_keys.split(",") if key.strip()]
        return JournalKeys(self.journal_key.get_secret_value(), former)

    @model_validator(mode="after")
    def _refuse_weak_webhook_keys(self) -> Self:
        keys = [key.strip() for key in self.webhook_key.get_secret_value().split(",")]
        if not self.development and any(key == DEVELOPMENT_SECRET or len(key) < 32 for key in keys):
            raise ValueError("each key in WEBHOOK_KEY must be a secret of at least 32 characters outside development")
        return self


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


class FeeRule(BaseModel):
    """Of each operation of a kind and currency. Amounts are minor units; see `domain/fees.py`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["deposit", "withdrawal"]
    currency: str
    flat_minor: Annotated[int, Field(ge=0, le=INT64_MAX)] = 0
    basis_points: Annotated[int, Field(ge=0, le=BASIS_POINTS)] = 0
    min_minor: Annotated[int, Field(ge=0, le=INT64_MAX)] = 0
    max_minor: Annotated[int, Field(ge=0, le=INT64_MAX)] | None = None
    payer: FeePayer = FeePayer.DEDUCTED

    def fee(self) -> Fee:
        return Fee(self.flat_minor, self.basis_points, self.min_minor, self.max_minor, self.payer)


class Rate(BaseModel):
    """How many major units of the one currency a major unit of the other is worth, less the house's spread."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rate: Annotated[str, Field(pattern=r"^[0-9]{1,12}(\.[0-9]{1,12})?$")]
    spread_basis_points: Annotated[int, Field(ge=0, lt=BASIS_POINTS)] = 0


class PaymentConfig(ConfigModel, name="payment"):
    # What verifying the ledger may cost each minute, of one process: whichever comes first.
    verify_transfers: Annotated[int, Field(ge=1)] = 300_000
    verify_cpu_s: Annotated[float, Field(gt=0, le=60)] = 2.0

    wallet_categories: tuple[str, ...] = ("main", "casino", "sports")
    limits: tuple[ProductLimit, ...] = ()
    # What a player waits until a limit of their own gets laxer. A day is what regulators ask for at least.
    limit_cooling_off_h: Annotated[float, Field(ge=0, le=24 * 365)] = 24.0

    fees: tuple[FeeRule, ...] = ()
    # By "EUR/USD": what is sold, what is bought.
    rates: Annotated[dict[str, Rate], Field(default_factory=dict)]
    quote_s: Annotated[float, Field(gt=0, le=3600)] = 30.0
    hold_h: Annotated[float, Field(gt=0, le=24 * 400)] = 24.0 * 7
    # By currency, and else: adjustments of more minor units than this need a second operator.
    adjustment_approval_above: Annotated[dict[str, int], Field(default_factory=dict)]
    adjustment_approval_above_default: Annotated[int, Field(ge=0, le=INT64_MAX)] = 100_000
    # By currency, and else: what players send away of more minor units than this, they confirm with a fresh factor.
    # None: nothing is. `step_up_operators`: they confirm what they send for others, too.
    step_up_above: Annotated[dict[str, Annotated[int, Field(ge=0, le=INT64_MAX)] | None], Field(default_factory=dict)]
    step_up_above_default: Annotated[int, Field(ge=0, le=INT64_MAX)] | None = None
    step_up_operators: bool = False

    def fee(self, kind: str, currency: str) -> Fee:
        found = (rule.fee() for rule in self.fees if (rule.kind, rule.currency) == (kind, currency))
        return next(found, Fee())

    def adjustment_threshold(self, currency: str) -> int:
        return self.adjustment_approval_above.get(currency, self.adjustment_approval_above_default)

    def step_up_threshold(self, currency: str) -> int | None:
        return self.step_up_above.get(currency, self.step_up_above_default)

    @property
    def hold_duration(self) -> timedelta:
        return timedelta(hours=self.hold_h)

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
