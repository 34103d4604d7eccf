"""All subgraphs compose to one graph, as the gateway will: a new service is found by its `schema.py`."""

import json
import subprocess
from importlib import import_module
from pathlib import Path

import strawberry
from graphql import GraphQLUnionType
from strawberry import Schema

from libs.core.graphql import Problem, build_schema
from libs.core.pagination import Connection

ROOT = Path(__file__).parents[2]
SERVICES = sorted(path.parent.name for path in ROOT.glob("services/*/schema*"))


def compose(**schemas: Schema) -> str:
    """What is wrong, if anything."""
    given = json.dumps([{"name": name, "sdl": schema.as_str()} for name, schema in schemas.items()])
    command = ["node", str(Path(__file__).with_name("compose.mjs"))]
    result = subprocess.run(command, input=given, capture_output=True, text=True, check=False)
    assert not result.stderr
    return result.stdout


@strawberry.type
class Badge:
    name: str


@strawberry.type
class Query:
    @strawberry.field
    def badges(self) -> Connection[Badge]:
        raise NotImplementedError

    @strawberry.field
    def award_badge(self) -> Badge | Problem:
        raise NotImplementedError


@strawberry.type(name="Query")
class Clash:
    @strawberry.field
    def wallets(self) -> int:
        raise NotImplementedError


def test_all_services_compose() -> None:
    schemas = {name: import_module(f"services.{name}.schema").schema for name in SERVICES}
    assert "payment" in schemas
    assert compose(**schemas) == ""


def test_what_core_provides_is_shared() -> None:
    payment = import_module("services.payment.schema").schema
    assert compose(payment=payment, badges=build_schema(Query)) == ""


def test_all_fields_of_a_result_can_be_asked_for_together() -> None:
    """A document that asks two types of a union for a field of one name is valid only if both say the same type."""
    for name in SERVICES:
        schema = import_module(f"services.{name}.schema").schema
        for union in schema._schema.type_map.values():
            if isinstance(union, GraphQLUnionType) and union.name != "_Entity":
                types: dict[str, str] = {}
                for member in union.types:
                    for field, definition in member.fields.items():
                        asked = f"{union.name}: {member.name}.{field}"
                        assert types.setdefault(field, str(definition.type)) == str(definition.type), asked


def test_a_field_that_two_services_define_does_not_compose() -> None:
    payment = import_module("services.payment.schema").schema
    assert "Query.wallets" in compose(payment=payment, clash=build_schema(Clash))
