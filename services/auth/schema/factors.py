"""Second factors: an authenticator app, recovery codes, and showing one of them."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any, Self, cast

import segno
import strawberry
from strawberry import ID, Info
from strawberry.scalars import JSON

from libs.core.access import Public, Requires
from libs.core.context import Context
from libs.core.graphql import Problem
from libs.core.ids import parse_id
from services.auth.commands import factors, lost_factors, recovery_codes, second_factor, totp
from services.auth.commands.second_factor import Proof
from services.auth.domain.passkeys import Passkey as PasskeyOfUser
from services.auth.domain.recovery_codes import RecoveryCodes as RecoveryCodesOfUser
from services.auth.schema.administration import UserReasonInput
from services.auth.schema.common import auth_of, or_problem
from services.auth.schema.sign_in import DeviceInput, SignInResult, device_of, sign_in_result
from services.auth.schema.users import User, UserResult

MANAGE = "factor:manage"

# What scans well from a screen, in pixels for each of the some 45 squares.
_QR_SCALE = 5


@strawberry.type(description="An authenticator app.")
class TotpFactor:
    confirmed_at: datetime


@strawberry.type(description="A key that a device, or the user's account with its maker, keeps for them.")
class Passkey:
    id: ID
    name: str
    synced: bool = strawberry.field(description="It may be on several devices.")
    backed_up: bool
    created_at: datetime
    last_used_at: datetime | None

    @classmethod
    def of(cls, passkey: PasskeyOfUser) -> Self:
        return cls(
            id=ID(passkey.id),
            name=passkey.name,
            synced=passkey.synced,
            backed_up=passkey.backed_up,
            created_at=passkey.created_at,
            last_used_at=passkey.last_used_at,
        )


@strawberry.type(description="What lets the user in once they have lost the rest. Each is good once.")
class RecoveryCodes:
    left: int
    low: bool = strawberry.field(description="It is time for new ones.")
    made_at: datetime

    @classmethod
    def of(cls, codes: RecoveryCodesOfUser) -> Self:
        return cls(left=codes.left, low=codes.low, made_at=codes.made_at)


@strawberry.type(description="The caller's second factors. None at all: a password alone lets them in.")
class SecondFactors:
    totp: TotpFactor | None
    passkeys: list[Passkey] = strawberry.field(description="The oldest first.")
    recovery_codes: RecoveryCodes | None

    @classmethod
    def of(cls, found: factors.Factors) -> Self:
        return cls(
            totp=TotpFactor(confirmed_at=found.totp.confirmed_at) if found.totp else None,
            passkeys=[Passkey.of(passkey) for passkey in found.passkeys],
            recovery_codes=RecoveryCodes.of(found.recovery_codes) if found.recovery_codes else None,
        )


@strawberry.type(description="For the user's app: scanned, tapped on, or typed in.")
class TotpSetup:
    flow_id: ID
    expires_at: datetime
    secret: str = strawberry.field(description="In base32.")
    uri: str = strawberry.field(description="otpauth://…, which an app on the same device opens.")

    @strawberry.field(description="The uri as a QR code: a data: URI, for an img.")
    def qr_svg(self) -> str:
        return segno.make(self.uri, micro=False, error="m").svg_data_uri(scale=_QR_SCALE)

    @strawberry.field(description="The same, as a picture of pixels.")
    def qr_png(self) -> str:
        return segno.make(self.uri, micro=False, error="m").png_data_uri(scale=_QR_SCALE)

    @classmethod
    def of(cls, setup: totp.TotpSetup) -> Self:
        return cls(flow_id=ID(setup.flow_token), expires_at=setup.expires_at, secret=setup.secret, uri=setup.uri)


@strawberry.type
class FactorsChanged:
    factors: SecondFactors
    new_recovery_codes: list[str] = strawberry.field(
        description="Made with the first factor, and shown here alone: the user has to keep them. Else empty."
    )


@strawberry.type(description="In the place of those before, and shown here alone.")
class NewRecoveryCodes:
    codes: list[str]


@strawberry.input
class ConfirmTotpInput:
    flow_id: ID
    code: str


@strawberry.input(description="One of code, recoveryCode and passkey.")
class CompleteSecondFactorInput:
    flow_id: ID
    code: str | None = strawberry.field(default=None, description="What the authenticator app shows.")
    recovery_code: str | None = None
    passkey: JSON | None = strawberry.field(
        default=None, description="What the browser answered to passkeyOptions, as its toJSON() gives it."
    )
    device: DeviceInput | None = None
    trust_device: bool = strawberry.field(
        default=False, description="For a while, do not ask for a second factor on this device."
    )


TotpSetupResult = Annotated[TotpSetup | Problem, strawberry.union("TotpSetupResult")]
FactorsResult = Annotated[FactorsChanged | Problem, strawberry.union("FactorsResult")]
RecoveryCodesResult = Annotated[NewRecoveryCodes | Problem, strawberry.union("RecoveryCodesResult")]


@strawberry.type
class FactorQueries:
    @strawberry.field(description="Yours.", extensions=[Requires(MANAGE)])
    async def my_factors(self, info: Info[Context]) -> SecondFactors:
        return await _mine(info)


@strawberry.type
class FactorMutations:
    @strawberry.mutation(
        description="An authenticator app, beginning with its secret. Needs a fresh login, and counts for nothing "
        "before confirmTotp; an app that you have is replaced by it.",
        extensions=[Requires(MANAGE)],
    )
    async def start_totp(self, info: Info[Context]) -> TotpSetupResult:
        started = await or_problem(totp.start_totp(auth_of(info), info.context))
        return started if isinstance(started, Problem) else TotpSetup.of(started)

    @strawberry.mutation(description="With a first code of the app.", extensions=[Requires(MANAGE)])
    async def confirm_totp(self, info: Info[Context], input: ConfirmTotpInput) -> FactorsResult:  # noqa: A002
        codes = await or_problem(totp.confirm_totp(auth_of(info), info.context, input.flow_id, input.code))
        return codes if isinstance(codes, Problem) else await factors_changed(info, codes)

    @strawberry.mutation(description="Needs a fresh login.", extensions=[Requires(MANAGE)])
    async def remove_totp(self, info: Info[Context]) -> FactorsResult:
        problem = await or_problem(totp.remove_totp(auth_of(info), info.context))
        return problem or await factors_changed(info)

    @strawberry.mutation(
        description="The ones before are good for nothing any more. Needs a fresh login.", extensions=[Requires(MANAGE)]
    )
    async def regenerate_recovery_codes(self, info: Info[Context]) -> RecoveryCodesResult:
        codes = await or_problem(recovery_codes.regenerate_recovery_codes(auth_of(info), info.context))
        return codes if isinstance(codes, Problem) else NewRecoveryCodes(codes=codes)

    @strawberry.mutation(
        description="Another user's, all of them, for somebody who has lost theirs and showed you who they are. They "
        "are signed out, and have to reset their password. Needs a fresh login.",
        extensions=[Requires(MANAGE)],
    )
    async def remove_second_factors(self, info: Info[Context], input: UserReasonInput) -> UserResult:  # noqa: A002
        user_id = parse_id(input.user_id, "input.userId")
        removed = await or_problem(lost_factors.remove_all(auth_of(info), info.context, user_id, input.reason))
        return removed if isinstance(removed, Problem) else User.of(removed)

    @strawberry.mutation(
        description="What a login or a reset was waiting for: SecondFactorRequired has the flow's id. Five tries.",
        extensions=[Public()],
    )
    async def complete_second_factor(
        self,
        info: Info[Context],
        input: CompleteSecondFactorInput,  # noqa: A002
    ) -> SignInResult:
        completing = second_factor.complete_second_factor(
            auth_of(info),
            info.context,
            input.flow_id,
            proof_of(input.code, input.recovery_code, input.passkey),
            device=device_of(input.device),
            trust=input.trust_device,
        )
        return sign_in_result(await or_problem(completing))


def proof_of(code: str | None, recovery_code: str | None, passkey: object) -> Proof:
    answer = passkey if passkey is None or isinstance(passkey, Mapping) else {}
    return Proof(totp=code or "", recovery_code=recovery_code or "", passkey=cast("Mapping[str, Any] | None", answer))


async def factors_changed(info: Info[Context], codes: Sequence[str] = ()) -> FactorsChanged:
    return FactorsChanged(factors=await _mine(info), new_recovery_codes=[*codes])


async def _mine(info: Info[Context]) -> SecondFactors:
    found = await factors.factors_of(auth_of(info), info.context.tenant_id, info.context.caller.user_id)
    return SecondFactors.of(found)
