"""Our composition against the open composer's: supergraphs that say the same, and the same codes of errors."""

import json
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import pytest

from gateway.federation.compose import CompositionFailed, compose
from gateway.federation.subgraph import Subgraph
from tests.gateway.federation.compose_mutations import mutated
from tests.gateway.federation.compose_semantics import Difference, differences, semantics
from tests.gateway.federation.judges.audit import Suite, suites
from tests.gateway.federation.test_compose import INVALID, VALID, subgraphs_of


class Oracle:
    """One Node process for all questions."""

    def __init__(self) -> None:
        command = ["node", str(Path(__file__).with_name("compose_oracle.mjs"))]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, subgraphs: list[Subgraph]) -> str | frozenset[str]:
        """The supergraph, or the codes of what is wrong."""
        assert self._process.stdin
        assert self._process.stdout
        given = [{"name": each.name, "url": each.url, "sdl": each.sdl} for each in subgraphs]
        self._process.stdin.write(json.dumps(given) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        if "errors" in answer:
            return frozenset(error["code"] for error in answer["errors"])
        supergraph: str = answer["supergraphSdl"]
        return supergraph

    def stop(self) -> None:
        self._process.kill()
        self._process.communicate()


@pytest.fixture(scope="module")
def oracle() -> Iterator[Oracle]:
    process = Oracle()
    yield process
    process.stop()


def ours(subgraphs: list[Subgraph]) -> str | frozenset[str]:
    try:
        return compose(subgraphs)
    except CompositionFailed as failed:
        return frozenset(error.code for error in failed.errors)


def is_plain(joins: object) -> bool:
    """Whether they say of each subgraph no more than that it has the field."""
    return isinstance(joins, frozenset) and all(len(join) == 2 and not join[1] for join in joins)


def _of_interface(difference: Difference, said: dict[str, dict[str, object]]) -> bool:
    is_field = len(difference.path) == 4 and difference.path[1] == "fields" and difference.path[3] == "joins"
    return is_field and said[difference.path[0]]["kind"] == "interface_type_definition"


# What supergraphs of ours say differently, and why.
DELIBERATE: list[tuple[str, Callable[[Difference, dict[str, dict[str, object]]], bool]]] = [
    (
        "what is @external to an interface object, what it @provides, its labels, and types of interfaces' fields that "
        "differ are told: theirs forgets them",
        _of_interface,
    ),
    (
        "root fields that all have may have different types: theirs forgets them",
        lambda each, _: each.path[:2] == ("Query", "fields") and is_plain(each.theirs),
    ),
    (
        "@external is @external, if the field is a key of another subgraph: theirs forgets it, and asks there",
        lambda each, _: each.path[-1] == "joins" and is_plain(each.theirs) and _is_external(each.ours),
    ),
    (
        "what Federation 1 leaves unused is left out, of keys of others and of root types too, as in Apollo's upgrader",
        lambda each, _: (
            each.path[1:2] == ("fields",) and not each.ours and (each.ours is None or is_plain(each.theirs))
        ),
    ),
    (
        "the label of an @override of a field that its source does not have hides the field from all: it is left out",
        lambda each, _: "overrideLabel" in str(each.theirs) and "overrideLabel" not in str(each.ours),
    ),
    (
        "a default that some subgraphs do not have is none: they would be asked without the argument that they require",
        lambda each, _: each.path[-1] == "default" and each.ours is None,
    ),
    (
        "the supertype of what differs is the interface or the union, whichever subgraph comes first",
        lambda each, _: (
            each.path[-1] in ("type", "joins") and len(each.path) == 4 and "type" in f"{each.path}{each.ours}"
        ),
    ),
    (
        "a requirement, all of which is in a key, is none: theirs leaves fields without their selections",
        lambda each, _: "requires" in str(each.theirs) and "requires" not in str(each.ours),
    ),
]


def _is_external(joins: object) -> bool:
    return isinstance(joins, frozenset) and all(join[1] == (("external", True),) for join in joins)


def unexplained(ours: str, theirs: str) -> list[Difference]:
    mine = semantics(ours)
    found = differences(mine, semantics(theirs))
    return [each for each in found if not any(is_meant(each, mine) for _, is_meant in DELIBERATE)]


# Subgraphs that only one of us composes, or that we find other faults with: what ours says, what theirs, and why.
OK: frozenset[str] = frozenset()
DIFFERENT: list[tuple[str, str, frozenset[str], frozenset[str]]] = [
    (
        "GraphQL's own directives are not repeatable, either",
        "type Query { a: Int @deprecated @deprecated }",
        frozenset({"INVALID_GRAPHQL"}),
        OK,
    ),
    (
        "a key of an object needs fields of it",
        'type Query { t: T } type T @key(fields: "o") { o: O } type O { id: ID! }',
        frozenset({"KEY_INVALID_FIELDS"}),
        OK,
    ),
    (
        "scalars have no fields",
        'type Query { t: T } type T @key(fields: "id { x }") { id: ID! }',
        frozenset({"KEY_INVALID_FIELDS"}),
        OK,
    ),
    (
        "fields of interfaces are no one's, and so never @external",
        "type Query { n: N } interface N { a: Int @external } type P implements N { a: Int }",
        frozenset({"EXTERNAL_ON_INTERFACE"}),
        OK,
    ),
    (
        "an @override of an @override: which of the subgraphs has the field depends on the order of reading",
        'type Query { x: Int @override(from: "two") } --- type Query { x: Int @override(from: "three") }'
        "--- type Query { x: Int }",
        frozenset({"OVERRIDE_SOURCE_HAS_OVERRIDE"}),
        OK,
    ),
    (
        "interfaces refer to types as objects do: clients would see one that is not there",
        "type Query { n: N } interface N { t: T } type P implements N { t: T @inaccessible }"
        " type T @inaccessible { a: Int }",
        frozenset({"IMPLEMENTED_BY_INACCESSIBLE", "REFERENCED_INACCESSIBLE", "ONLY_INACCESSIBLE_CHILDREN"}),
        frozenset({"IMPLEMENTED_BY_INACCESSIBLE", "ONLY_INACCESSIBLE_CHILDREN"}),
    ),
    (
        "clients would see an empty union",
        "type Query { u: U } union U = T type T @inaccessible { a: Int }",
        frozenset({"ONLY_INACCESSIBLE_CHILDREN"}),
        OK,
    ),
    (
        "interfaces' fields must agree as well",
        "type Query { n: N } interface N { a: Int } --- type Query { m: N } interface N { a: String }",
        frozenset({"FIELD_TYPE_MISMATCH"}),
        OK,
    ),
    (
        "an argument of an interface's field that one subgraph requires, and another does not take",
        "type Query { n: N } interface N { a(x: Int!): Int } --- type Query { m: N } interface N { a: Int }",
        frozenset({"REQUIRED_ARGUMENT_MISSING_IN_SOME_SUBGRAPH"}),
        OK,
    ),
    (
        "an interface object leads back to whoever can tell what it is, who must then know all that it can be",
        """type Query { m: M } interface M @key(fields: "id") { id: ID! }
        type A implements M @key(fields: "id") { id: ID! }
        --- interface M @key(fields: "id") { id: ID! } type B implements M @key(fields: "id") { id: ID! }
        --- type M @interfaceObject @key(fields: "id") { id: ID! x: Int }""",
        frozenset({"INTERFACE_KEY_MISSING_IMPLEMENTATION_TYPE"}),
        OK,
    ),
    (
        "an @external field of a wrong type has one fault",
        """type Query { p: P } type P @key(fields: "id") { id: ID! x: Int! }
        --- type P @key(fields: "id") { id: ID! x: Int @external y: Int @requires(fields: "x") }""",
        frozenset({"EXTERNAL_TYPE_MISMATCH"}),
        frozenset({"EXTERNAL_TYPE_MISMATCH", "FIELD_TYPE_MISMATCH"}),
    ),
    (
        "a schema whose query type is not there has one fault",
        "schema { query: Nowhere } type Query { a: Int }",
        frozenset({"INVALID_GRAPHQL"}),
        frozenset({"INVALID_GRAPHQL", "ROOT_QUERY_USED"}),
    ),
    (
        "a definition that is not Federation's is not a second one as well",
        "directive @key(fields: Int!) repeatable on OBJECT type Query { a: Int }",
        frozenset({"DIRECTIVE_DEFINITION_INVALID"}),
        frozenset({"DIRECTIVE_DEFINITION_INVALID", "INVALID_GRAPHQL"}),
    ),
    (
        "what has a default is not required",
        "type Query { a(i: I): Int } input I { x: Int! = 1 y: Int } --- type Query { b(i: I): Int } input I { y: Int }",
        OK,
        frozenset({"REQUIRED_INPUT_FIELD_MISSING_IN_SOME_SUBGRAPH"}),
    ),
    (
        "an argument that has a default is not required, either",
        "type Query { a(x: Int! = 1): Int @shareable } --- type Query { a: Int @shareable }",
        OK,
        frozenset({"REQUIRED_ARGUMENT_MISSING_IN_SOME_SUBGRAPH"}),
    ),
    (
        "[Int!] is an [Int]: both subgraphs can be given it",
        "type Query { a(x: [Int!]): Int @shareable } --- type Query { a(x: [Int]): Int @shareable }",
        OK,
        frozenset({"FIELD_ARGUMENT_TYPE_MISMATCH"}),
    ),
    (
        "interface objects may be extensions",
        """type Query { m: M } interface M @key(fields: "id") { id: ID! }
        type A implements M @key(fields: "id") { id: ID! }
        --- extend type M @interfaceObject @key(fields: "id") { id: ID! x: Int }""",
        OK,
        frozenset({"EXTENSION_WITH_NO_BASE", "TYPE_KIND_MISMATCH"}),
    ),
    (
        "two interface objects may share a field, if both say so",
        """type Query { m: M } interface M @key(fields: "id") { id: ID! }
        type A implements M @key(fields: "id") { id: ID! }
        --- type M @interfaceObject @key(fields: "id") { id: ID! x: Int @shareable }
        --- type M @interfaceObject @key(fields: "id") { id: ID! x: Int @shareable }""",
        OK,
        frozenset({"INVALID_FIELD_SHARING"}),
    ),
    (
        "what does nothing is no error of Federation 1",
        '# Federation 1\ntype Query { a: Int @provides(fields: "x") }',
        OK,
        frozenset({"PROVIDES_ON_NON_OBJECT_FIELD"}),
    ),
    (
        "libraries for Federation 1 call the scalar of field sets both ways",
        """# Federation 1
        scalar FieldSet directive @key(fields: FieldSet!) repeatable on OBJECT | INTERFACE
        type Query { t: T } type T @key(fields: "id") { id: ID! }""",
        OK,
        frozenset({"DIRECTIVE_DEFINITION_INVALID", "INVALID_GRAPHQL"}),
    ),
    (
        "an extension's key is its own, @external or not, and may be null there",
        """type Query { t: T } type T @key(fields: "id") { id: ID! }
        --- extend type T @key(fields: "id") { id: ID @external z: Int }""",
        OK,
        frozenset({"FIELD_TYPE_MISMATCH"}),
    ),
    (
        "an interface object is of no interface that is an object elsewhere",
        """type Query { t: T } type T @key(fields: "id") { id: ID! }
        --- type T @interfaceObject @key(fields: "id") { id: ID! z: Int }""",
        frozenset({"TYPE_KIND_MISMATCH"}),
        frozenset({"INTERFACE_OBJECT_USAGE_ERROR"}),
    ),
    (
        "specifications of their own may be linked in every version that there is",
        """# Federation 2\nextend schema @link(url: "https://specs.apollo.dev/federation/v2.3")
        @link(url: "https://specs.apollo.dev/tag/v0.3") type Query { a: Int @tag(name: "t") }""",
        OK,
        frozenset({"UNKNOWN_LINK_VERSION"}),
    ),
]


@pytest.mark.parametrize("text", VALID.values(), ids=list(VALID))
def test_valid(oracle: Oracle, text: str) -> None:
    subgraphs = subgraphs_of(text)
    theirs = oracle.ask(subgraphs)
    assert isinstance(theirs, str), theirs
    assert list(differences(semantics(compose(subgraphs)), semantics(theirs))) == []


@pytest.mark.parametrize(
    ("code", "text"),
    [(code, text) for code, texts in INVALID.items() for text in texts if text not in {row[1] for row in DIFFERENT}],
)
def test_invalid(oracle: Oracle, code: str, text: str) -> None:
    assert oracle.ask(subgraphs_of(text)) == frozenset({code})


@pytest.mark.parametrize(("reason", "text", "mine", "theirs"), DIFFERENT, ids=[row[0] for row in DIFFERENT])
def test_different(oracle: Oracle, reason: str, text: str, mine: frozenset[str], theirs: frozenset[str]) -> None:
    answers = ours(subgraphs_of(text)), oracle.ask(subgraphs_of(text))
    assert [OK if isinstance(answer, str) else answer for answer in answers] == [mine, theirs], reason


@pytest.mark.parametrize("name", suites())
def test_audit(oracle: Oracle, name: str) -> None:
    subgraphs = [Subgraph(each, f"http://{each}", sdl) for each, sdl in Suite.load(name).world().sdls.items()]
    theirs = oracle.ask(subgraphs)
    assert isinstance(theirs, str)
    assert unexplained(compose(subgraphs), theirs) == []


# Of mutations: what may be said of subgraphs that only one of us composes.
ONLY_OURS_FINDS = {
    "KEY_INVALID_FIELDS",
    "REQUIRES_INVALID_FIELDS",
    "PROVIDES_INVALID_FIELDS",
    "REQUIRES_FIELDS_MISSING_EXTERNAL",  # within fragments as well
    "PROVIDES_FIELDS_MISSING_EXTERNAL",
    "EXTERNAL_ON_INTERFACE",
    "EXTERNAL_TYPE_MISMATCH",  # of a field that is a key elsewhere
    "OVERRIDE_SOURCE_HAS_OVERRIDE",
    "INTERFACE_KEY_MISSING_IMPLEMENTATION_TYPE",
    "QUERY_ROOT_TYPE_INACCESSIBLE",  # of extensions as well
    "EXTERNAL_UNUSED",  # of extensions as well
    "ONLY_INACCESSIBLE_CHILDREN",
    "REFERENCED_INACCESSIBLE",
    "FIELD_TYPE_MISMATCH",
    "REQUIRED_ARGUMENT_MISSING_IN_SOME_SUBGRAPH",
}
ONLY_THEIRS_FINDS = {code for _, _, mine, theirs in DIFFERENT if mine == OK for code in theirs}
ONLY_THEIRS_FINDS -= {"FIELD_TYPE_MISMATCH", "INVALID_GRAPHQL"}  # too much else is


def _disagreement(mine: str | frozenset[str], theirs: str | frozenset[str]) -> object:
    if isinstance(theirs, frozenset) and theirs & {"THROWN", "NONE"}:
        return None
    if isinstance(mine, str):
        found = unexplained(mine, theirs) if isinstance(theirs, str) else theirs - ONLY_THEIRS_FINDS
        return found or None
    if isinstance(theirs, str):
        return mine - ONLY_OURS_FINDS or None
    # Where a step finds something in one of us and not in the other, the later steps are not asked.
    return None if mine & theirs or mine & ONLY_OURS_FINDS or theirs & ONLY_THEIRS_FINDS else (mine, theirs)


@pytest.mark.parametrize("seeds", [range(n, n + 100) for n in range(0, 600, 100)], ids=str)
def test_mutations(oracle: Oracle, seeds: range) -> None:
    outcomes: Counter[str] = Counter()
    for seed in seeds:
        sdls = mutated(Random(seed))
        subgraphs = [Subgraph(name, f"http://{name}", sdl) for name, sdl in sdls.items()]
        mine, theirs = ours(subgraphs), oracle.ask(subgraphs)
        assert _disagreement(mine, theirs) is None, f"seed {seed}\n" + "\n---\n".join(sdls.values())
        outcomes["composed" if isinstance(mine, str) else "refused"] += 1
        outcomes["alike"] += mine == theirs if isinstance(mine, frozenset) else isinstance(theirs, str)
    assert outcomes["composed"] >= 15
    assert outcomes["refused"] >= 15
    assert outcomes["alike"] >= 75
