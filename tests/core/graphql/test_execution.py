"""Our executor takes short cuts: it must answer as Strawberry's own does, whatever is asked."""

import logging
from collections.abc import Iterator
from typing import Any

import orjson
import pytest
from hypothesis import given, settings, strategies as st
from structlog.testing import capture_logs

from libs.core.context import Caller, Context, Deadline
from libs.core.graphql import Limits
from libs.core.graphql.engine import Request
from libs.core.graphql.errors import RequestRefused
from libs.core.graphql.execution import SchemaEngine
from tests.core.graphql.service import schema

engine = SchemaEngine(schema, Limits(cost=1_000_000, aliases=1_000, depth=100, directives=1_000), development=True)


def context() -> Context:
    platform: Any = None
    return Context(Caller("acme"), "c-1", Deadline.after(30), platform)


async def ours(query: str, variables: dict[str, Any]) -> Any:
    return orjson.loads(await engine.prepare(Request(query, variables, None, {}), context()).execute())


async def theirs(query: str, variables: dict[str, Any]) -> Any:
    return (await schema.execute(query, variables, context())).data


def field(name: str) -> st.SearchStrategy[str]:
    """Perhaps under an alias, perhaps not at all."""
    alias = st.sampled_from(["", "", "x: ", f"my_{name}: "])
    directive = st.sampled_from(["", "", "", " @include(if: $yes)", " @skip(if: $yes)", " @skip(if: false)"])
    return st.builds("{}{}{}".format, alias, st.just(name), directive)


def selection(*fields: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    chosen = st.lists(st.one_of(*fields), min_size=1, max_size=6)
    return chosen.map(lambda names: f"{{ __typename {' '.join(names)} }}")


def nested(name: str, inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.builds("{} {}".format, field(name), inner)


transaction = selection(*map(field, ("id", "currency", "sequence", "__typename")))
plain = [field("id"), field("balance"), field("ownerId"), field("openedAt"), st.just("...Some")]
pages = st.builds("transactions(first: {}) {}".format, st.integers(0, 3), transaction)
wallet = st.recursive(
    selection(*plain),
    lambda inner: selection(*plain, pages, nested("again", inner), inner.map("... on Wallet {}".format)),
    max_leaves=6,
)
roots = st.lists(
    st.one_of(
        field("hello"),
        nested("wallet", wallet),
        nested("wallets", wallet),
        nested("maybeWallet", wallet),
        st.just("...Used"),
    ),
    min_size=1,
    max_size=5,
).map(" ".join)
documents = st.builds(
    "query ($yes: Boolean!) {{ ...Used h: hello @skip(if: $yes) {} }}"
    " fragment Some on Wallet {} fragment Used on Query {{ wallet {{ ...Some }} }}".format,
    roots,
    selection(field("id"), field("balance"), field("openedAt")),
)


@pytest.fixture(autouse=True, scope="module")
def quiet() -> Iterator[None]:
    """Formatting the tracebacks of what goes wrong on purpose takes ten times as long as all the rest."""
    logger = logging.getLogger("strawberry.execution")
    logger.disabled = True
    with capture_logs():
        yield
    logger.disabled = False


@settings(deadline=None, max_examples=100)
@given(documents, st.booleans())
async def test_any_query_is_answered_as_by_strawberry(query: str, yes: bool) -> None:
    expected = await theirs(query, {"yes": yes})
    try:
        answer = await ours(query, {"yes": yes})
    except RequestRefused:  # a document with conflicting aliases, say, is valid to neither
        assert expected is None
    else:
        assert orjson.dumps(answer["data"]) == orjson.dumps(expected)  # in the same order, too


async def test_twice_is_the_same() -> None:
    query = "{ wallets { id balance again { id openedAt } } }"
    assert await ours(query, {}) == await ours(query, {})


async def test_variables_choose_anew_each_time() -> None:
    query = "query ($yes: Boolean!) { hello @include(if: $yes) wallet { id @skip(if: $yes) balance } }"
    for yes in (True, False, True):
        assert (await ours(query, {"yes": yes}))["data"] == await theirs(query, {"yes": yes})
