"""Composition by itself: tables of what is right and what is wrong, the text that comes of it, and hostile input.

The oracle's tests (`test_compose_oracle.py`) take the same tables.
"""

import re
from collections.abc import Iterator

import pytest
from graphql import build_schema, parse

from gateway.federation.compose import CompositionError, CompositionFailed, compose
from gateway.federation.subgraph import Subgraph
from gateway.federation.supergraph import Supergraph

_LINK = """
    extend schema @link(url: "https://specs.apollo.dev/federation/v2.8", import: ["@key", "@requires", "@provides",
      "@external", "@shareable", "@override", "@inaccessible", "@tag", "@interfaceObject", "@composeDirective",
      "@extends", "@authenticated", "@requiresScopes", "@policy", "@cost", "@listSize"])
"""


def subgraphs_of(text: str) -> list[Subgraph]:
    """Divided by `---`, called one, two, three. They link Federation 2.8, but for those that begin with `#`."""
    parts = [part.strip() for part in text.split("---")]
    sdls = [part if part.startswith("#") else _LINK + part for part in parts]
    return [Subgraph(name, f"http://{name}", sdl) for name, sdl in zip(("one", "two", "three"), sdls, strict=False)]


def composed(text: str) -> str:
    return compose(subgraphs_of(text))


def errors_of(subgraphs: list[Subgraph]) -> tuple[CompositionError, ...]:
    with pytest.raises(CompositionFailed) as failed:
        compose(subgraphs)
    return failed.value.errors


VALID = {
    "one subgraph": "type Query { a: Int }",
    "root types by other names": """
        schema { query: Q mutation: M } type Q { a: Int } type M { put(a: Int!): Int } --- type Query { b: Int }""",
    "fields of root types of several": """
        type Query { a: Int both: Int @shareable } --- type Query { both: Int @shareable }""",
    "an entity of two": """
        type Query { p: P } type P @key(fields: "id") { id: ID! name: String }
        --- type P @key(fields: "id") { id: ID! price: Int }""",
    "several keys, nested": """
        type Query { p: P } type P @key(fields: "id") @key(fields: "sku { code  region }") { id: ID! sku: Sku! }
        type Sku @shareable { code: String! region: String! }
        --- type P @key(fields: "sku { code region }") { sku: Sku! price: Int }
        type Sku @shareable { code: String! region: String! }""",
    "a key that cannot be asked by": """
        type Query { p: P } type P @key(fields: "id", resolvable: false) { id: ID! }
        --- type P @key(fields: "id") { id: ID! price: Int }""",
    "requires": """
        type Query { p: P } type P @key(fields: "id") { id: ID! size: Size weight: Int }
        type Size @shareable { w: Int h: Int }
        --- type P @key(fields: "id") { id: ID! size: Size @external weight: Int @external
            cost: Int @requires(fields: "size { w h } weight") } type Size @shareable { w: Int h: Int }""",
    "requires a field with arguments": """
        type Query { p: P } type P @key(fields: "id") { id: ID! price(in: String!): Int }
        --- type P @key(fields: "id") { id: ID! price(in: String!): Int @external
            tax: Int @requires(fields: "price(in: \\"EUR\\")") }""",
    "requires through fragments": """
        type Query { p: P } type P @key(fields: "id") { id: ID! by: By } union By = X | Y
        type X @shareable { x: Int } type Y @shareable { y: Int }
        --- type P @key(fields: "id") { id: ID! by: By @external
            z: Int @requires(fields: "by { ... on X { x } ... on Y { y } }") }
        union By = X | Y type X @shareable { x: Int } type Y @shareable { y: Int }""",
    "requires the key as well": """
        type Query { p: P } type P @key(fields: "id") { id: ID! n: Int }
        --- extend type P @key(fields: "id") { id: ID! n: Int @external z: Int @requires(fields: "n") }""",
    "provides": """
        type Query { p: P @provides(fields: "name") } type P @key(fields: "id") { id: ID! name: String @external }
        --- type P @key(fields: "id") { id: ID! name: String @shareable }""",
    "provides through a union": """
        type Query { u: U @provides(fields: "... on P { name }") } union U = P | R type R { r: Int }
        type P @key(fields: "id") { id: ID! name: String @external }
        --- type P @key(fields: "id") { id: ID! name: String @shareable }""",
    "override": """
        type Query { p: P } type P @key(fields: "id") { id: ID! name: String @override(from: "two") }
        --- type P @key(fields: "id") { id: ID! name: String }""",
    "override of a key": """
        type Query { p: P } type P @key(fields: "id") { id: ID! @override(from: "two") }
        --- type P @key(fields: "id") { id: ID! x: Int }""",
    "override of a root field": 'type Query { x: Int @override(from: "two") } --- type Query { x: Int y: Int }',
    "override from a subgraph that is not there": """
        type Query { p: P } type P @key(fields: "id") { id: ID! name: String @override(from: "gone") }
        --- type P @key(fields: "id") { id: ID! x: Int }""",
    "override step by step": """
        type Query { p: P } type P @key(fields: "id") { id: ID! n: Int @override(from: "two", label: "percent(5)") }
        --- type P @key(fields: "id") { id: ID! n: Int }""",
    "override of what needed another field": """
        type Query { p: P } type P @key(fields: "id") { id: ID! n: Int z: Int @override(from: "two") }
        --- type P @key(fields: "id") { id: ID! n: Int @external z: Int @requires(fields: "n") }""",
    "nullable here and there": """
        type Query { v: V @shareable } type V @shareable { a: Int! l: [Int!]! }
        --- type Query { w: V } type V @shareable { a: Int l: [Int] }""",
    "interface of several": """
        type Query { n: [N] } interface N { id: ID! } type P implements N @key(fields: "id") { id: ID! }
        --- type Query { m: N } interface N { id: ID! } type P implements N @key(fields: "id") { id: ID! b: Int }
        type R implements N { id: ID! }""",
    "interface that implements another": """
        type Query { n: N } interface M { a: Int } interface N implements M { a: Int b: Int }
        type P implements M & N { a: Int b: Int }""",
    "union of several": """
        type Query { u: U } union U = P | R type P @shareable { a: Int } type R { r: Int }
        --- type Query { v: U } union U = P | S type P @shareable { a: Int } type S { s: Int }""",
    "enum that is answered": "type Query { a: E } enum E { A B } --- type Query { b: E } enum E { B C }",
    "enum that is given": "type Query { a(e: E): Int } enum E { A B } --- type Query { b(e: E): Int } enum E { B C }",
    "enum that is both": "type Query { a(e: E): E } enum E { A B } --- type Query { b(e: E): Int } enum E { B A }",
    "enum of which a value is hidden": """
        type Query { a(e: E): E } enum E { A B @inaccessible } --- type Query { b(e: E): Int } enum E { A }""",
    "inputs in common": """
        type Query { a(i: I): Int } input I { x: Int! y: Int z: [Int!] = [1] }
        --- type Query { b(i: I): Int } input I { x: Int z: [Int!] = [1] }""",
    "arguments in common": """
        type Query { a(x: Int, y: Int!, z: E = A): Int @shareable } enum E { A }
        --- type Query { a(y: Int, z: E = A): Int @shareable } enum E { A }""",
    "scalars": """
        type Query { a: Date } scalar Date @specifiedBy(url: "https://date.test")
        --- type Query { b: Date } scalar Date""",
    "interface object": """
        type Query { m: [Media] } interface Media @key(fields: "id") { id: ID! title: String }
        type Book implements Media @key(fields: "id") { id: ID! title: String }
        --- type Media @interfaceObject @key(fields: "id") { id: ID! stars: Int! } type Query { best: Media }""",
    "interface object of two": """
        type Query { m: [Media] } interface Media @key(fields: "id") { id: ID! }
        type Book implements Media @key(fields: "id") { id: ID! }
        --- type Media @interfaceObject @key(fields: "id") { id: ID! stars: Int! }
        --- type Media @interfaceObject @key(fields: "id") { id: ID! views: Int! }""",
    "descriptions and deprecations": '''
        "The query" type Query { "The a\\nof it" a("how many" first: Int): Int @deprecated(reason: "use \\"b\\"") b: E }
        """E it is""" enum E { "one" A B @deprecated } input I { x: Int @deprecated y: Int }
        --- "Another" type Query { c(i: I): E } enum E { A "two" B } input I { "given" x: Int y: Int }''',
    "tags and what is hidden": """
        type Query { a(x: Int @tag(name: "t")): T @tag(name: "q") }
        type T @tag(name: "t") { x: Int @inaccessible y: U } union U @tag(name: "u") = T
        --- type Query { b: H @inaccessible } type H @inaccessible { z: S } scalar S @inaccessible""",
    "permissions": """
        type Query { a: T @authenticated } type T @key(fields: "id") @requiresScopes(scopes: [["a"], ["b", "c"]])
        { id: ID! x: Int @policy(policies: [["p"]]) }
        --- type T @key(fields: "id") @requiresScopes(scopes: [["c"]]) { id: ID! y: Int }""",
    "permissions of an interface's objects": """
        type Query { n: N } interface N { x: Int } type A implements N { x: Int @authenticated }
        type B implements N @requiresScopes(scopes: [["b"]]) { x: Int }""",
    "costs": """
        type Query { a(x: Int @cost(weight: 3)): [Int] @cost(weight: 2) @listSize(assumedSize: 9) }
        enum E @cost(weight: 1) { A } --- type Query { b(n: Int): [E] @listSize(slicingArguments: ["n"]) }
        enum E @cost(weight: 4) { A }""",
    "one of": "type Query { a(i: I): Int } input I @oneOf { x: Int y: Int }",
    "directives that clients use": """
        directive @log(at: Int!) on FIELD | QUERY type Query { a: Int }
        --- directive @log(at: Int!) on FIELD | FRAGMENT_SPREAD type Query { b: Int }""",
    "directives that clients use, of one only": """
        directive @log(at: Int!) on FIELD type Query { a: Int } --- type Query { b: Int }""",
    "composed directive": """
        extend schema @link(url: "https://acme.test/audit/v1.2", import: ["@audit"]) @composeDirective(name: "@audit")
        directive @audit(by: String) on FIELD_DEFINITION | OBJECT
        type Query { a: T @audit(by: "me") } type T @audit { x: Int }""",
    "subscription": """
        type Query { a: Int } type Subscription { s: P } type P @key(fields: "id") { id: ID! }
        --- type P @key(fields: "id") { id: ID! n: Int }""",
    "extended within its subgraph": """
        type Query { a: T } extend type T { x: Int } type T { y: Int } extend type Query { b: T }""",
    "extended elsewhere": """
        type Query { a: T } type T @key(fields: "id") { id: ID! }
        --- extend type T @key(fields: "id") { id: ID! @external z: Int }""",
    "shareable by the declaration": """
        type Query { a: T } type T @shareable { x: Int } extend type T { mine: Int }
        --- type T @shareable { x: Int }""",
    "names with their namespace": """
        # extend schema ->
        extend schema @link(url: "https://specs.apollo.dev/federation/v2.3")
        type Query { p: P } type P @federation__key(fields: "id") { id: ID! name: String @federation__shareable }
        --- type P @key(fields: "id") { id: ID! name: String @shareable }""",
    "renamed imports": """
        # extend schema ->
        extend schema @link(url: "https://specs.apollo.dev/federation/v2.0",
            import: [{ name: "@key", as: "@id" }, "@shareable"])
        type Query { p: P } type P @id(fields: "id") { id: ID! } directive @key on OBJECT
        --- type P @key(fields: "id") { id: ID! name: String }""",
    "definitions that Federation adds": """
        # Federation 2, as libraries print it
        schema @link(url: "https://specs.apollo.dev/federation/v2.5", import: ["@key", "FieldSet"]) { query: Query }
        directive @key(fields: FieldSet!, resolvable: Boolean = true) repeatable on OBJECT | INTERFACE
        directive @link(url: String, as: String, for: link__Purpose, import: [link__Import]) repeatable on SCHEMA
        scalar link__Import enum link__Purpose { SECURITY EXECUTION } scalar FieldSet scalar _Any union _Entity = P
        type _Service { sdl: String! } type P @key(fields: "id") { id: ID! }
        type Query { p: P _entities(representations: [_Any!]!): [_Entity]! _service: _Service! }""",
    "Federation 1": """
        # Federation 1
        type Query { me: User } type User @key(fields: "id") { id: ID! name: String address: Address }
        type Address { street: String }
        --- # Federation 1
        extend type User @key(fields: "id") { id: ID! @external name: String @external reviews: [Review] }
        type Review { author: User @provides(fields: "name") at: Address } type Address { street: String }
        extend type Query { reviews: [Review] }""",
    "Federation 1 with requires, beside Federation 2": """
        # Federation 1
        type Query { p: P } type P @key(fields: "id") { id: ID! weight: Int price: Int }
        --- # Federation 1
        type P @extends @key(fields: "id") { id: ID! @external weight: Int @external price: Int @external
            cost: Int @requires(fields: "weight") }
        --- type P @key(fields: "id") { id: ID! stock: Int }""",
}

INVALID = {
    "INVALID_GRAPHQL": [
        "type Query { a: Nowhere }",
        "type Query { a: Int a: Int }",
        "type Query { a(x: Int, x: Int): Int }",
        "type Query { a: Int @unheard }",
        'type Query { a: Int @key(fields: "a") }',
        "type Query { a: Int @override }",
        "type Query { a: Int @shareable(why: 1) }",
        'type Query { a(x: Int = "one"): Int }',
        "type Query { a(x: T): Int } type T { a: Int }",
        "type Query { a: I } input I { a: Int }",
        "type Query { a: T } type T",
        "type Query { a: T } type T { a: Int } type T { b: Int }",
        "type Query { a: N } interface N { a: Int } type P implements N { b: Int }",
        "type Query { a: N } interface N { a: Int! } type P implements N { a: Int }",
        "type Query { a: N } interface N { a(x: Int): Int } type P implements N { a: Int }",
        "type Query { a: U } union U = E enum E { A }",
        "type Query { a(i: I): Int } input I { i: I! }",
        "type Query { a: E } enum E { A A }",
        "type Query { __a: Int }",
        "schema { query: Nowhere } type Query { a: Int }",
        "# Federation 1\ntype Query { a: Int @shareable }",
        '# 2.4\nextend schema @link(url: "https://specs.apollo.dev/federation/v2.4")'
        " type Query { a: Int @authenticated }",
    ],
    "KEY_INVALID_FIELDS": [
        'type Query { a: T } type T @key(fields: "nope") { id: ID! }',
        'type Query { a: T } type T @key(fields: "id {") { id: ID! }',
        'type Query { a: T } type T @key(fields: "") { id: ID! }',
    ],
    "KEY_FIELDS_HAS_ARGS": ['type Query { a: T } type T @key(fields: "id") { id(x: Int): ID! }'],
    "KEY_FIELDS_SELECT_INVALID_TYPE": [
        'type Query { a: T } type T @key(fields: "n { x }") { n: N } interface N { x: Int } type P implements'
        " N { x: Int }"
    ],
    "KEY_INVALID_FIELDS_TYPE": ['type Query { a: T } type T @key(fields: ["id"]) { id: ID! }'],
    "KEY_UNSUPPORTED_ON_INTERFACE": [
        '# 2.2\nextend schema @link(url: "https://specs.apollo.dev/federation/v2.2", import: ["@key"])'
        ' type Query { n: N } interface N @key(fields: "id") { id: ID! } type P implements N @key(fields:'
        ' "id") { id: ID! }'
    ],
    "REQUIRES_INVALID_FIELDS": [
        'type Query { a: T } type T @key(fields: "id") { id: ID! x: Int @requires(fields: "nope") }',
    ],
    "REQUIRES_FIELDS_MISSING_EXTERNAL": [
        'type Query { a: T } type T @key(fields: "id") { id: ID! y: Int x: Int @requires(fields: "y") }',
    ],
    "PROVIDES_INVALID_FIELDS": ['type Query { a: T @provides(fields: "nope") } type T @key(fields: "id") { id: ID! }'],
    "PROVIDES_FIELDS_MISSING_EXTERNAL": [
        'type Query { a: T @provides(fields: "x") } type T @key(fields: "id") { id: ID! x: Int }'
    ],
    "PROVIDES_ON_NON_OBJECT_FIELD": ['type Query { a: Int @provides(fields: "x") }'],
    "EXTERNAL_UNUSED": [
        'type Query { a: T } type T @key(fields: "id") { id: ID! x: Int @external }'
        ' --- type T @key(fields: "id") { id: ID! x: Int }'
    ],
    "EXTERNAL_MISSING_ON_BASE": [
        'type Query { a: T } type T @key(fields: "id") { id: ID! y: Int @external x: Int @requires(fields: "y") }'
    ],
    "EXTERNAL_ARGUMENT_MISSING": [
        'type Query { a: T } type T @key(fields: "id") { id: ID! y: Int @external x: Int @requires(fields: "y") }'
        ' --- type T @key(fields: "id") { id: ID! y(z: Int): Int }'
    ],
    "MERGED_DIRECTIVE_APPLICATION_ON_EXTERNAL": [
        'type Query { a: T } type T @key(fields: "id") { id: ID! y: Int @external @tag(name: "t") x: Int'
        ' @requires(fields: "y") }'
        ' --- type T @key(fields: "id") { id: ID! y: Int }'
    ],
    "INVALID_FIELD_SHARING": [
        "type Query { a: Int } --- type Query { a: Int }",
        "type Query { a: Int @shareable } --- type Query { a: Int }",
        "type Query { a: Int } type Subscription { s: Int @shareable } --- type Subscription { s: Int @shareable }",
        'type Query { t: T } type T @key(fields: "id") { id: ID! x: Int }'
        ' --- type T @key(fields: "id") { id: ID! x: Int }',
    ],
    "INVALID_SHAREABLE_USAGE": ["type Query { n: N } interface N { a: Int @shareable } type P implements N { a: Int }"],
    "FIELD_TYPE_MISMATCH": [
        "type Query { a: Int @shareable } --- type Query { a: String @shareable }",
        "type Query { a: [Int] @shareable } --- type Query { a: Int @shareable }",
        "type Query { a(i: I): Int } input I { x: Int } --- type Query { b(i: I): Int } input I { x: String }",
    ],
    "FIELD_ARGUMENT_TYPE_MISMATCH": [
        "type Query { a(x: Int): Int @shareable } --- type Query { a(x: ID): Int @shareable }"
    ],
    "FIELD_ARGUMENT_DEFAULT_MISMATCH": [
        "type Query { a(x: Int = 1): Int @shareable } --- type Query { a(x: Int = 2): Int @shareable }"
    ],
    "INPUT_FIELD_DEFAULT_MISMATCH": [
        "type Query { a(i: I): Int } input I { x: Int = 1 } --- type Query { b(i: I): Int } input I { x: Int = 2 }"
    ],
    "REQUIRED_ARGUMENT_MISSING_IN_SOME_SUBGRAPH": [
        "type Query { a(x: Int!): Int @shareable } --- type Query { a: Int @shareable }"
    ],
    "REQUIRED_INPUT_FIELD_MISSING_IN_SOME_SUBGRAPH": [
        "type Query { a(i: I): Int } input I { x: Int! y: Int } --- type Query { b(i: I): Int } input I { y: Int }"
    ],
    "EMPTY_MERGED_INPUT_TYPE": [
        "type Query { a(i: I): Int } input I { x: Int } --- type Query { b(i: I): Int } input I { y: Int }"
    ],
    "EMPTY_MERGED_ENUM_TYPE": ["type Query { a(e: E): Int } enum E { A } --- type Query { b(e: E): Int } enum E { B }"],
    "ENUM_VALUE_MISMATCH": ["type Query { a(e: E): E } enum E { A B } --- type Query { b: E } enum E { A }"],
    "TYPE_KIND_MISMATCH": ["type Query { a: T } type T { x: Int } --- type Query { b(t: T): Int } input T { x: Int }"],
    "EXTENSION_WITH_NO_BASE": ["type Query { a: T } extend type T { x: Int }"],
    "INTERFACE_FIELD_NO_IMPLEM": [
        "type Query { n: N } interface N { a: Int } type P implements N { a: Int }"
        " --- type Query { m: N } interface N { a: Int b: Int } type R implements N { a: Int b: Int }"
    ],
    "INTERFACE_KEY_NOT_ON_IMPLEMENTATION": [
        'type Query { n: N } interface N @key(fields: "id") { id: ID! } type P implements N { id: ID! }'
    ],
    "INTERFACE_OBJECT_USAGE_ERROR": [
        'type Query { n: N } type N @interfaceObject { id: ID! } --- interface N @key(fields: "id") { id: ID! }'
        ' type P implements N @key(fields: "id") { id: ID! }',
        'type Query { n: N } type N @interfaceObject @key(fields: "id") { id: ID! }',
    ],
    "OVERRIDE_FROM_SELF_ERROR": ['type Query { a: Int @override(from: "one") }'],
    "OVERRIDE_COLLISION_WITH_ANOTHER_DIRECTIVE": [
        'type Query { t: T } type T @key(fields: "id") { id: ID! y: Int @external @override(from: "two") x:'
        ' Int @requires(fields: "y") }'
        ' --- type T @key(fields: "id") { id: ID! y: Int }',
        'type Query { t: T } type T @key(fields: "id") { id: ID! x: Int @override(from: "two", label: "l") y: Int }'
        ' --- type T @key(fields: "id") { id: ID! y: Int @external x: Int @requires(fields: "y") }',
    ],
    "OVERRIDE_SOURCE_HAS_OVERRIDE": [
        'type Query { a: Int @override(from: "two") } --- type Query { a: Int @override(from: "one") }'
    ],
    "OVERRIDE_LABEL_INVALID": [
        'type Query { a: Int @override(from: "two", label: "no spaces") } --- type Query { a: Int }'
    ],
    "OVERRIDE_ON_INTERFACE": [
        'type Query { n: N } interface N { a: Int @override(from: "two") } type P implements N { a: Int }'
    ],
    "NO_QUERIES": ["type T { a: Int }"],
    "ROOT_QUERY_USED": ["schema { query: Q } type Q { a: Int } type Query { b: Int }"],
    "REFERENCED_INACCESSIBLE": [
        "type Query { a: T } type T @inaccessible { x: Int }",
        "type Query { a(e: E): Int } enum E @inaccessible { A }",
    ],
    "ONLY_INACCESSIBLE_CHILDREN": [
        "type Query { a: T } type T { x: Int @inaccessible }",
        "type Query { a: E } enum E { A @inaccessible }",
    ],
    "REQUIRED_INACCESSIBLE": ["type Query { a(x: Int! @inaccessible): Int }"],
    "IMPLEMENTED_BY_INACCESSIBLE": [
        "type Query { n: N } interface N { a: Int } type P implements N { a: Int @inaccessible b: Int }"
    ],
    "DEFAULT_VALUE_USES_INACCESSIBLE": ["type Query { a(e: E = B): Int } enum E { A B @inaccessible }"],
    "QUERY_ROOT_TYPE_INACCESSIBLE": ["type Query @inaccessible { a: Int }"],
    "AUTH_REQUIREMENTS_APPLIED_ON_INTERFACE": [
        "type Query { n: N } interface N { a: Int @authenticated } type P implements N { a: Int }"
    ],
    "MISSING_TRANSITIVE_AUTH_REQUIREMENTS": [
        'type Query { t: T } type T @key(fields: "id") { id: ID! y: Int @authenticated }'
        ' --- type T @key(fields: "id") { id: ID! y: Int @external x: Int @requires(fields: "y") }'
    ],
    "COST_APPLIED_TO_INTERFACE_FIELD": [
        "type Query { n: N } interface N { a: Int @cost(weight: 1) } type P implements N { a: Int }"
    ],
    "LIST_SIZE_INVALID_ASSUMED_SIZE": ["type Query { a: [Int] @listSize(assumedSize: -1) }"],
    "LIST_SIZE_INVALID_SLICING_ARGUMENT": ['type Query { a(n: String): [Int] @listSize(slicingArguments: ["n"]) }'],
    "LIST_SIZE_APPLIED_TO_NON_LIST": ['type Query { a: T @listSize(sizedFields: ["x"]) } type T { x: Int }'],
    "DIRECTIVE_COMPOSITION_ERROR": [
        'extend schema @composeDirective(name: "@nope") type Query { a: Int }',
        'extend schema @composeDirective(name: "@mine") directive @mine on OBJECT type Query { a: Int }',
    ],
    "DIRECTIVE_DEFINITION_INVALID": ["directive @key(fields: Int!) repeatable on OBJECT type Query { a: Int }"],
    "UNKNOWN_FEDERATION_LINK_VERSION": [
        '# 2.99\nextend schema @link(url: "https://specs.apollo.dev/federation/v2.99") type Query { a: Int }'
    ],
    "INVALID_LINK_IDENTIFIER": [
        '# none\nextend schema @link(url: "https://specs.apollo.dev/federation") type Query { a: Int }'
    ],
    "INVALID_LINK_DIRECTIVE_USAGE": [
        '# 2.0\nextend schema @link(url: "https://specs.apollo.dev/federation/v2.0", import: ["@policy"])'
        " type Query { a: Int }"
    ],
}


def _invalid() -> Iterator[tuple[str, str]]:
    return ((code, text) for code, texts in INVALID.items() for text in texts)


class TestCompose:
    @pytest.mark.parametrize("text", VALID.values(), ids=list(VALID))
    def test_valid(self, text: str) -> None:
        supergraph = composed(text)
        assert Supergraph.parse(supergraph).api_schema.query_type is not None
        build_schema(supergraph)

    @pytest.mark.parametrize(("code", "text"), list(_invalid()))
    def test_invalid(self, code: str, text: str) -> None:
        errors = errors_of(subgraphs_of(text))
        assert {error.code for error in errors} == {code}
        for error in errors:
            assert error.subgraphs
            assert error.coordinates
            assert any(name in error.message for name in error.subgraphs)

    def test_same_text_whatever_the_order(self) -> None:
        subgraphs = subgraphs_of(VALID["descriptions and deprecations"])
        assert compose(subgraphs) == compose(subgraphs[::-1])

    def test_all_errors_of_a_step_at_once(self) -> None:
        errors = errors_of(subgraphs_of("type Query { a: X @unheard } --- type Query { b: T } type T"))
        assert [error.subgraphs for error in errors] == [("one",), ("one",), ("two",)]
        assert {error.coordinates for error in errors} == {("Query.a",), ("T",)}

    def test_message_tells_the_remedy(self) -> None:
        (error,) = errors_of(subgraphs_of("type Query { a: Int @shareable } --- type Query { a: Int }"))
        assert error.code == "INVALID_FIELD_SHARING"
        assert error.coordinates == ("Query.a",)
        assert error.subgraphs == ("one", "two")
        assert "mark it @shareable in all of them" in error.message


class TestText:
    def test_requirements_are_external_where_required(self) -> None:
        text = composed(VALID["requires"])
        assert "weight: Int @join__field(graph: ONE) @join__field(graph: TWO, external: true)" in text
        assert 'cost: Int @join__field(graph: TWO, requires: "size { w h } weight")' in text

    def test_what_all_have_is_joined_to_none(self) -> None:
        assert re.search(
            r"type P\n  @join__type\(graph: ONE, key: \"id\"\)[^}]*  id: ID!\n", composed(VALID["an entity of two"])
        )

    def test_interface_objects_add_to_what_implements(self) -> None:
        supergraph = composed(VALID["interface object"])
        assert '@join__type(graph: TWO, key: "id", isInterfaceObject: true)' in supergraph
        assert re.search(r"type Book .*?stars: Int! @join__field\n", supergraph, re.DOTALL)

    def test_supertype_of_what_differs(self) -> None:
        text = composed(
            "type Query { x: N @shareable } interface N { a: Int } type P implements N @shareable { a: Int }"
            "--- type Query { x: P! @shareable } type P @shareable { a: Int }"
        )
        assert 'x: N @join__field(graph: ONE, type: "N") @join__field(graph: TWO, type: "P!")' in text

    def test_composed_directive_keeps_its_uses(self) -> None:
        text = composed(VALID["composed directive"])
        assert '@link(url: "https://acme.test/audit/v1.2", import: ["@audit"])' in text
        assert 'a: T @audit(by: "me")' in text
        assert "directive @audit(by: String) on FIELD_DEFINITION | OBJECT" in text

    def test_unused_externals_of_federation_1_are_left_out(self) -> None:
        text = composed(VALID["Federation 1 with requires, beside Federation 2"])
        assert "price: Int @join__field(graph: ONE)\n" in text

    def test_nothing_of_federation_itself(self) -> None:
        schema = Supergraph.parse(composed(VALID["definitions that Federation adds"])).api_schema
        assert {name for name in schema.type_map if not name.startswith("__")} == {
            "Query",
            "P",
            "ID",
            "String",
            "Boolean",
        }
        assert schema.query_type is not None
        assert list(schema.query_type.fields) == ["p"]


class TestNames:
    def test_that_come_to_the_same(self) -> None:
        names = ["a-b", "a_b", "aB", "A-B-1", "1st", "__x", "é"]
        subgraphs = [Subgraph(name, f"http://{n}", f"type Query {{ f{n}: Int }}") for n, name in enumerate(names)]
        found = Supergraph.parse(compose(subgraphs)).subgraphs
        assert {member.name: member.url for member in found.values()} == {each.name: each.url for each in subgraphs}

    @pytest.mark.parametrize("names", [("a", "a"), ("",), ("_",)])
    def test_not_allowed(self, names: tuple[str, ...]) -> None:
        errors = errors_of([Subgraph(name, "http://x", "type Query { a: Int }") for name in names])
        assert {error.code for error in errors} == {"INVALID_SUBGRAPH_NAME"}


_KEY = _LINK + 'type Query { a: A } type A @key(fields: "FIELDS") { id: ID! a: A }'


class TestHostile:
    @pytest.mark.parametrize(
        ("sdl", "code"),
        [
            ("", "INVALID_GRAPHQL"),
            ("{ a }", "INVALID_GRAPHQL"),
            ("type Query { a: Int \0 }", "INVALID_GRAPHQL"),
            (f"type Query {{ a: {'[' * 5000}Int{']' * 5000} }}", "INVALID_GRAPHQL"),
            (_KEY.replace("FIELDS", "a { " * 5000 + "id" + " }" * 5000), "KEY_INVALID_FIELDS"),
            (_KEY.replace("FIELDS", "id } query { id"), "KEY_INVALID_FIELDS"),
            ("type Query { a(x: Int = 99999999999999999999999999): Int }", "INVALID_GRAPHQL"),
            ("type Query implements Query { a: Int }", "INVALID_GRAPHQL"),
            ("type Query { a: U } union U = U", "INVALID_GRAPHQL"),
            ('extend schema @link(url: "http://[") type Query { a: Int }', "INVALID_LINK_IDENTIFIER"),
            (_LINK + "type Query { a: Int @override(from: 1, label: {}) @cost(weight: [[]]) }", "INVALID_GRAPHQL"),
        ],
    )
    def test_is_told(self, sdl: str, code: str) -> None:
        assert code in {error.code for error in errors_of([Subgraph("a", "http://a", sdl)])}

    def test_deep_key_of_a_recursive_type(self) -> None:
        sdl = _KEY.replace("FIELDS", "a { " * 100 + "id" + " }" * 100)
        assert "key: " in compose([Subgraph("a", "http://a", sdl)])

    def test_nested_fragments_are_walked_once(self) -> None:
        fields = "u { ... on A { " * 60 + "id" + " } }" * 60
        sdl = (
            _LINK
            + f"""
            type Query {{ a: A }} union U = A | B type B {{ u: U }}
            type A @key(fields: "id") {{ id: ID! u: U @external x: Int @requires(fields: "{fields}") }}"""
        )
        assert {error.code for error in errors_of([Subgraph("a", "http://a", sdl)])} == {"EXTERNAL_MISSING_ON_BASE"}

    def test_descriptions_that_blocks_cannot_hold(self) -> None:
        sdl = 'type Query { "\\u0001 \\"\\"\\" \\\\ " a: Int "   \\n  indented\\n" b: Int }'
        parse(text := compose([Subgraph("a", "http://a", sdl)]))
        schema = Supergraph.parse(text).api_schema
        assert schema.query_type is not None
        assert schema.query_type.fields["a"].description == '\u0001 """ \\ '
        assert schema.query_type.fields["b"].description == "   \n  indented\n"
