"""`docs/reference/asvs.md` has each requirement of its chapters once, and names files and tests that there are."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/reference/asvs.md").read_text()
ROWS = re.findall(r"^\| (\d+\.\d+\.\d+) \| ([123]) \| (.+) \|$", PAGE, flags=re.MULTILINE)

# Of levels 1 and 2, by section: from the first to this one. Those of level 3 come last, where there are any.
SECTIONS = {
    "6.1": 3, "6.2": 12, "6.3": 4, "6.4": 4, "6.5": 5, "6.6": 3, "6.8": 4,
    "7.1": 3, "7.2": 4, "7.3": 2, "7.4": 5, "7.5": 2, "7.6": 2,
    "9.1": 3, "9.2": 4,
    "10.1": 2, "10.2": 2, "10.3": 4, "10.4": 11, "10.5": 5, "10.6": 2, "10.7": 3,
}  # fmt: skip


def test_each_requirement_has_a_row() -> None:
    wanted = [f"{section}.{n}" for section, last in SECTIONS.items() for n in range(1, last + 1)]
    assert [number for number, _, _ in ROWS] == wanted


@pytest.mark.parametrize(("number", "row"), [(number, row) for number, _, row in ROWS], ids=lambda it: it[:8])
def test_what_is_done_is_done_somewhere(number: str, row: str) -> None:
    _, done, where, _ = row.split(" | ")
    assert done.startswith(("yes", "partly", "no", "–"))
    assert where.strip()


@pytest.mark.parametrize("named", sorted(set(re.findall(r"`((?:tests|services|libs|docs|scripts)/[^`]+)`", PAGE))))
def test_what_is_named_is_there(named: str) -> None:
    path, *names = named.split("::")
    assert (ROOT / path).is_file()
    if names:
        assert "::".join(names) in set(_tests(path)), f"there is no such test: {named}"


def _tests(path: str) -> Iterator[str]:
    for node in ast.parse((ROOT / path).read_text()).body:
        if isinstance(node, ast.ClassDef):
            for method in node.body:
                if isinstance(method, ast.FunctionDef | ast.AsyncFunctionDef):
                    yield f"{node.name}::{method.name}"
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name
