"""Composition: subgraphs made into one supergraph, or all that keeps them from it.

    compose([Subgraph("products", "http://…", sdl), …])      # the supergraph's text, the same for the same subgraphs

Steps: each subgraph is read (`link`, `read`, `upgrade`) and checked (`check`, `field_sets`); all of them are merged
(`merge`), and what came of it is checked (`check_merged`, `sharing`, …), joined (`join`) and printed. Last, every field
must be reachable wherever a client can ask for it (`satisfiability`).
"""

from collections.abc import Sequence

from graphql import DocumentNode, GraphQLError, parse

from gateway.federation.compose.access import check_access
from gateway.federation.compose.check import check_federation, check_graphql
from gateway.federation.compose.check_merged import check_merged
from gateway.federation.compose.errors import CompositionError, CompositionFailed, Report, SubgraphReport
from gateway.federation.compose.field_sets import check_field_sets
from gateway.federation.compose.graphs import graph_ids
from gateway.federation.compose.join import join
from gateway.federation.compose.link import read_names
from gateway.federation.compose.merge import merge
from gateway.federation.compose.model import Composite, Schema
from gateway.federation.compose.print import printed
from gateway.federation.compose.read import read
from gateway.federation.compose.upgrade import upgrade
from gateway.federation.satisfiability import unsatisfiable
from gateway.federation.subgraph import Subgraph
from gateway.federation.supergraph import Supergraph

__all__ = ["CompositionError", "CompositionFailed", "compose"]


def compose(subgraphs: Sequence[Subgraph]) -> str:
    """The SDL of the supergraph, with the directives of join v0.5. Raises `CompositionFailed`."""
    schemas = _schemas(subgraphs)
    report = Report()
    merged = merge(schemas, report)
    check_merged(merged, report)
    report.raise_any()
    check_access(merged, report)
    report.raise_any()
    join(merged)
    sdl = printed(merged)
    for found in unsatisfiable(Supergraph.parse(sdl)):
        report.add("SATISFIABILITY_ERROR", found.message, found.coordinate, found.subgraphs)
    report.raise_any()
    return sdl


def _schemas(subgraphs: Sequence[Subgraph]) -> list[Schema]:
    report = Report()
    ids = graph_ids([subgraph.name for subgraph in subgraphs], report)
    parsed = [(subgraph, _parsed(subgraph, report)) for subgraph in subgraphs]
    report.raise_any()
    named = []
    for subgraph, document in parsed:
        names = read_names(document, SubgraphReport(report, subgraph.name))
        named.append((Schema(ids[subgraph.name], subgraph.name, subgraph.url, names), document))
    report.raise_any()
    for schema, document in named:
        _read(schema, document, SubgraphReport(report, schema.name))
    report.raise_any()
    return sorted((schema for schema, _ in named), key=lambda schema: schema.id.replace("_", " "))


def _parsed(subgraph: Subgraph, report: Report) -> DocumentNode:
    try:
        return parse(subgraph.sdl, no_location=True)
    except GraphQLError as error:
        line = error.locations[0].line if error.locations else 0
        message = f"line {line} is not GraphQL: {error.message}"
    except RecursionError:
        message = "it is nested too deeply"
    SubgraphReport(report, subgraph.name).invalid(message)
    return DocumentNode(definitions=())


def _read(schema: Schema, document: DocumentNode, report: SubgraphReport) -> None:
    field_sets = read(schema, document, report)
    for type_ in schema.composites():
        for interface in type_.interfaces:
            found = schema.types.get(interface)
            if isinstance(found, Composite) and not type_.interface:
                found.implemented_by.add(type_.name)
    check_graphql(schema, report)
    check_field_sets(schema, field_sets, report)
    check_federation(schema, report)
    if schema.federation_1:
        upgrade(schema)
