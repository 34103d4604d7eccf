"""Passkeys: registered, used to sign in, renamed, removed."""

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Self, cast

import strawberry
from strawberry import ID, Info
from strawberry.scalars import JSON

from libs.core.access import Public, Requires
from libs.core.context import Context
from libs.core.graphql import Problem
from libs.core.ids import parse_id
from services.auth.commands import passkeys
from services.auth.commands.passkeys import Ceremony
from services.auth.schema.common import auth_of, or_problem
from services.auth.schema.factors import MANAGE, FactorsResult, Passkey, factors_changed
from services.auth.schema.sign_in import DeviceInput, SignInResult, device_of, sign_in_result


@strawberry.type(description="What the browser is to be asked for, within the time.")
class PasskeyCeremony:
    flow_id: ID
    expires_at: datetime
    options: JSON = strawberry.field(
        description="For PublicKeyCredential.parseCreationOptionsFromJSON(), or parseRequestOptionsFromJSON()."
    )

    @classmethod
    def of(cls, ceremony: Ceremony) -> Self:
        return cls(flow_id=ID(ceremony.flow_token), expires_at=ceremony.expires_at, options=JSON(ceremony.options))


@strawberry.type
class PasskeyRegistered:
    passkey: Passkey
    new_recovery_codes: list[str] = strawberry.field(
        description="Made with the first factor, and shown here alone: the user has to keep them. Else empty."
    )


@strawberry.input
class FinishPasskeyRegistrationInput:
    flow_id: ID
    credential: JSON = strawberry.field(description="What the browser answered, as its toJSON() gives it.")
    name: str = strawberry.field(description="By which you will know it.")


@strawberry.input
class FinishPasskeyLoginInput:
    flow_id: ID
    credential: JSON = strawberry.field(description="What the browser answered, as its toJSON() gives it.")
    device: DeviceInput | None = None


@strawberry.input
class RenamePasskeyInput:
    id: ID
    name: str


PasskeyCeremonyResult = Annotated[PasskeyCeremony | Problem, strawberry.union("PasskeyCeremonyResult")]
PasskeyRegisteredResult = Annotated[PasskeyRegistered | Problem, strawberry.union("PasskeyRegisteredResult")]
PasskeyResult = Annotated[Passkey | Problem, strawberry.union("PasskeyResult")]


@strawberry.type
class PasskeyMutations:
    @strawberry.mutation(
        description="Needs a fresh login. At most 20, and one for each device.", extensions=[Requires(MANAGE)]
    )
    async def start_passkey_registration(self, info: Info[Context]) -> PasskeyCeremonyResult:
        started = await or_problem(passkeys.start_registration(auth_of(info), info.context))
        return started if isinstance(started, Problem) else PasskeyCeremony.of(started)

    @strawberry.mutation(
        description="From now on it signs you in, and is a second factor.", extensions=[Requires(MANAGE)]
    )
    async def finish_passkey_registration(
        self,
        info: Info[Context],
        input: FinishPasskeyRegistrationInput,  # noqa: A002
    ) -> PasskeyRegisteredResult:
        registered = await or_problem(
            passkeys.finish_registration(
                auth_of(info), info.context, input.flow_id, _answer(input.credential), input.name
            )
        )
        if isinstance(registered, Problem):
            return registered
        return PasskeyRegistered(passkey=Passkey.of(registered.passkey), new_recovery_codes=registered.recovery_codes)

    @strawberry.mutation(
        description="Without a name or a password: the device knows whose passkeys it has.", extensions=[Public()]
    )
    async def start_passkey_login(self, info: Info[Context]) -> PasskeyCeremony:
        return PasskeyCeremony.of(await passkeys.start_login(auth_of(info), info.context))

    @strawberry.mutation(
        description="Both factors at once, since the device verified who holds it.", extensions=[Public()]
    )
    async def finish_passkey_login(
        self,
        info: Info[Context],
        input: FinishPasskeyLoginInput,  # noqa: A002
    ) -> SignInResult:
        logging_in = passkeys.finish_login(
            auth_of(info), info.context, input.flow_id, _answer(input.credential), device_of(input.device)
        )
        return sign_in_result(await or_problem(logging_in))

    @strawberry.mutation(extensions=[Requires(MANAGE)])
    async def rename_passkey(self, info: Info[Context], input: RenamePasskeyInput) -> PasskeyResult:  # noqa: A002
        passkey_id = parse_id(input.id, "input.id")
        renamed = await or_problem(passkeys.rename_passkey(auth_of(info), info.context, passkey_id, input.name))
        return renamed if isinstance(renamed, Problem) else Passkey.of(renamed)

    @strawberry.mutation(description="Needs a fresh login.", extensions=[Requires(MANAGE)])
    async def remove_passkey(self, info: Info[Context], id: ID) -> FactorsResult:  # noqa: A002
        problem = await or_problem(passkeys.remove_passkey(auth_of(info), info.context, parse_id(id, "id")))
        return problem or await factors_changed(info)


def _answer(credential: object) -> Mapping[str, Any]:
    """Anything but an object is as wrong as an object that says nothing."""
    return cast("Mapping[str, Any]", credential) if isinstance(credential, Mapping) else {}
