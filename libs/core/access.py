"""Who may do what: roles in MongoDB, decisions in memory.

    @strawberry.field(extensions=[Requires("wallet:read")])     # in a schema: may this caller read any wallet at all?
    scope = access.scope(caller, "wallet:read")                 # which ones?
    scope.permits(owner_id=…, tenant_id=…, id=…)                # this one, that was loaded?
    scope.query(owner="owner_id")                               # those, as a filter for MongoDB

Policies are versions in `core_service.policies`, each a whole set of roles; the highest that is valid is in force, on
top of the `BUILT_IN` roles. A version is never changed: a later one takes its place.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache, wraps
from typing import Annotated, Any, Self, TypeVar, cast

import structlog
from graphql import GraphQLUnionType
from pydantic import BaseModel, ConfigDict, Field
from pymongo.errors import DuplicateKeyError, PyMongoError
from strawberry import Info, Schema
from strawberry.extensions import FieldExtension

from libs.access_engine import Object, Permission, Policy, Reach, Role, Scope as Rule, Subject
from libs.core.clock import Clock
from libs.core.context import Caller, Context
from libs.core.errors import Forbidden, InvalidInput, Refusal, Unauthenticated, Unavailable
from libs.core.mongo import Database, Document
from libs.core.pubsub import follow, tell
from libs.core.redis import Redis
from libs.core.tasks import ended

COLLECTION = "policies"

_BOTH = ("wallet:create", "wallet:read", "transfer:create", "transfer:read", "transaction:read", "limit:read")
_PLAYER = (*_BOTH, "limit:set", "exchange:create")
_SYSTEM = (
    *_BOTH,
    *("deposit:create", "withdrawal:create", "transfer:reverse", "exchange:create", "lot:manage"),
    *("hold:create", "hold:capture", "hold:void"),
    *("limit:manage", "account:manage"),
)
_OPERATOR = (
    *_SYSTEM,
    *("adjustment:create", "adjustment:approve", "wallet:freeze", "wallet:close", "wallet:credit"),
)
_SERVICE = (*_SYSTEM, "bet:create", "bet:settle")
# Of one's own account. An operator's is no wider: whoever manages another's factors can log in as them.
_ACCOUNT = (
    *("user:read", "user:update", "session:read", "session:revoke"),
    *("factor:manage", "identity:manage"),
)
# Not among them: policy:manage, role:assign, grant:manage, apikey:manage, serviceaccount:manage. Those are an admin's.
_SUPPORT = ("user:read", "user:suspend", "user:reset", "session:read", "session:revoke", "audit:read")

# What holds in an empty database. A stored role of the same name takes the place of one of these.
BUILT_IN = (
    Role.of("player", allow=[f"{action}:own" for action in (*_PLAYER, *_ACCOUNT)]),
    Role.of(
        "operator",
        allow=[*(f"{action}:tenant" for action in (*_OPERATOR, *_SUPPORT)), *(f"{action}:own" for action in _ACCOUNT)],
    ),
    Role.of("service", allow=[f"{action}:tenant" for action in _SERVICE]),
    Role.of("admin", allow=["*:*:tenant"]),
)

# A filter that MongoDB answers from the plan alone (EOF, no index and no document touched).
_NOTHING: Document = {"_id": {"$in": []}}

Resolve = TypeVar("Resolve", bound=Callable[..., Awaitable[list[Any]]])

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Scope:
    """The objects of one kind that `caller` may do one thing with: always within the caller's own tenant."""

    caller: Caller
    rule: Rule

    @property
    def nothing(self) -> bool:
        return self.rule.nothing

    def permits(self, *, owner_id: str | None, tenant_id: str, id: str | None) -> bool:  # noqa: A002
        """Whether one object, with these attributes, is among them. None: it has no owner, or no id that counts."""
        if tenant_id != self.caller.tenant_id:
            return False
        return self.rule.permits(_subject(self.caller), Object(id, owner_id, tenant_id))

    def query(self, *, owner: str | None = "owner_id", tenant: str = "tenant_id", id: str = "_id") -> Document:  # noqa: A002
        """The same as a filter, given the names of the fields (`owner` None: these objects have none).

        Everything is under `$and`, so that a filter merged with it, `{**filter, **scope.query()}`, can only narrow it.
        """
        allowed = self._allowed(owner, id)
        if not allowed or self.rule.denied_reach >= Reach.TENANT:
            return {"$and": [_NOTHING]}
        conditions: list[Document] = [{tenant: self.caller.tenant_id}]
        if allowed != [{}]:
            conditions.append(allowed[0] if len(allowed) == 1 else {"$or": allowed})
        if self.rule.denied_reach is Reach.OWN and owner and self.caller.subject:
            conditions.append({owner: {"$ne": self.caller.subject}})
        if self.rule.denied_ids:
            conditions.append({id: {"$nin": sorted(self.rule.denied_ids)}})
        return {"$and": conditions}

    def _allowed(self, owner: str | None, id: str) -> list[Document]:  # noqa: A002
        """The alternatives, any of which will do; a single empty one if all of the tenant is allowed."""
        if self.rule.reach >= Reach.TENANT:
            return [{}]
        allowed: list[Document] = []
        if self.rule.reach is Reach.OWN and owner and self.caller.subject:
            allowed.append({owner: self.caller.subject})
        if self.rule.ids:
            allowed.append({id: {"$in": sorted(self.rule.ids)}})
        return allowed


class Access:
    """The policy in force, one a process, kept up to date while it is open (`async with`)."""

    def __init__(self, database: Database, redis: Redis, clock: Clock, *, poll_s: float = 30.0) -> None:
        """`database` is `core_service`. A change is told over Redis; untold, it is found within `poll_s`."""
        self.version = 0  # the stored version that is in force; 0: `BUILT_IN` alone
        self.newest = 0  # the highest stored version, valid or not
        self._policy = Policy(BUILT_IN)
        self._policies = database[COLLECTION]
        self._redis = redis
        self._channel = redis.key("policies")
        self._clock = clock
        self._poll_s = poll_s
        self._reloaded_at = 0.0
        self._reloading = asyncio.Lock()

    async def __aenter__(self) -> Self:
        """Fails if MongoDB does: `BUILT_IN` alone could allow what a stored policy denies."""
        await self.reload()
        self._following = asyncio.create_task(follow(self._redis, self._channel, self.reload, poll_s=self._poll_s))
        return self

    async def __aexit__(self, *_: object) -> None:
        await ended(self._following)

    async def check(self) -> dict[str, Any]:
        """For readiness: which version is in force; `Unavailable` once changes are not noticed any more."""
        age_s = asyncio.get_running_loop().time() - self._reloaded_at
        if age_s > 4 * self._poll_s:
            raise Unavailable("policies are not being reloaded", version=self.version, ageSeconds=round(age_s))
        return {"version": self.version}

    def scope(self, caller: Caller, action: str) -> Scope:
        """What `caller` may do `action` ("wallet:read") with."""
        return Scope(caller, self._policy.filter(caller.roles, *_parse_action(action)))

    def allows(self, caller: Caller, action: str) -> bool:
        """Whether there may be anything at all that `caller` may do `action` with."""
        return not self._policy.filter(caller.roles, *_parse_action(action)).nothing

    def demand(self, caller: Caller, action: str) -> None:
        """`Unauthenticated` or `Forbidden` unless `allows`."""
        if self.allows(caller, action):
            return
        if caller.kind == "anonymous":
            raise Unauthenticated("this needs a token")
        raise Forbidden(f"this needs the permission {action}", permission=action)

    async def publish(self, roles: Sequence[Role], *, after: int, actor: str, reason: str) -> int:
        """Stores `roles` as the version that follows `after`, the `newest` that its author saw; answers its number.

        It is in force here at once, and everywhere in a moment. `InvalidInput` if they make no policy; a `Refusal`
        with code `POLICY_CHANGED` if `after` is not the newest.
        """
        try:
            stored = [_StoredRole.of(role) for role in roles]
            policy = _StoredPolicy(version=after + 1, roles=stored, at=self._clock.now(), actor=actor, reason=reason)
            policy.compile()
        except ValueError as error:
            raise InvalidInput(f"these roles make no policy: {error}", field="roles") from error
        await self._insert(policy)
        await tell(self._redis, self._channel)
        with suppress(PyMongoError):  # it is stored; whoever was told, this process too, goes on trying
            await self.reload()
        return policy.version

    async def _insert(self, policy: "_StoredPolicy") -> None:
        newest = await self._policies.find_one({}, sort=[("_id", -1)])
        with suppress(DuplicateKeyError):
            if policy.version == (newest["_id"] if newest else 0) + 1:
                await self._policies.insert_one(policy.model_dump(by_alias=True))
                return
        raise Refusal(
            "POLICY_CHANGED", "the policy was changed meanwhile", rule="policy.version", version=policy.version - 1
        )

    async def reload(self) -> None:
        """Puts the newest valid version in force, if it is newer than this. One that is not valid is logged, once."""
        async with self._reloading:
            newest = self.newest
            async for document in self._policies.find({"_id": {"$gt": self.newest}}, sort=[("_id", -1)]):
                newest = max(newest, document["_id"])
                try:
                    self._policy = _StoredPolicy.model_validate(document).compile()
                except ValueError as error:
                    log.error("policy refused", version=document["_id"], in_force=self.version, error=str(error))
                else:
                    self.version = document["_id"]
                    break
            self.newest = newest
            self._reloaded_at = asyncio.get_running_loop().time()


class Requires(FieldExtension):
    """Lets a field be resolved only for a caller who may do `action` ("wallet:read") with anything at all.

    With which objects is decided by the store and the commands, through `Access.scope`.
    """

    def __init__(self, action: str) -> None:
        """`ValueError` unless it reads `resource:action`."""
        _parse_action(action)
        self.action = action

    def resolve(self, next_: Callable[..., Any], source: Any, info: Info[Context], **arguments: Any) -> Any:
        context = info.context
        context.platform.access.demand(context.caller, self.action)
        return next_(source, info, **arguments)

    # Hands on what `next_` answers, be it plain, awaitable or an asynchronous generator, and costs no coroutine.
    resolve_async = resolve


class Public(FieldExtension):
    """Says of a root field or entity that it is for everyone, with a token or without."""

    action = "public"


def references(policy: Requires | Public) -> Callable[[Resolve], Resolve]:
    """The policy of an entity, on its `resolve_references` under the `@classmethod`: all null for whom it excludes."""

    def decorate(resolve: Resolve) -> Resolve:
        @wraps(resolve)
        async def guarded(cls: type, info: Info[Context], representations: Sequence[Any]) -> Any:
            context = info.context
            if isinstance(policy, Requires) and not context.platform.access.allows(context.caller, policy.action):
                return [None] * len(representations)
            return await resolve(cls, info, representations)

        cast("Any", guarded).policy = policy
        return cast("Resolve", guarded)

    return decorate


def policy_of_root_fields(schema: Schema) -> dict[str, tuple[str, ...]]:
    """What each root field that `schema` serves requires: {"Query.wallet": ("wallet:read",)}. Empty: not declared.

    Federation's `_service` is public; its `_entities` is listed by the types it resolves ("_entities.Wallet").
    """
    served = schema._schema  # noqa: SLF001  (Strawberry has no public way to what is served)
    roots = [root for root in (served.query_type, served.mutation_type, served.subscription_type) if root]
    policies = {
        f"{root.name}.{name}": _declared(getattr(field.extensions.get("strawberry-definition"), "extensions", ()))
        for root in roots
        for name, field in root.fields.items()
    }
    if policies.pop("Query._service", None) is not None:
        policies["Query._service"] = (Public.action,)
    if policies.pop("Query._entities", None) is not None:
        for entity in cast("GraphQLUnionType", served.type_map["_Entity"]).types:
            resolve = getattr(entity.extensions["strawberry-definition"].origin, "resolve_references", None)
            policies[f"_entities.{entity.name}"] = _declared([getattr(resolve, "policy", None)])
    return policies


def _declared(extensions: Iterable[object]) -> tuple[str, ...]:
    return tuple(extension.action for extension in extensions if isinstance(extension, Requires | Public))


class _StoredRole(BaseModel):
    # A field that this release does not know, a condition say, cannot be ignored: the grant would be too wide.
    model_config = ConfigDict(strict=True, extra="forbid")

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,63}$")]
    allow: list[str] = []
    deny: list[str] = []
    inherits: list[str] = []

    @classmethod
    def of(cls, role: Role) -> Self:
        allow, deny = [str(permission) for permission in role.allow], [str(permission) for permission in role.deny]
        return cls(name=role.name, allow=allow, deny=deny, inherits=list(role.inherits))


class _StoredPolicy(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", populate_by_name=True)

    version: Annotated[int, Field(alias="_id", ge=1)]
    roles: list[_StoredRole]
    at: datetime
    actor: Annotated[str, Field(min_length=1)]
    reason: Annotated[str, Field(min_length=1)]

    def compile(self) -> Policy:
        """`ValueError`, of which the engine's errors are kinds, if it is none."""
        names = {role.name for role in self.roles}
        stored = [Role.of(**role.model_dump()) for role in self.roles]
        return Policy([*(role for role in BUILT_IN if role.name not in names), *stored])


@lru_cache(maxsize=1_024)
def _parse_action(action: str) -> tuple[str, str]:
    permission = Permission.parse(f"{action}:all")
    if "*" in (permission.resource, permission.action):
        raise ValueError(f"{action!r} must name one resource and one action")
    return permission.resource, permission.action


def _subject(caller: Caller) -> Subject:
    return Subject(caller.subject, caller.tenant_id, caller.roles)
