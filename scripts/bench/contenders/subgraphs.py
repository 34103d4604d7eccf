"""Two subgraphs that cost next to nothing, and one that never answers, for the gateway's benchmark: plain ASGI.

python -m uvicorn scripts.bench.contenders.subgraphs:products
"""

import asyncio
from collections.abc import Callable
from typing import Any

import orjson
from starlette.types import Receive, Scope, Send

LINK = 'extend schema @link(url: "https://specs.apollo.dev/federation/v2.9", import: ["@key"])\n'
PRODUCTS = """type Query { products: [Product!]! entries: [Entry!]! }
type Product @key(fields: "id") { id: ID! name: String! }
type Entry { id: ID! walletId: ID! direction: String! bucket: String! amount: String! balanceAfter: String!
  sequence: Int! createdAt: String! }"""
REVIEWS = """type Product @key(fields: "id") { id: ID! stars: Int! }"""
STALLED = """type Query { never: Int }"""

_PRODUCTS = [{"id": str(n), "name": f"product {n}"} for n in range(20)]
_ENTRIES = [
    {
        "id": f"0190a7c4-0000-7000-8000-{n:012}",
        "walletId": "0190a7c4-1111-7000-8000-000000000000",
        "direction": "credit",
        "bucket": "real",
        "amount": str(100 + n),
        "balanceAfter": str(100_000 + n),
        "sequence": n,
        "createdAt": f"2026-03-01T12:00:{n:02}+00:00",
    }
    for n in range(50)
]

App = Callable[[Scope, Receive, Send], Any]


def _app(sdl: str, answer: Callable[[dict[str, Any]], Any]) -> App:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/graphql/sdl":
            await _respond(send, (LINK + sdl).encode(), b"text/plain")
            return
        body = b""
        while True:
            message = await receive()
            body += message["body"]
            if not message.get("more_body"):
                break
        data = answer(orjson.loads(body)) if body else {}
        if data is None:
            await asyncio.Event().wait()
        await _respond(send, orjson.dumps({"data": data}), b"application/json")

    return app


async def _respond(send: Send, body: bytes, kind: bytes) -> None:
    headers = [(b"content-type", kind), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _products(request: dict[str, Any]) -> Any:
    return {"entries": _ENTRIES} if "entries" in request["query"] else {"products": _PRODUCTS}


def _reviews(request: dict[str, Any]) -> Any:
    asked = request["variables"]["representations"]
    return {"_entities": [{"__typename": "Product", "id": each["id"], "stars": 5} for each in asked]}


products = _app(PRODUCTS, _products)
reviews = _app(REVIEWS, _reviews)
stalled = _app(STALLED, lambda _: None)
