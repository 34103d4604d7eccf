"""What is written where something else is expected: operators, fields that are none, megabytes, control characters."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from libs.core.errors import Refusal
from services.auth.commands.password_rules import check_password
from tests.auth.attacks.scene import (
    ADD_IDENTIFIER,
    LOGIN,
    LOGIN_WITH_CODE,
    ME,
    PASSWORD,
    REFRESH,
    REGISTER,
    REQUEST_CODE,
    REQUEST_RESET,
    RESEND,
    RESET,
    SECOND_FACTOR,
    UPDATE_PROFILE,
    VERIFY,
    VERIFY_IDENTIFIER,
    Person,
    Scene,
    Visitor,
    code_of,
)
from tests.auth.conftest import House

OPERATORS: list[Any] = [
    {"$ne": ""},
    {"$gt": ""},
    {"$regex": ".*"},
    {"$where": "sleep(5000)"},
    {"$in": ["ann@example.com"]},
    {"$exists": True},
    ["ann@example.com"],
    [{"$ne": ""}],
    1,
    True,
]
# The variables of each mutation that nobody has to be signed in for, all of them strings.
STRINGS = [
    (LOGIN, {"identifier": "ann@example.com", "password": "not it"}),
    (
        REGISTER,
        {"email": "new@example.com", "password": PASSWORD, "username": "new-one", "name": "Ann", "locale": "de"},
    ),
    (REGISTER, {"phone": "+436641234567", "password": PASSWORD}),
    (VERIFY, {"flowId": "x", "code": "123456", "username": "ann"}),
    (REQUEST_CODE, {"email": "ann@example.com"}),
    (REQUEST_RESET, {"phone": "+436641234567"}),
    (LOGIN_WITH_CODE, {"flowId": "x", "code": "123456"}),
    (RESET, {"flowId": "x", "code": "123456", "newPassword": "others plain words"}),
    (SECOND_FACTOR, {"flowId": "x", "code": "123456"}),
    (SECOND_FACTOR, {"flowId": "x", "recoveryCode": "abcd"}),
]
FIELDS = [(query, given, name) for query, given in STRINGS for name in given]


class TestOperators:
    @pytest.mark.parametrize(
        ("query", "given", "name"), FIELDS, ids=lambda value: value if len(str(value)) < 20 else ""
    )
    async def test_where_a_string_belongs(self, visitor: Visitor, query: str, given: dict[str, str], name: str) -> None:
        for operator in OPERATORS:
            answer = await visitor.answer(query, input=given | {name: operator})
            # GraphQL lets an id be a number; it names nothing.
            expected = {"BAD_USER_INPUT", "FLOW_OVER"} if operator == 1 else {"BAD_USER_INPUT"}
            assert code_of(answer) in expected, (name, operator, answer)

    @pytest.mark.parametrize("query", [REFRESH, RESEND])
    async def test_in_arguments(self, visitor: Visitor, query: str) -> None:
        for operator in OPERATORS:
            answer = await visitor.answer(query, token=operator, flow=operator, purpose="login_code")
            assert code_of(answer) == "BAD_USER_INPUT", operator

    @pytest.mark.parametrize(
        "text",
        [
            '{"$ne": ""}',
            '{"$gt":""}@example.com',
            "' || '1'=='1",
            "ann@example.com\x00",
            ".*@example.com",
            "$where",
            "a{2,}",
        ],
    )
    async def test_written_out_in_a_string(self, visitor: Visitor, ann: Person, text: str) -> None:
        assert code_of(await visitor.login(text)) in {"BAD_USER_INPUT", "INVALID_CREDENTIALS"}

    @pytest.mark.parametrize(
        "after", ['{"$gt":""}', "eyIkZ3QiOiIifQ==", "x" * 5_000, "AAAA", json.dumps(["$where"]), "\x00"]
    )
    async def test_as_cursors(self, ann: Person, after: str) -> None:
        query = "query ($after: String) { mySessions(after: $after) { edges { node { id } } } }"
        assert await ann.refused(query, after=after) == "BAD_USER_INPUT"

    @pytest.mark.parametrize("id_", ["", "$ne", '{"$ne":""}', "a.b", "a/b", "*", "\x00", "x" * 65, "é"])
    async def test_as_ids(self, ann: Person, id_: str) -> None:
        mutation = "mutation ($id: ID!) { revokeSession(id: $id) }"
        assert await ann.refused(mutation, id=id_) == "BAD_USER_INPUT"
        assert await ann.refused(ME) == ""


class TestMassAssignment:
    @pytest.mark.parametrize(
        "more",
        [
            {"roles": ["admin"]},
            {"role": "admin"},
            {"tenantId": "other"},
            {"tenant_id": "other"},
            {"id": "mine"},
            {"kind": "service"},
            {"status": "ACTIVE"},
            {"emailVerified": True},
            {"mustReset": False},
            {"secondFactors": []},
            {"version": 7},
            {"__proto__": {"roles": ["admin"]}},
        ],
        ids=str,
    )
    async def test_fields_that_are_not_there(self, visitor: Visitor, ann: Person, more: dict[str, Any]) -> None:
        given = {"email": "new@example.com", "password": PASSWORD, **more}
        assert await visitor.refused(REGISTER, input=given) == "BAD_USER_INPUT"
        assert await ann.refused(UPDATE_PROFILE, input={"name": "Ann", **more}) == "BAD_USER_INPUT"
        assert (await ann.ask(ME)) == {"id": ann.id, "roles": ["player"]}

    @pytest.mark.parametrize("name", ["email", "phone", "password"])
    async def test_a_profile_has_nothing_that_is_verified(self, ann: Person, name: str) -> None:
        assert await ann.refused(UPDATE_PROFILE, input={name: "ben@example.com"}) == "BAD_USER_INPUT"

    async def test_who_registers_has_the_roles_of_everybody(self, visitor: Visitor) -> None:
        email = f"new{visitor.address.replace('.', 'x')}@example.com"
        flow = (await visitor.ask(REGISTER, input={"email": email, "password": PASSWORD}))["flowId"]
        signed_in = await visitor.ask(VERIFY, input={"flowId": flow, "code": await visitor.code(email)})
        assert signed_in["user"]["roles"] == ["player"]

    async def test_both_an_email_and_a_phone(self, visitor: Visitor) -> None:
        both = {"email": "new@example.com", "phone": "+436641234567"}
        for query, more in ((REGISTER, {"password": PASSWORD}), (REQUEST_CODE, {}), (REQUEST_RESET, {})):
            assert await visitor.refused(query, input={**both, **more}) == "BAD_USER_INPUT"
            assert await visitor.refused(query, input=more) == "BAD_USER_INPUT"


class TestPasswords:
    async def test_of_a_megabyte(self, visitor: Visitor, ann: Person) -> None:
        """Refused before anything is hashed; as many at once as somebody likes."""
        long = "x" * 1_000_000
        answers = await asyncio.gather(*(visitor.elsewhere().post(_login(ann.email, long)) for _ in range(20)))
        assert {answer.status_code for answer in answers} <= {200, 400, 413}
        for answer in answers:
            assert answer.status_code == 413 or code_of(answer.json()) == "BAD_USER_INPUT"

    async def test_longer_than_any(self, visitor: Visitor, ann: Person) -> None:
        answer = (await visitor.post(_login(ann.email, PASSWORD + "x" * 500))).json()
        assert code_of(answer) == "INVALID_CREDENTIALS"

    @pytest.mark.parametrize("password", ["x" * 129, "🦊" * 129, "", "1234567"])
    async def test_that_are_too_long_or_short_to_choose(self, visitor: Visitor, password: str) -> None:
        given = {"email": f"new{visitor.address}@example.com", "password": password}
        assert await visitor.refused(REGISTER, input=given) == "WEAK_PASSWORD"

    @pytest.mark.parametrize("password", ["demodemo2026", "Ann Anders 1", "annanders!!!"])
    async def test_that_say_what_is_known(self, visitor: Visitor, password: str) -> None:
        """The tenant's name, and the user's."""
        given = {"email": f"new{visitor.address}@example.com", "password": password, "name": "Ann Anders"}
        assert await visitor.refused(REGISTER, input=given) == "WEAK_PASSWORD"

    async def test_that_say_what_the_house_is_called(self, new_house: Callable[..., Awaitable[House]]) -> None:
        house = await new_house(password_words=["Golden Goose"])
        with pytest.raises(Refusal, match="known of you, or of this service"):
            await check_password(house.auth, "demo", "GoldenGoose1!")

    @pytest.mark.parametrize("password", ["\ud800" * 12, "a\x00b\x00c\x00d\x00e"], ids=["surrogates", "nulls"])
    async def test_of_odd_characters(self, visitor: Visitor, ann: Person, password: str) -> None:
        body = json.dumps({"query": LOGIN, "variables": {"input": {"identifier": ann.email, "password": password}}})
        headers = {"content-type": "application/json", "x-forwarded-for": visitor.address}
        answer = await visitor.http.post(f"{visitor.url}/graphql", content=body, headers=headers)
        assert answer.status_code < 500
        assert "INTERNAL" not in answer.text

    async def test_are_nowhere_in_the_logs(self, scene: Scene, visitor: Visitor, ann: Person) -> None:
        secret = f"secret-of-{ann.id}"
        await visitor.login(ann.email, secret)
        await visitor.refused(REGISTER, input={"email": "x@example.com", "password": secret, "rôle": secret})
        await visitor.answer(f'mutation {{ login(input: {{password: "{secret}"')
        log = scene.live.server.log.read_text()
        assert secret not in log
        assert ann.token not in log
        assert str(ann.session["refreshToken"]) not in log


class TestNames:
    @pytest.mark.parametrize(
        "name",
        ["Ann\nroot", "Ann\r\nSet-Cookie: a=b", "\x1b[2J", "Ann\x00", "\u202egnp.exe", "\u200b", "a\u2028b", "x" * 101],
        ids=ascii,
    )
    async def test_control_characters(self, visitor: Visitor, ann: Person, name: str) -> None:
        assert await ann.refused(UPDATE_PROFILE, input={"name": name}) == "BAD_USER_INPUT"
        given = {"email": "new@example.com", "password": PASSWORD, "name": name}
        assert await visitor.refused(REGISTER, input=given) == "BAD_USER_INPUT"
        device = {"identifier": ann.email, "password": PASSWORD, "device": {"name": name}}
        assert await visitor.refused(LOGIN, input=device) == "BAD_USER_INPUT"

    @pytest.mark.parametrize(
        "username",
        ["аnn", "ann\u0301", "admin\u200b", "ａdmin", "a n n", "ann@home", "-ann", "ann__x", "a" * 33, "12345"],
    )
    async def test_usernames_that_look_like_others(self, ann: Person, username: str) -> None:
        assert await ann.refused(UPDATE_PROFILE, input={"username": username}) == "BAD_USER_INPUT"

    @pytest.mark.parametrize(
        "email",
        [
            "ann@example.com\nbcc: eve@example.com",
            "ann@example.com,eve@example.com",
            '"ann eve"@example.com',
            "ann@example.com%0abcc:eve@example.com",
            "ann@[127.0.0.1]",
            "ann@localhost",
            "ann@example.com@evil.example",
            "ａnn@example.com",
        ],
    )
    async def test_addresses_that_are_two_or_none(self, visitor: Visitor, ann: Person, email: str) -> None:
        given = {"email": email}
        assert await visitor.refused(REQUEST_RESET, input=given) in {"BAD_USER_INPUT", ""}
        assert not [it for it in await visitor.messages("eve@example.com") if it["template"] == "password_reset"]
        assert await ann.refused(ADD_IDENTIFIER, input={"email": "ann eve@example.com"}) == "BAD_USER_INPUT"
        assert await ann.refused(VERIFY_IDENTIFIER, input={"flowId": email, "code": "123456"}) == "FLOW_OVER"


class TestLogs:
    async def test_agents_write_no_lines_of_their_own(self, scene: Scene, ann: Person) -> None:
        forged = '{"event": "login.succeeded", "user": "admin"}'
        agents = [b"x\x1b[2J", f"x\t{forged}".encode(), b"\xff\xfe", b"x" * 3_000]
        for agent in agents:
            headers = {
                b"user-agent": agent,
                b"x-forwarded-for": ann.address.encode(),
                b"content-type": b"application/json",
            }
            await ann.http.post(f"{ann.url}/graphql", content=json.dumps(_login(ann.email, "not it")), headers=headers)
        lines = scene.live.server.log.read_text().splitlines()
        assert not [line for line in lines if line.startswith((forged, "\x1b"))]
        assert all(isinstance(json.loads(line), dict) for line in lines if line.startswith("{"))

    async def test_a_correlation_id_is_an_id(self, scene: Scene, ann: Person) -> None:
        answer = await ann.post({"query": ME}, **{"x-correlation-id": "x" * 500 + '"}'})
        assert len(answer.headers["x-correlation-id"]) <= 64
        assert "x" * 200 not in scene.live.server.log.read_text()


def _login(identifier: str, password: str) -> dict[str, Any]:
    return {"query": LOGIN, "variables": {"input": {"identifier": identifier, "password": password}}}
