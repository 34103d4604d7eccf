"""Plans, and answers made of what subgraphs say, true or not."""

import re
from typing import Any

import pytest
from graphql import parse

from gateway.federation import (
    CompositionFailed,
    Operation,
    Planner,
    PlanTooLarge,
    Subgraph,
    SubgraphFailed,
    Supergraph,
    compose,
    explain,
)
from tests.gateway.federation.saying import executed, planned

LINK = 'extend schema @link(url: "https://specs.apollo.dev/federation/v2.9", import: ["@key", "@shareable"])\n'
SHOP = """type Query { products: [Product!]! first: Product }
    type Product @key(fields: "id") { id: ID! name: String! price: Int color: Color } enum Color { RED BLUE }
    type Mutation { one: Product two: Product }"""
REVIEWS = """type Product @key(fields: "id") { id: ID! stars: Int reviews: [Review!]! } type Review { body: String! }
    type Mutation { three: Int }"""


def supergraph(**sdls: str) -> Supergraph:
    return Supergraph.parse(compose([Subgraph(name, f"http://{name}", LINK + sdl) for name, sdl in sdls.items()]))


@pytest.fixture(scope="module")
def shop() -> Supergraph:
    return supergraph(shop=SHOP, reviews=REVIEWS)


PRODUCTS = {"data": {"products": [{"id": "1", "name": "a"}, {"id": "2", "name": "b"}, {"id": "1", "name": "a"}]}}


def stars(variables: dict[str, Any]) -> dict[str, Any]:
    ids = [each["id"] for each in variables["representations"]]
    assert len(ids) == len(set(ids))
    return {"data": {"_entities": [{"id": i, "stars": int(i)} for i in ids]}}


def keyed(variables: dict[str, Any]) -> dict[str, Any]:
    return {"data": {"_entities": [{"stars": int(each["id"])} for each in variables["representations"]]}}


class TestExecute:
    async def test_entities_are_asked_for_once(self, shop: Supergraph) -> None:
        answer = await executed(shop, "{ products { stars } }", shop=PRODUCTS, reviews=stars)
        assert answer == {"data": {"products": [{"stars": 1}, {"stars": 2}, {"stars": 1}]}}

    async def test_names_of_the_client_do_not_get_in_the_way_of_keys(self, shop: Supergraph) -> None:
        query = planned(shop, "{ products { id: name stars } }").steps[0].query
        (key,) = re.findall(r"(\w+): id", query)
        rows = [{key: "1", "id": "a"}]
        answer = await executed(
            shop, "{ products { id: name stars } }", shop={"data": {"products": rows}}, reviews=keyed
        )
        assert answer == {"data": {"products": [{"id": "a", "stars": 1}]}}

    @pytest.mark.parametrize(
        ("reviews", "code"),
        [
            pytest.param(SubgraphFailed("reviews", "SUBGRAPH_TIMEOUT", "late"), "SUBGRAPH_TIMEOUT", id="fails"),
            pytest.param({"data": {"_entities": [{"id": "1", "stars": 1}]}}, "SUBGRAPH_INVALID_RESPONSE", id="too few"),
            pytest.param(
                {"data": {"_entities": [{"id": "2", "stars": 2}, {"id": "1", "stars": 1}]}},
                "SUBGRAPH_INVALID_RESPONSE",
                id="mixed up",
            ),
            pytest.param({"data": []}, "SUBGRAPH_INVALID_RESPONSE", id="no object"),
            pytest.param({"data": {"_entities": {"1": {}}}}, "SUBGRAPH_INVALID_RESPONSE", id="no list"),
        ],
    )
    async def test_a_subgraph_that_fails_costs_its_own_fields(self, shop: Supergraph, reviews: Any, code: str) -> None:
        answer = await executed(shop, "{ products { name stars } }", shop=PRODUCTS, reviews=reviews)
        assert [each["stars"] for each in answer["data"]["products"]] == [None, None, None]
        assert [each["name"] for each in answer["data"]["products"]] == ["a", "b", "a"]
        assert [error["extensions"]["code"] for error in answer["errors"]] == [code]

    async def test_what_must_not_be_null_takes_its_parents_along(self, shop: Supergraph) -> None:
        missing = {"data": {"_entities": [None]}}
        first = {"data": {"first": {"id": "1"}}}
        answer = await executed(shop, "{ first { reviews { body } } }", shop=first, reviews=missing)
        assert answer["data"] == {"first": None}
        assert answer["errors"][0]["path"] == ["first", "reviews"]

    async def test_errors_are_where_the_client_asked(self, shop: Supergraph) -> None:
        said = {"message": "no", "path": ["_entities", 1, "s"], "extensions": {"code": "X"}}
        reviews = {"data": {"_entities": [{"id": "1", "s": 1}, {"id": "2", "s": None}]}, "errors": [said]}
        rows = {"data": {"all": [{"id": "1"}, {"id": "2"}]}}
        answer = await executed(shop, "{ all: products { s: stars } }", shop=rows, reviews=reviews)
        assert answer["errors"] == [{"message": "no", "path": ["all", 1, "s"], "extensions": {"code": "X"}}]

    @pytest.mark.parametrize(
        ("field", "value"),
        [("price", "7"), ("price", 2**31), ("price", True), ("price", [1]), ("color", "PINK"), ("color", ["BLUE"])],
    )
    async def test_a_value_that_does_not_fit_is_null(self, shop: Supergraph, field: str, value: Any) -> None:
        rows = [{"id": "1", field: None}] * 3 + [{"id": "2", field: value}]
        answer = await executed(shop, f"{{ products {{ id {field} }} }}", shop={"data": {"products": rows}})
        assert answer["data"]["products"][3] == {"id": "2", field: None}
        assert answer["errors"][0]["path"] == ["products", 3, field]

    async def test_what_was_not_asked_for_is_not_passed_on(self, shop: Supergraph) -> None:
        rows = [{"secret": 1, "name": "a", "id": "1"}]
        answer = await executed(shop, "{ products { id name } }", shop={"data": {"products": rows}})
        assert answer == {"data": {"products": [{"id": "1", "name": "a"}]}}
        assert list(answer["data"]["products"][0]) == ["id", "name"]

    @pytest.mark.parametrize(
        ("first", "second"),
        [
            pytest.param({"id": "1", "stars": 9, "reviews": [{"body": "x"}]}, None, id="before the other answers"),
            pytest.param({"id": "1"}, {"stars": 5, "reviews": [], "price": 0}, id="after it"),
        ],
    )
    async def test_what_was_asked_of_another_is_not_taken(
        self, shop: Supergraph, first: dict[str, Any], second: dict[str, Any] | None
    ) -> None:
        """Nor what was not asked for at all, deep in an object that was."""
        answer = await executed(
            shop,
            "{ first { stars price reviews { body } } }",
            shop={"data": {"first": {"price": None, **first}}},
            reviews={"data": {"_entities": [{"stars": None, "reviews": [{}], **second} if second else None]}},
        )
        if second:
            assert answer["data"] == {"first": {"stars": 5, "price": None, "reviews": []}}
        else:
            assert answer["data"] == {"first": None}  # reviews must not be null
            assert answer["errors"][0]["path"] == ["first", "reviews"]

    @pytest.mark.parametrize("subgraph", ["shop", "reviews"])
    async def test_an_answer_nested_deeper_than_python_recurses(self, shop: Supergraph, subgraph: str) -> None:
        nested = b"[" * 1_000 + b"]" * 1_000
        answers = {
            "shop": b'{"data": {"first": {"id": "1", "name": "a"}}}',
            "reviews": b'{"data": {"_entities": [{"reviews": []}]}}',
        }
        lies = {
            "shop": b'{"data": {"first": %b}}' % nested,
            "reviews": b'{"data": {"_entities": [{"reviews": %b}]}}' % nested,
        }
        answer = await executed(shop, "{ first { name reviews { body } } }", **answers | {subgraph: lies[subgraph]})
        assert answer["data"] == {"first": None}
        assert answer["errors"][0]["extensions"]["code"] == "SUBGRAPH_INVALID_RESPONSE"

    async def test_introspection_beside_data(self, shop: Supergraph) -> None:
        query = '{ __type(name: "Review") { fields { name } } first { id } __typename }'
        answer = await executed(shop, query, shop={"data": {"first": {"id": "1"}}})
        assert answer["data"] == {
            "__type": {"fields": [{"name": "body"}]},
            "first": {"id": "1"},
            "__typename": "Query",
        }


class TestPlan:
    def test_mutations_follow_one_another(self, shop: Supergraph) -> None:
        plan = planned(shop, "mutation { b: two { id } three a: one { id stars } c: two { id } }")
        assert [step.subgraph for step in plan.steps] == ["shop", "reviews", "shop", "reviews", "shop"]
        assert all(set(range(step.id)) == set(step.after) for step in plan.steps if step.operation == "mutation")

    def test_what_is_skipped_is_not_asked_for(self, shop: Supergraph) -> None:
        query = "query ($no: Boolean!) { products { name stars @skip(if: $no) } }"
        assert len(planned(shop, query, no=True).steps) == 1
        assert len(planned(shop, query, no=False).steps) == 2

    def test_one_that_spreads_without_end(self, shop: Supergraph) -> None:
        spread = "fragment F{0} on Query {{ a{0}: first {{ id }} ...F{1} ...F{1} }}"
        fragments = " ".join(spread.format(n, n + 1) for n in range(9))
        wide = f"{{ {' '.join(f'x{n}: first {{ id name price }}' for n in range(2_000))} }}"
        assert planned(shop, f"{{ ...F0 }} {fragments} fragment F9 on Query {{ __typename }}").hops == 1
        with pytest.raises(PlanTooLarge):
            planned(shop, wide)

    @pytest.mark.parametrize(("bounds", "left"), [({"kept": 2}, [1, 2]), ({"kept_fields": 5}, [2]), ({}, [0, 1, 2])])
    def test_those_used_last_are_kept(self, shop: Supergraph, bounds: dict[str, int], left: list[int]) -> None:
        planner = Planner(shop, **bounds)
        operations = [Operation.of(parse(f"{{ first {{ {of} }} }}")) for of in ("id", "name price", "id name price")]
        plans = [planner.plan(operation, {}) for operation in operations]
        assert [plan.fields for plan in plans] == [2, 3, 4]
        assert [n for n, operation in enumerate(operations) if planner.known(operation, {}) is plans[n]] == left

    def test_it_explains_itself(self, shop: Supergraph) -> None:
        told = explain(planned(shop, "{ products { stars } }"))
        assert told.startswith("2 requests, 2 one after the other\n1. shop: query { products")
        assert "2. reviews after 1 for the Product {id} at products:" in told


def test_what_cannot_be_answered_does_not_compose() -> None:
    with pytest.raises(CompositionFailed, match=r"Product\.stars cannot be answered"):
        supergraph(shop=SHOP, reviews=REVIEWS.replace('@key(fields: "id")', "@shareable"))
