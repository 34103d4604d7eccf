"""Work that somebody makes us do for nothing, and sessions by the hundred; and what production does not have at all."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from libs.core.errors import CoreError, RateLimited
from libs.core.ids import new_id
from libs.core.testing import eventually
from services.auth import store
from services.auth.commands import login, passwords, profile, registration
from services.auth.commands.devices import Device
from services.auth.commands.registration import Registration
from services.auth.commands.tokens import SignedIn
from services.auth.domain.identifiers import parse_email, parse_username
from services.auth.passwords import Hasher
from tests.auth.conftest import PASSWORD, House

ROOT = Path(__file__).parents[3]

# Of the paths that it is given, those that the service has a route for.
ANSWERED = """
import sys
from starlette.routing import Match
from services.auth.app import app
for path in sys.argv[1:]:
    scope = {"type": "http", "method": "GET", "path": path, "root_path": "", "headers": [], "app": app}
    if any(route.matches(scope)[0] is Match.FULL for route in app.routes):
        print(path)
"""


async def outcome(asked: Awaitable[object]) -> str:
    try:
        await asked
    except CoreError as error:
        return error.code
    return ""


class TestHashing:
    async def test_a_queue_that_is_full_refuses_at_once_and_the_rest_are_answered(self, house: House) -> None:
        user = await house.user("ann")
        async with Hasher(workers=1, waiting_max=3) as hasher:
            auth = replace(house.auth, hasher=hasher)

            def attempt(n: int) -> Awaitable[object]:
                context = house.context(address=f"192.0.2.{n}")
                return login.login(auth, context, parse_username(f"user{n}", ""), "not it", device=Device())

            flood = [asyncio.create_task(outcome(attempt(n))) for n in range(30)]
            await asyncio.sleep(0)
            assert (await profile.me(auth, house.context(user))).id == user.id  # what needs no hash does not wait
            outcomes = await asyncio.gather(*flood)
        assert outcomes.count("UNAVAILABLE") >= 20
        assert set(outcomes) == {"UNAVAILABLE", "INVALID_CREDENTIALS"}

    async def test_registrations_beyond_the_limit_are_not_hashed(
        self, new_house: Callable[..., Awaitable[House]]
    ) -> None:
        house = await new_house(sends_per_recipient=[{"messages": 1, "per_s": 3600}])
        new = Registration(parse_email("ann@example.com", ""), PASSWORD)
        await registration.register(house.auth, house.context(), new)
        before = house.auth.hasher.computed
        for _ in range(5):
            with pytest.raises(RateLimited):
                await registration.register(house.auth, house.context(), new)
        assert house.auth.hasher.computed == before

    async def test_resets_with_a_wrong_code_are_not_hashed(self, house: House) -> None:
        await house.user("ann")
        flow = await passwords.request_reset(house.auth, house.context(), parse_email("ann@example.com", ""))
        before = house.auth.hasher.computed
        reset = passwords.reset(house.auth, house.context(), flow.token, "x", "others plain words", device=Device())
        assert await outcome(reset) == "CODE_WRONG"
        assert house.auth.hasher.computed == before


class TestSessions:
    async def test_so_many_and_no_more(self, new_house: Callable[..., Awaitable[House]]) -> None:
        """Else some would be left when all are ended."""
        house = await new_house(sessions_most=3)
        await house.user("ann")
        opened = []
        for _ in range(5):
            house.clock.advance(seconds=1)
            who = parse_username("ann", "")
            signed_in = await login.login(house.auth, house.context(), who, PASSWORD, device=Device())
            assert isinstance(signed_in, SignedIn)
            opened.append(signed_in.session_id)
        alive = await house.auth.database["sessions"].find({"ended_at": None}).to_list()
        assert [session["_id"] for session in alive] == opened[2:]
        await eventually(lambda: house.revoked == opened[:2])


class TestFlows:
    async def test_tokens_are_not_stored(self, house: House) -> None:
        flow = await passwords.request_reset(house.auth, house.context(), parse_email("ann@example.com", ""))
        for name in await house.auth.database.list_collection_names():
            assert flow.token not in str(await house.auth.database[name].find().to_list()), name

    @pytest.mark.parametrize("collection", ["flows", "sessions", "refresh_tokens", "devices"])
    def test_none_is_kept_for_ever(self, collection: str) -> None:
        """Whoever begins thousands leaves nothing behind."""
        assert [index for index in store.INDEXES if index.collection == collection and index.ttl_s is not None]


class TestProduction:
    def test_has_nothing_of_development(self) -> None:
        """No way to read what users were sent, whose codes open accounts."""
        secret = new_id()
        environment = {"MODE": "production", "PATH": os.environ["PATH"], "DEFAULT_TENANT": "demo"}
        environment |= {name: f"{name}-{secret}" for name in ("AUTH_KEY", "MESSAGE_KEY", "CURSOR_SECRET")}
        paths = ["/.well-known/jwks.json", "/development/messages", "/docs", "/openapi.json"]
        answered = subprocess.run(
            [sys.executable, "-c", ANSWERED, *paths],
            env=environment, cwd=ROOT, capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert answered.stdout.split() == ["/.well-known/jwks.json"]

    @pytest.mark.parametrize("missing", ["AUTH_KEY", "MESSAGE_KEY", "CURSOR_SECRET"])
    def test_starts_with_no_key_that_everybody_knows(self, missing: str) -> None:
        names = {"AUTH_KEY", "MESSAGE_KEY", "CURSOR_SECRET"} - {missing}
        environment = {"MODE": "production", "PATH": os.environ["PATH"]} | dict.fromkeys(names, "k" * 40)
        tried = subprocess.run(
            [sys.executable, "-c", "from services.auth.settings import AuthSettings; AuthSettings.load()"],
            env=environment, cwd=ROOT, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert (tried.returncode, missing in tried.stderr) == (1, True)
