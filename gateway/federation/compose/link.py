"""What the names of a subgraph's directives mean: `@link`, its imports and their renames."""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from graphql import (
    ConstDirectiveNode,
    DirectiveNode,
    DocumentNode,
    SchemaDefinitionNode,
    SchemaExtensionNode,
    value_from_ast_untyped,
)

from gateway.federation.compose import spec
from gateway.federation.compose.errors import SubgraphReport

_VERSION = re.compile(r"v(\d{1,3})\.(\d{1,4})$")
_KNOWN_VERSIONS = {
    "link": {"v1.0"},
    "tag": {"v0.1", "v0.2", "v0.3"},
    "inaccessible": {"v0.1", "v0.2"},
    "core": {"v0.1", "v0.2"},
}
_APOLLO = "https://specs.apollo.dev"


@dataclass(frozen=True, slots=True)
class Link:
    """`imports` are names, `@` included, by what the subgraph calls them."""

    identity: str
    name: str | None
    version: str | None
    imports: Mapping[str, str] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"{self.identity}/{self.version}" if self.version else self.identity


@dataclass(frozen=True, slots=True)
class Names:
    """`directives` are Federation's by the subgraph's names for them, without `@`; `types` are those that are not its
    own; `version` is (1, 0) where Federation is not linked."""

    version: tuple[int, int]
    directives: Mapping[str, str]
    types: frozenset[str]
    links: tuple[Link, ...] = ()

    @property
    def federation_1(self) -> bool:
        return self.version == spec.FEDERATION_1

    def is_machinery(self, type_name: str) -> bool:
        return type_name in self.types or type_name.startswith(spec.MACHINERY_PREFIXES)


def read_names(document: DocumentNode, report: SubgraphReport) -> Names:
    links = list(_links(document, report))
    told = set()
    for link in links:
        if any(link is not other and link.identity == other.identity for other in links) and link.identity not in told:
            told.add(link.identity)
            report.add(
                "INVALID_LINK_DIRECTIVE_USAGE", f"{link.identity} is linked twice: keep one @link of it", "@link"
            )
    federation = next((link for link in links if link.identity == spec.IDENTITY), None)
    if federation is None:
        directives = {name: name for name in spec.available(spec.FEDERATION_1)}
        return Names(spec.FEDERATION_1, directives, frozenset({*spec.MACHINERY, "FieldSet"}), tuple(links))
    version = _federation_version(federation, report)
    directives = _federation_directives(federation, version, report)
    for link in links:
        if name := spec.SEPARATE.get(link.identity):
            directives[link.name or name] = name
    types = {name for name, meaning in federation.imports.items() if not meaning.startswith("@")}
    return Names(version, directives, frozenset(types | spec.MACHINERY), tuple(links))


def _links(document: DocumentNode, report: SubgraphReport) -> Iterator[Link]:
    for node in document.definitions:
        if isinstance(node, SchemaDefinitionNode | SchemaExtensionNode):
            for directive in node.directives or ():
                if directive.name.value == "link" and (link := _link(directive, report)):
                    yield link


def _link(directive: DirectiveNode | ConstDirectiveNode, report: SubgraphReport) -> Link | None:
    values = {argument.name.value: value_from_ast_untyped(argument.value) for argument in directive.arguments or ()}
    url, alias = values.get("url"), values.get("as")
    if not isinstance(url, str):
        return None
    split = _split(url)
    if split is None:
        report.add("INVALID_LINK_IDENTIFIER", f'"{url}" is not a URL that a feature can be linked by', "@link")
        return None
    identity, name, version = split
    problem = _version_problem(identity, name, version)
    if problem:
        report.add(*problem, "@link")
        return None
    imports = _imports(values.get("import"), report)
    return Link(identity, alias if isinstance(alias, str) and alias else name, version, imports)


def _split(url: str) -> tuple[str, str | None, str | None] | None:
    """The identity, name and version that a link's URL stands for."""
    try:
        split = urlsplit(url)
    except ValueError:
        return None
    if not split.scheme or (not split.netloc and split.scheme != "file"):
        return None
    parts = [part for part in split.path.split("/") if part]
    version = parts.pop() if parts and re.match(r"v\d+", parts[-1], re.IGNORECASE) else None
    identity = "/".join([f"{split.scheme}://{split.netloc}", *parts])
    return identity, parts[-1] if parts else None, version


def _version_problem(identity: str, name: str | None, version: str | None) -> tuple[str, str] | None:
    if version is not None and not _VERSION.match(version):
        return (
            "INVALID_LINK_IDENTIFIER",
            f"expected a version of the form v1.2 in the @link to {identity}, got {version}",
        )
    if identity != _APOLLO and not identity.startswith(_APOLLO + "/"):
        return None
    if version is None or name is None:
        return (
            "INVALID_LINK_IDENTIFIER",
            f'the @link to {identity} lacks a version: expected "{_APOLLO}/<feature>/vX.Y"',
        )
    if name in _KNOWN_VERSIONS and version not in _KNOWN_VERSIONS[name]:
        known = ", ".join(sorted(_KNOWN_VERSIONS[name]))
        return "UNKNOWN_LINK_VERSION", f"{version} of {identity} is not known: use one of {known}"
    return None


def _imports(given: Any, report: SubgraphReport) -> dict[str, str]:
    imports: dict[str, str] = {}
    if given is not None and not isinstance(given, list):
        given = [given]
    for item in given or ():
        name = item.get("name") if isinstance(item, dict) else item
        alias = (item.get("as") if isinstance(item, dict) else None) or name
        if not isinstance(name, str) or not isinstance(alias, str):
            report.add("INVALID_LINK_DIRECTIVE_USAGE", f"{item!r} cannot be imported: name it as a string", "@link")
        elif name.startswith("@") != alias.startswith("@"):
            message = f"{name} cannot be imported as {alias}: either both or neither must start with @"
            report.add("INVALID_LINK_DIRECTIVE_USAGE", message, "@link")
        else:
            imports[alias] = name
    return imports


def _federation_version(link: Link, report: SubgraphReport) -> tuple[int, int]:
    match = _VERSION.match(link.version or "")
    version = (int(match[1]), int(match[2])) if match else (0, 0)
    if not (2, 0) <= version <= spec.NEWEST:
        newest = ".".join(map(str, spec.NEWEST))
        message = f"Federation {link.version} is not known: link one of v2.0 to v{newest}"
        report.add("UNKNOWN_FEDERATION_LINK_VERSION", message, "@link")
        return spec.NEWEST
    return version


def _federation_directives(link: Link, version: tuple[int, int], report: SubgraphReport) -> dict[str, str]:
    available = spec.available(version)
    directives = {f"{link.name}__{name}": name for name in available}
    for alias, name in link.imports.items():
        if name.startswith("@") and name[1:] in available:
            directives[alias[1:]] = name[1:]
        elif name.removeprefix("federation__") not in spec.TYPES:
            message = f"{name} cannot be imported from Federation {link.version}, which does not have it"
            report.add("INVALID_LINK_DIRECTIVE_USAGE", message, "@link")
    return directives


def linked_directive(links: Iterable[Link], name: str) -> tuple[Link, str] | None:
    """The link that a directive came by, and the name that it has there, of `name` without `@`."""
    for link in links:
        if (original := link.imports.get(f"@{name}")) is not None:
            return link, original
        if link.name and (name == link.name or name.startswith(f"{link.name}__")):
            return link, "@" + name.removeprefix(f"{link.name}__")
    return None
