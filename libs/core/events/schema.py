"""Event schemas (JSON Schema): can this reader read everything that this writer may write?

The same question twice: a subscriber's view against the publisher's schema, and yesterday's schema against today's,
since whoever could read everything that yesterday's promised must be able to read today's.
"""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from libs.core.events.event import EventData

Schema = Mapping[str, Any]

_LOWER_BOUNDS = ("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties")
_UPPER_BOUNDS = ("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties")
_EQUAL = ("format", "pattern", "multipleOf", "uniqueItems")


def published_schema(data: type[EventData]) -> dict[str, Any]:
    """The JSON Schema of what `data` writes, as it is committed."""
    schema = data.model_json_schema(mode="serialization")
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **schema,
        "title": data.event_type,
        "x-dataversion": data.event_version,
    }


def compatible(view: type[BaseModel], published: Schema) -> list[str]:
    """What `view` cannot read of events with the data schema `published`, one line each; empty if it reads them all."""
    return unreadable(view.model_json_schema(mode="validation"), published)


def unreadable(reader: Schema, writer: Schema) -> list[str]:
    """What a reader that accepts `reader` cannot read of what `writer` may write, one line each."""
    return _unreadable(reader, writer, (reader, writer), "data")


def _unreadable(reader: Schema, writer: Schema, roots: tuple[Schema, Schema], path: str) -> list[str]:
    reader, writer = _resolved(reader, roots[0]), _resolved(writer, roots[1])
    if alternatives := writer.get("anyOf") or writer.get("oneOf"):
        return [problem for one in alternatives for problem in _unreadable(reader, one, roots, path)]
    if alternatives := reader.get("anyOf") or reader.get("oneOf"):
        tried = [_unreadable(one, writer, roots, path) for one in alternatives]
        return [] if [] in tried else [f"{path}: none of the reader's alternatives fits ({tried[0][0]})"]
    if (problem := _wrong_type(reader, writer, path)) or (problem := _wrong_values(reader, writer, path)):
        return [problem]
    problems = [
        f"{path}: the reader needs {name} {reader[name]!r}, the writer has {writer.get(name)!r}"
        for name in reader
        if _looser(name, reader[name], writer.get(name))
    ]
    return problems + _inside(reader, writer, roots, path)


def _resolved(schema: Schema, root: Schema) -> Schema:
    while "$ref" in schema:
        schema = root["$defs"][schema["$ref"].removeprefix("#/$defs/")]
    return schema


def _wrong_type(reader: Schema, writer: Schema, path: str) -> str | None:
    wanted, written = reader.get("type"), writer.get("type")
    if wanted is None or wanted == written or (wanted, written) == ("number", "integer"):
        return None
    return f"{path}: the reader wants {wanted}, the writer writes {written or 'anything'}"


def _wrong_values(reader: Schema, writer: Schema, path: str) -> str | None:
    known = _values(reader)
    if known is None:
        return None
    written = _values(writer)
    if written is None:
        return f"{path}: the reader knows only {known}, the writer may write any"
    unknown = [value for value in written if value not in known]
    return f"{path}: the reader does not know {unknown}" if unknown else None


def _values(schema: Schema) -> list[Any] | None:
    return [schema["const"]] if "const" in schema else schema.get("enum")


def _looser(name: str, needed: Any, promised: Any) -> bool:
    if name in _LOWER_BOUNDS:
        return promised is None or promised < needed
    if name in _UPPER_BOUNDS:
        return promised is None or promised > needed
    return name in _EQUAL and promised != needed


def _inside(reader: Schema, writer: Schema, roots: tuple[Schema, Schema], path: str) -> list[str]:
    problems: list[str] = []
    written = writer.get("properties", {})
    for name, wanted in reader.get("properties", {}).items():
        if name in reader.get("required", ()) and name not in writer.get("required", ()):
            problems.append(f"{path}.{name}: the reader needs it, the writer may leave it out")
        elif name in written:
            problems += _unreadable(wanted, written[name], roots, f"{path}.{name}")
    if isinstance(reader.get("items"), Mapping):
        problems += _unreadable(reader["items"], writer.get("items", {}), roots, f"{path}[]")
    if isinstance(reader.get("additionalProperties"), Mapping):
        values = writer.get("additionalProperties", {})
        problems += _unreadable(reader["additionalProperties"], values, roots, f"{path}.*")
    return problems
