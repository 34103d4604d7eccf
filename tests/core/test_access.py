import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from itertools import product
from types import SimpleNamespace
from typing import Any

import pytest
import strawberry
from pymongo.errors import PyMongoError
from strawberry import Info

from libs.access_engine import Effect, Object, Permission, Reach, Role, Rule, Scope as Reached
from libs.core.access import Access, Public, Requires, Scope, policy_of_root_fields, references
from libs.core.clock import SystemClock
from libs.core.context import Caller, Context, Deadline
from libs.core.errors import Forbidden, InvalidInput, Refusal, Unauthenticated, Unavailable
from libs.core.graphql import build_schema
from libs.core.mongo import Mongo
from libs.core.redis import Redis
from libs.core.testing import eventually
from scripts.process import Server

ANONYMOUS = Caller(tenant_id="acme")


def caller(*roles: str, subject: str = "anna", tenant_id: str = "acme") -> Caller:
    return Caller(tenant_id=tenant_id, subject=subject, roles=roles, session_id="s1", kind="user")


@pytest.fixture
async def access(mongo: Mongo, redis: Redis) -> AsyncIterator[Access]:
    async with Access(mongo.core, redis, SystemClock(), poll_s=60) as access:
        yield access


WALLETS: list[dict[str, Any]] = [
    {"_id": "w1", "owner_id": "anna", "tenant_id": "acme"},
    {"_id": "w2", "owner_id": "ben", "tenant_id": "acme"},
    {"_id": "w3", "owner_id": "anna", "tenant_id": "other"},
    {"_id": "house", "tenant_id": "acme"},
    {"_id": "odd", "owner_id": None, "tenant_id": "acme"},
]


class TestBuiltInRoles:
    @pytest.mark.parametrize(
        ("role", "action", "reach"),
        [
            ("player", "wallet:read", Reach.OWN),
            ("player", "transfer:create", Reach.OWN),
            ("player", "deposit:create", Reach.NOTHING),
            ("operator", "deposit:create", Reach.TENANT),
            ("operator", "policy:write", Reach.NOTHING),
            ("service", "transfer:create", Reach.TENANT),
            ("admin", "policy:write", Reach.TENANT),
            ("nobody", "wallet:read", Reach.NOTHING),
        ],
    )
    async def test_reach(self, access: Access, role: str, action: str, reach: Reach) -> None:
        assert access.scope(caller(role), action).rule.reach is reach


class TestDemand:
    async def test_of_an_anonymous_caller(self, access: Access) -> None:
        with pytest.raises(Unauthenticated):
            access.demand(ANONYMOUS, "wallet:read")

    async def test_of_a_caller_without_the_permission(self, access: Access) -> None:
        with pytest.raises(Forbidden) as caught:
            access.demand(caller("player"), "deposit:create")
        assert caught.value.details == {"permission": "deposit:create"}

    async def test_of_a_caller_with_the_permission_for_some_objects(self, access: Access) -> None:
        access.demand(caller("player"), "wallet:read")

    @pytest.mark.parametrize("action", ["wallet", "wallet:*", "*:read", "wallet:read:own", "", "wallet:"])
    async def test_of_what_is_no_action(self, access: Access, action: str) -> None:
        with pytest.raises(ValueError, match=r"permission|missing|empty|must name"):
            access.demand(caller("admin"), action)


class TestScope:
    async def test_is_always_within_the_tenant(self) -> None:
        scope = Scope(caller(), Reached(reach=Reach.ALL, ids=frozenset(["w3"])))
        assert not scope.permits(owner_id="anna", tenant_id="other", id="w3")

    async def test_query_cannot_be_widened_by_what_is_merged_with_it(self, mongo: Mongo) -> None:
        await mongo.db["wallets"].insert_many(WALLETS)
        own = Scope(caller(), Reached(reach=Reach.OWN))
        merged = {**own.query(), "owner_id": "ben", "tenant_id": "other"}
        assert await mongo.db["wallets"].count_documents(merged) == 0

    @pytest.mark.parametrize(
        "rule", [Reached(), Reached(reach=Reach.ALL, denied_reach=Reach.TENANT)], ids=["nothing", "all denied"]
    )
    async def test_query_for_nothing_reads_nothing(self, mongo: Mongo, rule: Reached) -> None:
        await mongo.db["wallets"].insert_many(WALLETS)
        filter_ = {**Scope(caller(), rule).query(), "currency": "EUR"}
        plan = await mongo.db.command(
            "explain", {"find": "wallets", "filter": filter_, "sort": {"at": -1}}, verbosity="executionStats"
        )
        assert plan["executionStats"]["totalDocsExamined"] == 0
        assert plan["executionStats"]["totalKeysExamined"] == 0

    async def test_query_of_own_uses_the_index(self, mongo: Mongo) -> None:
        await mongo.db["wallets"].create_index([("tenant_id", 1), ("owner_id", 1)])
        await mongo.db["wallets"].insert_many(WALLETS)
        plan = await mongo.db.command(
            "explain",
            {"find": "wallets", "filter": Scope(caller(), Reached(reach=Reach.OWN)).query()},
            verbosity="executionStats",
        )
        assert plan["executionStats"]["totalDocsExamined"] == 1

    def test_objects_without_owners(self) -> None:
        own = Scope(caller(), Reached(reach=Reach.OWN))
        assert own.query(owner=None) == Scope(caller(), Reached()).query()


TARGETS = [[], ["own"], ["tenant"], ["all"], ["w1"], ["w2", "w3"], ["own", "w2", "house"]]
CALLERS = [caller(), caller(subject="ben"), caller(tenant_id="third"), caller(subject="")]


class TestQueryAndPermits:
    @pytest.mark.parametrize("who", CALLERS, ids=str)
    async def test_agree_on_every_wallet(self, mongo: Mongo, who: Caller) -> None:
        await mongo.db["wallets"].insert_many(WALLETS)
        for allow, deny in product(TARGETS, TARGETS):
            sides = ((Effect.ALLOW, allow), (Effect.DENY, deny))
            rule = Reached.of(Rule(Permission("wallet", "read", t), effect) for effect, side in sides for t in side)
            scope = Scope(who, rule)
            found = {wallet["_id"] async for wallet in mongo.db["wallets"].find(scope.query())}
            assert found == {
                wallet["_id"]
                for wallet in WALLETS
                if scope.permits(owner_id=wallet.get("owner_id"), tenant_id=wallet["tenant_id"], id=wallet["_id"])
            }, rule


NO_DEPOSITS = [Role.of("operator", allow=["*:*:tenant"], deny=["deposit:*:all"])]


class TestPublish:
    async def test_is_in_force_at_once(self, access: Access) -> None:
        assert access.allows(caller("operator"), "deposit:create")
        await access.publish(NO_DEPOSITS, after=0, actor="root", reason="bank holiday")
        assert not access.allows(caller("operator"), "deposit:create")

    async def test_leaves_the_built_in_roles_that_it_does_not_name(self, access: Access) -> None:
        await access.publish(NO_DEPOSITS, after=0, actor="root", reason="bank holiday")
        assert access.allows(caller("player"), "wallet:read")

    async def test_reaches_another_process(self, access: Access, mongo: Mongo, redis: Redis) -> None:
        async with Access(mongo.core, redis, SystemClock(), poll_s=60) as other:
            await access.publish(NO_DEPOSITS, after=0, actor="root", reason="bank holiday")
            await eventually(lambda: not other.allows(caller("operator"), "deposit:create"))

    async def test_of_two_at_once_one_wins(self, access: Access) -> None:
        both = [access.publish(NO_DEPOSITS, after=0, actor=name, reason="test") for name in ("a", "b")]
        outcomes = await asyncio.gather(*both, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes if outcome != 1] == [Refusal]

    @pytest.mark.parametrize("after", [0, 2, 7])
    async def test_on_another_version_than_the_newest(self, access: Access, after: int) -> None:
        await access.publish([], after=0, actor="root", reason="test")
        with pytest.raises(Refusal, match="changed meanwhile"):
            await access.publish(NO_DEPOSITS, after=after, actor="root", reason="test")

    @pytest.mark.parametrize(
        "roles",
        [
            [Role.of("a", inherits=["b"]), Role.of("b", inherits=["a"])],
            [Role.of("a", inherits=["gone"])],
            [Role.of("a"), Role.of("a")],
            [Role.of("Not A Name")],
        ],
        ids=["circle", "unknown ancestor", "same name", "bad name"],
    )
    async def test_refuses_what_is_no_policy(self, access: Access, roles: list[Role]) -> None:
        with pytest.raises(InvalidInput, match="no policy"):
            await access.publish(roles, after=0, actor="root", reason="test")
        assert access.newest == 0


def stored(version: int, *roles: Any, **more: Any) -> dict[str, Any]:
    row = {"_id": version, "roles": list(roles), "at": datetime(2026, 3, 1, tzinfo=UTC), "actor": "a", "reason": "r"}
    return row | more


AUDITOR = {"name": "auditor", "allow": ["audit:read:tenant"]}


class TestReload:
    @pytest.mark.parametrize(
        "document",
        [
            stored(2, {"name": "auditor", "allow": ["audit:read"]}),
            stored(2, {"name": "auditor", "allow": "audit:read:all"}),
            stored(2, AUDITOR | {"only_on": "mondays"}),
            stored(2, AUDITOR, breaks="glass"),
            stored(2, AUDITOR | {"inherits": ["auditor"]}),
            stored(2, roles={"auditor": True}),
            {"_id": 2},
        ],
        ids=["grammar", "type", "unknown condition", "unknown field", "circle", "shape", "empty"],
    )
    async def test_keeps_the_old_when_the_new_is_not_valid(
        self, access: Access, mongo: Mongo, document: dict[str, Any]
    ) -> None:
        await mongo.core["policies"].insert_many([stored(1, AUDITOR), document])
        await access.reload()
        assert (access.version, access.newest) == (1, 2)
        assert access.allows(caller("auditor"), "audit:read")

    async def test_takes_a_valid_one_after_an_invalid_one(self, access: Access, mongo: Mongo) -> None:
        await mongo.core["policies"].insert_many([{"_id": 1}])
        await access.reload()
        await mongo.core["policies"].insert_one(stored(2, AUDITOR))
        await access.reload()
        assert access.version == 2

    async def test_finds_by_polling_what_nobody_told(self, mongo: Mongo, redis: Redis) -> None:
        async with Access(mongo.core, redis, SystemClock(), poll_s=0.05) as access:
            await mongo.core["policies"].insert_one(stored(1, AUDITOR))
            await eventually(lambda: access.allows(caller("auditor"), "audit:read"))

    async def test_finds_it_while_redis_is_away(self, mongo: Mongo, own_redis: Server) -> None:
        redis = Redis.connect(own_redis.url)
        async with Access(mongo.core, redis, SystemClock()) as access:
            own_redis.kill()
            await access.publish([Role.of("auditor", allow=["audit:read:tenant"])], after=0, actor="a", reason="r")
            async with Access(mongo.core, redis, SystemClock()) as other:
                await mongo.core["policies"].insert_one(stored(2))
                await eventually(lambda: access.version == other.version == 2)
        await redis.close()

    async def test_start_fails_if_it_cannot_read(self, mongo_url: str, redis: Redis) -> None:
        mongo = Mongo.connect(mongo_url, service="test")
        await mongo.close()
        with pytest.raises(PyMongoError):
            await Access(mongo.core, redis, SystemClock()).__aenter__()


class TestCheck:
    async def test_says_which_version(self, access: Access) -> None:
        assert await access.check() == {"version": 0}

    async def test_without_a_watcher(self, mongo: Mongo, redis: Redis) -> None:
        access = Access(mongo.core, redis, SystemClock(), poll_s=0)
        await access.reload()
        with pytest.raises(Unavailable):
            await access.check()


@strawberry.federation.type(keys=["id"])
class Wallet:
    id: strawberry.ID
    secret: str = strawberry.field(resolver=lambda: "s", extensions=[Requires("wallet:audit")])

    @classmethod
    @references(Requires("wallet:read"))
    async def resolve_references(cls, info: Info[Context], representations: Sequence[Any]) -> "list[Wallet | None]":
        return [cls(id=representation["id"]) for representation in representations]


@strawberry.federation.type(keys=["id"])
class User:
    id: strawberry.ID

    @classmethod
    @references(Public())
    async def resolve_references(cls, info: Info[Context], representations: Sequence[Any]) -> "list[User | None]":
        return [cls(id=representation["id"]) for representation in representations]


@strawberry.federation.type(keys=["id"])
class Forgotten:
    id: strawberry.ID

    @classmethod
    async def resolve_references(cls, info: Info[Context], representations: Sequence[Any]) -> "list[Forgotten | None]":
        return []


def owned(profile: "Profile") -> Object:
    return Object(profile.owner_id, profile.owner_id, "acme", {"status": profile.status})


@strawberry.type
class Profile:
    owner_id: strawberry.Private[str]
    status: strawberry.Private[str] = "open"

    @strawberry.field(extensions=[Requires("profile:contact", of=owned)])
    def phone(self) -> str | None:
        return "+4912345"

    @strawberry.field(extensions=[Requires("profile:contact", of=owned)])
    async def email(self) -> str:
        return "a@b.c"

    @strawberry.field(extensions=[Requires("profile:contact", of=owned, level=2)])
    def secret(self) -> str | None:
        return "s"


@strawberry.type
class Query:
    @strawberry.field(extensions=[Public()])
    def profiles(self) -> list[Profile]:
        return [Profile(owner_id="anna"), Profile(owner_id="ben"), Profile(owner_id="ben", status="shown")]

    @strawberry.field(extensions=[Requires("wallet:read", level=2)])
    def sensitive(self) -> int:
        return 1

    @strawberry.field(extensions=[Requires("wallet:read")])
    def plain(self, times: int = 1) -> str:
        return "p" * times

    @strawberry.field(extensions=[Requires("wallet:read")])
    async def awaited(self, info: Info, times: int = 1) -> str:
        return "a" * times

    @strawberry.field(extensions=[Public()])
    def hello(self) -> str:
        return "hello"

    @strawberry.field
    def forgotten(self) -> Forgotten | None:
        return None

    @strawberry.field(extensions=[Public()])
    def wallet(self) -> Wallet:
        return Wallet(id=strawberry.ID("w1"))


@strawberry.type
class Mutation:
    @strawberry.mutation(extensions=[Requires("wallet:create")])
    async def create(self) -> int:
        return 1


@strawberry.type
class Subscription:
    @strawberry.subscription(extensions=[Requires("wallet:read")])
    async def numbers(self) -> AsyncIterator[int]:
        yield 1
        yield 2


schema = build_schema(Query, Mutation, Subscription, types=[User])


def context(access: Access, who: Caller) -> Context:
    platform: Any = SimpleNamespace(access=access)
    return Context(who, "c1", Deadline.after(10), platform)


async def ask(access: Access, who: Caller, query: str) -> tuple[Any, list[type]]:
    result = await schema.execute(query, context_value=context(access, who))
    errors = getattr(result, "errors", None) or []
    return getattr(result, "data", None), [type(error.original_error) for error in errors]


class TestRequires:
    @pytest.mark.parametrize(
        ("query", "data"),
        [
            ("{ plain(times: 2) }", {"plain": "pp"}),
            ("{ awaited(times: 2) }", {"awaited": "aa"}),
            ("mutation { create }", {"create": 1}),
        ],
    )
    async def test_on_each_kind_of_field(self, access: Access, query: str, data: Any) -> None:
        assert await ask(access, caller("player"), query) == (data, [])
        assert (await ask(access, caller("nobody"), query))[1] == [Forbidden]
        assert (await ask(access, ANONYMOUS, query))[1] == [Unauthenticated]

    async def test_under_an_alias_or_a_fragment(self, access: Access) -> None:
        query = "{ a: plain ...f } fragment f on Query { b: awaited }"
        assert (await ask(access, caller("nobody"), query))[1] == [Forbidden]

    async def test_on_a_field_below_the_root(self, access: Access) -> None:
        assert await ask(access, caller("admin"), "{ wallet { secret } }") == ({"wallet": {"secret": "s"}}, [])
        assert (await ask(access, caller("operator"), "{ wallet { secret } }"))[1] == [Forbidden]

    async def test_on_a_subscription(self, access: Access) -> None:
        events = await schema.subscribe("subscription { numbers }", context_value=context(access, caller("player")))
        assert [event.data async for event in events] == [{"numbers": 1}, {"numbers": 2}]

    async def test_on_a_subscription_of_a_caller_who_may_not(self, access: Access) -> None:
        events = await schema.subscribe("subscription { numbers }", context_value=context(access, ANONYMOUS))
        errors = [error async for event in events for error in event.errors or []]
        assert [type(error.original_error) for error in errors] == [Unauthenticated]

    def test_of_what_is_no_action(self) -> None:
        with pytest.raises(ValueError, match="must name one resource and one action"):
            Requires("wallet:*")

    async def test_with_a_level(self, access: Access) -> None:
        assert await ask(access, replace(caller("player"), level=2), "{ sensitive }") == ({"sensitive": 1}, [])
        with pytest.raises(Forbidden) as caught:
            access.demand(replace(caller("player"), level=1), "wallet:read", level=2)
        assert caught.value.details == {"permission": "wallet:read", "level": 2}


class TestRequiresOfAField:
    @pytest.fixture(autouse=True)
    async def roles(self, access: Access) -> None:
        shown = {"permission": "profile:contact:tenant", "if": {"object.status": {"eq": "shown"}}}
        role = Role.of("member", allow=["profile:contact:own", shown])
        await access.publish([role], after=0, actor="root", reason="test")

    async def test_who_may_not_see_it_of_this_one_finds_null(self, access: Access) -> None:
        data, errors = await ask(access, caller("member"), "{ profiles { phone } }")
        assert data == {"profiles": [{"phone": "+4912345"}, {"phone": None}, {"phone": "+4912345"}]}
        assert errors == []

    async def test_is_an_error_where_null_cannot_be(self, access: Access) -> None:
        assert await ask(access, caller("member"), "{ profiles { email } }") == (None, [Forbidden])

    async def test_with_a_level(self, access: Access) -> None:
        query = "{ profiles { secret } }"
        shown = [("s", None, "s"), (None, None, None)]
        for level, expected in zip((2, 1), shown, strict=True):
            data, _ = await ask(access, replace(caller("member"), level=level), query)
            assert tuple(each["secret"] for each in data["profiles"]) == expected

    async def test_of_an_anonymous_caller(self, access: Access) -> None:
        data, _ = await ask(access, ANONYMOUS, "{ profiles { phone } }")
        assert [each["phone"] for each in data["profiles"]] == [None, None, None]


class TestLevels:
    async def test_a_rule_that_needs_more_says_how_many(self, access: Access) -> None:
        role = Role.of("clerk", allow=[{"permission": "wallet:close:tenant", "level": 2}])
        await access.publish([role], after=0, actor="root", reason="test")
        access.demand(replace(caller("clerk"), level=2), "wallet:close")
        with pytest.raises(Forbidden) as caught:
            access.demand(replace(caller("clerk"), level=1), "wallet:close")
        assert caught.value.details == {"permission": "wallet:close", "level": 2}
        with pytest.raises(Forbidden) as caught:
            access.demand(replace(caller("clerk"), level=1), "wallet:read")
        assert caught.value.details == {"permission": "wallet:read"}


class TestScopesOfAKey:
    async def test_narrow_the_demand_and_the_query(self, access: Access) -> None:
        key = replace(caller("operator"), scopes=("wallet:read:own",))
        access.demand(key, "wallet:read")
        assert access.scope(key, "wallet:read").query() == Scope(caller(), Reached(reach=Reach.OWN)).query()
        with pytest.raises(Forbidden):
            access.demand(key, "wallet:close")


class TestReferences:
    WALLETS = '{ _entities(representations: [{__typename: "Wallet", id: "w1"}]) { ... on Wallet { id } } }'
    USERS = '{ _entities(representations: [{__typename: "User", id: "anna"}]) { ... on User { id } } }'

    async def test_of_a_caller_who_may(self, access: Access) -> None:
        assert await ask(access, caller("player"), self.WALLETS) == ({"_entities": [{"id": "w1"}]}, [])

    @pytest.mark.parametrize("who", [ANONYMOUS, caller("nobody")], ids=lambda who: who.kind)
    async def test_are_null_for_one_who_may_not(self, access: Access, who: Caller) -> None:
        assert await ask(access, who, self.WALLETS) == ({"_entities": [None]}, [])

    async def test_that_are_public(self, access: Access) -> None:
        assert await ask(access, ANONYMOUS, self.USERS) == ({"_entities": [{"id": "anna"}]}, [])


class TestPolicyOfRootFields:
    def test_lists_all_that_is_served(self) -> None:
        assert policy_of_root_fields(schema) == {
            "Query.profiles": ("public",),
            "Query.sensitive": ("wallet:read",),
            "Query.plain": ("wallet:read",),
            "Query.awaited": ("wallet:read",),
            "Query.hello": ("public",),
            "Query.forgotten": (),
            "Query.wallet": ("public",),
            "Query._service": ("public",),
            "_entities.Wallet": ("wallet:read",),
            "_entities.User": ("public",),
            "_entities.Forgotten": (),
            "Mutation.create": ("wallet:create",),
            "Subscription.numbers": ("wallet:read",),
        }
