"""From what subgraphs answered to what the client asked for, in one walk: order, names, types, nulls.

What does not fit its type becomes null, with an error, and takes whatever must not be null up with it. Paths are put
together on the way back up, so that they cost nothing as long as all is well.
"""

from collections.abc import Callable
from typing import Any

from graphql import (
    GraphQLBoolean,
    GraphQLEnumType,
    GraphQLFloat,
    GraphQLID,
    GraphQLInt,
    GraphQLList,
    GraphQLNonNull,
    GraphQLSchema,
    GraphQLString,
    is_composite_type,
)

from gateway.federation.plan.spots import Slot, Spot

_INT_MAX = 2**31


class Fault:
    """Something in the answers that does not fit. `path` is from there to the root."""

    __slots__ = ("message", "path")

    def __init__(self, message: str, *path: str | int) -> None:
        self.message = message
        self.path: list[str | int] = list(path)


Faults = list[Fault]
# A value that is not null, completed; or None, with a fault added.
Complete = Callable[[Any, Faults], Any]

# The key, the name in subgraphs' answers, how it is completed, the class that needs no completing, whether it may be
# null, and "Type.field".
_Field = tuple[str, str, Complete, type | None, bool, str]


class Projection:
    """Of one plan: `project` makes the answer's data of the merged answers."""

    def __init__(self, layout: Spot, schema: GraphQLSchema) -> None:
        self._schema = schema
        self._root = self._object(layout)

    def project(self, merged: dict[str, Any]) -> tuple[dict[str, Any] | None, Faults]:
        faults: Faults = []
        data = self._root(merged, faults)
        return data, faults

    def _object(self, spot: Spot) -> Complete:
        if spot.abstract:
            return self._abstract(spot)
        fields = self._fields(spot, spot.type)

        def complete(value: Any, faults: Faults) -> Any:
            if type(value) is not dict:
                faults.append(Fault(f"{spot.type} is an object, and something else came."))
                return None
            return _completed(fields, value, faults)

        return complete

    def _abstract(self, spot: Spot) -> Complete:
        of_type: dict[str | None, list[_Field]] = {}
        possible = {name for name in spot.graph.possible(spot.type) if name in self._schema.type_map}
        if not spot.places and "__typename" not in spot.keys.values():
            of_type[None] = self._fields(spot, None)

        def complete(value: Any, faults: Faults) -> Any:
            if type(value) is not dict:
                faults.append(Fault(f"{spot.type} is an object, and something else came."))
                return None
            name = value.get("__typename")
            fields = of_type.get(name) if name.__class__ is str or name is None else None
            if fields is None:
                if name.__class__ is not str or name not in possible:
                    if name == spot.type and None in of_type:  # of a subgraph where it is an interface object
                        return _completed(of_type[None], value, faults)
                    faults.append(Fault(f"{spot.type} came with a type that it cannot be."))
                    return None
                fields = of_type[name] = self._fields(spot, name)
            return _completed(fields, value, faults)

        return complete

    def _fields(self, spot: Spot, type_: str | None) -> list[_Field]:
        """Those asked of objects of this type, None for any; in the order of the answer."""
        places = [spot.common] if type_ is None else list(spot.seen_by(type_))
        slots = {key: slot for place in places for key, slot in place.slots.items()}
        fields: list[_Field] = []
        for key, name in spot.keys.items():
            if name == "__typename":
                known = None if spot.abstract else type_
                fields.append((key, "__typename", _constant(known), None, False, ""))
            elif key in slots:
                fields.append(self._field(slots[key], type_ or spot.type))
        return fields

    def _field(self, slot: Slot, type_: str) -> _Field:
        definition: Any = self._schema.type_map[slot.place.type]
        field_type: Any = definition.fields[slot.name].type
        nullable = not isinstance(field_type, GraphQLNonNull)
        complete = self._complete(field_type if nullable else field_type.of_type, slot)
        return slot.key, slot.raw, complete, _PLAIN.get(complete), nullable, f"{type_}.{slot.name}"

    def _complete(self, type_: Any, slot: Slot) -> Complete:
        if isinstance(type_, GraphQLList):
            inner = type_.of_type
            nullable = not isinstance(inner, GraphQLNonNull)
            complete = self._complete(inner if nullable else inner.of_type, slot)
            return _list_of(complete, nullable, f"{slot.place.type}.{slot.name}")
        if is_composite_type(type_):
            assert slot.child is not None
            return self._object(slot.child)
        if isinstance(type_, GraphQLEnumType):
            return _enum(type_)
        return _SCALARS.get(type_.name, _as_it_is)


def _completed(fields: list[_Field], value: dict[str, Any], faults: Faults) -> dict[str, Any] | None:
    made: dict[str, Any] = {}
    for key, raw, complete, plain, nullable, coordinate in fields:
        found = value.get(raw)
        if found.__class__ is plain:
            made[key] = found
        elif found is None and raw != "__typename":
            if not nullable:
                faults.append(Fault(f"Cannot return null for non-nullable field {coordinate}.", key))
                return None
            made[key] = None
        else:
            before = len(faults)
            found = complete(found, faults)
            if len(faults) > before:
                for fault in faults[before:]:
                    fault.path.append(key)
                if found is None and not nullable:
                    return None
            made[key] = found
    return made


def _list_of(complete: Complete, nullable: bool, coordinate: str) -> Complete:
    def complete_list(value: Any, faults: Faults) -> Any:
        if type(value) is not list:
            faults.append(Fault(f"{coordinate} is a list, and something else came."))
            return None
        made: list[Any] = []
        for n, item in enumerate(value):
            if item is None:
                if not nullable:
                    faults.append(Fault(f"Cannot return null for non-nullable field {coordinate}.", n))
                    return None
                made.append(None)
                continue
            before = len(faults)
            item = complete(item, faults)
            if len(faults) > before:
                for fault in faults[before:]:
                    fault.path.append(n)
                if item is None and not nullable:
                    return None
            made.append(item)
        return made

    return complete_list


def _constant(type_: str | None) -> Complete:
    """The type's name: known from the layout, or else as it came."""
    return lambda value, _: type_ or value


def _as_it_is(value: Any, _: Faults) -> Any:
    return value


def _enum(type_: GraphQLEnumType) -> Complete:
    values = set(type_.values)

    def complete(value: Any, faults: Faults) -> Any:
        if type(value) is str and value in values:
            return value
        faults.append(Fault(f"Enum {type_.name} cannot represent the value that came."))
        return None

    return complete


def _int(value: Any, faults: Faults) -> Any:
    if type(value) is int and -_INT_MAX <= value < _INT_MAX:
        return value
    if type(value) is float and value.is_integer() and abs(value) < _INT_MAX:
        return int(value)
    return _not_a("Int", faults)


def _float(value: Any, faults: Faults) -> Any:
    return value if type(value) in (float, int) else _not_a("Float", faults)


def _string(value: Any, faults: Faults) -> Any:
    return value if type(value) is str else _not_a("String", faults)


def _boolean(value: Any, faults: Faults) -> Any:
    return value if type(value) is bool else _not_a("Boolean", faults)


def _id(value: Any, faults: Faults) -> Any:
    if type(value) is int:
        return str(value)
    return value if type(value) is str else _not_a("ID", faults)


def _not_a(name: str, faults: Faults) -> None:
    faults.append(Fault(f"{name} cannot represent the value that came."))


_SCALARS: dict[str, Complete] = {
    GraphQLInt.name: _int,
    GraphQLFloat.name: _float,
    GraphQLString.name: _string,
    GraphQLBoolean.name: _boolean,
    GraphQLID.name: _id,
}
_PLAIN: dict[Complete, type] = {_string: str, _boolean: bool, _id: str}
