"""What every subgraph's schema is made with: the scalar for money, the shared types, the federation settings."""

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, NewType, cast

import strawberry
from strawberry.federation.schema import FederationAny
from strawberry.federation.schema_directives import Key
from strawberry.scalars import JSON
from strawberry.schema.config import StrawberryConfig
from strawberry.types.base import StrawberryObjectDefinition

from libs.core.errors import CoreError, InvalidInput, Refusal
from libs.core.graphql.errors import json_safe
from libs.core.money import parse_minor_units

BigInt = NewType("BigInt", int)


def _serialize_big_int(value: object) -> str:
    if type(value) is not int:
        raise TypeError(f"a BigInt is an int, not {type(value).__name__}")
    return str(value)


BIG_INT = strawberry.scalar(
    name="BigInt",
    description="A whole number of minor units, as a decimal string: JSON numbers are exact only to 2^53.",
    serialize=_serialize_big_int,
    parse_value=parse_minor_units,
)


def _parse_date_time(value: object) -> datetime:
    """In UTC, which is also meant where no offset is given. Strawberry's own lets pass what is no instant in UTC."""
    if not isinstance(value, str):
        raise ValueError("not a string")
    at = datetime.fromisoformat(value)
    try:
        return at.astimezone(UTC) if at.tzinfo else at.replace(tzinfo=UTC)
    except OverflowError:
        raise ValueError("in UTC the year is not from 1 to 9999") from None


DATE_TIME = strawberry.scalar(
    name="DateTime",
    description="An instant as in ISO 8601; in UTC if it names no offset.",
    serialize=datetime.isoformat,
    parse_value=_parse_date_time,
)


@strawberry.federation.type(shareable=True, description="Why a business rule said no.")
class Problem:
    code: str = strawberry.field(description="Stable, for programs: INSUFFICIENT_FUNDS.")
    message: str = strawberry.field(description="For people.")
    rule: str | None = strawberry.field(description="Which rule refused; null if none did, as when time ran out.")
    details: JSON = strawberry.field(description="The values that decided.")

    @classmethod
    def of(cls, error: CoreError) -> "Problem":
        """From a `Refusal`; or, for one of several operations that are answered one by one, from any error."""
        rule = error.rule if isinstance(error, Refusal) else None
        return cls(code=error.code, message=error.message, rule=rule, details=json_safe(error.details))


class FederationSchema(strawberry.federation.Schema):
    """A Federation 2.9 subgraph. Every type with a key has to say how references to it are resolved:

    `async def resolve_references(cls, info, representations: list[dict]) -> list[T | None]`, a classmethod: all of one
    type at once, in their order, with None for what does not exist or may not be seen.
    """

    async def entities_resolver(  # type: ignore[override]
        self, info: strawberry.Info, representations: list[FederationAny]
    ) -> list[FederationAny]:
        """Strawberry's own calls one by one, and lets the client name any type of the schema."""
        found: list[Any] = [None] * len(representations)
        places: dict[type, list[int]] = {}
        for place, representation in enumerate(representations):
            places.setdefault(self._entity(representation), []).append(place)
        for entity, wanted in places.items():
            resolved = await entity.resolve_references(info, [representations[i] for i in wanted])  # type: ignore[attr-defined]
            for place, value in zip(wanted, resolved, strict=True):
                found[place] = value
        return found

    def _entity(self, representation: object) -> type:
        name = representation.get("__typename") if isinstance(representation, dict) else None
        concrete = self.schema_converter.type_map.get(name) if isinstance(name, str) else None
        if concrete is None or not _is_entity(concrete.definition):
            raise InvalidInput("__typename must name an entity of this subgraph", field="representations")
        return cast("StrawberryObjectDefinition", concrete.definition).origin


def _is_entity(definition: object) -> bool:
    return isinstance(definition, StrawberryObjectDefinition) and any(
        isinstance(directive, Key) for directive in definition.directives or ()
    )


def build_schema(
    query: type, mutation: type | None = None, subscription: type | None = None, types: Iterable[type] = ()
) -> FederationSchema:
    """A subgraph's schema. `types` lists keyed types that only a mutation or a reference reaches.

    `TypeError` if a keyed type lacks `resolve_references`.
    """
    schema = FederationSchema(
        query=query,
        mutation=mutation,
        subscription=subscription,
        types=types,
        config=StrawberryConfig(scalar_map={BigInt: BIG_INT, datetime: DATE_TIME}),
        federation_version="2.9",  # Strawberry's default is newer than the open composer knows
    )
    for concrete in schema.schema_converter.type_map.values():
        if _is_entity(concrete.definition):
            entity = cast("StrawberryObjectDefinition", concrete.definition).origin
            if not hasattr(entity, "resolve_references"):
                raise TypeError(f"{entity.__name__} has a key and no resolve_references")
    return schema
