"""The values of `join__Graph` that stand for subgraphs."""

import re
from collections import Counter
from collections.abc import Sequence

from gateway.federation.compose.errors import Report


def graph_ids(names: Sequence[str], report: Report) -> dict[str, str]:
    """By the subgraphs' names, in upper case; those that come to the same are numbered, in the order of the names."""
    for name, count in Counter(names).items():
        if count > 1:
            message = f"{count} subgraphs are called {name}: give each its own name"
            report.add("INVALID_SUBGRAPH_NAME", message, (), name)
    if not all(names):
        report.add("INVALID_SUBGRAPH_NAME", "a subgraph has no name: give it one", (), "")
    ids: dict[str, str] = {}
    proposed = {name: _id(name) for name in sorted(set(names))}
    counts = Counter(proposed.values())
    numbers: Counter[str] = Counter()
    for name, id_ in proposed.items():
        numbers[id_] += 1
        ids[name] = id_ if counts[id_] == 1 else f"{id_}_{numbers[id_]}"
    return ids


def _id(name: str) -> str:
    text = re.sub(r"[^A-Za-z0-9]", "_", name)
    text = re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", text)
    text = re.sub(r"([A-Z])([A-Z][a-z])", r"\1_\2", text).upper()
    text = re.sub(r"^_+", "_", text)  # two of them are GraphQL's own
    if text[:1].isdigit():
        text = f"_{text}_"
    return text + "_" if re.search(r"_\d+$", text) else text  # numbers are for those that come to the same
