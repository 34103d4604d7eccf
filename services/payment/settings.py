"""What payment adds to the environment and to the configuration."""

from libs.core.config import ConfigModel
from libs.core.settings import Settings


class PaymentSettings(Settings):
    service: str = "payment"
    port: int = 9002


class PaymentConfig(ConfigModel, name="payment"):
    wallet_categories: tuple[str, ...] = ("main", "casino", "sports")
