"""The bootstrap environment: addresses, ports, keys, mode. Everything else is configuration (`libs/core/config.py`)."""

from typing import Annotated, Literal, Self

from pydantic import Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from libs.core.errors import Misconfigured

Mode = Literal["development", "production"]

# Known to everyone who can read this file, so good for a laptop and refused everywhere else.
DEVELOPMENT_SECRET = "development-only-secret-do-not-deploy"


class Settings(BaseSettings):
    """Read from the environment, by these names in upper case. A service subclasses it and sets `service` and `port`.

    Secrets default to a public development value; outside development they must be set to at least 32 characters.
    """

    model_config = SettingsConfigDict(frozen=True, extra="ignore")

    service: str
    mode: Mode = "production"
    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=1, le=65535)]

    mongo_url: str = "mongodb://127.0.0.1:27017/?replicaSet=rs0"
    redis_url: str = "redis://127.0.0.1:6379/0"
    # Separates installations, and tests, that share one MongoDB and one Redis.
    namespace: Annotated[str, Field(pattern=r"^[a-z0-9_]{0,24}$")] = ""

    jwks_url: str = "http://127.0.0.1:9001/.well-known/jwks.json"
    token_issuer: str = "http://127.0.0.1:9001"
    token_audience: str = "payments-platform"
    cursor_secret: SecretStr = SecretStr(DEVELOPMENT_SECRET)

    default_tenant: str = ""
    # Whose administrators manage what all tenants share: policies, signing keys. Empty: nobody, over the API.
    platform_tenant: str = ""
    # Networks (CIDR, with commas between them) whose X-Forwarded-For is believed: the gateway's, the load balancer's.
    trusted_proxies: str = ""
    # Longer than a MongoDB election or the restart of a Redis; shorter than an orchestrator's patience.
    start_within_s: Annotated[float, Field(gt=0, le=300)] = 30.0
    request_timeout_s: Annotated[float, Field(gt=0, le=120)] = 15.0
    shutdown_grace_s: Annotated[float, Field(gt=0, le=300)] = 20.0
    # How long connections are still accepted once the process is not ready any more, so that load balancers notice.
    shutdown_delay_s: Annotated[float, Field(ge=0, le=60)] = 0.0
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    otel_endpoint: str = ""

    @property
    def development(self) -> bool:
        return self.mode == "development"

    @model_validator(mode="after")
    def _refuse_development_secrets(self) -> Self:
        if self.development:
            return self
        for name in type(self).model_fields:
            value = getattr(self, name)
            if isinstance(value, SecretStr) and (
                value.get_secret_value() == DEVELOPMENT_SECRET or len(value.get_secret_value()) < 32
            ):
                raise ValueError(
                    f"{name.upper()} must be set to a secret of at least 32 characters outside development"
                )
        return self

    @classmethod
    def load(cls) -> Self:
        """From the environment, or `Misconfigured` with one line that names each wrong variable and why."""
        try:
            return cls()
        except ValidationError as error:
            wrong = "; ".join(
                f"{'_'.join(map(str, e['loc'])).upper() or 'environment'}: {e['msg'].removeprefix('Value error, ')}"
                for e in error.errors()
            )
            raise Misconfigured(f"wrong environment: {wrong}") from None
