"""What people have beside their password, and how they use it."""

from collections.abc import Awaitable
from dataclasses import dataclass, field
from typing import Any

import pyotp
import pytest

from libs.core.context import Context
from libs.core.errors import Refusal
from services.auth.commands import login, passkeys, second_factor, totp
from services.auth.commands.devices import Device
from services.auth.commands.second_factor import Proof
from services.auth.commands.sign_in import Challenge
from services.auth.commands.tokens import SignedIn
from services.auth.domain.identifiers import parse_identifier
from services.auth.domain.passkeys import Passkey
from services.auth.domain.users import User
from services.auth.store import users
from tests.auth.authenticator import Authenticator
from tests.auth.conftest import PASSWORD, House


@dataclass
class App:
    """An authenticator app with one account in it."""

    house: House
    secret: str
    recovery_codes: list[str] = field(default_factory=list)

    @property
    def code(self) -> str:
        """As it is shown now."""
        return pyotp.TOTP(self.secret).at(self.house.clock.now())

    @property
    def wrong(self) -> str:
        """One that it does not show now, nor around now."""
        near = {pyotp.TOTP(self.secret).at(self.house.clock.now(), counter_offset=n) for n in range(-2, 3)}
        return next(code for code in ("000000", "111111", "222222", "333333", "444444", "555555") if code not in near)


async def with_app(house: House, user: User, **caller: Any) -> App:
    """Set up and confirmed, a minute ago."""
    context = house.context(user, **caller)
    setup = await totp.start_totp(house.auth, context)
    app = App(house, setup.secret)
    app.recovery_codes = await totp.confirm_totp(house.auth, context, setup.flow_token, app.code)
    house.clock.advance(minutes=1)
    return app


async def with_passkey(house: House, user: User, device: Authenticator | None = None, **caller: Any) -> Passkey:
    context = house.context(user, **caller)
    started = await passkeys.start_registration(house.auth, context)
    answer = (device or Authenticator()).create(started.options)
    made = await passkeys.finish_registration(house.auth, context, started.flow_token, answer, "a phone")
    return made.passkey


async def log_in(
    house: House, name: str = "ann", *, device: Device | None = None, **context: Any
) -> SignedIn | Challenge:
    """With the password."""
    identifier = parse_identifier(name, "input.identifier")
    return await login.login(house.auth, house.context(**context), identifier, PASSWORD, device=device or Device())


async def challenged(house: House, name: str = "ann", **options: Any) -> Challenge:
    """The password was right, and is not enough."""
    outcome = await log_in(house, name, **options)
    assert isinstance(outcome, Challenge)
    return outcome


async def show(
    house: House,
    challenge: Challenge,
    proof: Proof,
    *,
    device: Device | None = None,
    trust: bool = False,
    **context: Any,
) -> SignedIn:
    return await second_factor.complete_second_factor(
        house.auth, house.context(**context), challenge.flow_token, proof, device=device or Device(), trust=trust
    )


async def refusal(asked: Awaitable[Any]) -> str:
    """The code of the refusal that it must be."""
    with pytest.raises(Refusal) as caught:
        await asked
    return caught.value.code


async def now(house: House, user: User) -> User:
    found = await users.load(house.auth.database, None, user.tenant_id, user.id)
    assert found is not None
    return found


async def level_of(house: House, signed_in: SignedIn) -> int:
    """As every service sees it."""
    return (await context_of(house, signed_in)).caller.level


async def context_of(house: House, signed_in: SignedIn) -> Context:
    return await house.of_token(signed_in)
