"""What a subgraph is asked, and which of its answers are taken."""

from itertools import islice

import orjson
import pytest

from gateway.federation.http import HttpLimits, HttpTransport
from tests.core.graphql.conftest import serve
from tests.gateway.federation.http.liars import (
    ANSWER,
    OK,
    answer,
    chunked,
    failure,
    request,
    saying,
    serving,
    subgraph,
    unused_url,
)

BODY = orjson.dumps(ANSWER)


class TestRequest:
    async def test_is_one_post_of_the_body_as_it_was_given(self) -> None:
        async with subgraph(serving()) as liar, HttpTransport({"liar": liar.url}) as transport:
            assert await transport.fetch(request(body=b'{"query":"{ hi }","variables":{}}')) == ANSWER
        (asked,) = liar.asked
        assert asked.line == "POST /graphql HTTP/1.1"
        assert asked.body == b'{"query":"{ hi }","variables":{}}'
        assert asked.headers == [
            ("host", liar.url.split("/")[2]),
            ("content-type", "application/json"),
            ("accept", "application/graphql-response+json, application/json"),
            ("content-length", "33"),
        ]

    async def test_has_the_callers_headers(self) -> None:
        headers = {"Authorization": "Bearer t", "x-name": "\xe9\t ~", "empty": ""}
        async with subgraph(serving()) as liar, HttpTransport({"liar": liar.url}) as transport:
            await transport.fetch(request(headers=headers))
        assert liar.asked[0].headers[3:-1] == [("authorization", "Bearer t"), ("x-name", "\xe9\t ~"), ("empty", "")]

    @pytest.mark.parametrize("name", ["Host", "content-length", "Transfer-Encoding", "connection", "accept-encoding"])
    async def test_frames_itself_whatever_the_callers_headers_say(self, name: str) -> None:
        async with subgraph(serving()) as liar, HttpTransport({"liar": liar.url}) as transport:
            await transport.fetch(request(headers={name: "1"}))
        names = [each for each, _ in liar.asked[0].headers]
        assert names == ["host", "content-type", "accept", "content-length"]

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            pytest.param("x", "1\r\nhost: other", id="another header"),
            pytest.param("x", "1\r\n\r\n{}", id="a body"),
            pytest.param("x", "1\nhost: other", id="LF alone"),
            pytest.param("x", "1\rhost: other", id="CR alone"),
            pytest.param("x", "1\0", id="NUL"),
            pytest.param("x", "\u0141", id="no latin-1"),
            pytest.param("x\r\nhost", "other", id="by its name"),
            pytest.param("x: y\r\nhost", "other", id="by a name with a value"),
            pytest.param("host ", "other", id="nearly ours"),
            pytest.param("", "other", id="no name"),
        ],
    )
    async def test_with_a_header_that_would_be_more_than_one_is_not_sent(self, name: str, value: str) -> None:
        async with subgraph(serving()) as liar, HttpTransport({"liar": liar.url}) as transport:
            failed = await failure(transport, request(headers={name: value}))
            assert (failed.code, liar.asked) == ("SUBGRAPH_UNREACHABLE", [])
            assert value not in failed.message
            assert transport.counts()["liar"].in_flight == 0

    @pytest.mark.parametrize(
        ("path", "target"),
        [
            pytest.param("", "/", id="none"),
            pytest.param("/a/b?c=d&e=%20", "/a/b?c=d&e=%20", id="with a query"),
            pytest.param("?c=d", "/?c=d", id="only a query"),
            pytest.param("/a#b", "/a", id="with a fragment"),
        ],
    )
    async def test_goes_to_the_path_of_the_url(self, path: str, target: str) -> None:
        async with subgraph(serving()) as liar:
            async with HttpTransport({"liar": liar.url.removesuffix("/graphql") + path}) as transport:
                await transport.fetch(request())
            assert liar.asked[0].line == f"POST {target} HTTP/1.1"

    async def test_goes_to_an_ipv6_address(self) -> None:
        async with subgraph(serving(), host="::1") as liar, HttpTransport({"liar": liar.url}) as transport:
            assert await transport.fetch(request()) == ANSWER
        assert dict(liar.asked[0].headers)["host"].startswith("[::1]:")

    async def test_to_nobody(self) -> None:
        async with HttpTransport({"liar": unused_url()}) as transport:
            assert (await failure(transport)).code == "SUBGRAPH_UNREACHABLE"

    @pytest.mark.parametrize("host", ["nobody.invalid", "a" * 64, "a..b"])
    async def test_to_a_name_that_nobody_has(self, host: str) -> None:
        async with HttpTransport({"liar": f"http://{host}/"}) as transport:
            assert (await failure(transport)).code == "SUBGRAPH_UNREACHABLE"

    async def test_to_a_subgraph_that_is_not_known(self) -> None:
        async with HttpTransport({}) as transport:
            assert (await failure(transport)).code == "SUBGRAPH_UNREACHABLE"

    @pytest.mark.parametrize(
        "url",
        [
            pytest.param("ftp://host/", id="another scheme"),
            pytest.param("/graphql", id="no host"),
            pytest.param("http://host:port/", id="no port"),
            pytest.param("http://user:secret@host/", id="a password, which would be ignored"),
            pytest.param("http://host/a b", id="a space, which would end the target"),
            pytest.param("http://host/\u0141", id="characters that are not encoded"),
            pytest.param("http://ho st/", id="a space in the host"),
        ],
    )
    async def test_to_what_is_no_url(self, url: str) -> None:
        with pytest.raises(ValueError):
            HttpTransport({"liar": url})


class TestAnswer:
    @pytest.mark.parametrize(
        "said",
        [
            pytest.param(answer(), id="of a length"),
            pytest.param(OK + b"\r\n" + BODY, id="until the end"),
            pytest.param(b"HTTP/1.0 200 OK\r\n\r\n" + BODY, id="of HTTP 1.0"),
            pytest.param(OK + b"Transfer-Encoding: chunked\r\n\r\n" + chunked(BODY[:5], BODY[5:], b""), id="in chunks"),
            pytest.param(
                OK + b"transfer-encoding: chunked\r\n\r\n" + chunked(BODY) + b"0\r\ndigest: x\r\n\r\n",
                id="with trailers",
            ),
            pytest.param(
                b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" + answer(), id="after hints"
            ),
            pytest.param(answer(head=b"content-encoding: identity\r\n"), id="expressly not compressed"),
            pytest.param(answer(head=b"content-type: text/plain\r\n"), id="of another type"),
            pytest.param(answer(b" \r\n" + BODY + b"\n"), id="with space around"),
        ],
    )
    @pytest.mark.parametrize("piece", [1, 7, 100_000])
    async def test_arrives_however_it_is_sent(self, said: bytes, piece: int) -> None:
        pieces = [said[n : n + piece] for n in range(0, len(said), piece)]
        async with subgraph(saying(*pieces)) as liar, HttpTransport({"liar": liar.url}) as transport:
            assert await transport.fetch(request()) == ANSWER

    @pytest.mark.parametrize("status", [200, 203, 302, 400, 401, 404, 422, 429, 500, 502, 503])
    async def test_of_graphql_counts_whatever_its_status(self, status: int) -> None:
        errors = {"errors": [{"message": "no"}]}
        said = answer(errors, status=status)
        async with subgraph(serving(said)) as liar, HttpTransport({"liar": liar.url}) as transport:
            assert await transport.fetch(request()) == errors

    async def test_that_is_large(self) -> None:
        large = {"data": {"hello": ["x" * 1000] * 5000}}
        async with subgraph(serving(answer(large))) as liar, HttpTransport({"liar": liar.url}) as transport:
            assert await transport.fetch(request()) == large

    async def test_that_is_large_in_small_chunks(self) -> None:
        large = {"data": {"hello": "x" * 100_000}}
        text = iter(orjson.dumps(large))
        said = OK + b"transfer-encoding: chunked\r\n\r\n"
        while piece := bytes(islice(text, 3)):
            said += chunked(piece)
        async with subgraph(serving(said + chunked(b""))) as liar, HttpTransport({"liar": liar.url}) as transport:
            assert await transport.fetch(request()) == large

    async def test_just_as_large_as_allowed(self) -> None:
        said, limits = answer(BODY + b" " * (1000 - len(BODY))), HttpLimits(max_response_bytes=1000)
        async with subgraph(serving(said)) as liar, HttpTransport({"liar": liar.url}, limits=limits) as transport:
            assert await transport.fetch(request()) == ANSWER

    async def test_of_a_real_server(self) -> None:
        async with serve() as served, HttpTransport({"core": served.url}) as transport:
            for _ in range(3):
                response = await transport.fetch(request("core", headers={"authorization": "Bearer alice"}))
                assert response == ANSWER
            refused = await transport.fetch(request("core", body=b'{"query":"{ nothing }"}'))
            assert refused["errors"][0]["extensions"]["code"]
            assert transport.counts()["core"].connections == 1
