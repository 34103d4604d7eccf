"""Registration, logins, resets: everything that ends with somebody signed in."""

from collections.abc import Awaitable
from datetime import datetime
from typing import Annotated, Self

import strawberry
from strawberry import Info
from strawberry.scalars import JSON

from libs.core.access import Public, Requires
from libs.core.context import Context
from libs.core.errors import InvalidInput
from libs.core.graphql import Problem
from services.auth.commands import codes, login, passkeys, passwords, registration
from services.auth.commands.devices import Device
from services.auth.commands.flows import Started
from services.auth.commands.registration import Registration
from services.auth.commands.sign_in import Challenge
from services.auth.commands.tokens import SignedIn as Tokens
from services.auth.domain.identifiers import parse_identifier, parse_username
from services.auth.schema.common import auth_of, or_problem, recipient_of, text_of
from services.auth.schema.users import FlowResult, FlowStarted, User, UserResult

# Beyond this nobody's password is, and hashing it would be work for an attacker's sake.
PASSWORD_CHARS = 1_024


@strawberry.type(description="You are in. Keep the refresh token where scripts cannot read it: it is good once.")
class SignedIn:
    access_token: str = strawberry.field(description="For the header: Authorization: Bearer …")
    expires_in: int = strawberry.field(description="Seconds.")
    refresh_token: str
    device_token: str = strawberry.field(
        description="Of this device, to be sent with its next login; empty after a refresh, where it stays the same."
    )
    session_id: str
    user: User

    @classmethod
    def of(cls, tokens: Tokens) -> Self:
        return cls(
            access_token=tokens.access_token,
            expires_in=tokens.expires_in_s,
            refresh_token=tokens.refresh_token,
            device_token=tokens.device_token,
            session_id=tokens.session_id,
            user=User.of(tokens.user),
        )


@strawberry.type(description="One factor was right; this account has two. Go on with completeSecondFactor.")
class SecondFactorRequired:
    flow_id: str
    methods: list[str] = strawberry.field(description="Of totp, passkey and recovery_code, those that this user has.")
    expires_at: datetime

    @strawberry.field(
        description="For the browser's PublicKeyCredential.parseRequestOptionsFromJSON(). Null without a passkey."
    )
    async def passkey_options(self, info: Info[Context]) -> JSON | None:
        options = await passkeys.second_factor_options(auth_of(info), info.context, self.flow_id)
        return JSON(options) if options else None

    @classmethod
    def of(cls, challenge: Challenge) -> Self:
        return cls(flow_id=challenge.flow_token, methods=list(challenge.methods), expires_at=challenge.expires_at)


SignInResult = Annotated[SignedIn | SecondFactorRequired | Problem, strawberry.union("SignInResult")]


@strawberry.input(description="The device that is signed in on.")
class DeviceInput:
    token: str = strawberry.field(default="", description="What it was given when it signed in here before.")
    name: str = strawberry.field(default="", description="For people, in lists: Ann's phone.")


@strawberry.input(description="An e-mail address or a phone number, to which a code is sent.")
class RegisterInput:
    password: str
    email: str | None = None
    phone: str | None = None
    username: str | None = None
    name: str = ""
    locale: str = strawberry.field(default="", description="As in BCP 47: de-AT.")


@strawberry.input
class VerifyRegistrationInput:
    flow_id: str
    code: str
    username: str | None = strawberry.field(default=None, description="Another one, if the first was taken.")
    device: DeviceInput | None = None


@strawberry.input
class LoginInput:
    identifier: str = strawberry.field(description="E-mail address, phone number (+43 …) or username.")
    password: str
    device: DeviceInput | None = None


@strawberry.input
class RecipientInput:
    email: str | None = None
    phone: str | None = None


@strawberry.input
class CodeInput:
    flow_id: str
    code: str
    device: DeviceInput | None = None


@strawberry.input
class ResetPasswordInput:
    flow_id: str
    code: str
    new_password: str
    device: DeviceInput | None = None


@strawberry.input
class ChangePasswordInput:
    current_password: str
    new_password: str


def device_of(given: DeviceInput | None) -> Device:
    return Device(given.token[:128], text_of(given.name, "input.device.name")) if given else Device()


def sign_in_result(outcome: Tokens | Challenge | Problem) -> SignInResult:
    match outcome:
        case Tokens():
            return SignedIn.of(outcome)
        case Challenge():
            return SecondFactorRequired.of(outcome)
    return outcome


async def _signing_in(asked: Awaitable[Tokens | Challenge]) -> SignInResult:
    return sign_in_result(await or_problem(asked))


async def _starting(asked: Awaitable[Started]) -> FlowResult:
    started = await or_problem(asked)
    return started if isinstance(started, Problem) else FlowStarted.of(started)


@strawberry.type
class SignInMutations:
    @strawberry.mutation(
        description="Sends a code. The account is there once that was entered, and not before. What is answered is "
        "the same if there is such an account already.",
        extensions=[Public()],
    )
    async def register(self, info: Info[Context], input: RegisterInput) -> FlowResult:  # noqa: A002
        new = Registration(
            recipient_of(input.email, input.phone),
            _password(input.password, "input.password"),
            parse_username(input.username, "input.username") if input.username is not None else None,
            text_of(input.name, "input.name"),
            text_of(input.locale, "input.locale", most=35),
        )
        return await _starting(registration.register(auth_of(info), info.context, new))

    @strawberry.mutation(extensions=[Public()])
    async def verify_registration(self, info: Info[Context], input: VerifyRegistrationInput) -> SignInResult:  # noqa: A002
        return await _signing_in(
            registration.verify_registration(
                auth_of(info),
                info.context,
                input.flow_id,
                input.code,
                username=input.username or "",
                device=device_of(input.device),
            )
        )

    @strawberry.mutation(
        description="Sends another code in place of the one before. How often codes may be tried does not change.",
        extensions=[Public()],
    )
    async def resend_code(self, info: Info[Context], flow_id: str, purpose: str) -> FlowResult:
        return await _starting(codes.resend(auth_of(info), info.context, purpose, flow_id))

    @strawberry.mutation(
        description="A wrong password and an account that does not exist are answered alike.", extensions=[Public()]
    )
    async def login(self, info: Info[Context], input: LoginInput) -> SignInResult:  # noqa: A002
        identifier = parse_identifier(input.identifier, "input.identifier")
        password = _password(input.password, "input.password")
        return await _signing_in(
            login.login(auth_of(info), info.context, identifier, password, device=device_of(input.device))
        )

    @strawberry.mutation(description="Sends a code that signs in, in place of a password.", extensions=[Public()])
    async def request_login_code(self, info: Info[Context], input: RecipientInput) -> FlowResult:  # noqa: A002
        recipient = recipient_of(input.email, input.phone)
        return await _starting(login.request_code(auth_of(info), info.context, recipient))

    @strawberry.mutation(extensions=[Public()])
    async def login_with_code(self, info: Info[Context], input: CodeInput) -> SignInResult:  # noqa: A002
        device = device_of(input.device)
        return await _signing_in(
            login.login_with_code(auth_of(info), info.context, input.flow_id, input.code, device=device)
        )

    @strawberry.mutation(
        description="Sends a code, if there is such an account; what is answered is the same if there is none.",
        extensions=[Public()],
    )
    async def request_password_reset(self, info: Info[Context], input: RecipientInput) -> FlowResult:  # noqa: A002
        recipient = recipient_of(input.email, input.phone)
        return await _starting(passwords.request_reset(auth_of(info), info.context, recipient))

    @strawberry.mutation(
        description="Signs out everywhere else. Where there is a second factor, it is asked for first.",
        extensions=[Public()],
    )
    async def reset_password(self, info: Info[Context], input: ResetPasswordInput) -> SignInResult:  # noqa: A002
        password = _password(input.new_password, "input.newPassword")
        device = device_of(input.device)
        return await _signing_in(
            passwords.reset(auth_of(info), info.context, input.flow_id, input.code, password, device=device)
        )

    @strawberry.mutation(
        description="Signs out everywhere else. Needs that you signed in lately.", extensions=[Requires("user:update")]
    )
    async def change_password(self, info: Info[Context], input: ChangePasswordInput) -> UserResult:  # noqa: A002
        current = _password(input.current_password, "input.currentPassword")
        new = _password(input.new_password, "input.newPassword")
        changed = await or_problem(passwords.change(auth_of(info), info.context, current, new))
        return changed if isinstance(changed, Problem) else User.of(changed)


def _password(text: str, field: str) -> str:
    if len(text) > PASSWORD_CHARS:
        raise InvalidInput(f"a password has at most {PASSWORD_CHARS} characters", field=field)
    return text
