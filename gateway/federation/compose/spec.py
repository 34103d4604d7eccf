"""The definitions of Federation's directives, and since which version each is there."""

from graphql import DirectiveDefinitionNode, parse

FEDERATION_1 = (1, 0)
NEWEST = (2, 9)
IDENTITY = "https://specs.apollo.dev/federation"
# Its own specification's directives that a subgraph may link by themselves.
SEPARATE = {"https://specs.apollo.dev/tag": "tag", "https://specs.apollo.dev/inaccessible": "inaccessible"}

_FEDERATION = """
directive @key(fields: FieldSet!, resolvable: Boolean = true) repeatable on OBJECT | INTERFACE
directive @requires(fields: FieldSet!) on FIELD_DEFINITION
directive @provides(fields: FieldSet!) on FIELD_DEFINITION
directive @external on OBJECT | FIELD_DEFINITION
directive @extends on OBJECT | INTERFACE
directive @shareable repeatable on FIELD_DEFINITION | OBJECT
directive @override(from: String!, label: String) on FIELD_DEFINITION
directive @inaccessible on FIELD_DEFINITION | OBJECT | INTERFACE | UNION | ENUM | ENUM_VALUE | SCALAR | INPUT_OBJECT
  | INPUT_FIELD_DEFINITION | ARGUMENT_DEFINITION
directive @tag(name: String!) repeatable on FIELD_DEFINITION | INTERFACE | OBJECT | UNION | ARGUMENT_DEFINITION | SCALAR
  | ENUM | ENUM_VALUE | INPUT_OBJECT | INPUT_FIELD_DEFINITION | SCHEMA
directive @composeDirective(name: String!) repeatable on SCHEMA
directive @interfaceObject on OBJECT
directive @authenticated on FIELD_DEFINITION | OBJECT | INTERFACE | SCALAR | ENUM
directive @requiresScopes(scopes: [[federation__Scope!]!]!) on FIELD_DEFINITION | OBJECT | INTERFACE | SCALAR | ENUM
directive @policy(policies: [[federation__Policy!]!]!) on FIELD_DEFINITION | OBJECT | INTERFACE | SCALAR | ENUM
directive @context(name: String!) repeatable on INTERFACE | OBJECT | UNION
directive @fromContext(field: federation__ContextFieldValue) on ARGUMENT_DEFINITION
directive @cost(weight: Int!) on ARGUMENT_DEFINITION | ENUM | FIELD_DEFINITION | INPUT_FIELD_DEFINITION | OBJECT
  | SCALAR
directive @listSize(assumedSize: Int, slicingArguments: [String!], sizedFields: [String!],
  requireOneSlicingArgument: Boolean = true) on FIELD_DEFINITION
"""
_BUILT_IN = """
directive @deprecated(reason: String = "No longer supported") on FIELD_DEFINITION | ARGUMENT_DEFINITION
  | INPUT_FIELD_DEFINITION | ENUM_VALUE
directive @specifiedBy(url: String!) on SCALAR
directive @oneOf on INPUT_OBJECT
directive @skip(if: Boolean!) on FIELD | FRAGMENT_SPREAD | INLINE_FRAGMENT
directive @include(if: Boolean!) on FIELD | FRAGMENT_SPREAD | INLINE_FRAGMENT
"""
_LINK = """
directive @link(url: String, as: String, for: link__Purpose, import: [link__Import]) repeatable on SCHEMA
directive @core(feature: String!, as: String, for: link__Purpose) repeatable on SCHEMA
"""


def _definitions(sdl: str) -> dict[str, DirectiveDefinitionNode]:
    nodes = parse(sdl, no_location=True).definitions
    return {node.name.value: node for node in nodes if isinstance(node, DirectiveDefinitionNode)}


FEDERATION = _definitions(_FEDERATION)
BUILT_IN = _definitions(_BUILT_IN)
LINK = _definitions(_LINK)
SINCE = {
    "shareable": (2, 0),
    "composeDirective": (2, 1),
    "interfaceObject": (2, 3),
    "authenticated": (2, 5),
    "requiresScopes": (2, 5),
    "policy": (2, 6),
    "context": (2, 8),
    "fromContext": (2, 8),
    "cost": (2, 8),
    "listSize": (2, 8),
}
TYPES = {"FieldSet", "Scope", "Policy", "ContextFieldValue"}
# Nothing of a subgraph's own may be called so: they are what Federation itself adds to a subgraph.
MACHINERY = {"_Any", "_Entity", "_Service", "_FieldSet"}
MACHINERY_PREFIXES = ("federation__", "link__", "core__")
MACHINERY_FIELDS = {"_service", "_entities"}
BUILT_IN_SCALARS = {"Int", "Float", "String", "Boolean", "ID"}


_UNLABELLED = _definitions("directive @override(from: String!) on FIELD_DEFINITION")["override"]


def definition(name: str, version: tuple[int, int]) -> DirectiveDefinitionNode:
    """As that version of Federation has it."""
    return _UNLABELLED if name == "override" and version < (2, 7) else FEDERATION[name]


def available(version: tuple[int, int]) -> set[str]:
    return {name for name in FEDERATION if SINCE.get(name, FEDERATION_1) <= version}
