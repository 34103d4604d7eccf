from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Annotated, Any

import httpx
import pytest
from fastapi import APIRouter, Depends, FastAPI

from libs.core.access import Access
from libs.core.app import allowed, policy_of_routes, request_context
from libs.core.clock import SystemClock
from libs.core.context import Caller, Context, Deadline
from libs.core.errors import CoreError, Forbidden, Unauthenticated
from libs.core.mongo import Mongo
from libs.core.redis import Redis

router = APIRouter()


@router.get("/log")
async def read_log(context: Annotated[Context, Depends(allowed("audit:read"))]) -> str:
    return context.caller.subject


@router.get("/sensitive", dependencies=[Depends(allowed("audit:read", level=2))])
async def sensitive() -> str:
    return "yes"


@router.get("/forgotten")
async def forgotten() -> str:
    return "oh"


@pytest.fixture
async def access(mongo: Mongo, redis: Redis) -> AsyncIterator[Access]:
    async with Access(mongo.core, redis, SystemClock(), poll_s=60) as access:
        yield access


async def get(access: Access, caller: Caller, path: str) -> httpx.Response:
    platform: Any = SimpleNamespace(access=access)
    app = FastAPI()
    app.include_router(router)
    app.dependency_overrides[request_context] = lambda: Context(caller, "c1", Deadline.after(10), platform)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        return await client.get(path)


class TestAllowed:
    async def test_hands_on_the_context_of_who_may(self, access: Access) -> None:
        answer = await get(access, Caller("acme", "op", ("operator",), "s1", "user"), "/log")
        assert answer.json() == "op"

    @pytest.mark.parametrize(
        ("caller", "path", "error"),
        [
            (Caller("acme"), "/log", Unauthenticated),
            (Caller("acme", "ann", ("player",), "s1", "user"), "/log", Forbidden),
            (Caller("acme", "op", ("operator",), "s1", "user", level=1), "/sensitive", Forbidden),
        ],
        ids=["nobody", "player", "level"],
    )
    async def test_refuses_who_may_not(self, access: Access, caller: Caller, path: str, error: type[CoreError]) -> None:
        with pytest.raises(error):
            await get(access, caller, path)

    def test_of_what_is_no_action(self) -> None:
        with pytest.raises(ValueError, match="must name one resource and one action"):
            allowed("audit:*")


def test_policy_of_routes() -> None:
    assert policy_of_routes(router) == {
        "GET /log": ("audit:read",),
        "GET /sensitive": ("audit:read",),
        "GET /forgotten": (),
    }
