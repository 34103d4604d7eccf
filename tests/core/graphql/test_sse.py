import asyncio
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import httpx
import orjson
import pytest

from libs.core.testing import eventually
from tests.core.graphql.conftest import Served, serve
from tests.core.graphql.service import running
from tests.web import web

STREAM = {"accept": "text/event-stream"}
ANNA = {"authorization": "Bearer anna"}
TICKS = 'subscription { ticks(name: "%s") { id } }'


@pytest.fixture
async def client(served: Served) -> AsyncIterator[httpx.AsyncClient]:
    async with web(base_url=served.url, timeout=5) as client:
        yield client


async def events(response: httpx.Response) -> AsyncIterator[tuple[str, Any]]:
    """Name and data of each event, keep-alives skipped."""
    event = ""
    async for line in response.aiter_lines():
        field, _, value = line.partition(": ")
        if field == "event":
            event = value
        elif field.startswith("data"):
            yield event, orjson.loads(value) if value else None


async def all_events(client: httpx.AsyncClient, query: str, **headers: str) -> list[tuple[str, Any]]:
    async with client.stream("POST", "", json={"query": query}, headers=STREAM | headers) as response:
        assert (response.status_code, response.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
        return [event async for event in events(response)]


class TestDistinct:
    async def test_every_event_then_complete(self, client: httpx.AsyncClient) -> None:
        assert await all_events(client, "subscription { count(to: 2) }") == [
            ("next", {"data": {"count": 1}}),
            ("next", {"data": {"count": 2}}),
            ("complete", None),
        ]

    async def test_queries_too(self, client: httpx.AsyncClient) -> None:
        assert await all_events(client, "{ hello }") == [("next", {"data": {"hello": "world"}}), ("complete", None)]

    async def test_an_invalid_document_is_an_event(self, client: httpx.AsyncClient) -> None:
        (name, data), complete = await all_events(client, "subscription { unknown }")
        assert (name, data["errors"][0]["extensions"]["code"]) == ("next", "GRAPHQL_VALIDATION_FAILED")
        assert complete == ("complete", None)

    async def test_a_source_that_breaks_is_masked(self, client: httpx.AsyncClient) -> None:
        heard = await all_events(client, "subscription { breaks }")
        assert heard[1][1]["errors"][0]["extensions"]["code"] == "INTERNAL"
        assert "hunter2" not in str(heard)

    async def test_a_get_never_mutates(self, client: httpx.AsyncClient) -> None:
        query = {"query": 'mutation { pay(amount: "1") { __typename } }'}
        async with client.stream("GET", "", params=query, headers=STREAM) as response:
            (_, data), _complete = [event async for event in events(response)]
        assert data["errors"][0]["extensions"]["code"] == "METHOD_NOT_ALLOWED"

    async def test_no_token_that_is_accepted(self, client: httpx.AsyncClient) -> None:
        headers = STREAM | {"authorization": "Bearer bad"}
        response = await client.post("", json={"query": "{ hello }"}, headers=headers)
        assert response.status_code == 401

    async def test_a_client_that_leaves_stops_the_resolver(self, client: httpx.AsyncClient) -> None:
        async with client.stream("POST", "", json={"query": TICKS % "sse-left"}, headers=STREAM) as response:
            assert await anext(events(response))
        await eventually(lambda: "sse-left" not in running)

    async def test_a_token_that_expires_completes_the_stream(self, client: httpx.AsyncClient) -> None:
        heard = await all_events(client, TICKS % "sse-expires", authorization="Bearer anna:0.2")
        assert heard[-2:] == [
            ("next", {"errors": [{"message": "the token expired", "extensions": {"code": "UNAUTHENTICATED"}}]}),
            ("complete", None),
        ]
        assert "sse-expires" not in running

    async def test_a_revoked_session_and_a_stopping_server_complete_it(
        self, client: httpx.AsyncClient, served: Served
    ) -> None:
        revoke, stop = partial(served.endpoint.end_session, "session-anna"), served.endpoint.stop
        for user, name, end, code in (
            ("anna", "revoked", revoke, "UNAUTHENTICATED"),
            ("ben", "stopped", stop, "UNAVAILABLE"),
        ):
            authorization = f"Bearer {user}"
            listening = asyncio.create_task(all_events(client, TICKS % name, authorization=authorization))
            await eventually(lambda: name in running or listening.done())  # noqa: B023  asked for in this round alone
            end()
            (_, why), last = (await listening)[-2:]
            assert (why["errors"][0]["extensions"]["code"], last) == (code, ("complete", None))

    async def test_silence_is_kept_alive(self) -> None:
        async with serve(keepalive_s=0.02) as served, web() as client:
            headers = STREAM | {"x-timeout-s": "0.3"}
            async with client.stream("POST", served.url, json={"query": "{ slow }"}, headers=headers) as response:
                text = (await response.aread()).decode()
        assert text.startswith(":\n\n")


class TestSingleConnection:
    async def reserve(self, client: httpx.AsyncClient, **headers: str) -> dict[str, str]:
        response = await client.put("", headers=ANNA | headers)
        assert response.status_code == 201
        return {"x-graphql-event-stream-token": response.text}

    async def operate(self, client: httpx.AsyncClient, query: str, operation: str, **headers: str) -> int:
        body = {"query": query, "extensions": {"operationId": operation}}
        return (await client.post("", json=body, headers=ANNA | headers)).status_code

    async def test_results_come_over_the_one_stream(self, client: httpx.AsyncClient) -> None:
        token = await self.reserve(client)
        assert await self.operate(client, "subscription { count(to: 1) }", "a", **token) == 202
        async with client.stream("GET", "", headers=STREAM | ANNA | token) as response:
            stream = events(response)
            assert await anext(stream) == ("next", {"id": "a", "payload": {"data": {"count": 1}}})
            assert await anext(stream) == ("complete", {"id": "a"})
            assert await self.operate(client, "{ hello }", "b", **token) == 202
            assert await anext(stream) == ("next", {"id": "b", "payload": {"data": {"hello": "world"}}})

    async def test_deleting_stops_the_resolver(self, client: httpx.AsyncClient) -> None:
        token = await self.reserve(client)
        await self.operate(client, TICKS % "deleted", "a", **token)
        await eventually(lambda: "deleted" in running)
        assert (await client.delete("", params={"operationId": "a"}, headers=ANNA | token)).status_code == 200
        await eventually(lambda: "deleted" not in running)

    async def test_a_stream_that_is_left_takes_its_operations_along(self, client: httpx.AsyncClient) -> None:
        token = await self.reserve(client)
        async with client.stream("GET", "", headers=STREAM | ANNA | token):
            await self.operate(client, TICKS % "abandoned", "a", **token)
            await eventually(lambda: "abandoned" in running)
        await eventually(lambda: "abandoned" not in running)
        assert await self.operate(client, "{ hello }", "b", **token) == 404

    async def test_one_stream_a_reservation(self, client: httpx.AsyncClient) -> None:
        token = await self.reserve(client)
        async with client.stream("GET", "", headers=STREAM | ANNA | token):
            assert (await client.get("", headers=STREAM | ANNA | token)).status_code == 409

    async def test_an_id_that_is_in_use(self, client: httpx.AsyncClient) -> None:
        token = await self.reserve(client)
        assert await self.operate(client, TICKS % "in-use", "a", **token) == 202
        assert await self.operate(client, TICKS % "in-use", "a", **token) == 409

    async def test_what_is_invalid_is_answered_at_once(self, client: httpx.AsyncClient) -> None:
        modern = await self.reserve(client) | {"accept": "application/graphql-response+json"}
        assert await self.operate(client, "{ unknown }", "a", **modern) == 400

    async def test_an_operation_needs_an_id(self, client: httpx.AsyncClient) -> None:
        token = await self.reserve(client)
        assert await self.operate(client, "{ hello }", "", **token) == 400

    async def test_it_is_the_callers_alone(self, client: httpx.AsyncClient) -> None:
        token = await self.reserve(client)
        ben = token | {"authorization": "Bearer ben"}
        assert (await client.get("", headers=STREAM | ben)).status_code == 404
        assert (await client.delete("", params={"operationId": "a"}, headers=ben)).status_code == 404
        assert (await client.post("", json={"query": "{ hello }"}, headers=ben)).status_code == 404

    async def test_nobody_unknown_may_reserve(self, client: httpx.AsyncClient) -> None:
        assert (await client.put("")).status_code == 401

    async def test_a_reservation_that_is_not_used_expires(self) -> None:
        async with serve(reservation_s=0.05) as served, web(base_url=served.url) as client:
            token = await self.reserve(client)
            await self.operate(client, TICKS % "unused", "a", **token)
            await eventually(lambda: "unused" not in running)
            assert await self.operate(client, "{ hello }", "b", **token) == 404

    async def test_too_many_reservations(self) -> None:
        async with serve(reservations_per_caller=1) as served, web(base_url=served.url) as client:
            await self.reserve(client)
            response = await client.put("", headers=ANNA)
            assert (response.status_code, response.headers["retry-after"]) == (429, "30")
