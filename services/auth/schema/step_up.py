"""Step-up: showing anew that it is you, for a while or for one operation."""

from datetime import datetime
from typing import Annotated, Self

import strawberry
from strawberry import ID, Info
from strawberry.scalars import JSON

from libs.core.access import Requires
from libs.core.context import Context
from libs.core.errors import InvalidInput
from libs.core.graphql import BigInt, Problem
from libs.core.stepup import SensitiveOperation as Operation
from services.auth.commands import step_up
from services.auth.commands.step_up import Confirmed, Shown
from services.auth.schema.common import auth_of, or_problem
from services.auth.schema.factors import proof_of
from services.auth.schema.sign_in import PASSWORD_CHARS

STEP_UP = "session:step_up"


@strawberry.input(description="What STEP_UP_REQUIRED carries, to the letter.")
class SensitiveOperationInput:
    action: str = strawberry.field(description="The mutation's name: transfer.")
    id: ID = strawberry.field(description="The operation's own, by which it is done once.")
    amount: BigInt | None = strawberry.field(default=None, description="In minor units.")
    currency: str = ""
    source: str = strawberry.field(default="", description="Where the money comes from: a wallet's id.")
    payee: str = strawberry.field(default="", description="Where it goes; empty for outside.")


@strawberry.type(description="Show this to the person: it is what they confirm, and all that they confirm.")
class SensitiveOperation:
    action: str
    id: ID
    amount: BigInt | None
    currency: str
    source: str
    payee: str
    digest: str = strawberry.field(description="Of all of that: what a step-up token is for.")

    @classmethod
    def of(cls, operation: Operation) -> Self:
        amount = operation.amount_minor
        return cls(
            action=operation.action,
            id=ID(operation.id),
            amount=None if amount is None else BigInt(amount),
            currency=operation.currency,
            source=operation.source,
            payee=operation.payee,
            digest=operation.digest,
        )


@strawberry.type(description="Go on with completeStepUp, and one of `methods`.")
class StepUpStarted:
    flow_id: str
    expires_at: datetime
    methods: list[str] = strawberry.field(
        description="password and code; or, for who has a second factor, totp, passkey and recovery_code alone."
    )
    operation: SensitiveOperation | None
    passkey_options: JSON | None = strawberry.field(description="For navigator.credentials.get, if passkey is one.")
    code_sent_by: str | None = strawberry.field(description="sms or email, if a code was sent.")
    resend_at: datetime | None = strawberry.field(
        description="From when on this can be started again for another code."
    )

    @classmethod
    def of(cls, asked: step_up.Asked) -> Self:
        return cls(
            flow_id=asked.flow_token,
            expires_at=asked.expires_at,
            methods=list(asked.methods),
            operation=SensitiveOperation.of(asked.operation) if asked.operation else None,
            passkey_options=JSON(asked.passkey_options) if asked.passkey_options else None,
            code_sent_by=asked.code_sent_by or None,
            resend_at=asked.resend_at,
        )


@strawberry.type(description="The session is as fresh as after a login. Use this token from now on.")
class SessionSteppedUp:
    access_token: str
    expires_in: int = strawberry.field(description="Seconds.")
    level: int = strawberry.field(description="How many factors were shown in this session.")


@strawberry.type(description="The operation is confirmed: send it with this token. It is good for nothing else.")
class OperationConfirmed:
    step_up_token: str
    expires_at: datetime
    operation: SensitiveOperation


StepUpStartResult = Annotated[StepUpStarted | Problem, strawberry.union("StepUpStartResult")]
StepUpResult = Annotated[SessionSteppedUp | OperationConfirmed | Problem, strawberry.union("StepUpResult")]


@strawberry.input
class StartStepUpInput:
    operation: SensitiveOperationInput | None = strawberry.field(
        default=None, description="Left out: the session is made as fresh as after a login."
    )
    send_code: bool = strawberry.field(
        default=False, description="Where a code can be sent: to the phone, else to the e-mail address."
    )


@strawberry.input(description="One of password, totp, code, passkey and recoveryCode.")
class CompleteStepUpInput:
    flow_id: str
    password: str | None = None
    totp: str | None = strawberry.field(default=None, description="Of the authenticator app.")
    code: str | None = strawberry.field(default=None, description="The one that was sent.")
    passkey: JSON | None = strawberry.field(default=None, description="What the browser answered to passkeyOptions.")
    recovery_code: str | None = None


@strawberry.type
class StepUpMutations:
    @strawberry.mutation(
        description="Before something that wants a fresh factor: REAUTHENTICATION_REQUIRED (without an operation) or "
        "STEP_UP_REQUIRED (with the one that it names) said so.",
        extensions=[Requires(STEP_UP)],
    )
    async def start_step_up(self, info: Info[Context], input: StartStepUpInput) -> StepUpStartResult:  # noqa: A002
        operation = _operation(input.operation) if input.operation else None
        asked = await or_problem(step_up.start(auth_of(info), info.context, operation, send_code=input.send_code))
        return asked if isinstance(asked, Problem) else StepUpStarted.of(asked)

    @strawberry.mutation(
        description="In the session that began it. Five tries, and they slow down over all flows of an account.",
        extensions=[Requires(STEP_UP)],
    )
    async def complete_step_up(self, info: Info[Context], input: CompleteStepUpInput) -> StepUpResult:  # noqa: A002
        done = await or_problem(step_up.complete(auth_of(info), info.context, input.flow_id, _shown(input)))
        if isinstance(done, Problem):
            return done
        if isinstance(done, Confirmed):
            return OperationConfirmed(
                step_up_token=done.token, expires_at=done.expires_at, operation=SensitiveOperation.of(done.operation)
            )
        return SessionSteppedUp(access_token=done.access_token, expires_in=done.expires_in_s, level=done.session.level)


def _operation(given: SensitiveOperationInput) -> Operation:
    try:
        return Operation(
            action=given.action,
            id=given.id,
            amount_minor=given.amount,
            currency=given.currency,
            source=given.source,
            payee=given.payee,
        )
    except InvalidInput as error:
        raise InvalidInput(error.message, field=f"input.{error.field}") from None


def _shown(given: CompleteStepUpInput) -> Shown:
    password = given.password or ""
    if len(password) > PASSWORD_CHARS:
        raise InvalidInput(f"a password has at most {PASSWORD_CHARS} characters", field="input.password")
    is_factor = given.totp or given.recovery_code or given.passkey is not None
    factor = proof_of(given.totp, given.recovery_code, given.passkey) if is_factor else None
    return Shown(password=password, code=given.code or "", factor=factor)
