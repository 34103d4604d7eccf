import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any

import httpx
import orjson
import pytest
from starlette.datastructures import Headers
from starlette.types import Scope

from libs.core.context import Context
from libs.core.errors import Unauthenticated
from libs.core.graphql import GraphQLEndpoint
from tests.core.graphql import service
from tests.core.graphql.conftest import Post, Served, serve
from tests.core.graphql.service import endpoint
from tests.web import web

JSON = "application/json"
GRAPHQL_JSON = "application/graphql-response+json"
MODERN = {"accept": GRAPHQL_JSON}


def code(response: httpx.Response) -> str:
    (error,) = response.json()["errors"]
    return str(error["extensions"]["code"])


async def request(method: str, url: str = "/graphql", **options: Any) -> httpx.Response:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(endpoint()), base_url="http://test") as client:
        return await client.request(method, url, **options)


class TestPost:
    async def test_a_query(self, post: Post) -> None:
        response = await post("{ hello }")
        assert response.json() == {"data": {"hello": "world"}}

    async def test_big_numbers_survive_as_strings(self, post: Post) -> None:
        response = await post(
            "mutation ($a: BigInt!) { pay(amount: $a) { ... on Wallet { balance } } }", variables={"a": "7"}
        )
        assert response.json()["data"]["pay"]["balance"] == "7"

    async def test_a_refusal_is_data(self, post: Post) -> None:
        response = await post('mutation { pay(amount: "101") { ... on Problem { code rule details } } }')
        problem = {"code": "INSUFFICIENT_FUNDS", "rule": "balance", "details": {"available": str(2**60)}}
        assert response.json() == {"data": {"pay": problem}}

    @pytest.mark.parametrize("amount", ['"-1"', '"1.5"', '"9223372036854775808"', '"1e3"', "1.0", "true", '""', '"٣"'])
    async def test_a_malformed_amount_reaches_no_resolver(self, post: Post, amount: str) -> None:
        response = await post(f"mutation {{ pay(amount: {amount}) {{ __typename }} }}", headers=MODERN)
        assert response.status_code == 400
        assert code(response) == "GRAPHQL_VALIDATION_FAILED"

    async def test_variables_that_do_not_fit(self, post: Post) -> None:
        query = "mutation ($a: BigInt!) { pay(amount: $a) { __typename } }"
        response = await post(query, variables={"a": {"$ne": 0}}, headers=MODERN)
        assert (response.status_code, code(response)) == (400, "BAD_USER_INPUT")

    async def test_several_operations_and_no_name(self, post: Post) -> None:
        response = await post("query A { hello } query B { hello }", headers=MODERN)
        assert (response.status_code, code(response)) == (400, "OPERATION_RESOLUTION_FAILURE")

    async def test_the_named_one_of_several(self, post: Post) -> None:
        response = await post("query A { hello } query B { b: hello }", operationName="B")
        assert response.json() == {"data": {"b": "world"}}

    async def test_an_unknown_name(self, post: Post) -> None:
        response = await post("query A { hello }", operationName="C", headers=MODERN)
        assert (response.status_code, code(response)) == (400, "OPERATION_RESOLUTION_FAILURE")

    async def test_batches_are_refused(self) -> None:
        response = await request("POST", json=[{"query": "{ hello }"}])
        assert (response.status_code, code(response)) == (400, "BAD_USER_INPUT")

    async def test_a_subscription_needs_a_stream(self, post: Post) -> None:
        assert (await post("subscription { count }")).status_code == 406

    async def test_no_content_type(self) -> None:
        assert (await request("POST", content=b'{"query": "{ hello }"}')).status_code == 415

    @pytest.mark.parametrize(
        "kind", ["text/plain", "application/graphql", "multipart/form-data", "application/json; charset=latin-1"]
    )
    async def test_other_content_types(self, kind: str) -> None:
        response = await request("POST", content=b'{"query": "{ hello }"}', headers={"content-type": kind})
        assert (response.status_code, code(response)) == (415, "UNSUPPORTED_MEDIA_TYPE")

    @pytest.mark.parametrize("body", [b"", b"{", b"\xff\xfe", b'{"query": "\xff"}', b'"query"', b"[" * 100_000])
    async def test_what_is_not_a_request(self, body: bytes) -> None:
        response = await request("POST", content=body, headers={"content-type": "application/json"})
        assert (response.status_code, code(response)) == (400, "BAD_USER_INPUT")

    async def test_nothing_we_speak_is_accepted(self) -> None:
        response = await request("POST", json={"query": "{ hello }"}, headers={"accept": "text/html"})
        assert (response.status_code, code(response)) == (406, "NOT_ACCEPTABLE")

    @pytest.mark.parametrize(
        ("accept", "expected"),
        [
            ("application/graphql-response+json, application/json;q=0.9", GRAPHQL_JSON),
            ("application/json, application/graphql-response+json;q=0.9", "application/json"),
            ("text/html, application/xhtml+xml, */*;q=0.8", "application/json"),
            ("application/graphql-response+json;q=0, application/json", "application/json"),
        ],
    )
    async def test_the_preferred_media_type(self, post: Post, accept: str, expected: str) -> None:
        response = await post("{ hello }", headers={"accept": accept})
        assert response.headers["content-type"] == f"{expected}; charset=utf-8"


class TestGet:
    async def test_a_query(self) -> None:
        url = httpx.URL(
            "/graphql", params={"query": "query ($i: String!) { wallet(called: $i) { id } }", "variables": '{"i": "ü"}'}
        )
        assert (await request("GET", str(url))).json() == {"data": {"wallet": {"id": "ü"}}}

    async def test_it_never_mutates(self) -> None:
        response = await request("GET", '/graphql?query=mutation{payn:pay(amount:"1"){__typename}}')
        assert (response.status_code, response.headers["allow"]) == (405, "POST")

    @pytest.mark.parametrize(("development", "expected"), [(True, "text/html"), (False, "application/json")])
    async def test_a_browser_gets_graphiql_in_development(self, development: bool, expected: str) -> None:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(endpoint(development=development))) as client:
            response = await client.get("http://test/graphql", headers={"accept": "text/html,*/*;q=0.8"})
        assert response.headers["content-type"].partition(";")[0] == expected

    async def test_malformed_variables(self) -> None:
        response = await request("GET", "/graphql?query={hello}&variables={")
        assert (response.status_code, code(response)) == (400, "BAD_USER_INPUT")


@pytest.mark.parametrize("method", ["PATCH", "OPTIONS", "HEAD", "DELETE"])
async def test_other_methods(method: str) -> None:
    response = await request(method)
    assert (response.status_code, response.headers["allow"]) == (405, "GET, POST")


class TestErrors:
    async def test_ours_keep_code_and_details(self, post: Post) -> None:
        response = await post('{ fails(how: "input") }')
        assert response.json()["errors"] == [
            {
                "message": "that is wrong",
                "extensions": {"code": "BAD_USER_INPUT", "details": {"field": "how", "amount": str(10**30)}},
                "locations": [{"line": 1, "column": 3}],
                "path": ["fails"],
            }
        ]

    async def test_surprises_are_masked(self, post: Post) -> None:
        response = await post('{ fails(how: "boom") hello }')
        assert "hunter2" not in response.text
        assert code(response) == "INTERNAL"
        assert response.json()["data"] == {"fails": None, "hello": "world"}

    @pytest.mark.parametrize(("how", "said"), [("away", "UNAVAILABLE"), ("unknown", "UNKNOWN")])
    async def test_a_database_that_does_not_answer(self, post: Post, how: str, said: str) -> None:
        response = await post(f'{{ fails(how: "{how}") }}')
        assert "27017" not in response.text
        assert code(response) == said

    async def test_a_result_that_breaks_its_type_is_masked(self, post: Post) -> None:
        response = await post("{ maybeWallet { balance } }")
        assert "not an integer" not in response.text
        assert (response.json()["data"], code(response)) == ({"maybeWallet": None}, "INTERNAL")

    async def test_so_is_one_that_json_cannot_carry(self, post: Post) -> None:
        response = await post("{ unspeakable }")
        assert (response.status_code, code(response)) == (500, "INTERNAL")

    async def test_so_is_one_of_a_type_that_it_may_not_be(self, post: Post) -> None:
        response = await post("{ neither { __typename } }")
        assert "hunter2" not in response.text
        assert code(response) == "INTERNAL"

    async def test_a_null_variable_where_its_default_let_it_through(self, post: Post) -> None:
        query = 'mutation ($a: BigInt = "1") { pay(amount: $a) { __typename } }'
        assert code(await post(query, variables={"a": None})) == "BAD_USER_INPUT"

    async def test_a_null_that_may_not_be_is_masked_and_takes_its_object_along(self, post: Post) -> None:
        response = await post("{ maybeWallet { id } hello }")
        assert response.json()["data"] == {"maybeWallet": None, "hello": "world"}
        assert code(response) == "INTERNAL"

    async def test_no_token_that_is_accepted(self, post: Post) -> None:
        response = await post("{ hello }", headers={"authorization": "Bearer bad"})
        assert (response.status_code, code(response)) == (401, "UNAUTHENTICATED")
        assert response.headers["www-authenticate"] == "Bearer"

    async def test_suggestions_and_introspection_only_in_development(self, post: Post) -> None:
        production = {"development": False}
        assert "Did you mean" in (await post("{ helo }")).text
        assert "Did you mean" not in (await post("{ helo }", limits=production)).text
        assert "errors" not in (await post("{ __schema { types { name } } }")).json()
        for hidden in ("{ __schema { types { name } } }", '{ __type(name: "Query") { name } }', "{ _service { sdl } }"):
            assert "data" not in (await post(hidden, limits=production)).json()

    async def test_the_correlation_id_comes_back(self, post: Post) -> None:
        response = await post('{ fails(how: "boom") }', headers={"x-correlation-id": "c-77"})
        assert response.headers["x-correlation-id"] == "c-77"

    async def test_past_the_deadline(self, post: Post) -> None:
        response = await post("{ slow }", headers={"x-timeout-s": "0.05"})
        assert (response.status_code, code(response)) == (504, "DEADLINE_EXCEEDED")

    async def test_what_a_mutation_did_by_the_deadline_is_unknown(self, post: Post) -> None:
        response = await post("mutation { paySlowly }", headers={"x-timeout-s": "0.05"})
        assert (response.status_code, code(response)) == (503, "UNKNOWN")


class TestEntities:
    QUERY = "query ($r: [_Any!]!) { _entities(representations: $r) { ... on Wallet { id balance } } }"

    async def test_in_their_order_and_null_where_hidden(self, post: Post) -> None:
        wanted = [{"__typename": "Wallet", "id": i} for i in ("b", "hidden", "a")]
        found = (await post(self.QUERY, variables={"r": wanted})).json()["data"]["_entities"]
        assert found == [{"id": "b", "balance": "5"}, None, {"id": "a", "balance": "5"}]

    @pytest.mark.parametrize("wrong", ["Transaction", "Query", "Nothing", None, {"$ne": 1}])
    async def test_only_entities_can_be_referred_to(self, post: Post, wrong: Any) -> None:
        response = await post(self.QUERY, variables={"r": [{"__typename": wrong, "id": "a"}]})
        assert code(response) == "BAD_USER_INPUT"

    async def test_a_reference_without_its_key_is_no_surprise(self, post: Post) -> None:
        response = await post(self.QUERY, variables={"r": ["Wallet"]})
        assert code(response) == "BAD_USER_INPUT"


class TestConnection:
    """Through a real socket, by hand: what a well-behaved HTTP client would not send."""

    HEAD = b"POST /graphql HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"

    async def say(self, served: Served, *pieces: bytes) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
        for piece in pieces:
            writer.write(piece)
        answer = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
        writer.close()
        return answer

    async def test_a_body_announced_as_too_large_is_not_read(self, served: Served) -> None:
        answer = await self.say(served, self.HEAD + b"content-length: 10000000\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 413")

    async def test_a_body_that_does_not_end_is_cut_off(self, served: Served) -> None:
        chunk = b"10000\r\n" + b" " * 65536 + b"\r\n"
        answer = await self.say(served, self.HEAD + b"transfer-encoding: chunked\r\n\r\n", *[chunk] * 16)
        assert answer.startswith(b"HTTP/1.1 413")

    async def test_ten_megabytes_get_an_answer_and_not_a_reset(self, served: Served) -> None:
        async with web() as client:
            response = await client.post(served.url, json={"query": "#" * 10_000_000})
            assert response.status_code == 413
            assert (await client.post(served.url, json={"query": "{ hello }"})).status_code == 200

    async def test_a_body_that_comes_too_slowly(self) -> None:
        async with serve(body_timeout_s=0.1) as served:
            answer = await self.say(served, self.HEAD + b"content-length: 20\r\n\r\n{")
            assert answer.startswith(b"HTTP/1.1 408")

    @pytest.mark.parametrize(("accept", "wait_s"), [(GRAPHQL_JSON, 0.3), ("text/event-stream", 0.0)])
    async def test_a_token_that_is_revoked_while_the_body_comes(self, accept: str, wait_s: float) -> None:
        revoked = False

        async def context(scope: Scope, headers: Headers, params: Mapping[str, Any] | None) -> Context:
            if revoked:
                raise Unauthenticated("the session is revoked")
            return await service.context(scope, headers, params)

        async def body() -> AsyncIterator[bytes]:
            nonlocal revoked
            yield b'{"query": '
            await asyncio.sleep(wait_s)
            revoked = True
            yield b'"{ hello }"}'

        app = GraphQLEndpoint(service.schema, context)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
            headers = {"accept": accept, "content-type": JSON}
            assert (await client.post("/graphql", content=body(), headers=headers)).status_code == 401

    async def test_a_client_that_leaves_in_the_middle(self, served: Served) -> None:
        _, writer = await asyncio.open_connection("127.0.0.1", served.port)
        writer.write(self.HEAD + b"content-length: 20\r\n\r\n{")
        writer.close()
        async with web() as client:
            assert (await client.post(served.url, json={"query": "{ hello }"})).status_code == 200

    async def test_one_slow_request_does_not_hold_up_another(self, served: Served) -> None:
        async with web() as client:
            slow = asyncio.create_task(client.post(served.url, json={"query": "{ slow }"}))
            began = time.monotonic()
            assert orjson.loads((await client.post(served.url, json={"query": "{ hello }"})).content)
            assert time.monotonic() - began < 2
            slow.cancel()
