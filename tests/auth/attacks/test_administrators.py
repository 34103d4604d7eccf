"""Those who administer, and those who would like to: more roles and permissions, other tenants, others' keys."""

import time
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import httpx
import pytest

from libs.core.audit import AuditLog
from libs.core.testing import FrozenClock, eventually
from services.auth.domain.api_keys import new_key
from tests.auth.attacks.scene import ADDRESS_TRIES, ME, REFRESH, Person, Scene, Visitor

PROBLEM = "__typename ... on Problem { code }"
SET_ROLES = (
    f"mutation ($input: SetUserRolesInput!) {{ setUserRoles(input: $input) {{ ... on User {{ roles }} {PROBLEM} }} }}"
)
GRANT = f"mutation ($input: GrantPermissionInput!) {{ grantPermission(input: $input) {{ {PROBLEM} }} }}"
PUBLISH = f"mutation ($input: PublishPolicyInput!) {{ publishPolicy(input: $input) {{ {PROBLEM} }} }}"
SUSPEND = f"mutation ($input: UserReasonInput!) {{ suspendUser(input: $input) {{ {PROBLEM} }} }}"
DELETE = f"mutation ($input: UserReasonInput!) {{ deleteUser(input: $input) {{ {PROBLEM} }} }}"
ACCOUNT = f"""mutation ($input: ServiceAccountInput!) {{
    createServiceAccount(input: $input) {{ ... on User {{ id }} {PROBLEM} }} }}"""
KEY = f"""mutation ($input: ApiKeyInput!) {{
    createApiKey(input: $input) {{ ... on ApiKeyMade {{ key apiKey {{ id }} }} {PROBLEM} }} }}"""
REVOKE_KEY = f"mutation ($input: RevokeApiKeyInput!) {{ revokeApiKey(input: $input) {{ {PROBLEM} }} }}"
EXCHANGE = (
    f"mutation ($key: String!) {{ exchangeApiKey(key: $key) {{ ... on AccessToken {{ accessToken }} {PROBLEM} }} }}"
)
USERS = """query ($filter: UserFilterInput, $search: UserSearchInput) {
    users(filter: $filter, search: $search) { edges { node { id } } } }"""
ENTITY = "query ($of: [_Any!]!) { _entities(representations: $of) { ... on User { id email } } }"


@pytest.fixture
async def root(scene: Scene) -> Person:
    return await scene.person(roles=("admin",))


@pytest.fixture
async def olga(scene: Scene) -> Person:
    return await scene.person(roles=("operator",))


def made(**more: Any) -> dict[str, Any]:
    return {"reason": "a test", **more}


class TestEscalation:
    @pytest.mark.parametrize(
        ("mutation", "given"),
        [
            (SET_ROLES, {"roles": ["admin"]}),
            (GRANT, {"permission": "*:*:tenant"}),
            (DELETE, {}),
        ],
    )
    async def test_an_operator_is_nobodys_administrator(
        self, olga: Person, ann: Person, mutation: str, given: dict[str, Any]
    ) -> None:
        for user_id in (olga.id, ann.id):
            assert await olga.refused(mutation, input=made(userId=user_id, **given)) == "FORBIDDEN"

    async def test_nor_makes_keys_or_policies(self, olga: Person) -> None:
        assert await olga.refused(ACCOUNT, input=made(name="mine", roles=["admin"])) == "FORBIDDEN"
        assert (
            await olga.refused(KEY, input={"accountId": "x", "name": "mine", "scopes": ["*:*:tenant"]}) == "FORBIDDEN"
        )
        assert await olga.refused(PUBLISH, input=made(after=0, roles=[])) == "FORBIDDEN"

    async def test_an_operator_does_nothing_to_an_administrator(self, olga: Person, root: Person) -> None:
        assert await olga.refused(SUSPEND, input=made(userId=root.id)) == "USER_OUTRANKS_YOU"
        assert (await root.ask(ME))["id"] == root.id

    async def test_an_administrator_of_one_tenant_has_no_say_over_all(self, root: Person) -> None:
        given = made(after=0, roles=[{"name": "player", "allow": ["*:*:tenant"]}], acceptFindings=True)
        assert await root.refused(PUBLISH, input=given) == "FORBIDDEN"
        withdraw = (
            f"mutation ($input: WithdrawSigningKeyInput!) {{ withdrawSigningKey(input: $input) {{ {PROBLEM} }} }}"
        )
        assert await root.refused(withdraw, input=made(keyId="k")) == "FORBIDDEN"

    async def test_a_field_that_is_not_asked_for_is_no_field(self, root: Person, ann: Person) -> None:
        for more in ({"status": "ACTIVE"}, {"tenantId": "other"}, {"kind": "service"}, {"password": "x"}):
            given = made(userId=ann.id, roles=["player"], **more)
            assert await root.refused(SET_ROLES, input=given) in ("GRAPHQL_VALIDATION_FAILED", "BAD_USER_INPUT")


class TestOtherTenants:
    async def test_an_administrator_finds_nobody_there(self, scene: Scene, root: Person) -> None:
        there = await scene.person("other", signed_in=False)
        for mutation, given in ((SUSPEND, {}), (DELETE, {}), (SET_ROLES, {"roles": ["admin"]})):
            assert await root.refused(mutation, input=made(userId=there.id, **given)) == "NOT_FOUND"
        assert await root.ask(ENTITY, of=[{"__typename": "User", "id": there.id}]) == [None]
        search = {"by": "EMAIL", "prefix": there.email}
        assert (await root.ask(USERS, search=search))["edges"] == []

    async def test_operators_of_mongodb_are_no_input(self, root: Person) -> None:
        for variables in (
            {"filter": {"role": {"$ne": "x"}}},
            {"search": {"by": "EMAIL", "prefix": {"$regex": "."}}},
            {"filter": {"$where": "1"}},
        ):
            assert "errors" in await root.answer(USERS, **variables)
        for text in ('{"$ne":""}', "$gt", ".*", "^a"):
            assert (await root.ask(USERS, search={"by": "EMAIL", "prefix": text}))["edges"] == []


class TestRolesThatAreTaken:
    async def test_are_gone_within_moments_and_the_session_is_not(self, root: Person, olga: Person) -> None:
        assert (await olga.ask(USERS))["edges"]
        taken = await root.ask(SET_ROLES, input=made(userId=olga.id, roles=["player"]))
        assert taken["roles"] == ["player"]
        began = time.monotonic()

        async def refused() -> bool:
            return await olga.refused(USERS) == "UNAUTHENTICATED"

        await eventually(refused)
        assert time.monotonic() - began < 2
        olga.token = (await olga.elsewhere(token="").ask(REFRESH, token=olga.session["refreshToken"]))["accessToken"]
        assert (await olga.ask(ME))["roles"] == ["player"]
        assert await olga.refused(USERS) == "FORBIDDEN"


class TestKeys:
    @pytest.fixture
    async def robot(self, root: Person) -> Person:
        """Who may list users and nothing else, though its account is an operator."""
        account = await root.ask(ACCOUNT, input=made(name="robot", roles=["operator"]))
        key = await root.ask(KEY, input={"accountId": account["id"], "name": "it", "scopes": ["user:list:tenant"]})
        robot = root.elsewhere(token="", id=account["id"], session=key)
        robot.token = (await robot.ask(EXCHANGE, key=key["key"]))["accessToken"]
        return robot

    async def test_do_what_they_are_for_and_no_more(self, robot: Person, ann: Person) -> None:
        assert (await robot.ask(USERS))["edges"]
        assert await robot.refused(SUSPEND, input=made(userId=ann.id)) == "FORBIDDEN"
        assert await robot.refused(ME) == "FORBIDDEN"

    async def test_revoked_are_refused_within_moments(self, root: Person, robot: Person) -> None:
        await root.ask(REVOKE_KEY, input=made(keyId=robot.session["apiKey"]["id"]))

        async def refused() -> bool:
            return await robot.refused(USERS) == "UNAUTHENTICATED"

        await eventually(refused, within_s=2)
        assert await robot.elsewhere(token="").refused(EXCHANGE, key=robot.session["key"]) == "API_KEY_REFUSED"

    async def test_are_of_their_tenant_alone(self, robot: Person) -> None:
        there = robot.elsewhere(token="", tenant="other")
        assert await there.refused(EXCHANGE, key=robot.session["key"]) == "API_KEY_REFUSED"

    async def test_guesses_by_alias_are_counted_each(self, visitor: Visitor) -> None:
        codes: list[str] = []
        for _ in range(ADDRESS_TRIES // 5 + 1):
            guesses = (f'k{n}: exchangeApiKey(key: "{new_key()[0]}") {{ {PROBLEM} }}' for n in range(5))
            answer = await visitor.answer(f"mutation {{ {' '.join(guesses)} }}")
            codes += [error["extensions"]["code"] for error in answer.get("errors", [])]
        assert "RATE_LIMITED" in codes


class TestExport:
    async def get(self, visitor: Visitor, **params: str) -> httpx.Response:
        headers = {"x-tenant": visitor.tenant} if not visitor.token else {"authorization": f"Bearer {visitor.token}"}
        return await visitor.http.get(f"{visitor.url}/security-log/export", params=params, headers=headers)

    async def test_is_for_those_who_may(self, visitor: Visitor, ann: Person, root: Person) -> None:
        assert [(await self.get(who)).status_code for who in (visitor, ann, root)] == [401, 403, 200]

    async def test_is_of_ones_tenant(self, scene: Scene, root: Person) -> None:
        long_ago = FrozenClock(datetime.now(UTC) - timedelta(hours=1))
        async with scene.mongo() as mongo:
            for tenant, actor in (("demo", "one-of-us"), ("other", "one-of-them")):
                log = AuditLog(mongo.db, f"auth.{tenant}", clock=long_ago)
                await mongo.transaction(partial(log.append, actor=actor, action="login.failed", resource="x"))
        text = (await self.get(root, format="jsonl")).text
        assert '"complete":true' in text
        assert "one-of-us" in text
        assert "one-of-them" not in text
