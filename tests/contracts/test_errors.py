"""`docs/reference/errors.md` has a page for each refusal, and those of the ledger in order of precedence."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from services.payment.domain import refusals

ROOT = Path(__file__).parents[2]
PAGES = re.findall(r"^#### `([A-Z_]+)`", (ROOT / "docs/reference/errors.md").read_text(), flags=re.MULTILINE)


def _refused_by_services() -> Iterator[str]:
    """The code of every `Refusal("CODE", …)` that is written out in a service, or in what it mounts of the library."""
    folders = [*(ROOT / "services").rglob("*.py"), *(ROOT / "libs/core/webhooks").rglob("*.py")]
    for file in [*folders, *(ROOT / "libs/core" / f"{name}.py" for name in ("access", "grants", "stepup"))]:
        for node in ast.walk(ast.parse(file.read_text())):
            match node:
                case ast.Call(func=ast.Name(id="Refusal"), args=[ast.Constant(value=str(code)), *_]):
                    yield code


def test_every_refusal_has_a_page() -> None:
    assert set(_refused_by_services()) <= set(PAGES)


def test_every_page_is_of_a_refusal() -> None:
    assert set(PAGES) <= set(_refused_by_services())


def test_the_ledgers_are_in_order_of_precedence() -> None:
    ranked = re.findall(r"^    ([A-Z][A-Z_]+) ", refusals.__doc__ or "", flags=re.MULTILINE)
    assert PAGES[: len(ranked)] == ranked
