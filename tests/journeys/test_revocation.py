"""Who is signed out is out everywhere, and within two seconds: tokens are refused, and streams that are open end."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from libs.core.testing import eventually, scratch_mongo, scratch_namespace
from scripts.process import Server
from tests.journeys.house import PASSWORD, Doors, House, Person, house

WITHIN_S = 2.0
WALLETS = "{ wallets { edges { node { id } } } }"
SUSPEND = """mutation ($id: ID!) { suspendUser(input: {userId: $id, reason: "INC-7"}) {
    __typename ... on Problem { code } } }"""
REVOKE = "mutation ($id: ID!) { revokeSession(id: $id) }"
CHANGE_PASSWORD = """mutation ($current: String!, $new: String!) {
    changePassword(input: {currentPassword: $current, newPassword: $new}) { __typename ... on Problem { code } } }"""


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory, mongo_url: str, redis_url: str) -> Iterator[House]:
    folder: Path = tmp_path_factory.mktemp("house")
    namespace = scratch_namespace()
    with house(folder, mongo_url, redis_url, namespace) as live:
        yield live

    asyncio.run(dropped(mongo_url, namespace))


async def dropped(mongo_url: str, namespace: str) -> None:
    async with scratch_mongo(mongo_url, namespace=namespace):
        pass


@pytest.fixture
async def doors(live: House) -> AsyncIterator[Doors]:
    async with live.doors() as doors:
        yield doors


async def is_out(person: Person) -> bool:
    """Of both services."""
    asked = ((person.payment, WALLETS), (person.auth, "{ me { id } }"))
    answers = [(await api.post(query)).json() for api, query in asked]
    return all("errors" in it and it["errors"][0]["extensions"]["code"] == "UNAUTHENTICATED" for it in answers)


async def out_in_time(doors: Doors, person: Person, end: Callable[[], Awaitable[Any]]) -> None:
    """From when `end` has answered: both services refuse the token, and both streams are closed."""
    async with doors.listening(person) as listening:
        assert not await is_out(person)
        await end()
        async with asyncio.timeout(WITHIN_S):
            (code, reason), _ = await asyncio.gather(listening.closed(), eventually(lambda: is_out(person)))
        assert (code, reason) == (4403, "the session was revoked")


class TestOut:
    async def test_revoked_from_another_device(self, doors: Doors) -> None:
        ann = await doors.person()
        elsewhere = await doors.sign_in(ann.name)
        await out_in_time(doors, ann, lambda: elsewhere.auth.ask(REVOKE, id=ann.session_id))
        assert not await is_out(elsewhere)

    async def test_logged_out(self, doors: Doors) -> None:
        ann = await doors.person()
        await out_in_time(doors, ann, lambda: ann.auth.ask("mutation { logout }"))

    async def test_by_a_password_that_is_changed_elsewhere(self, doors: Doors) -> None:
        ann = await doors.person()
        elsewhere = await doors.sign_in(ann.name)
        changed = {"current": PASSWORD, "new": "other words, as many"}
        await out_in_time(doors, ann, lambda: elsewhere.auth.ask(CHANGE_PASSWORD, **changed))
        assert not await is_out(elsewhere)

    async def test_suspended(self, doors: Doors) -> None:
        ann, olga = await doors.person(), await doors.person("", "operator")
        await out_in_time(doors, ann, lambda: olga.auth.ask(SUSPEND, id=f"{ann.name}-id"))

    async def test_everybody_else_stays(self, doors: Doors) -> None:
        ann, ben = await doors.person(), await doors.person()
        async with doors.listening(ben) as listening:
            await out_in_time(doors, ann, lambda: ann.auth.ask("mutation { logout }"))
            assert not await is_out(ben)
            assert listening.socket.close_code is None


class TestWithoutRedis:
    """Nobody can be told, so everybody has to look."""

    @pytest.fixture
    def live(self, tmp_path: Path, mongo_url: str, own_redis: Server) -> Iterator[House]:
        namespace = scratch_namespace()
        with house(tmp_path, mongo_url, own_redis.url, namespace) as live:
            yield live
        asyncio.run(dropped(mongo_url, namespace))

    async def test_it_is_found_in_time(self, doors: Doors, own_redis: Server) -> None:
        """Passwords are not changed meanwhile: nobody could count the tries."""
        ann, ben, cara = [await doors.person() for _ in range(3)]
        olga = await doors.person("", "operator")
        elsewhere = await doors.sign_in(ben.name)
        own_redis.kill()
        await out_in_time(doors, ann, lambda: ann.auth.ask("mutation { logout }"))
        await out_in_time(doors, ben, lambda: elsewhere.auth.ask(REVOKE, id=ben.session_id))
        await out_in_time(doors, cara, lambda: olga.auth.ask(SUSPEND, id=f"{cara.name}-id"))
