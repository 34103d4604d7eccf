"""A service as small as one can be, run by `test_app.py` as a process of its own."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

import strawberry
from fastapi import APIRouter, Depends
from strawberry import Info

from libs.core.access import Public
from libs.core.app import Platform, create_app, request_context
from libs.core.context import Context
from libs.core.errors import NotFound
from libs.core.graphql import build_schema
from libs.core.settings import Settings


class TinySettings(Settings):
    service: str = "tiny"


@strawberry.type
class Query:
    @strawberry.field(extensions=[Public()])
    def who(self, info: Info[Context]) -> str:
        return f"{info.context.tenant_id}/{info.context.caller.subject}"

    @strawberry.field(extensions=[Public()])
    async def slow(self, seconds: float) -> str:
        await asyncio.sleep(seconds)
        return "done"


router = APIRouter()


@router.get("/who")
async def who(context: Annotated[Context, Depends(request_context)]) -> dict[str, str]:
    return {"tenant": context.tenant_id, "service": context.service}


@router.get("/things/{thing_id}")
async def thing(thing_id: int) -> None:
    if thing_id == 0:
        raise ZeroDivisionError("a surprise with a secret in it")
    raise NotFound("there is no such thing", id=thing_id)


@asynccontextmanager
async def open_tiny(platform: Platform) -> AsyncIterator[str]:
    yield "what open yielded"


app = create_app(TinySettings.load(), schema=build_schema(Query), routers=[router], open=open_tiny)
