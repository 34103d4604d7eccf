"""What a service reads of another's events is what the other publishes. Views are found by their `subscribers.py`."""

import json
from importlib import import_module

import pytest

from libs.core.events import EventView
from libs.core.events.schema import compatible
from scripts import stack
from scripts.event_schemas import FOLDER

MODULES = [f"services.{path.parent.name}.subscribers" for path in sorted(stack.ROOT.glob("services/*/subscribers.py"))]
VIEWS = [
    pytest.param(view, id=f"{module}.{view.__name__}")
    for module in MODULES
    for view in vars(import_module(module)).values()
    if isinstance(view, type) and issubclass(view, EventView) and view is not EventView
]


@pytest.mark.parametrize("view", VIEWS)
def test_a_view_reads_every_version_that_it_names(view: type[EventView]) -> None:
    for version in view.versions:
        published = json.loads((FOLDER / f"{view.event_type}.v{version}.json").read_text())
        assert compatible(view, published) == []


class Demanding(EventView, type="tenant.currency_added"):
    rounding: str


def test_a_view_of_what_nobody_says_is_found_out() -> None:
    published = json.loads((FOLDER / "tenant.currency_added.v1.json").read_text())
    assert compatible(Demanding, published)
