"""The rules once more, as plainly as they can be said, and random policies: what the compiled one is held against.

It works on the data that users write, and shares nothing with the engine but `Subject` and `Object`.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import strategies as st

from libs.access_engine import Object, Subject

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)

Roles = Mapping[str, Mapping[str, Any]]
Grants = Sequence[Mapping[str, Any]]


def permits(
    roles: Roles, grants: Grants, subject: Subject, resource: str, action: str, obj: Object, now: datetime = NOW
) -> bool:
    names = set(subject.roles) & roles.keys()
    while inherited := {parent for name in names for parent in roles[name].get("inherits", ())} - names:
        names |= inherited
    given = [grant for grant in grants if (grant["tenant"], grant["subject"]) == (subject.tenant_id, subject.id)]
    allow = [rule for each in (*(roles[name] for name in names), *given) for rule in each.get("allow", ())]
    deny = [rule for each in (*(roles[name] for name in names), *given) for rule in each.get("deny", ())]

    def holds(rule: Mapping[str, Any]) -> bool | None:
        kind, verb, target = rule["permission"].split(":")
        same = bool(subject.tenant_id) and obj.tenant_id == subject.tenant_id
        own = same and bool(subject.id) and obj.owner_id == subject.id
        reached = {"own": own, "tenant": same, "all": True, "*": True}.get(target, target == obj.id)
        matched = kind in (resource, "*") and verb in (action, "*") and reached
        in_time = (
            instant(rule.get("from", "2000-01-01T00:00:00Z"))
            <= now
            < instant(rule.get("until", "2100-01-01T00:00:00Z"))
        )
        places = [(rule.get("tenant"), subject.tenant_id), (rule.get("brand"), subject.brand_id)]
        in_place = [True if not bound or bound == found else None if not found else False for bound, found in places]
        facts = [matched, in_time, subject.level >= rule.get("level", 0), *in_place]
        return every([*facts, truth(rule["if"], subject, obj) if "if" in rule else True])

    scoped = subject.scopes is None or any(holds({"permission": scope}) for scope in subject.scopes)
    return scoped and any(holds(r) is True for r in allow) and not any(holds(r) is not False for r in deny)


def truth(data: Mapping[str, Any], subject: Subject, obj: Object) -> bool | None:
    [(word, content)] = data.items()
    if word in ("all", "any"):
        truths = [truth(part, subject, obj) for part in content]
        return every(truths) if word == "all" else opposite(every([opposite(each) for each in truths]))
    if word == "not":
        return opposite(truth(content, subject, obj))
    value = attribute(word, subject, obj)
    [(op, operand)] = content.items()
    if isinstance(operand, dict):
        operand = attribute(operand["ref"], subject, obj)
    if op == "exists":
        return (value is not None) is operand
    if op == "contains":
        known = isinstance(value, list) and operand is not None and not isinstance(operand, list)
        return any(same(operand, each) for each in value) if known else None
    if value is None or operand is None or isinstance(value, list) or (isinstance(operand, list) and op != "in"):
        return None
    if op in ("eq", "ne", "in"):
        among = any(same(value, each) for each in (operand if op == "in" else [operand]))
        return among is (op != "ne")
    if any(isinstance(value, kind) != isinstance(operand, kind) for kind in (str, bool)):
        return None
    less, equal = bool(value < operand), bool(value == operand)
    return {"lt": less, "le": less or equal, "gt": not less and not equal, "ge": not less}[op]


def attribute(name: str, subject: Subject, obj: Object) -> Any:
    of, name = name.split(".")
    holder: Any = subject if of == "subject" else obj
    if name not in ("id", "owner_id", "tenant_id", "brand_id", "level"):
        return (holder.attributes or {}).get(name)
    return (
        getattr(holder, name) if of == "object" else getattr(holder, name) or None if name != "level" else holder.level
    )


def same(one: Any, other: Any) -> bool:
    return bool(isinstance(one, bool) == isinstance(other, bool) and one == other)


def every(truths: Sequence[bool | None]) -> bool | None:
    return False if False in truths else None if None in truths else True


def opposite(truth: bool | None) -> bool | None:
    return None if truth is None else not truth


def instant(text: str) -> datetime:
    return datetime.fromisoformat(text)


ids = st.sampled_from(["x1", "x2", "x3"])
people = st.sampled_from(["anna", "ben", ""])
tenants = st.sampled_from(["acme", "other", ""])
brands = st.sampled_from(["b1", "b2", ""])
resources = st.sampled_from(["wallet", "transfer"])
actions = st.sampled_from(["read", "create"])
permissions = st.builds(
    lambda *parts: ":".join(parts),
    st.one_of(st.just("*"), resources),
    st.one_of(st.just("*"), actions),
    st.one_of(st.sampled_from(["own", "tenant", "all", "*"]), ids),
)
scalars = st.sampled_from([True, False, 0, 1, 2, 1.5, "a", "b", "anna", "1", ""])
names = st.sampled_from(["color", "size", "tags", "gone"])
values = st.one_of(st.none(), scalars, st.lists(scalars, max_size=3))
attributes = st.dictionaries(names, values, max_size=3)
references = st.sampled_from(["subject.id", "subject.brand_id", "subject.level", "subject.color", "subject.gone"])
times = st.integers(-2, 2).map(lambda hours: (NOW + timedelta(hours=hours)).isoformat().replace("+00:00", "Z"))


@st.composite
def tests(draw: st.DrawFn) -> dict[str, Any]:
    on_object = [f"object.{draw(names)}", "object.owner_id", "object.id"]
    name = draw(
        st.sampled_from([*on_object, f"object.{draw(names)}", "subject.level", "subject.brand_id", "subject.size"])
    )
    op = draw(st.sampled_from(["eq", "ne", "lt", "le", "gt", "ge", "in", "contains", "exists"]))
    if op == "exists":
        return {name: {op: draw(st.booleans())}}
    if op == "in":
        return {name: {op: draw(st.lists(scalars, min_size=1, max_size=3))}}
    ordered = scalars.filter(lambda value: not isinstance(value, bool))
    literal = scalars if op in ("eq", "ne", "contains") else ordered
    return {name: {op: draw(st.one_of(literal, references.map(lambda ref: {"ref": ref})))}}


conditions: st.SearchStrategy[dict[str, Any]] = st.recursive(
    tests(),
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3).map(lambda parts: {"all": parts}),
        st.lists(inner, min_size=1, max_size=3).map(lambda parts: {"any": parts}),
        inner.map(lambda part: {"not": part}),
    ),
    max_leaves=5,
)


@st.composite
def rules(draw: st.DrawFn, *, deny: bool = False) -> dict[str, Any]:
    rule: dict[str, Any] = {"permission": draw(permissions)}
    if draw(st.booleans()):
        return rule
    bounds: dict[str, st.SearchStrategy[Any]] = {
        "from": times,
        "until": times,
        "tenant": tenants.filter(bool),
        "brand": brands.filter(bool),
        "if": conditions,
        **({} if deny else {"level": st.integers(0, 2)}),
    }
    for key in draw(st.sets(st.sampled_from(sorted(bounds)), max_size=2)):
        rule[key] = draw(bounds[key])
    return rule


@st.composite
def role_sets(draw: st.DrawFn) -> dict[str, dict[str, Any]]:
    roles: dict[str, dict[str, Any]] = {}
    for n in range(draw(st.integers(1, 4))):
        earlier = sorted(roles)
        roles[f"r{n}"] = {
            "allow": draw(st.lists(rules(), max_size=3)),
            "deny": draw(st.lists(rules(deny=True), max_size=2)),
            "inherits": draw(st.lists(st.sampled_from(earlier), max_size=2)) if earlier else [],
        }
    return roles


@st.composite
def grant_lists(draw: st.DrawFn) -> list[dict[str, Any]]:
    return [
        {
            "tenant": draw(tenants),
            "subject": draw(people),
            **({"deny": [draw(rules(deny=True))]} if draw(st.integers(0, 2)) == 0 else {"allow": [draw(rules())]}),
        }
        for _ in range(draw(st.integers(0, 3)))
    ]


subjects = st.builds(
    Subject,
    people,
    tenants,
    st.lists(st.sampled_from(["r0", "r1", "r2", "r3", "gone"]), max_size=3).map(tuple),
    brands,
    st.integers(0, 2),
    st.one_of(st.none(), st.none(), st.lists(permissions, max_size=2).map(tuple)),
    attributes,
)
objects = st.builds(Object, ids, st.one_of(st.none(), people), st.one_of(st.none(), tenants), attributes)
