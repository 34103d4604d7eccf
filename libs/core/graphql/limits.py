"""What a document may ask for, weighed before it is validated, so that nothing quadratic ever sees a large one."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from graphql import (
    ArgumentNode,
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    InlineFragmentNode,
    IntValueNode,
    ListValueNode,
    OperationDefinitionNode,
    SelectionNode,
    SelectionSetNode,
    VariableNode,
)

from libs.core.errors import CoreError
from libs.core.pagination import PAGE_DEFAULT, PAGE_MAX


class LimitExceeded(CoreError):
    """`details` hold `limit` (which one), `allowed` and, where it is known exactly, `asked`."""

    code = "LIMIT_EXCEEDED"
    status = 400


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on one request, on the caches and on streams. The defaults leave a hand-written query a factor of five."""

    body_bytes: int = 1_000_000
    body_timeout_s: float = 10.0
    query_chars: int = 32_768
    # Introspection takes 300. Two thousand parse in 8 ms, and validate in at most 60.
    tokens: int = 2_000
    depth: int = 15
    aliases: int = 15
    root_fields: int = 15
    directives: int = 30
    # One per field, times the page size above it, or the entities that are asked for: 100 transactions of 8 fields are
    # about 1,000.
    cost: int = 10_000
    # Leaves and containers in `variables`: coercing one takes a microsecond or two.
    variable_values: int = 10_000

    cached_documents: int = 1_000
    # A cached document takes about 100 times its source: this bounds the cache to some 50 MB.
    cached_chars: int = 500_000

    init_timeout_s: float = 5.0
    message_bytes: int = 256_000
    operations_per_connection: int = 50
    reservations_per_caller: int = 10
    reservation_s: float = 30.0
    # Below the 30 to 60 s after which proxies drop a silent connection.
    keepalive_s: float = 12.0


@dataclass(frozen=True, slots=True)
class Weight:
    """A selection's size with every fragment spread out. Sums saturate far above any limit, so they stay small."""

    depth: int = 0
    cost: int = 0
    aliases: int = 0
    directives: int = 0

    def beside(self, other: "Weight") -> "Weight":
        return Weight(
            max(self.depth, other.depth),
            min(self.cost + other.cost, _MANY),
            min(self.aliases + other.aliases, _MANY),
            min(self.directives + other.directives, _MANY),
        )


_MANY = 1_000_000_000


class Scale:
    """Weighs the operations of one document: each fragment once, so exponential spreads take linear time."""

    def __init__(self, document: DocumentNode, variables: Mapping[str, Any]) -> None:
        """`variables` are coerced, with defaults; those that are missing weigh as `PAGE_DEFAULT`, or as one entity."""
        self._fragments = {
            definition.name.value: definition
            for definition in document.definitions
            if isinstance(definition, FragmentDefinitionNode)
        }
        self._variables = variables
        self._weighed: dict[str, Weight | None] = {}
        # The variables that sizes came from: with them the cost differs from request to request.
        self.page_variables: set[str] = set()

    def weigh(self, operation: OperationDefinitionNode) -> Weight:
        return self._selections(operation.selection_set).beside(Weight(directives=len(operation.directives or ())))

    def root_fields(self, operation: OperationDefinitionNode) -> int:
        return sum(1 for _ in self._fields(operation.selection_set, set()))

    def _fields(self, selections: SelectionSetNode, seen: set[str]) -> Iterator[FieldNode]:
        for node in selections.selections:
            if isinstance(node, FieldNode):
                yield node
            elif isinstance(node, InlineFragmentNode):
                yield from self._fields(node.selection_set, seen)
            elif isinstance(node, FragmentSpreadNode) and node.name.value not in seen:
                seen.add(node.name.value)
                if fragment := self._fragments.get(node.name.value):
                    yield from self._fields(fragment.selection_set, seen)

    def _selections(self, selections: SelectionSetNode) -> Weight:
        total = Weight()
        for node in selections.selections:
            total = total.beside(self._selection(node))
        return total

    def _selection(self, node: SelectionNode) -> Weight:
        directives = Weight(directives=len(node.directives or ()))
        if isinstance(node, FieldNode):
            return directives.beside(self._field(node))
        if isinstance(node, InlineFragmentNode):
            return directives.beside(self._selections(node.selection_set))
        assert isinstance(node, FragmentSpreadNode)
        return directives.beside(self._fragment(node.name.value))

    def _field(self, node: FieldNode) -> Weight:
        below = self._selections(node.selection_set) if node.selection_set else Weight()
        return Weight(
            below.depth + 1,
            min(1 + below.cost * self._page_size(node.arguments or ()), _MANY),
            below.aliases + (node.alias is not None),
            below.directives,
        )

    def _fragment(self, name: str) -> Weight:
        if name not in self._weighed:
            self._weighed[name] = None  # while it is open: meeting it again means that it contains itself
            fragment = self._fragments.get(name)
            self._weighed[name] = self._selections(fragment.selection_set) if fragment else Weight()
        weight = self._weighed[name]
        if weight is None:
            raise LimitExceeded(f"the fragment {name} contains itself", limit="fragments")
        return weight

    def _page_size(self, arguments: tuple[ArgumentNode, ...] | list[ArgumentNode]) -> int:
        sizes = [self._number(a) for a in arguments if a.name.value in ("first", "last")]
        entities = [self._length(a) for a in arguments if a.name.value == "representations"]
        return max(sizes + entities, default=1)

    def _number(self, argument: ArgumentNode) -> int:
        value: object = PAGE_DEFAULT
        if isinstance(argument.value, IntValueNode):
            # int() of thousands of digits is slow, and refused; three digits say more than enough.
            value = int(argument.value.value) if len(argument.value.value) <= 3 else PAGE_MAX
        elif isinstance(argument.value, VariableNode):
            self.page_variables.add(argument.value.name.value)
            value = self._variables.get(argument.value.name.value)
        # Anything out of range is refused by the resolver before it loads anything.
        return min(max(value, 1), PAGE_MAX) if type(value) is int else PAGE_DEFAULT

    def _length(self, argument: ArgumentNode) -> int:
        value: object = None
        if isinstance(argument.value, ListValueNode):
            value = argument.value.values
        elif isinstance(argument.value, VariableNode):
            self.page_variables.add(argument.value.name.value)
            value = self._variables.get(argument.value.name.value)
        return len(value) if isinstance(value, list | tuple) else 1


def check(limits: Limits, scale: Scale, operation: OperationDefinitionNode) -> None:
    """`LimitExceeded` if `operation` asks for more than `limits` allow, with the scale's variables."""
    try:
        weight = scale.weigh(operation)
        root_fields = scale.root_fields(operation)
    except RecursionError:
        # The parser nests at most 200 deep, but fragments can be chained further.
        weight, root_fields = Weight(depth=_MANY), 0
    for name, asked in (
        ("root_fields", root_fields),
        ("depth", weight.depth),
        ("aliases", weight.aliases),
        ("directives", weight.directives),
        ("cost", weight.cost),
    ):
        allowed = getattr(limits, name)
        if asked > allowed:
            raise LimitExceeded(
                f"the operation's {name.replace('_', ' ')} must not exceed {allowed}",
                limit=name,
                allowed=allowed,
                **({"asked": asked} if asked < _MANY else {}),
            )


def check_variables(limits: Limits, variables: Mapping[str, Any]) -> None:
    """`LimitExceeded` if `variables` hold more values than allowed; stops counting there."""
    left = limits.variable_values
    waiting: list[Mapping[str, Any] | list[Any]] = [variables]
    while waiting:
        value = waiting.pop()
        children = value.values() if isinstance(value, Mapping) else value
        left -= len(children)
        if left < 0:
            raise LimitExceeded(
                f"variables must not hold more than {limits.variable_values} values",
                limit="variable_values",
                allowed=limits.variable_values,
            )
        waiting.extend(child for child in children if isinstance(child, dict | list))
