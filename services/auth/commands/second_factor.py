"""The second factor, shown: by a code of an app, a recovery code, or a passkey."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from libs.core.context import Context
from libs.core.errors import InvalidInput, Refusal
from libs.core.mongo import Session
from services.auth.commands import devices, flows, profile
from services.auth.commands.auth import Auth
from services.auth.commands.devices import Device
from services.auth.commands.passkeys import use_passkey
from services.auth.commands.recovery_codes import use_recovery_code
from services.auth.commands.sign_in import failed, notify, second_factor_shown
from services.auth.commands.tokens import SignedIn
from services.auth.domain.flows import Flow, FlowKind
from services.auth.domain.passkeys import challenge_of
from services.auth.domain.totp import accepted_step, sealed_for
from services.auth.domain.users import User
from services.auth.store import factors as stored, users


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """One of these. `passkey` is what the browser answered, as JSON."""

    totp: str = ""
    recovery_code: str = ""
    passkey: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        if sum((bool(self.totp), bool(self.recovery_code), self.passkey is not None)) != 1:
            raise InvalidInput("give one of code, recoveryCode and passkey", field="input")

    @property
    def method(self) -> str:
        return "totp" if self.totp else "recovery_code" if self.recovery_code else "passkey"


async def complete_second_factor(
    auth: Auth, context: Context, flow_token: str, proof: Proof, *, device: Device, trust: bool
) -> SignedIn:
    """What was waiting for it happens: a login, or a password's reset and then a login.

    `Refusal` SECOND_FACTOR_WRONG whatever is wrong with the proof, FLOW_OVER once there were too many tries.
    """
    waiting = await flows.look(auth, context, FlowKind.SECOND_FACTOR, flow_token)
    user = await users.load(auth.database, None, waiting.tenant_id, waiting.user_id)
    if user is None:
        raise flows.over()
    # Over all flows: who knows the password could begin one after the other.
    seen = await devices.known(auth, user, device)
    attempt = await auth.throttle.admit_factor(user.tenant_id, user.id, seen.id if seen else None)
    flow = await flows.attempt(auth, context, FlowKind.SECOND_FACTOR, flow_token)

    async def work(session: Session) -> SignedIn | None:
        methods = await prove(auth, context, session, user, proof, flow_token)
        if methods is None:
            return None
        return await second_factor_shown(auth, context, session, flow, methods, device=device, trust=trust)

    signed_in = await auth.transaction(context.tenant_id, work, revokes=bool(flow.data["password"]))
    if signed_in is None:
        await _wrong(auth, context, flow, user, proof)
        raise wrong_factor()
    await auth.throttle.succeeded(attempt)
    await profile.forget(auth, user)
    return signed_in


async def prove(
    auth: Auth, context: Context, session: Session, user: User, proof: Proof, flow_token: str
) -> tuple[str, ...] | None:
    """How `user` proved it (RFC 8176), None if they did not. A passkey has to have signed the flow's own challenge.

    What proved it is used up in the caller's transaction, which is to do what it is proven for. Whoever calls has
    counted the try: with the flow, and with `Throttle.admit_factor`.
    """
    if proof.totp:
        return ("otp",) if await _use_totp(auth, session, user, proof.totp) else None
    if proof.recovery_code:
        used = await use_recovery_code(auth, context, session, user, proof.recovery_code)
        return ("otp",) if used else None
    method = await use_passkey(auth, session, user, proof.passkey or {}, challenge_of(flow_token))
    return (method,) if method else None


def wrong_factor() -> Refusal:
    return Refusal("SECOND_FACTOR_WRONG", "that is not right", rule="second_factor")


async def _wrong(auth: Auth, context: Context, flow: Flow, user: User, proof: Proof) -> None:
    """Once a flow has no tries left, its user is told: somebody else knows the first factor, or they need help."""
    await failed(auth, context, user, proof.method, "wrong second factor")
    if flow.tries >= auth.config(flow.tenant_id).flow_tries:
        await auth.platform.mongo.transaction(lambda session: notify(auth, session, user, "second_factor_failed"))
        auth.platform.outbox.kick()


async def _use_totp(auth: Auth, session: Session, user: User, code: str) -> bool:
    """A step is taken once, by whatever asks for it: a login, a step-up, a change."""
    totp = await stored.totp(auth.database, session, user.tenant_id, user.id)
    if totp is None:
        return False
    secret = auth.box.open(totp.sealed, owner=sealed_for(user.tenant_id, user.id))
    step = accepted_step(secret, code, auth.platform.clock.now(), last_step=totp.last_step)
    return step is not None and await stored.take_step(auth.database, session, totp, step)
