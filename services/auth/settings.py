"""What auth adds to the environment and to the configuration."""

from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator

from libs.core.config import ConfigModel
from libs.core.settings import DEVELOPMENT_SECRET, Settings
from services.auth.domain.providers import IdentityProvider, ReturnUrl


class AuthSettings(Settings):
    service: str = "auth"
    port: int = 9001

    # Seals signing keys and the secrets of second factors. Several, the newest first, while one takes another's place.
    auth_key: SecretStr = SecretStr(DEVELOPMENT_SECRET)
    # Where browsers reach auth: the beginning of the addresses that identity providers send them back to.
    public_url: str = "http://127.0.0.1:9001"

    # How many passwords are hashed at the same time. 0: as many as there are cores.
    hash_workers: Annotated[int, Field(ge=0, le=256)] = 0
    # Seals messages to users on their way to the notification service, which has the same. Several, the newest first.
    message_key: SecretStr = SecretStr(DEVELOPMENT_SECRET)
    # An MMDB file with places by address, such as GeoLite2 City. Empty: places are not told.
    place_database: str = ""
    # A file of stolen passwords, as Have I Been Pwned offers it (see docs/howto/passwords.md). Empty: none.
    breached_passwords: str = ""

    @model_validator(mode="after")
    def _refuse_weak_keys(self) -> Self:
        for name in ("auth_key", "message_key"):
            keys = [key.strip() for key in getattr(self, name).get_secret_value().split(",")]
            if not self.development and any(key == DEVELOPMENT_SECRET or len(key) < 32 for key in keys):
                name = name.upper()
                raise ValueError(f"each key in {name} must be a secret of at least 32 characters outside development")
        return self


class SendLimit(BaseModel):
    """At most so many messages in any such stretch of time."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    messages: Annotated[int, Field(ge=1, le=1000)]
    per_s: Annotated[float, Field(gt=0, le=30 * 24 * 3600)]


class AuthConfig(ConfigModel, name="auth"):
    default_roles: tuple[str, ...] = ("player",)

    # RFC 9700 wants them short-lived; what is revoked is refused within seconds all the same.
    access_token_s: Annotated[int, Field(ge=60, le=600)] = 300
    session_idle_h: Annotated[float, Field(gt=0, le=24 * 365)] = 24.0 * 14
    session_absolute_h: Annotated[float, Field(gt=0, le=24 * 365)] = 24.0 * 90
    # Of one user; with one more, the one that was used the longest ago ends.
    sessions_most: Annotated[int, Field(ge=1, le=500)] = 100
    # The same of the devices that a user is known by.
    devices_most: Annotated[int, Field(ge=1, le=500)] = 100
    # Within this, a client whose answer was lost may send the same refresh token again.
    refresh_grace_s: Annotated[float, Field(ge=0, le=60)] = 10.0
    signing_key_days: Annotated[float, Field(gt=0, le=366)] = 30.0

    # What names your product or company: a password must not be made of it, nor of the tenant's name.
    password_words: tuple[Annotated[str, Field(min_length=4, max_length=64)], ...] = ()

    # NIST SP 800-63B: a code that was sent is good for ten minutes at most.
    code_s: Annotated[int, Field(ge=60, le=600)] = 600
    resend_s: Annotated[int, Field(ge=1, le=600)] = 30
    flow_s: Annotated[int, Field(ge=60, le=3600)] = 900
    flow_tries: Annotated[int, Field(ge=1, le=10)] = 5
    # Tries at a password: so many are free, then each has to wait, twice as long as the one before, up to the last; and
    # one is forgiven in such a time. An address may be a whole town's, so it has more, and is forgiven sooner; but it
    # does not get to try more accounts than these, of those that it does not get into.
    account_free_tries: Annotated[int, Field(ge=1, le=100)] = 5
    account_forgiven_s: Annotated[float, Field(ge=1, le=24 * 3600)] = 3600.0
    address_free_tries: Annotated[int, Field(ge=1, le=10_000)] = 50
    address_forgiven_s: Annotated[float, Field(ge=1, le=24 * 3600)] = 10.0
    tries_delay_s: Annotated[float, Field(gt=0, le=60)] = 1.0
    tries_delay_max_s: Annotated[float, Field(gt=0, le=24 * 3600)] = 900.0
    address_accounts: Annotated[int, Field(ge=1, le=1000)] = 50
    address_accounts_s: Annotated[float, Field(gt=0, le=24 * 3600)] = 3600.0
    # Messages with codes. Each recipient counts once, however many names their mailbox has.
    sends_per_recipient: tuple[SendLimit, ...] = (
        SendLimit(messages=1, per_s=30),
        SendLimit(messages=5, per_s=3600),
        SendLimit(messages=10, per_s=24 * 3600),
    )
    sends_per_address: tuple[SendLimit, ...] = (SendLimit(messages=20, per_s=3600),)

    # Usernames that one user may ask for: each answer says whether somebody has it.
    renames_per_day: Annotated[int, Field(ge=1, le=1000)] = 10

    # How long a proof of a factor counts as fresh.
    step_up_s: Annotated[int, Field(ge=30, le=3600)] = 300
    # How long the token is good that confirms one operation.
    step_up_token_s: Annotated[int, Field(ge=60, le=300)] = 180
    # How long a device that its user trusts stands in for the second factor.
    trusted_device_days: Annotated[float, Field(ge=0, le=365)] = 30.0
    # Whose passkeys are, and which sites may ask for them; empty: the tenant's hosts say. See `domain/passkeys.py`.
    passkey_rp_id: Annotated[str, Field(pattern=r"^([a-z0-9-]+(\.[a-z0-9-]+)*)?$")] = ""
    passkey_origins: tuple[Annotated[str, Field(pattern=r"^https?://[a-z0-9.-]+(:[0-9]+)?$")], ...] = ()
    # How many logins by passkey an address may begin: a browser may begin one for each time that it shows the form.
    passkey_logins_per_h: Annotated[int, Field(ge=1, le=100_000)] = 600
    # The page that a link in a message leads to; its fragment holds the flow and the code. Empty: codes without a link.
    link_url: str = ""

    # How long an API key is good if its author does not say, and the longest that they may.
    api_key_days: Annotated[float, Field(gt=0, le=3660)] = 90.0
    api_key_max_days: Annotated[float, Field(gt=0, le=3660)] = 366.0

    # Who else may vouch for people, and where browsers may be sent when one did: these addresses to the letter.
    identity_providers: tuple[IdentityProvider, ...] = ()
    return_urls: tuple[ReturnUrl, ...] = ()
    # How many trips to a provider an address may begin, and how long a client has to redeem what one brought back.
    oauth_starts_per_h: Annotated[int, Field(ge=1, le=100_000)] = 300
    oauth_code_s: Annotated[int, Field(ge=10, le=600)] = 120

    @model_validator(mode="after")
    def _one_provider_for_an_id(self) -> Self:
        if len({provider.id for provider in self.identity_providers}) < len(self.identity_providers):
            raise ValueError("two identity providers have one id")
        return self
