"""Documents that attack. Each must be answered with its own error, in bounded time, before anything is executed."""

import time
from typing import Any

import pytest
from graphql import get_introspection_query
from hypothesis import given, strategies as st

from libs.core.graphql import LimitExceeded, Limits
from libs.core.graphql.documents import Documents
from libs.core.graphql.errors import RequestRefused
from libs.core.graphql.limits import check_variables
from tests.core.graphql.conftest import Post
from tests.core.graphql.service import schema

# Twenty times what the slowest takes on an idle machine.
BOUNDED_S = 1.5


def times(count: int, text: str) -> str:
    """`text` once for each number, which stands for `#` in it."""
    return " ".join(text.replace("#", str(n)) for n in range(count))


def root(selection: str) -> str:
    return f"{{ {selection} }}"


def wallet(selection: str) -> str:
    return root(f"wallet {{ {selection} }}")


def again(selection: str) -> str:
    return f"again {{ {selection} }}"


def chain(length: int, body: str) -> str:
    """Fragments of which each has the next where its body says `…`."""
    links = [f"fragment F{n} on Wallet {{ {body.replace('…', f'...F{n + 1}')} }}" for n in range(length)]
    return " ".join([*links, f"fragment F{length} on Wallet {{ id }}"])


PAGE = "transactions(first: 100) { id amount walletId direction currency bucket sequence }"
LIMIT, INVALID, SYNTAX = "LIMIT_EXCEEDED", "GRAPHQL_VALIDATION_FAILED", "GRAPHQL_PARSE_FAILED"
ATTACKS = {
    "2,000 aliases": (root(times(2_000, "a#: hello")), LIMIT),
    "600 aliases": (root(times(600, "a#: hello")), LIMIT),
    "16 aliases": (wallet(times(16, "a#: id")), LIMIT),
    "aliases through fragments": ("{ wallet { ...F0 } }" + chain(4, "a: again { … } b: again { … }"), LIMIT),
    "deep": (wallet("again { " * 50 + "id" + " }" * 50), LIMIT),
    "too deep for the parser": (wallet("again { " * 250 + "id" + " }" * 250), LIMIT),
    "deep through fragments": ("{ wallet { ...F0 } }" + chain(20, "again { … }"), LIMIT),
    "deep without fields": ("{ wallet { ...F0 } }" + chain(180, "... { … }"), LIMIT),
    "a fragment that contains itself": ("{ wallet { ...A } } fragment A on Wallet { ...A }", LIMIT),
    "fragments that contain each other": (
        "{ wallet { ...A } } fragment A on Wallet { again { ...B } } fragment B on Wallet { ...A }",
        LIMIT,
    ),
    "such fragments, not used": ("{ hello } fragment A on Query { ...B } fragment B on Query { ...A }", INVALID),
    "exponential fragments": ("{ wallet { ...F0 } }" + chain(100, "… …"), LIMIT),
    "pages beside pages": (wallet(times(15, f"t#: {PAGE}")), LIMIT),
    "directives": (root("hello " + times(200, "@include(if: true)")), LIMIT),
    "root fields": (root(times(500, "hello")), LIMIT),
    "one field again and again": (wallet(times(900, "id")), LIMIT),
    "objects to merge": (wallet(times(350, "again { id }")), LIMIT),
    "objects of objects to merge": (wallet(times(20, again(times(10, again("id"))))), LIMIT),
    "fragments to merge": (
        wallet(times(60, "...F#")) + times(60, "fragment F# on Wallet { again { id } again { id } }"),
        LIMIT,
    ),
    "many operations on one large fragment": (
        times(200, "query Q# { ...F }") + "fragment F on Query { wallet { %s } }".replace("%s", times(600, "id")),
        LIMIT,
    ),
    "many operations": (times(300, "query Q# { hello wallet { id } }"), LIMIT),
    "unknown fields": (wallet(times(900, "x#")), INVALID),
    "undefined variables": (wallet(times(150, "transactions(first: $x) { id }")), INVALID),
    "unused variables": ("query (" + times(400, "$v#: Int") + ") { hello }", INVALID),
    "comments": ("#\n" * 10_000 + "{ hello }", LIMIT),
    "a long name": (root("a" * 32_000), INVALID),
    "a long number": (wallet("transactions(first: " + "9" * 30_000 + ") { id }"), INVALID),
    "a long document": ("{ hello }" + " " * 40_000, LIMIT),
    "brackets": ("[" * 1_900, SYNTAX),
    "nothing": ("", SYNTAX),
    "NUL": ("{ hello \0 }", SYNTAX),
}


@pytest.mark.parametrize("name", ATTACKS)
async def test_attacks(post: Post, name: str) -> None:
    query, code = ATTACKS[name]
    began = time.monotonic()
    response = await post(query, headers={"accept": "application/graphql-response+json"})
    assert time.monotonic() - began < BOUNDED_S
    assert (response.status_code, response.json()["errors"][0]["extensions"]["code"]) == (400, code)
    assert len(response.content) < 100_000


async def test_what_a_limit_says(post: Post) -> None:
    (error,) = (await post(wallet(times(16, "a#: id")))).json()["errors"]
    assert error["extensions"]["details"] == {"limit": "aliases", "allowed": 15, "asked": 16}


class TestCost:
    # 104 fields on each transaction: with a hundred of them just too much.
    FIELDS = "id amount walletId direction currency bucket sequence balanceAfter " * 13
    QUERY = f"query ($n: Int = 100) {{ wallets {{ transactions(first: $n) {{ {FIELDS} }} }} }}"

    async def test_page_sizes_from_variables_count(self, post: Post) -> None:
        assert "errors" not in (await post(self.QUERY, variables={"n": 5})).json()
        assert "cost" in (await post(self.QUERY, variables={"n": 100})).text

    async def test_so_do_their_defaults(self, post: Post) -> None:
        assert "cost" in (await post(self.QUERY)).text

    @pytest.mark.parametrize(("count", "refused"), [(40, False), (60, True)])
    async def test_each_entity_counts(self, post: Post, count: int, refused: bool) -> None:
        wanted = [{"__typename": "Wallet", "id": "w1"}] * count
        literal = ", ".join(['{__typename: "Wallet", id: "w1"}'] * count)
        query = "%s { _entities(representations: %s) { ... on Wallet { transactions(first: 100) { id amount } } } }"
        by_variable = await post(query % ("query ($r: [_Any!]!)", "$r"), variables={"r": wanted})
        for response in (by_variable, await post(query % ("", f"[{literal}]"))):
            assert ("cost" in response.text) == refused

    async def test_a_document_that_was_affordable_once_is_weighed_again(self) -> None:
        documents = Documents(schema._schema, Limits(), development=False)
        for size, affordable in ((5, True), (100, False), (6, True), (99, False)):
            operation = documents.get(self.QUERY).operation(None)
            values = operation.coerce(schema._schema, {"n": size}, hide_suggestions=True)
            if affordable:
                operation.check_cost(Limits(), values)
            else:
                with pytest.raises(LimitExceeded):
                    operation.check_cost(Limits(), values)


class TestVariables:
    @given(
        st.recursive(st.integers(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=30)
    )
    def test_every_value_counts(self, value: Any) -> None:
        def count(value: Any) -> int:
            children = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
            return 1 + sum(map(count, children))

        check_variables(Limits(variable_values=count(value)), {"v": value})
        with pytest.raises(LimitExceeded):
            check_variables(Limits(variable_values=count(value) - 1), {"v": value})

    async def test_half_a_million_of_them(self, post: Post) -> None:
        began = time.monotonic()
        response = await post("query ($i: [Int!]) { wallets(ids: $i) { id } }", variables={"i": [1] * 400_000})
        assert response.json()["errors"][0]["extensions"]["code"] == LIMIT
        assert time.monotonic() - began < BOUNDED_S


class TestDocuments:
    def documents(self, **limits: int) -> Documents:
        return Documents(schema._schema, Limits(**limits), development=False)

    def test_the_same_text_is_prepared_once(self) -> None:
        documents = self.documents()
        assert documents.get("{ hello }") is documents.get("{ hello }")

    def test_a_flood_of_texts_leaves_as_many_as_allowed(self) -> None:
        documents = self.documents(cached_documents=10)
        for number in range(50):
            documents.get(f"query Q{number} {{ hello }}")
        assert len(documents) == 10

    def test_long_texts_leave_fewer(self) -> None:
        documents = self.documents(cached_chars=5_000)
        for number in range(50):
            documents.get(f"query Q{number} {{ hello }}" + " " * 1_000)
        assert len(documents) == 4

    def test_what_was_used_last_stays(self) -> None:
        documents = self.documents(cached_documents=2)
        kept = documents.get("{ a: hello }")
        for number in range(5):
            documents.get(f"query Q{number} {{ hello }}")
            assert documents.get("{ a: hello }") is kept

    def test_what_is_wrong_is_not_kept(self) -> None:
        documents = self.documents()
        with pytest.raises(RequestRefused):
            documents.get("{ unknown }")
        assert len(documents) == 0

    def test_introspection_is_within_the_limits(self) -> None:
        query = get_introspection_query(input_value_deprecation=True, specified_by_url=True, schema_description=True)
        assert Documents(schema._schema, Limits(), development=True).get(query)
