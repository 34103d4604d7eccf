"""Every service's GraphQL schema as text, and the supergraph of them all, in docs/reference/graphql/: so a change of
them is seen in review.

python -m scripts.graphql_schemas           # writes them
python -m scripts.graphql_schemas --check   # exits with 1 if they are not what the code says
"""

import importlib
import sys

from gateway.federation import Subgraph
from gateway.federation.compose import compose
from scripts import stack

FOLDER = stack.ROOT / "docs" / "reference" / "graphql"


def main() -> None:
    schemas = {name: _schema(name) for name in stack.processes()}
    files = {f"{name}.graphql": text for name, text in schemas.items()}
    files["supergraph.graphql"] = _supergraph(schemas)
    if "--check" in sys.argv[1:]:
        there = {file.name: file.read_text() for file in FOLDER.glob("*.graphql")}
        stale = sorted(name for name in files.keys() | there.keys() if files.get(name) != there.get(name))
        if stale:
            sys.exit(f"not as the code says, make format writes them anew: {', '.join(stale)}")
        return
    FOLDER.mkdir(parents=True, exist_ok=True)
    for file in FOLDER.glob("*.graphql"):
        file.unlink()
    for name, text in files.items():
        (FOLDER / name).write_text(text)


def _schema(service: str) -> str:
    text: str = importlib.import_module(f"{stack.package(service)}.schema").schema.as_str()
    return text + "\n"


def _supergraph(schemas: dict[str, str]) -> str:
    """As the gateway composes it, but for where the services are."""
    return compose([Subgraph(name, f"http://{name}/graphql", text) for name, text in schemas.items()]).rstrip() + "\n"


if __name__ == "__main__":
    main()
