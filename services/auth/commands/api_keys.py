"""Service accounts, and the API keys that programs show who they are with.

A key is exchanged for an access token of some minutes, so that no other service ever sees it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from libs.core.context import Caller, Context
from libs.core.errors import InvalidInput, NotFound, Refusal
from libs.core.ids import new_id
from libs.core.mongo import Session
from libs.core.revocations import RevokedSession
from services.auth.commands.administration import caller_of, demand_author, reason_of, target
from services.auth.commands.auth import Auth, record
from services.auth.commands.fresh import demand_fresh
from services.auth.commands.roles import MAX_ROLES, refuse_wider_roles
from services.auth.commands.sessions import REVOKED_FOR
from services.auth.domain.api_keys import MAX_SCOPE_CHARS, MAX_SCOPES, ApiKey, new_key, parse_key
from services.auth.domain.users import User
from services.auth.events import ApiKeyCreated, ApiKeyRevoked, ServiceAccountCreated
from services.auth.store import api_keys as stored, users
from services.auth.tokens import key_token

MAX_KEYS = 50
# Last use is told this coarsely: not each exchange is worth a transaction.
_USED_AGAIN_AFTER = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class NewKey:
    account_id: str
    name: str
    scopes: Sequence[str]
    networks: tuple[str, ...] = ()
    expires_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class KeyMade:
    """`text` is the key itself, which is nowhere else."""

    key: ApiKey
    text: str


@dataclass(frozen=True, slots=True)
class Exchanged:
    access_token: str
    expires_in_s: int


async def create_account(auth: Auth, context: Context, name: str, roles: Sequence[str], reason: str) -> User:
    """Somebody who is a program: with roles, and without a password. `Refusal` ROLES_TOO_WIDE as for `roles.assign`."""
    reason, wanted = reason_of(reason), sorted(set(roles))
    if len(wanted) > MAX_ROLES:
        raise InvalidInput(f"an account has at most {MAX_ROLES} roles", field="input.roles")
    await demand_fresh(auth, context)
    account = User(
        context.tenant_id, new_id(), auth.platform.clock.now(), kind="service", roles=tuple(wanted), name=name
    )
    refuse_wider_roles(auth, context, (), wanted)

    async def work(session: Session) -> User:
        await demand_author(auth, context, session)
        await users.insert(auth.database, session, account)
        told = ServiceAccountCreated(account_id=account.id, roles=wanted)
        await record(
            auth, session, context, "service_account.created", user_id=account.id, event=told, reason=reason,
            after={"name": name, "roles": wanted},
        )  # fmt: skip
        return account

    return await auth.transaction(context.tenant_id, work)


async def create(auth: Auth, context: Context, new: NewKey) -> KeyMade:
    """Shown this once. `Refusal` SCOPES_TOO_WIDE beyond what its author holds, or its account."""
    await demand_fresh(auth, context)
    scopes, now = _scopes(new.scopes), auth.platform.clock.now()
    expires_at = _expiry(auth, context, new.expires_at, now)
    _refuse_wider(auth, context.caller, scopes, "author")
    text, key_id, secret = new_key()
    made = ApiKey(
        id=key_id,
        tenant_id=context.tenant_id,
        account_id=new.account_id,
        name=new.name,
        hash=secret,
        scopes=scopes,
        networks=new.networks,
        created_at=now,
        created_by=context.caller.user_id,
        expires_at=expires_at,
    )

    async def work(session: Session) -> KeyMade:
        account = await target(auth, context, session, "apikey:manage", new.account_id, "input.accountId")
        if account.kind != "service" or not account.active:
            raise Refusal("NOT_A_SERVICE_ACCOUNT", "only an active service account has keys", rule="apikey.account")
        _refuse_wider(auth, replace(caller_of(account), level=1), scopes, "account")
        if await stored.count(auth.database, session, made.tenant_id, account.id) >= MAX_KEYS:
            raise Refusal("TOO_MANY_API_KEYS", "revoke some first", rule="apikey.count", most=MAX_KEYS)
        await stored.insert(auth.database, session, made)
        told = ApiKeyCreated(key_id=made.id, account_id=account.id, scopes=list(scopes), expires_at=expires_at)
        await record(
            auth, session, context, "api_key.created", user_id=account.id, event=told, resource=made.id,
            after={"name": made.name, "scopes": list(scopes), "networks": list(made.networks),
                   "expires_at": expires_at.isoformat()},
        )  # fmt: skip
        return KeyMade(made, text)

    return await auth.transaction(context.tenant_id, work)


async def revoke(auth: Auth, context: Context, key_id: str, reason: str) -> ApiKey:
    """It is exchanged no more, and its tokens are refused everywhere within a second or two."""
    reason, now, by = reason_of(reason), auth.platform.clock.now(), context.caller.user_id

    async def work(session: Session) -> ApiKey:
        key = await stored.load(auth.database, session, context.tenant_id, key_id)
        if key is None:
            raise NotFound("there is no such key", field="input.keyId")
        if key.revoked_at is not None:
            return key
        await target(auth, context, session, "apikey:manage", key.account_id)
        await stored.revoke(auth.database, session, key, at=now, by=by)
        await auth.platform.revocations.add(session, [RevokedSession(key.id, now + REVOKED_FOR)])
        told = ApiKeyRevoked(key_id=key.id, account_id=key.account_id, reason=reason)
        await record(
            auth, session, context, "api_key.revoked", user_id=key.account_id, event=told, resource=key.id,
            reason=reason,
        )  # fmt: skip
        return replace(key, revoked_at=now, revoked_by=by)

    return await auth.transaction(context.tenant_id, work, revokes=True)


async def exchange(auth: Auth, context: Context, text: str) -> Exchanged:
    """Whatever is wrong with a key is one `Refusal`, API_KEY_REFUSED, and slows its address down."""
    attempt = await auth.throttle.admit_key(context.tenant_id, context.client.address)
    now, parsed = auth.platform.clock.now(), parse_key(text)
    key = await stored.load(auth.database, None, context.tenant_id, parsed[0]) if parsed else None
    if parsed is None or key is None:
        raise _refused()
    account = await users.load(auth.database, None, key.tenant_id, key.account_id)
    wrong = key.refused(parsed[1], context.client.address, now)
    if wrong is None and (account is None or not account.active):
        wrong = "account not active"
    if wrong or account is None:
        await _log(auth, context, key, "api_key.refused", wrong or "")
        raise _refused()
    await auth.throttle.succeeded(attempt)
    await _note_use(auth, context, key, now)
    lives = min(timedelta(seconds=auth.config(key.tenant_id).access_token_s), key.expires_at - now)
    token = key_token(auth.keys, auth.settings, account, key, now, lives)
    return Exchanged(token, int(lives.total_seconds()))


def _refuse_wider(auth: Auth, holder: Caller, scopes: Sequence[str], who: str) -> None:
    if beyond := auth.platform.access.wider_than(holder, scopes):
        raise Refusal("SCOPES_TOO_WIDE", f"the {who} does not hold that much", rule=f"apikey.{who}", beyond=beyond)


def _scopes(scopes: Sequence[str]) -> tuple[str, ...]:
    wanted = tuple(sorted(set(scopes)))
    if not 1 <= len(wanted) <= MAX_SCOPES or any(len(scope) > MAX_SCOPE_CHARS for scope in wanted):
        raise InvalidInput(
            f"a key has 1 to {MAX_SCOPES} scopes of at most {MAX_SCOPE_CHARS} characters", field="input.scopes"
        )
    return wanted


def _expiry(auth: Auth, context: Context, wanted: datetime | None, now: datetime) -> datetime:
    config = auth.config(context.tenant_id)
    expires_at = wanted or now + timedelta(days=config.api_key_days)
    if not now < expires_at <= now + timedelta(days=config.api_key_max_days):
        raise InvalidInput(
            f"a key expires in the future, and within {config.api_key_max_days:g} days", field="input.expiresAt"
        )
    return expires_at


async def _note_use(auth: Auth, context: Context, key: ApiKey, now: datetime) -> None:
    address = context.client.address
    if _is_noted(key, address, now):
        return

    async def work(session: Session) -> None:
        latest = await stored.load(auth.database, session, key.tenant_id, key.id)
        if latest is None or _is_noted(latest, address, now):
            return  # by another request of this moment
        await stored.used(auth.database, session, key, at=now, address=address)
        await record(
            auth, session, context, "api_key.used", user_id=key.account_id, actor=key.account_id, resource=key.id
        )

    await auth.transaction(key.tenant_id, work)


def _is_noted(key: ApiKey, address: str, now: datetime) -> bool:
    used_at = key.last_used_at
    return used_at is not None and now - used_at < _USED_AGAIN_AFTER and address == key.last_address


async def _log(auth: Auth, context: Context, key: ApiKey, action: str, reason: str) -> None:
    async def work(session: Session) -> None:
        await record(auth, session, context, action, user_id=key.account_id, resource=key.id, reason=reason)

    await auth.transaction(key.tenant_id, work)


def _refused() -> Refusal:
    return Refusal("API_KEY_REFUSED", "this key is not accepted", rule="apikey")
