import json
from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic import BaseModel, Field, create_model

from libs.core.events import EventData, EventView
from libs.core.events.schema import compatible, published_schema, unreadable
from scripts import event_schemas


class End(BaseModel):
    wallet: str
    balance: int


class Moved(EventData, type="money.moved", version=1):
    amount: int = Field(ge=0)
    kind: Literal["deposit", "transfer"]
    debit: End
    credit: End | None
    tags: tuple[str, ...] = ()
    note: str = ""


MOVED = published_schema(Moved)


def view(**fields: Any) -> type[BaseModel]:
    return create_model("View", **fields)


class Whole(EventView, type="money.moved"):
    amount: int
    kind: str
    debit: End
    credit: End | None
    tags: tuple[str, ...]
    note: str


class TestCompatible:
    def test_view_of_everything(self) -> None:
        assert compatible(Whole, MOVED) == []

    @pytest.mark.parametrize(
        ("fields", "why"),
        [
            ({}, "needs nothing"),
            ({"amount": (float, ...)}, "a number may be a whole one"),
            ({"amount": (int, Field(ge=0))}, "as tight as promised"),
            ({"kind": (Literal["deposit", "transfer", "bet"], ...)}, "knows more than is written"),
            ({"missing": (int, 0)}, "has a default for what is not written"),
            ({"debit": (view(wallet=(str, ...)), ...)}, "sees a part of a part"),
            ({"credit": (view(wallet=(str, ...)) | None, ...)}, "takes null"),
            ({"amount": (Any, ...)}, "takes anything"),
        ],
    )
    def test_reads_what_is_written(self, fields: dict[str, Any], why: str) -> None:
        assert compatible(view(**fields), MOVED) == [], why

    @pytest.mark.parametrize(
        ("fields", "problem"),
        [
            ({"amount": (str, ...)}, "data.amount: the reader wants string, the writer writes integer"),
            ({"missing": (int, ...)}, "data.missing: the reader needs it, the writer may leave it out"),
            ({"kind": (Literal["deposit"], ...)}, "data.kind: the reader does not know ['transfer']"),
            (
                {"note": (Literal["a", "b"], ...)},
                "data.note: the reader knows only ['a', 'b'], the writer may write any",
            ),
            ({"credit": (End, ...)}, "data.credit: the reader wants object, the writer writes null"),
            ({"amount": (int, Field(ge=1))}, "data.amount: the reader needs minimum 1, the writer has 0"),
            ({"amount": (int, Field(le=9))}, "data.amount: the reader needs maximum 9, the writer has None"),
            ({"tags": (tuple[int, ...], ...)}, "data.tags[]: the reader wants integer, the writer writes string"),
            (
                {"debit": (view(owner=(str, ...)), ...)},
                "data.debit.owner: the reader needs it, the writer may leave it out",
            ),
        ],
    )
    def test_cannot_read(self, fields: dict[str, Any], problem: str) -> None:
        assert compatible(view(**fields), MOVED) == [problem]


def later(**fields: Any) -> dict[str, Any]:
    """The schema of a later release, with other fields."""
    properties = {**MOVED["properties"], **fields}
    present = {name: schema for name, schema in properties.items() if schema is not None}
    return {**MOVED, "properties": present, "required": [name for name in MOVED["required"] if name in present]}


class TestChange:
    def test_nothing(self) -> None:
        assert unreadable(MOVED, MOVED) == []

    @pytest.mark.parametrize(
        ("fields", "breaks"),
        [
            ({"more": {"type": "string"}}, False),
            ({"amount": {"type": "integer", "minimum": 5}}, False),
            ({"kind": {"const": "deposit", "type": "string"}}, False),
            ({"note": None}, True),
            ({"amount": {"type": "string"}}, True),
            ({"amount": {"type": "integer"}}, True),
            ({"kind": {"enum": ["deposit", "transfer", "bet"], "type": "string"}}, True),
        ],
    )
    def test_breaks_those_who_read_it(self, fields: dict[str, Any], breaks: bool) -> None:
        assert bool(unreadable(MOVED, later(**fields))) is breaks


class TestFiles:
    def test_written_once_they_are_as_the_code_says(self, tmp_path: Path) -> None:
        assert event_schemas.write([Moved], tmp_path) == []
        assert event_schemas.check([Moved], tmp_path) == []

    def test_missing(self, tmp_path: Path) -> None:
        assert "money.moved.v1.json" in event_schemas.check([Moved], tmp_path)[0]

    def test_breaking_change_is_refused_and_the_old_file_stays(self, tmp_path: Path) -> None:
        old = json.dumps(later(gone={"type": "string"}) | {"required": [*MOVED["required"], "gone"]})
        (tmp_path / "money.moved.v1.json").write_text(old)
        assert "data.gone" in event_schemas.write([Moved], tmp_path)[0]
        assert (tmp_path / "money.moved.v1.json").read_text() == old
        assert "data.gone" in event_schemas.check([Moved], tmp_path)[0]

    def test_older_versions_of_a_type_stay(self, tmp_path: Path) -> None:
        event_schemas.write([Moved], tmp_path)
        (tmp_path / "money.moved.v0.json").write_text("{}")
        assert event_schemas.check([Moved], tmp_path) == []

    def test_type_that_nobody_publishes(self, tmp_path: Path) -> None:
        (tmp_path / "money.lost.v1.json").write_text("{}")
        assert "no class publishes money.lost.v1.json" in event_schemas.check([], tmp_path)[0]

    def test_the_committed_ones_are_as_the_code_says(self) -> None:
        assert event_schemas.check(event_schemas.published(), event_schemas.FOLDER) == []
