"""What a rule permits in memory is what its query finds in MongoDB, for random rules, callers and documents."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import HealthCheck, given, settings, strategies as st

from libs.access_engine import Grant, Object, Policy, Role, Rule, Subject
from libs.access_engine.predicate import Compare, Contains, Leaf, Member, Not, Operator, Present, constant
from libs.core.access import Scope
from libs.core.context import Caller
from libs.core.filters import within_tenant
from libs.core.mongo import Mongo
from libs.core.testing import FROZEN_AT, FrozenClock
from tests.access_engine import reference

AT = datetime(2026, 3, 1, tzinfo=UTC)
VALUES: Sequence[Any] = [
    *(None, True, False, 0, 1, 2, 1.5, 2.0, "", "a", "b", "1", "anna", AT, AT + timedelta(milliseconds=1)),
    *([], [1], ["a", True], [None], [["a"]], {"a": 1}),
]
# One where it is missing, one with each value, in turn in each of the places.
DOCUMENTS: list[dict[str, Any]] = [
    {
        "_id": f"x{n}",
        "tenant_id": "other" if n % 7 == 0 else "acme",
        **({"owner_id": ("anna", "ben", None)[n % 3]} if n % 4 else {}),
        **({"look": {"color": value}} if n % 5 else {}),
        **({"size": VALUES[-n % len(VALUES)]} if n % 3 else {}),
        **({"tags": value} if n % 2 else {}),
    }
    for n, value in enumerate([*VALUES, *reversed(VALUES)])
]
FIELDS = {"color": "look.color", "size": "size", "tags": "tags"}
MISSING = object()


def attributes(document: dict[str, Any]) -> dict[str, Any]:
    found = {"color": document.get("look", {}).get("color", MISSING), "size": document.get("size", MISSING)}
    found["tags"] = document.get("tags", MISSING)
    return {name: value for name, value in found.items() if value is not MISSING}


times = st.sampled_from([AT, AT + timedelta(milliseconds=1)]).map(lambda at: {"time": at.isoformat()})
timed = st.builds(
    lambda name, op, at: {f"object.{name}": {op: at}},
    st.sampled_from(["color", "size"]),
    st.sampled_from(["lt", "le", "gt", "ge", "eq", "ne"]),
    times,
)


@st.composite
def conditional(draw: st.DrawFn) -> dict[str, Any]:
    """A rule whose condition matters: it is about all."""
    condition = draw(st.one_of(reference.conditions, reference.conditions, timed))
    return {"permission": f"wallet:read:{draw(st.sampled_from(['all', 'tenant', 'own', 'x3']))}", "if": condition}


plain = reference.rules()


class TestQuery:
    @settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
    @given(
        allow=st.lists(st.one_of(conditional(), plain), max_size=3),
        deny=st.lists(st.one_of(conditional(), reference.rules(deny=True)), max_size=2),
        granted=st.lists(conditional(), max_size=1),
        subject=reference.subjects,
        declared=st.booleans(),
    )
    async def test_finds_what_is_permitted(
        self,
        mongo: Mongo,
        allow: list[dict[str, Any]],
        deny: list[dict[str, Any]],
        granted: list[dict[str, Any]],
        subject: Subject,
        declared: bool,
    ) -> None:
        rows = mongo.db["wallets"]
        if await rows.estimated_document_count() == 0:
            await rows.insert_many(DOCUMENTS)
        grants = [Grant("g", "acme", subject.id, Rule.of(data)) for data in granted]
        policy = Policy([Role.of("r0", allow=allow, deny=deny)], grants)
        caller = Caller(
            "acme",
            subject.id,
            ("r0",),
            level=subject.level,
            scopes=subject.scopes,
            brand_id=subject.brand_id,
        )
        who = Subject(subject.id, "acme", ("r0",), subject.brand_id, subject.level, subject.scopes)
        scope = Scope(caller, policy.filter(who, "wallet", "read"), clock=FrozenClock(reference.NOW))
        query = scope.query(attributes=FIELDS if declared else None)
        found = {row["_id"] async for row in rows.find(query, {"_id": 1})}
        assert found == {
            row["_id"]
            for row in DOCUMENTS
            if scope.permits(
                owner_id=row.get("owner_id"),
                tenant_id=row["tenant_id"],
                id=row["_id"],
                attributes=attributes(row) if declared else None,
            )
        }, query
        assert not (scope.nothing and found)

    async def test_every_test_on_every_value(self, mongo: Mongo) -> None:
        rows = mongo.db["wallets"]
        await rows.insert_many(DOCUMENTS)
        values = [value for value in VALUES if isinstance(value, bool | int | float | str | datetime)]
        operators: list[Operator] = ["eq", "ne", "lt", "le", "gt", "ge"]
        leaves: list[Leaf] = [
            *(Compare.of("size", operator, value) for operator in operators for value in values),
            *(Member("size", Member.of("size", values[n:]).constants, i) for n in range(9) for i in (True, False)),
            *(Contains("tags", constant(value), inside) for value in values for inside in (True, False)),
            *(Present(name, there) for name in ("size", "tags", "color") for there in (True, False)),
        ]
        for leaf in leaves:
            for predicate in (leaf, Not(leaf)):
                [filter_] = within_tenant(predicate, "acme", FIELDS)
                found = {row["_id"] async for row in rows.find(filter_, {"_id": 1})}
                matched = {row["_id"] for row in DOCUMENTS if predicate.matches(Object(attributes=attributes(row)))}
                assert found == matched, predicate

    def test_the_references_instant_is_the_frozen_one(self) -> None:
        assert reference.NOW == FROZEN_AT
