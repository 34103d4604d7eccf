import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from pymongo.errors import PyMongoError

from libs.access_engine import Role
from libs.core.access import INDEXES, Access
from libs.core.context import Caller
from libs.core.errors import InvalidInput, NotFound, Refusal
from libs.core.grants import Grants
from libs.core.migrations import migrate
from libs.core.mongo import Mongo
from libs.core.pagination import PageArgs, Paginator
from libs.core.redis import Redis
from libs.core.testing import FrozenClock, eventually

ROOT = Caller("acme", "root", ("admin",), "s1", "user", level=2)
OPERATOR = replace(ROOT, subject="op", roles=("operator",))
BEN = replace(ROOT, subject="ben", roles=())
paginator = Paginator("a secret of at least 32 characters")


@pytest.fixture
async def access(mongo: Mongo, redis: Redis, clock: FrozenClock) -> AsyncIterator[Access]:
    await migrate(mongo.core, INDEXES)
    async with Access(mongo.core, redis, clock, poll_s=60) as access:
        yield access


def code_of(caught: pytest.ExceptionInfo[Refusal]) -> str:
    return caught.value.code


class TestGrant:
    async def test_is_in_force_at_once(self, access: Access) -> None:
        grant = await access.grant(ROOT, "ben", "wallet:read:tenant", reason="on call")
        assert access.allows(BEN, "wallet:read")
        assert not access.allows(replace(BEN, tenant_id="other"), "wallet:read")
        assert await access.grants_of("acme", "ben") == [grant]
        assert (grant.author, grant.reason, grant.permission, grant.effect) == (
            "root",
            "on call",
            "wallet:read:tenant",
            "allow",
        )

    async def test_reaches_another_process(
        self, access: Access, mongo: Mongo, redis: Redis, clock: FrozenClock
    ) -> None:
        async with Access(mongo.core, redis, clock, poll_s=60) as other:
            grant = await access.grant(ROOT, "ben", "wallet:read:tenant", reason="test")
            await eventually(lambda: other.allows(BEN, "wallet:read"))
            await access.revoke_grant(ROOT, grant.id, reason="test")
            await eventually(lambda: not other.allows(BEN, "wallet:read"))

    async def test_is_there_after_a_restart_and_beyond_a_new_policy(
        self, access: Access, mongo: Mongo, redis: Redis, clock: FrozenClock
    ) -> None:
        await access.grant(ROOT, "ben", "wallet:read:tenant", reason="test")
        async with Access(mongo.core, redis, clock, poll_s=60) as other:
            assert other.allows(BEN, "wallet:read")
            await other.publish([Role.of("clerk", allow=["audit:read:own"])], after=0, actor="root", reason="test")
            assert other.allows(BEN, "wallet:read")

    async def test_denies(self, access: Access) -> None:
        await access.grant(ROOT, "op", "deposit:create:tenant", effect="deny", reason="enquiry")
        assert not access.allows(OPERATOR, "deposit:create")
        assert access.allows(OPERATOR, "wallet:read")

    async def test_begins_and_ends_by_itself(self, access: Access, clock: FrozenClock) -> None:
        since, until = clock.now() + timedelta(hours=1), clock.now() + timedelta(hours=2)
        await access.grant(ROOT, "ben", "wallet:read:tenant", since=since, until=until, reason="test")
        scope = access.scope(BEN, "wallet:read")
        seen = []
        for _ in range(3):
            one = scope.permits(owner_id="x", tenant_id="acme", id="w1")
            assert one == access.allows(BEN, "wallet:read") == (not scope.nothing)
            seen.append(one)
            clock.advance(hours=1)
        assert seen == [False, True, False]
        assert await access.grants_of("acme", "ben") == []
        assert len(await access.grants_of("acme", "ben", ended=True)) == 1

    async def test_with_a_level_and_a_condition(self, access: Access) -> None:
        condition = {"object.status": {"in": ["open", "new"]}}
        grant = await access.grant(
            ROOT, "ben", "wallet:read:tenant", level=2, brand_id="b1", condition=condition, reason="test"
        )
        assert await access.grants_of("acme", "ben") == [grant]
        ben = replace(BEN, brand_id="b1")
        assert not access.allows(replace(ben, level=1), "wallet:read")
        assert not access.allows(replace(ben, brand_id=""), "wallet:read")
        scope = access.scope(ben, "wallet:read")
        assert scope.permits(owner_id=None, tenant_id="acme", id="w1", attributes={"status": "new"})
        assert not scope.permits(owner_id=None, tenant_id="acme", id="w1")

    @pytest.mark.parametrize(
        ("permission", "bounds"),
        [
            ("user:update:all", {}),
            ("policy:manage:tenant", {}),
            ("*:read:own", {}),
            ("user:update:tenant", {}),
            ("policy:manage:tenant", {"effect": "deny"}),
        ],
    )
    async def test_of_more_than_the_author_holds(self, access: Access, permission: str, bounds: dict[str, Any]) -> None:
        with pytest.raises(Refusal) as caught:
            await access.grant(OPERATOR, "op", permission, reason="test", **bounds)
        assert code_of(caught) == "GRANT_TOO_WIDE"
        assert await access.grants_of("acme", "op", ended=True) == []

    async def test_by_an_author_whose_own_grant_is_over(self, access: Access, clock: FrozenClock) -> None:
        until = clock.now() + timedelta(hours=1)
        await access.grant(ROOT, "ben", "wallet:read:tenant", until=until, reason="test")
        await access.grant(BEN, "zoe", "wallet:read:tenant", until=until, reason="test")
        with pytest.raises(Refusal):
            await access.grant(BEN, "zoe", "wallet:read:tenant", reason="for ever")
        clock.advance(hours=1)
        with pytest.raises(Refusal):
            await access.grant(BEN, "zoe", "wallet:read:w1", reason="test")

    async def test_by_a_key_whose_scopes_are_narrower(self, access: Access) -> None:
        with pytest.raises(Refusal):
            await access.grant(replace(ROOT, scopes=("wallet:read:own",)), "ben", "wallet:read:tenant", reason="test")

    @pytest.mark.parametrize(
        ("change", "field"),
        [
            ({"permission": "wallet:read"}, "permission"),
            ({"permission": "wallet:read:$ne"}, "permission"),
            ({"subject_id": "a b"}, "subjectId"),
            ({"reason": " "}, "reason"),
            ({"reason": "x" * 501}, "reason"),
            ({"condition": {"object.x": {"$gt": 1}}}, "condition"),
            ({"condition": {"all": []}}, "condition"),
            ({"condition": {}}, "condition"),
            ({"level": 10}, "permission"),
            ({"level": 2, "effect": "deny"}, "permission"),
            ({"until": FrozenClock().now()}, "until"),
            ({"until": FrozenClock().now().replace(tzinfo=None)}, "permission"),
        ],
        ids=str,
    )
    async def test_of_what_is_no_grant(self, access: Access, change: dict[str, Any], field: str) -> None:
        asked = {"subject_id": "ben", "permission": "wallet:read:tenant", "reason": "test", **change}
        with pytest.raises(InvalidInput) as caught:
            await access.grant(ROOT, **asked)
        assert caught.value.field == field

    async def test_in_a_transaction_that_fails(self, access: Access, mongo: Mongo) -> None:
        async def work(session: Any) -> None:
            await access.grant(ROOT, "ben", "wallet:read:tenant", reason="test", session=session)
            raise RuntimeError

        with pytest.raises(RuntimeError):
            await mongo.transaction(work)
        await access.changed()
        assert not access.allows(BEN, "wallet:read")

    async def test_in_a_transaction_of_its_caller(self, access: Access, mongo: Mongo) -> None:
        await mongo.transaction(
            lambda session: access.grant(ROOT, "ben", "wallet:read:tenant", reason="test", session=session)
        )
        assert not access.allows(BEN, "wallet:read")
        await access.changed()
        assert access.allows(BEN, "wallet:read")

    async def test_more_than_a_role_would_hold(
        self, access: Access, mongo: Mongo, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("libs.core.grants.MAX_OF_A_SUBJECT", 2)
        grants = [await access.grant(ROOT, "ben", f"wallet:read:w{n}", reason="test") for n in range(2)]
        with pytest.raises(Refusal) as caught:
            await access.grant(ROOT, "ben", "wallet:read:w2", reason="test")
        assert code_of(caught) == "TOO_MANY_GRANTS"
        await access.revoke_grant(ROOT, grants[0].id, reason="test")
        await access.grant(ROOT, "ben", "wallet:read:w2", reason="test")

    async def test_many_at_once_are_all_heard_of(
        self, access: Access, mongo: Mongo, redis: Redis, clock: FrozenClock
    ) -> None:
        async with Access(mongo.core, redis, clock, poll_s=60) as other:
            every = [
                (access, other)[n % 2].grant(ROOT, f"u{n}", "wallet:read:tenant", reason="test") for n in range(10)
            ]
            revisions = [grant.revision for grant in await asyncio.gather(*every)]
            assert sorted(revisions) == list(range(1, 11))

            def all_may(one: Access) -> bool:
                return all(one.allows(replace(BEN, subject=f"u{n}"), "wallet:read") for n in range(10))

            await eventually(lambda: all_may(access) and all_may(other))


class TestRevokeGrant:
    async def test_is_in_force_at_once(self, access: Access) -> None:
        grant = await access.grant(ROOT, "ben", "wallet:read:tenant", reason="test")
        other = await access.grant(ROOT, "ben", "wallet:close:tenant", reason="test")
        revoked = await access.revoke_grant(OPERATOR, grant.id, reason="left")
        assert (revoked.revoked_by, revoked.revoked_at, revoked.ended_at) == (
            "op",
            revoked.ended_at,
            revoked.revoked_at,
        )
        assert not access.allows(BEN, "wallet:read")
        assert await access.grants_of("acme", "ben") == [other]

    async def test_twice(self, access: Access) -> None:
        grant = await access.grant(ROOT, "ben", "wallet:read:tenant", reason="test")
        first = await access.revoke_grant(OPERATOR, grant.id, reason="left")
        assert await access.revoke_grant(ROOT, grant.id, reason="again") == first

    @pytest.mark.parametrize("revoker", [ROOT, replace(ROOT, tenant_id="other")], ids=lambda who: who.tenant_id)
    async def test_of_another_tenant_or_none(self, access: Access, revoker: Caller) -> None:
        grant = await access.grant(ROOT, "ben", "wallet:read:tenant", reason="test")
        grant_id = grant.id if revoker.tenant_id == "other" else "gone"
        with pytest.raises(NotFound):
            await access.revoke_grant(revoker, grant_id, reason="test")

    async def test_to_lift_a_denial_is_to_give(self, access: Access) -> None:
        denial = await access.grant(ROOT, "ben", "policy:manage:tenant", effect="deny", reason="test")
        with pytest.raises(Refusal) as caught:
            await access.revoke_grant(OPERATOR, denial.id, reason="test")
        assert code_of(caught) == "GRANT_TOO_WIDE"

    async def test_nobody_lifts_their_own_denial(self, access: Access) -> None:
        denial = await access.grant(ROOT, "root", "wallet:read:tenant", effect="deny", reason="test")
        with pytest.raises(Refusal):
            await access.revoke_grant(ROOT, denial.id, reason="test")


class TestPage:
    async def test_of_a_tenant_the_newest_first(self, access: Access) -> None:
        made = [await access.grant(ROOT, f"u{n}", "wallet:read:own", reason="test") for n in range(3)]
        await access.revoke_grant(ROOT, made[1].id, reason="test")
        first = await access.grants_page(paginator, "acme", PageArgs(first=1))
        rest = await access.grants_page(paginator, "acme", PageArgs(first=9, after=first.cursors[0]))
        assert [*first.items, *rest.items] == [made[2], made[0]]
        assert (await access.grants_page(paginator, "acme", PageArgs(), subject_id="u1")).items == []
        assert len((await access.grants_page(paginator, "acme", PageArgs(), subject_id="u1", ended=True)).items) == 1
        assert (await access.grants_page(paginator, "other", PageArgs())).items == []


class TestReload:
    async def test_a_grant_that_cannot_be_read_gives_nothing_away(self, access: Access, mongo: Mongo) -> None:
        allowing = await access.grant(ROOT, "ben", "wallet:read:tenant", reason="test")
        denying = await access.grant(ROOT, "op", "wallet:read:tenant", effect="deny", reason="test")
        rule = '{"permission":"wallet:read:tenant","only":"mondays"}'
        for n, grant in enumerate((allowing, denying)):
            await mongo.core["grants"].update_one({"_id": grant.id}, {"$set": {"rule": rule, "revision": 100 + n}})
        await access.reload()
        assert not access.allows(BEN, "wallet:read")
        assert not access.allows(OPERATOR, "transfer:read")

    async def test_a_failure_loses_nothing(self, access: Access, mongo: Mongo, monkeypatch: pytest.MonkeyPatch) -> None:
        await access.publish([Role.of("clerk", allow=["audit:read:own"])], after=0, actor="root", reason="test")
        with monkeypatch.context() as patched:

            async def away(*_: Any) -> None:
                raise PyMongoError("away")

            patched.setattr(Grants, "changed_holders", away)
            await access.grant(ROOT, "ben", "wallet:read:tenant", reason="test")
            assert not access.allows(BEN, "wallet:read")
        await access.reload()
        assert access.allows(BEN, "wallet:read")

    async def test_what_is_over_is_forgotten(self, access: Access, clock: FrozenClock) -> None:
        await access.grant(ROOT, "ben", "wallet:read:own", until=clock.now() + timedelta(hours=1), reason="test")
        clock.advance(hours=7)
        await access.reload()
        assert list(access._policy.grants) == []


class TestWider:
    async def test_roles_that_an_author_may_assign(self, access: Access) -> None:
        assert access.wider_roles(ROOT, ["player", "operator", "admin"]) == []
        assert access.wider_roles(OPERATOR, ["operator"]) == []
        assert access.wider_roles(OPERATOR, ["admin"]) == ["allow *:*:tenant"]
        assert access.wider_roles(replace(ROOT, roles=("player",)), ["player"]) == []

    async def test_what_a_role_inherits_counts(self, access: Access) -> None:
        roles = [Role.of("intern", inherits=["operator"]), Role.of("deputy", inherits=["admin"])]
        await access.publish(roles, after=0, actor="root", reason="test")
        assert access.wider_roles(OPERATOR, ["intern"]) == []
        assert access.wider_roles(OPERATOR, ["deputy"]) == ["allow *:*:tenant"]

    async def test_a_role_that_is_not_there(self, access: Access) -> None:
        with pytest.raises(InvalidInput):
            access.wider_roles(ROOT, ["gone"])

    async def test_what_a_policy_would_add(self, access: Access) -> None:
        operators = Role.of("operator", allow=["wallet:read:tenant"], deny=["audit:read:all"])
        assert access.wider_policy(OPERATOR, [operators]) == []
        await access.publish([operators], after=0, actor="root", reason="test")
        wider = Role.of("operator", allow=["wallet:read:tenant", "policy:manage:tenant"])
        assert access.wider_policy(OPERATOR, [wider]) == ["allow policy:manage:tenant", "deny audit:read:all"]
        assert access.wider_policy(ROOT, [wider]) == []
        assert access.wider_policy(ROOT, [Role.of("intern", inherits=["admin"])]) == []
        assert access.wider_policy(OPERATOR, [operators, Role.of("intern", inherits=["admin"])]) == ["allow *:*:tenant"]


class TestPolicyVersions:
    async def test_the_newest_first(self, access: Access, mongo: Mongo) -> None:
        bounded = {"permission": "wallet:read:own", "level": 2, "if": {"object.x": {"in": [1, "a"]}}}
        role = Role.of("clerk", allow=[bounded, "audit:read:own"], deny=["wallet:read:w1"], inherits=["player"])
        await access.publish([role], after=0, actor="root", reason="first")
        await mongo.core["policies"].insert_one({"_id": 2, "roles": "?"})
        page = await access.policy_versions(paginator, PageArgs())
        assert [(item.version, item.roles, item.reason) for item in page.items] == [
            (2, None, ""),
            (1, (role,), "first"),
        ]
        assert access.roles["clerk"] == role

    async def test_published_in_a_transaction_of_its_caller(
        self, mongo: Mongo, redis: Redis, clock: FrozenClock
    ) -> None:
        await migrate(mongo.core, INDEXES)
        access = Access(mongo.core, redis, clock)  # which follows nothing, and so hears of nothing by itself
        await access.reload()
        roles = [Role.of("clerk", allow=["audit:read:own"])]

        async def work(session: Any) -> int:
            return await access.publish(roles, after=0, actor="root", reason="test", session=session)

        assert await mongo.transaction(work) == 1
        assert access.version == 0
        await access.changed()
        assert access.version == 1
        with pytest.raises(Refusal, match="changed meanwhile"):
            await mongo.transaction(work)
