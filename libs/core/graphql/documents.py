"""Documents, parsed, weighed and validated once, and kept."""

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any

from graphql import (
    ASTValidationRule,
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    GraphQLError,
    GraphQLSchema,
    NoSchemaIntrospectionCustomRule,
    OperationDefinitionNode,
    OperationType,
    get_variable_values,
    parse,
    specified_rules,
    validate,
)
from graphql.execution.collect_fields import CollectedFields, FieldDetailsList, FragmentDetails
from graphql.execution.values import VariableValues
from graphql.validation.rules import overlapping_fields_can_be_merged
from strawberry.schema.validation_rules.maybe_null import MaybeNullValidationRule
from strawberry.schema.validation_rules.one_of import OneOfInputValidationRule

from libs.core.graphql.engine import Request
from libs.core.graphql.errors import HTTPRefused, RequestRefused
from libs.core.graphql.limits import LimitExceeded, Limits, Scale, check, check_variables

# The one rule that compares fields pairwise gives up after this many steps. graphql-core's 500,000 let a document of
# 2,000 tokens take 560 ms; with these it takes 40. The introspection query needs fewer than 1,000.
overlapping_fields_can_be_merged.MAX_COMPLEXITY_BUDGET = 10_000

_ERRORS = 10


class Document:
    """A valid document and its operations."""

    def __init__(self, node: DocumentNode, source: str) -> None:
        self.node = node
        self.chars = len(source)
        # What is collected from a selection depends on variables only through @skip and @include.
        self.static = "@" not in source
        self.fragment_definitions = {d.name.value: d for d in node.definitions if isinstance(d, FragmentDefinitionNode)}
        self.fragments = {name: FragmentDetails(node) for name, node in self.fragment_definitions.items()}
        self.operations = [Operation(self, d) for d in node.definitions if isinstance(d, OperationDefinitionNode)]

    def operation(self, name: str | None) -> "Operation":
        """The operation called `name`, or the only one there is."""
        if name is None and len(self.operations) == 1:
            return self.operations[0]
        for operation in self.operations:
            if name is not None and operation.name == name:
                return operation
        several = "The document must hold one operation, or operationName must choose one."
        message = several if name is None else f"Unknown operation named '{name}'."
        raise RequestRefused.by_rules([GraphQLError(message)], "OPERATION_RESOLUTION_FAILURE")


@dataclass(eq=False, slots=True)
class Memo:
    """What execution finds out about selections: to keep it saves 11 µs of a trivial query's 30.

    Keys hold the `id` of lists that the values keep alive.
    """

    sub_fields: dict[tuple[Any, int], tuple[FieldDetailsList, CollectedFields]] = field(default_factory=dict)
    plans: dict[int, Any] = field(default_factory=dict)
    root: CollectedFields | None = None


class Operation:
    """One operation of a document, and everything about it that does not change between requests."""

    def __init__(self, document: Document, node: OperationDefinitionNode) -> None:
        self.document = document
        self.node = node
        self.name = node.name.value if node.name else None
        self.type: OperationType = node.operation
        self.page_variables: tuple[str, ...] = ()
        self._memo = Memo()
        self._affordable: set[tuple[int | None, ...]] = set()

    @property
    def memo(self) -> Memo:
        """Shared by all requests if nothing in it can depend on variables, else the request's own."""
        return self._memo if self.document.static else Memo()

    def coerce(self, schema: GraphQLSchema, variables: dict[str, Any], *, hide_suggestions: bool) -> VariableValues:
        """`variables` as the schema's types read them, with defaults; `RequestRefused` if they do not fit."""
        if not self.node.variable_definitions:
            return _NO_VARIABLES
        values = get_variable_values(schema, self.node.variable_definitions, variables, _ERRORS, hide_suggestions)
        if isinstance(values, list):
            raise RequestRefused.by_rules(values, "BAD_USER_INPUT")
        return values

    def check_cost(self, limits: Limits, values: VariableValues) -> None:
        """`LimitExceeded` if these variables ask for pages, or for entities, that cost too much."""
        if not self.page_variables:
            return
        sizes = tuple(_size(values.coerced.get(name)) for name in self.page_variables)
        if sizes in self._affordable:  # weighing takes 50 µs, and most clients always ask for the same size
            return
        check(limits, Scale(self.document.node, values.coerced), self.node)
        if len(self._affordable) < PAGE_SIZES:
            self._affordable.add(sizes)


def _size(value: object) -> int | None:
    """What a variable adds to the cost: a page's size, or how many entities are asked for."""
    if isinstance(value, list):
        return len(value)
    return value if type(value) is int else None


PAGE_SIZES = 100
_NO_VARIABLES = VariableValues({}, {})


class Documents:
    """Those of one schema: the least recently used are forgotten once there are too many, by number or by length."""

    def __init__(self, schema: GraphQLSchema, limits: Limits, *, development: bool) -> None:
        self._schema = schema
        self._limits = limits
        self._development = development
        self._kept: OrderedDict[str, Document] = OrderedDict()
        self._chars = 0
        introspection = () if development else (NoSchemaIntrospectionCustomRule, _NoServiceRule)
        self._rules: tuple[type[ASTValidationRule], ...] = (
            *specified_rules,
            MaybeNullValidationRule,
            OneOfInputValidationRule,
            *introspection,
        )

    def __len__(self) -> int:
        return len(self._kept)

    def ask(self, request: Request) -> tuple[Operation, VariableValues]:
        """What `request` asks for, with its variables coerced. `RequestRefused` if the document, the operation's name
        or the variables are wrong, or ask for too much; `HTTPRefused` if it may only read, and would mutate.
        """
        try:
            operation = self.get(request.query).operation(request.operation_name)
            if request.only_reads and operation.type is OperationType.MUTATION:
                raise HTTPRefused(405, "METHOD_NOT_ALLOWED", "a mutation takes POST", allow="POST")
            check_variables(self._limits, request.variables)
            values = operation.coerce(self._schema, request.variables, hide_suggestions=not self._development)
            operation.check_cost(self._limits, values)
        except LimitExceeded as error:
            raise RequestRefused.of(error, by_graphql=True) from None
        return operation, values

    def get(self, source: str) -> Document:
        """`RequestRefused` with what is wrong with `source`."""
        document = self._kept.get(source)
        if document is None:
            document = self._prepare(source)
            self._keep(source, document)
        else:
            self._kept.move_to_end(source)
        return document

    def _keep(self, source: str, document: Document) -> None:
        self._kept[source] = document
        self._chars += document.chars
        while len(self._kept) > self._limits.cached_documents or self._chars > self._limits.cached_chars:
            _, forgotten = self._kept.popitem(last=False)
            self._chars -= forgotten.chars

    def _prepare(self, source: str) -> Document:
        limits = self._limits
        try:
            node = parse(
                source,
                max_lexical_tokens=limits.tokens,
                max_comments=limits.tokens,
                max_source_length=limits.query_chars,
            )
        except GraphQLError as error:
            raise RequestRefused.by_rules([error], _code([error], "GRAPHQL_PARSE_FAILED")) from None
        document = Document(node, source)
        scale = Scale(node, {})
        for operation in document.operations:
            check(limits, scale, operation.node)
            operation.page_variables = tuple(sorted(scale.page_variables))
        if errors := validate(self._schema, node, self._rules, _ERRORS, hide_suggestions=not self._development):
            raise RequestRefused.by_rules(errors, _code(errors, "GRAPHQL_VALIDATION_FAILED"))
        return document


class _NoServiceRule(ASTValidationRule):
    """Federation's `_service { sdl }` is introspection by another name."""

    def enter_field(self, node: FieldNode, *_: Any) -> None:
        if node.name.value == "_service":
            self.report_error(GraphQLError("_service is available in development only.", node))


def _code(errors: list[GraphQLError], otherwise: str) -> str:
    """graphql-core's own limits show in nothing but their messages."""
    limited = all("aborted." in e.message and not e.message.startswith("Too many") for e in errors)
    return LimitExceeded.code if limited else otherwise
