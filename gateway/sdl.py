"""Subgraphs' schemas: asked for over HTTP, and kept in MongoDB for a start while one is away."""

import asyncio
from dataclasses import dataclass

import httpx
import orjson

from gateway.settings import Address
from libs.core.errors import Unavailable
from libs.core.http import read
from libs.core.migrations import Index
from libs.core.mongo import Database

COLLECTION = "subgraphs"
INDEXES = (Index(COLLECTION),)

_MAX_BYTES = 5_000_000
_WITHIN_S = 2.0
_SERVICE = b'{"query":"{ _service { sdl } }"}'


@dataclass(frozen=True, slots=True)
class Sdl:
    """A subgraph's schema as it was last told. `etag` is empty where there is none: of a subgraph that is not ours."""

    text: str
    etag: str = ""


async def ask(web: httpx.AsyncClient, address: Address, known: Sdl | None) -> Sdl:
    """What the subgraph says its schema is; `known` itself if it has not changed. `Unavailable`.

    Ours have a route for it. Others are asked as federation has it, with `_service`.
    """
    headers = {"if-none-match": known.etag} if known and known.etag else {}
    status, body, etag = await _exchange(web, web.build_request("GET", address.sdl_url, headers=headers))
    if status == httpx.codes.NOT_MODIFIED and known:
        return known
    if status == httpx.codes.OK:
        return _unless_same(Sdl(_text(address, body), etag), known)
    if status not in (httpx.codes.NOT_FOUND, httpx.codes.METHOD_NOT_ALLOWED, httpx.codes.BAD_REQUEST):
        raise Unavailable(f"{address.name} answered with status {status}")
    request = web.build_request("POST", address.url, content=_SERVICE, headers={"content-type": "application/json"})
    _, body, _ = await _exchange(web, request)
    try:
        text = orjson.loads(body)["data"]["_service"]["sdl"]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        text = None
    if not isinstance(text, str):
        raise Unavailable(f"{address.name} has neither {address.sdl_url} nor _service")
    return _unless_same(Sdl(text), known)


def _unless_same(told: Sdl, known: Sdl | None) -> Sdl:
    return known if known == told else told


def _text(address: Address, body: bytes) -> str:
    try:
        return body.decode()
    except UnicodeDecodeError:
        raise Unavailable(f"the schema of {address.name} is not UTF-8") from None


async def _exchange(web: httpx.AsyncClient, request: httpx.Request) -> tuple[int, bytes, str]:
    request.headers["accept-encoding"] = "identity"
    try:
        async with asyncio.timeout(_WITHIN_S):
            answer = await web.send(request, stream=True)
            try:
                body = await read(answer, _MAX_BYTES)
            finally:
                await answer.aclose()
    except (httpx.HTTPError, httpx.InvalidURL, TimeoutError) as error:
        raise Unavailable(f"{request.url} cannot be asked: {str(error) or type(error).__name__}") from error
    return answer.status_code, body, answer.headers.get("etag", "")


async def load(database: Database) -> dict[str, Sdl]:
    """By name, those of the last set that was good."""
    return {row["_id"]: Sdl(row["sdl"], row["etag"]) async for row in database[COLLECTION].find({})}


async def save(database: Database, sdls: dict[str, Sdl]) -> None:
    """A process that stops in the middle leaves some of this set and some of the one before, all of them good once."""
    for name, sdl in sdls.items():
        values = {"sdl": sdl.text, "etag": sdl.etag}
        await database[COLLECTION].update_one({"_id": name}, {"$set": values}, upsert=True)
    await database[COLLECTION].delete_many({"_id": {"$nin": list(sdls)}})
