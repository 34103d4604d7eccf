"""Whether a literal fits a type, for defaults and for arguments of directives."""

from graphql import (
    BooleanValueNode,
    EnumValueNode,
    FloatValueNode,
    IntValueNode,
    ListValueNode,
    NullValueNode,
    ObjectValueNode,
    StringValueNode,
    ValueNode,
)

from gateway.federation.compose.model import Enum, Input, Schema, is_list, item, nullable

_LARGEST_INT = 2**31 - 1
_LITERALS: dict[str, tuple[type[ValueNode], ...]] = {
    "Float": (IntValueNode, FloatValueNode),
    "String": (StringValueNode,),
    "Boolean": (BooleanValueNode,),
    "ID": (StringValueNode, IntValueNode),
}


def fits(value: ValueNode, type_: str, schema: Schema) -> bool:
    """True for types that are not known here, as for custom scalars."""
    if isinstance(value, NullValueNode):
        return not type_.endswith("!")
    type_ = nullable(type_)
    if is_list(type_):
        values = value.values if isinstance(value, ListValueNode) else (value,)
        return all(fits(each, item(type_), schema) for each in values)
    if type_ == "Int":
        return isinstance(value, IntValueNode) and abs(int(value.value[:12])) <= _LARGEST_INT
    if type_ in _LITERALS:
        return isinstance(value, _LITERALS[type_])
    found = schema.types.get(type_)
    if isinstance(found, Enum):
        return isinstance(value, EnumValueNode | StringValueNode) and value.value in found.values
    return _fits_input(value, found, schema) if isinstance(found, Input) else True


def _fits_input(value: ValueNode, type_: Input, schema: Schema) -> bool:
    if not isinstance(value, ObjectValueNode):
        return False
    given = {node.name.value: node.value for node in value.fields}
    if any(name not in given for name, field in type_.fields.items() if field.required):
        return False
    return all(name in type_.fields and fits(node, type_.fields[name].type, schema) for name, node in given.items())
