"""Every service's GraphQL schema as text, in docs/reference/graphql/, so that a change of it is seen in review.

python -m scripts.graphql_schemas           # writes them
python -m scripts.graphql_schemas --check   # exits with 1 if they are not what the code says
"""

import importlib
import sys

from scripts import stack

FOLDER = stack.ROOT / "docs" / "reference" / "graphql"


def main() -> None:
    schemas = {f"{name}.graphql": _schema(name) for name in stack.services()}
    if "--check" in sys.argv[1:]:
        there = {file.name: file.read_text() for file in FOLDER.glob("*.graphql")}
        stale = sorted(name for name in schemas.keys() | there.keys() if schemas.get(name) != there.get(name))
        if stale:
            sys.exit(f"not as the code says, make format writes them anew: {', '.join(stale)}")
        return
    FOLDER.mkdir(parents=True, exist_ok=True)
    for file in FOLDER.glob("*.graphql"):
        file.unlink()
    for name, text in schemas.items():
        (FOLDER / name).write_text(text)


def _schema(service: str) -> str:
    text: str = importlib.import_module(f"services.{service}.schema").schema.as_str()
    return text + "\n"


if __name__ == "__main__":
    main()
