"""Whether somebody has an account here: not to be told by what is answered, nor by the work that is done for it.

Work is counted, not timed: passwords hashed, messages queued, and what MongoDB was asked, as its profiler saw it.
"""

import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from libs.core.errors import CoreError
from services.auth.commands import codes, identifiers, login, passwords, registration
from services.auth.commands.devices import Device
from services.auth.commands.registration import Registration
from services.auth.domain.flows import FlowKind
from services.auth.domain.identifiers import parse_email, parse_username
from tests.auth.attacks.scene import (
    ADD_IDENTIFIER,
    LOGIN,
    LOGIN_WITH_CODE,
    PASSWORD,
    REGISTER,
    REQUEST_CODE,
    REQUEST_RESET,
    UPDATE_PROFILE,
    Person,
    Visitor,
    code_of,
)
from tests.auth.conftest import House


@dataclass(frozen=True)
class Work:
    refused: str
    hashed: int
    queued: int
    asked: tuple[str, ...]


@asynccontextmanager
async def profiled(house: House) -> AsyncIterator[None]:
    await house.auth.database.command("profile", 2)
    try:
        yield
    finally:
        await house.auth.database.command("profile", 0)
        await house.auth.database.drop_collection("system.profile")


async def work_of(house: House, asked: Awaitable[object]) -> Work:
    database = house.auth.database
    seen = await database["system.profile"].count_documents({})
    hashed, queued = house.auth.hasher.computed, house.auth.messages.queued
    refused = ""
    try:
        await asked
    except CoreError as error:
        refused = f"{error.code} {error.message} {error.details}"
    rows = await database["system.profile"].find().skip(seen).to_list()
    asked_for = tuple(_shape(row) for row in rows if not row["ns"].endswith(".system.profile"))
    return Work(refused, house.auth.hasher.computed - hashed, house.auth.messages.queued - queued, asked_for)


def _shape(row: dict[str, Any]) -> str:
    """What was asked of which collection, without by whom and for what."""
    command = row.get("command", {})
    wanted = command.get("filter") or command.get("query") or command.get("q") or {}
    return f"{row['op']} {row['ns'].partition('.')[2]} {sorted(wanted)} {row.get('ninserted', '')}"


async def _answer(visitor: Visitor, query: str, **given: Any) -> str:
    """With what differs from one to the next left out; and what headers came with it."""
    answer = await visitor.elsewhere().post({"query": query, "variables": {"input": given}})
    text = re.sub(r'"(flowId|expiresAt|resendAt)":"[^"]+"', r'"\1":"…"', answer.text)
    return f"{answer.status_code} {sorted(answer.headers)} {text}"


class TestWork:
    """The same is done, in the same order, for Ann who has an account and Ben who has none."""

    @pytest.mark.parametrize("spelling", ["{}@example.com", "{}"])
    async def test_of_a_login(self, house: House, spelling: str) -> None:
        await house.user("ann")

        async def work(name: str) -> Work:
            text = spelling.format(name)
            who = parse_email(text, "") if "@" in text else parse_username(text, "")
            return await work_of(house, login.login(house.auth, house.context(), who, "not it", device=Device()))

        async with profiled(house):
            ann, ben = await work("ann"), await work("ben")
        assert (ann.hashed, ann) == (1, ben)
        assert len(ann.asked) > 3

    async def test_of_a_login_without_a_password(self, house: House) -> None:
        await house.user("ann", password="")
        async with profiled(house):
            ann, ben = [
                await work_of(
                    house,
                    login.login(house.auth, house.context(), parse_username(name, ""), "not it", device=Device()),
                )
                for name in ("ann", "ben")
            ]
        assert (ann.hashed, ann) == (1, ben)

    async def test_of_a_registration(self, house: House) -> None:
        await house.user("ann")

        async def work(name: str) -> Work:
            new = Registration(parse_email(f"{name}@example.com", ""), PASSWORD, parse_username(f"{name}1", ""))
            return await work_of(house, registration.register(house.auth, house.context(), new))

        async with profiled(house):
            ann, ben = await work("ann"), await work("ben")
        assert (ann.hashed, ann.queued, ann) == (1, 1, ben)

    @pytest.mark.parametrize("command", [passwords.request_reset, login.request_code])
    async def test_of_a_code(self, house: House, command: Callable[..., Awaitable[object]]) -> None:
        await house.user("ann")

        async def work(name: str) -> Work:
            return await work_of(house, command(house.auth, house.context(), parse_email(f"{name}@example.com", "")))

        async with profiled(house):
            ann, ben = await work("ann"), await work("ben")
        assert (ann.queued, ann) == (1, ben)

    async def test_of_another_code_and_of_a_wrong_one(self, house: House) -> None:
        await house.user("ann")

        async def works(name: str) -> list[Work]:
            email, context = parse_email(f"{name}@example.com", ""), house.context()
            flow = (await login.request_code(house.auth, context, email)).token
            return [
                await work_of(house, codes.resend(house.auth, context, FlowKind.LOGIN_CODE, flow)),
                await work_of(house, login.login_with_code(house.auth, context, flow, "no code", device=Device())),
            ]

        async with profiled(house):
            assert await works("ann") == await works("ben")

    async def test_of_an_address_that_is_added(self, house: House) -> None:
        eve = await house.user("eve")
        await house.user("ann")

        async def work(name: str) -> Work:
            email = parse_email(f"{name}@example.com", "")
            return await work_of(house, identifiers.add(house.auth, house.context(eve), email))

        async with profiled(house):
            ann, ben = await work("ann"), await work("ben")
        assert (ann.queued, ann) == (1, ben)

    async def test_of_a_suspended_user(self, house: House) -> None:
        """Who does not know the password is not told, either."""
        await house.user("ann")
        await house.auth.database["users"].update_one({"id": "ann-id"}, {"$set": {"status": "suspended"}})
        async with profiled(house):
            for command in (passwords.request_reset, login.request_code):
                ann, ben = [
                    await work_of(house, command(house.auth, house.context(), parse_email(f"{name}@example.com", "")))
                    for name in ("ann", "ben")
                ]
                assert ann == ben


class TestAnswer:
    """To the letter, with its status and headers."""

    async def test_of_a_login(self, visitor: Visitor, ann: Person) -> None:
        device = {"token": "A" * 43, "name": "a phone"}
        there = await _answer(visitor, LOGIN, identifier=ann.email, password="not it", device=device)
        assert there == await _answer(visitor, LOGIN, identifier="nobody@example.com", password="not it", device=device)
        assert "INVALID_CREDENTIALS" in there

    async def test_of_a_login_that_is_slowed_down(self, visitor: Visitor, ann: Person) -> None:
        async def until_refused(identifier: str) -> list[str]:
            tries = [await visitor.elsewhere().login(identifier, "not it") for _ in range(7)]
            return [code_of(answer) for answer in tries]

        assert await until_refused(ann.email) == await until_refused(f"nobody-{ann.email}")

    @pytest.mark.parametrize("query", [REGISTER, REQUEST_CODE, REQUEST_RESET])
    async def test_of_what_sends_a_code(self, visitor: Visitor, ann: Person, query: str) -> None:
        more = {"password": PASSWORD} if query == REGISTER else {}
        there = await _answer(visitor, query, email=ann.email, **more)
        assert there == await _answer(visitor, query, email=f"nobody-{ann.email}", **more)
        assert "FlowStarted" in there

    async def test_of_a_code_that_was_never_sent(self, visitor: Visitor, ann: Person) -> None:
        outcomes = []
        for email in (ann.email, f"nobody-{ann.email}"):
            flow = (await visitor.ask(REQUEST_CODE, input={"email": email}))["flowId"]
            tries = [await visitor.refused(LOGIN_WITH_CODE, input={"flowId": flow, "code": "x"}) for _ in range(6)]
            outcomes.append(tries)
        assert outcomes[0] == outcomes[1] == ["CODE_WRONG"] * 5 + ["FLOW_OVER"]

    async def test_of_an_address_that_is_added(self, ann: Person, eve: Person) -> None:
        answers = [await eve.ask(ADD_IDENTIFIER, input={"email": email}) for email in (ann.email, f"x{ann.email}")]
        assert {answer["__typename"] for answer in answers} == {"FlowStarted"}

    async def test_of_a_username_is_had_ten_times_a_day(self, ann: Person, eve: Person) -> None:
        names = [f"{ann.email.partition('@')[0][:28]}{n}" for n in range(12)]
        answers = [await eve.refused(UPDATE_PROFILE, input={"username": name}) for name in names]
        assert answers == [""] * 10 + ["RATE_LIMITED"] * 2

    async def test_only_the_owner_is_told(self, visitor: Visitor, ann: Person) -> None:
        await visitor.ask(REGISTER, input={"email": ann.email, "password": PASSWORD})
        sent = await visitor.notice(ann.email)
        assert (sent["template"], "code" in sent["params"]) == ("already_registered", False)
