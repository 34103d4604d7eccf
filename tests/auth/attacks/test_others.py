"""What belongs to somebody else: asked for by its id, as an entity, with another tenant's name, without a token."""

import time
from collections.abc import Awaitable
from contextlib import suppress
from typing import Any

import jwt
import orjson
import pytest
from websockets.exceptions import ConnectionClosed

from tests.auth.attacks.scene import LOGOUT, ME, Person, Scene, Visitor, closed, code_of, heard, socket

DENIED = {"FORBIDDEN", "NOT_FOUND", "UNAUTHENTICATED"}
SESSIONS = "{ mySessions(first: 50) { edges { node { id } } } }"
REVOKE = "mutation ($id: ID!) { revokeSession(id: $id) }"
ENTITIES = """query ($representations: [_Any!]!) {
    _entities(representations: $representations) { ... on User { id email phone roles name } }
}"""
PROBLEM = "__typename ... on Problem { code }"
OF_A_USER = [
    ("query ($id: ID!) { user(id: $id) { id email } }", "user"),
    ("query ($id: ID!) { userSessions(userId: $id) { edges { node { id } } } }", "sessions"),
    ("query ($id: ID!) { grants(userId: $id) { edges { node { id } } } }", "grants"),
    ("query ($id: ID!) { apiKeys(accountId: $id) { edges { node { id } } } }", "API keys"),
    ("query ($id: ID!) { securityLog(filter: {userId: $id}) { edges { node { sequence } } } }", "security log"),
    (f'mutation ($id: ID!) {{ suspendUser(input: {{userId: $id, reason: "x"}}) {{ {PROBLEM} }} }}', "suspend"),
    (f'mutation ($id: ID!) {{ resumeUser(input: {{userId: $id, reason: "x"}}) {{ {PROBLEM} }} }}', "resume"),
    (f'mutation ($id: ID!) {{ deleteUser(input: {{userId: $id, reason: "x"}}) {{ {PROBLEM} }} }}', "delete"),
    (f'mutation ($id: ID!) {{ forcePasswordReset(input: {{userId: $id, reason: "x"}}) {{ {PROBLEM} }} }}', "reset"),
    (f'mutation ($id: ID!) {{ revokeUserSessions(input: {{userId: $id, reason: "x"}}) {{ {PROBLEM} }} }}', "revoke"),
    (
        f'mutation ($id: ID!) {{ setUserRoles(input: {{userId: $id, roles: [], reason: "x"}}) {{ {PROBLEM} }} }}',
        "roles",
    ),
    (
        'mutation ($id: ID!) { grantPermission(input: {userId: $id, permission: "user:read:own", reason: "x"})'
        f" {{ {PROBLEM} }} }}",
        "grant",
    ),
    (
        'mutation ($id: ID!) { createApiKey(input: {accountId: $id, name: "x", scopes: ["user:read:own"]})'
        f" {{ {PROBLEM} }} }}",
        "API key",
    ),
]


async def nothing(asked: Awaitable[dict[str, Any]]) -> bool:
    """Refused, or there is nothing there."""
    answer = await asked
    if "errors" in answer:
        return code_of(answer) in DENIED
    found = next(iter(answer["data"].values()))
    return found is None or found == {"edges": []}


async def sessions_of(person: Person) -> list[str]:
    return [edge["node"]["id"] for edge in (await person.ask(SESSIONS))["edges"]]


class TestSessions:
    async def test_nobody_revokes_anothers(self, ann: Person, eve: Person) -> None:
        assert await eve.ask(REVOKE, id=ann.session["sessionId"]) is False
        assert await ann.refused(ME) == ""

    async def test_nor_one_that_there_is_not(self, eve: Person) -> None:
        """In the same words."""
        assert await eve.ask(REVOKE, id="00000000-0000-7000-8000-000000000000") is False

    async def test_everybody_sees_their_own(self, ann: Person, eve: Person) -> None:
        assert await sessions_of(ann) == [ann.session["sessionId"]]
        assert await sessions_of(eve) == [eve.session["sessionId"]]

    async def test_the_others_end_for_one_alone(self, ann: Person, eve: Person) -> None:
        assert await eve.ask("mutation { revokeOtherSessions }") == 0
        assert await eve.ask("mutation { revokeAllSessions }") == 1
        assert await ann.refused(ME) == ""

    async def test_a_cursor_of_ones_list_opens_nobody_elses(self, scene: Scene, ann: Person, eve: Person) -> None:
        query = "query ($after: String) { mySessions(first: 1, after: $after) { edges { cursor node { id } } } }"
        cursor = (await ann.ask(query))["edges"][0]["cursor"]
        answer = await eve.answer(query, after=cursor)
        assert ann.session["sessionId"] not in str(answer)


class TestDevicesAndFactors:
    @pytest.mark.parametrize(
        "query",
        [
            "mutation ($id: ID!) { removeTrustedDevice(id: $id) }",
            f"mutation ($id: ID!) {{ removePasskey(id: $id) {{ {PROBLEM} }} }}",
            f'mutation ($id: ID!) {{ renamePasskey(input: {{id: $id, name: "x"}}) {{ {PROBLEM} }} }}',
            f"mutation ($id: ID!) {{ unlinkIdentity(id: $id) {{ {PROBLEM} }} }}",
        ],
    )
    async def test_of_another(self, scene: Scene, ann: Person, eve: Person, query: str) -> None:
        async with scene.mongo() as mongo:
            device = await mongo.db["devices"].find_one({"user_id": ann.id})
            assert device
            answer = await eve.answer(query, id=device["_id"])
            assert await mongo.db["devices"].find_one({"_id": device["_id"]}) == device
        found = next(iter(answer["data"].values())) if answer.get("data") else None
        assert found in (None, False) or found["code"].endswith("_NOT_FOUND")


class TestUsers:
    @pytest.mark.parametrize(("query", "what"), OF_A_USER, ids=lambda it: it if len(it) < 20 else "")
    async def test_by_somebody_like_them(self, ann: Person, eve: Person, query: str, what: str) -> None:
        assert await nothing(eve.answer(query, id=ann.id)), what
        assert await ann.refused(ME) == ""

    @pytest.mark.parametrize("role", ["operator", "admin"])
    @pytest.mark.parametrize(("query", "what"), OF_A_USER, ids=lambda it: it if len(it) < 20 else "")
    async def test_by_those_who_run_another_tenant(
        self, scene: Scene, ann: Person, query: str, what: str, role: str
    ) -> None:
        abroad = await scene.person("other", roles=(role,))
        assert await nothing(abroad.answer(query, id=ann.id)), what
        assert await ann.refused(ME) == ""

    @pytest.mark.parametrize(("query", "what"), OF_A_USER, ids=lambda it: it if len(it) < 20 else "")
    async def test_by_nobody(self, visitor: Visitor, ann: Person, query: str, what: str) -> None:
        assert await visitor.refused(query, id=ann.id) == "UNAUTHENTICATED"

    async def test_in_lists_of_another_tenant(self, scene: Scene, ann: Person) -> None:
        abroad = await scene.person("other", roles=("admin",))
        for query in (
            "{ users(first: 50) { edges { node { id email } } } }",
            "{ securityLog(first: 50) { edges { node { sequence action actor } } } }",
            "{ serviceAccounts(first: 50) { edges { node { id } } } }",
            f'{{ users(search: {{by: EMAIL, prefix: "{ann.email[:12]}"}}) {{ edges {{ node {{ id }} }} }} }}',
        ):
            answer = await abroad.answer(query)
            assert "errors" not in answer, answer
            assert ann.id not in str(answer)

    async def test_an_operator_makes_nobody_an_admin(self, scene: Scene, ann: Person) -> None:
        operator = await scene.person(roles=("operator",))
        promote = 'setUserRoles(input: {userId: $id, roles: ["admin"], reason: "x"})'
        for target in (ann.id, operator.id):
            answer = await operator.refused(f"mutation ($id: ID!) {{ {promote} {{ {PROBLEM} }} }}", id=target)
            assert answer == "FORBIDDEN"

    async def test_the_log_is_no_players(self, ann: Person) -> None:
        assert await ann.refused("{ securityLog { edges { node { sequence } } } }") == "FORBIDDEN"
        answer = await ann.http.get(f"{ann.url}/security-log/export", headers={"authorization": f"Bearer {ann.token}"})
        assert answer.status_code == 403
        assert (await ann.http.get(f"{ann.url}/security-log/export", headers={"x-tenant": "demo"})).status_code == 401


class TestEntities:
    async def test_of_oneself(self, ann: Person) -> None:
        found = await ann.ask(ENTITIES, representations=[{"__typename": "User", "id": ann.id}])
        assert found[0]["email"] == ann.email

    async def test_of_others(self, scene: Scene, ann: Person, eve: Person) -> None:
        wanted = [{"__typename": "User", "id": id_} for id_ in (ann.id, eve.id, "nobody")]
        assert [it and it["id"] for it in await eve.ask(ENTITIES, representations=wanted)] == [None, eve.id, None]
        abroad = await scene.person("other", roles=("admin",))
        assert await abroad.ask(ENTITIES, representations=wanted) == [None, None, None]

    async def test_by_nobody(self, visitor: Visitor, ann: Person) -> None:
        wanted = [{"__typename": "User", "id": ann.id}]
        assert await visitor.ask(ENTITIES, representations=wanted) == [None]

    @pytest.mark.parametrize(
        "wrong",
        [
            {"__typename": "User", "id": {"$ne": ""}},
            {"__typename": "User", "_id": "x"},
            {"__typename": "User"},
            {"__typename": "Session", "id": "x"},
            {"__typename": "_Service"},
            {"__typename": {"$ne": ""}},
            {"id": "x"},
            "User",
        ],
        ids=str,
    )
    async def test_of_what_is_none(self, ann: Person, wrong: Any) -> None:
        code = await ann.refused(ENTITIES, representations=[wrong])
        assert code
        assert code != "INTERNAL"

    async def test_a_flood(self, ann: Person) -> None:
        wanted = [{"__typename": "User", "id": f"u{n}"} for n in range(20_000)]
        assert await ann.refused(ENTITIES, representations=wanted)


class TestHeaders:
    @pytest.mark.parametrize(
        "header",
        [
            "x-user-id",
            "x-user",
            "x-subject",
            "x-roles",
            "x-forwarded-user",
            "x-auth-request-user",
            "x-session-id",
            "x-acr",
        ],
    )
    async def test_of_an_identity_mean_nothing(self, visitor: Visitor, ann: Person, header: str) -> None:
        query = {"query": ME}
        assert code_of((await visitor.post(query, **{header: ann.id})).json()) == "UNAUTHENTICATED"
        eve = (await ann.post(query, **{header: "admin"})).json()
        assert eve["data"]["me"] == {"id": ann.id, "roles": ["player"]}

    async def test_of_another_tenant(self, ann: Person) -> None:
        answer = (await ann.post({"query": ME}, **{"x-tenant": "other"})).json()
        assert code_of(answer) in {"FORBIDDEN", "UNAUTHENTICATED"}

    async def test_of_a_tenant_that_there_is_not(self, visitor: Visitor) -> None:
        for tenant in ("nowhere", "@platform", "$ne", "demo,other", "x" * 5_000):
            answer = await visitor.post({"query": ME}, **{"x-tenant": tenant})
            assert answer.status_code < 500
            assert "INTERNAL" not in answer.text

    async def test_two_tokens(self, ann: Person, eve: Person) -> None:
        """Whichever is meant, it is one of them, and none of a mixture."""
        headers = [("authorization", f"Bearer {token}") for token in (ann.token, "x.y.z")]
        answer = await ann.http.post(f"{ann.url}/graphql", json={"query": ME}, headers=headers)
        assert code_of(answer.json()) == "UNAUTHENTICATED"

    @pytest.mark.parametrize("where", ["?access_token={}", "?token={}", "?authorization=Bearer%20{}"])
    async def test_tokens_in_addresses_are_none(self, visitor: Visitor, ann: Person, where: str) -> None:
        address = f"{ann.url}/graphql{where.format(ann.token)}"
        answer = await visitor.http.post(address, json={"query": ME}, headers={"x-tenant": "demo"})
        # `token` names a stream of GraphQL over SSE, of which there is none.
        assert code_of(answer.json()) in {"UNAUTHENTICATED", "NOT_FOUND"}

    async def test_tokens_in_cookies_are_none(self, visitor: Visitor, ann: Person) -> None:
        """So no other site's form can make a browser ask with one."""
        headers = {"x-tenant": "demo", "cookie": f"access_token={ann.token}; authorization=Bearer {ann.token}"}
        answer = await visitor.http.post(f"{ann.url}/graphql", json={"query": ME}, headers=headers)
        assert code_of(answer.json()) == "UNAUTHENTICATED"


class TestGet:
    async def test_it_never_mutates(self, ann: Person) -> None:
        for query in (LOGOUT, "mutation M { revokeAllSessions }"):
            headers = {"authorization": f"Bearer {ann.token}", "accept": "application/json"}
            answer = await ann.http.get(f"{ann.url}/graphql", params={"query": query}, headers=headers)
            assert answer.status_code == 405
        assert await ann.refused(ME) == ""

    @pytest.mark.parametrize(
        "kind", ["application/x-www-form-urlencoded", "text/plain", "multipart/form-data; boundary=x", ""]
    )
    async def test_nor_does_what_a_form_can_post(self, ann: Person, kind: str) -> None:
        headers = {"authorization": f"Bearer {ann.token}", "content-type": kind}
        body = orjson.dumps({"query": LOGOUT})
        answer = await ann.http.post(f"{ann.url}/graphql", content=body, headers=headers)
        assert answer.status_code in {400, 415}
        assert await ann.refused(ME) == ""


class TestWebSocket:
    async def test_without_a_token(self, visitor: Visitor) -> None:
        async with socket(visitor, {"x-tenant": "demo"}) as ws:
            assert await heard(ws, ME) == "UNAUTHENTICATED"

    async def test_with_one_that_is_none(self, visitor: Visitor, ann: Person) -> None:
        for token in ("", "x.y.z", ann.token[:-4] + "AAAA", str(ann.session["refreshToken"])):
            async with socket(visitor, {"authorization": f"Bearer {token}"}) as ws:
                with suppress(ConnectionClosed):
                    assert await heard(ws, ME) == "UNAUTHENTICATED"
                    continue
                assert ws.close_code in {4401, 4403}

    async def test_with_one_that_is_expired(self, scene: Scene, visitor: Visitor, ann: Person) -> None:
        _, private = await scene.signing_key()
        claims = jwt.decode(ann.token, options={"verify_signature": False}) | {"exp": int(time.time()) - 1}
        expired = jwt.encode(claims, private, "EdDSA", headers=jwt.get_unverified_header(ann.token))
        async with socket(visitor, {"authorization": f"Bearer {expired}"}) as ws:
            with suppress(ConnectionClosed):
                assert await heard(ws, ME) == "UNAUTHENTICATED"
                return
            assert ws.close_code == 4403

    async def test_with_one_that_was_revoked(self, visitor: Visitor, ann: Person) -> None:
        """The socket that is open ends, and no other begins."""
        async with socket(visitor, {"authorization": f"Bearer {ann.token}"}) as ws:
            assert await heard(ws, ME) == ""
            await ann.ask(LOGOUT)
            assert await closed(ws) == 4403

    async def test_of_another_tenant(self, visitor: Visitor, ann: Person) -> None:
        async with socket(visitor, {"authorization": f"Bearer {ann.token}", "x-tenant": "other"}) as ws:
            with suppress(ConnectionClosed):
                assert await heard(ws, ME) in {"UNAUTHENTICATED", "FORBIDDEN"}
