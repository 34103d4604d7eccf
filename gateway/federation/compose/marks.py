"""Descriptions, tags and what else any definition carries, made one of several declarations or several subgraphs."""

from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

from gateway.federation.compose.model import Groups, ListSize, Marks

T = TypeVar("T")
# Groups multiply where subgraphs ask for different ones.
_MOST_GROUPS = 1000


def merged_marks(all_: Iterable[Marks]) -> Marks:
    """The first description and deprecation, every tag, the highest cost, and all the permissions that any asks for."""
    merged = Marks()
    for marks in all_:
        merged.description = merged.description or marks.description
        merged.tags |= marks.tags
        merged.inaccessible |= marks.inaccessible
        merged.authenticated |= marks.authenticated
        merged.scopes = merged_groups(merged.scopes, marks.scopes)
        merged.policies = merged_groups(merged.policies, marks.policies)
        merged.cost = _largest(merged.cost, marks.cost)
        merged.list_size = _merged_list_size(merged.list_size, marks.list_size)
        if merged.deprecated is None:
            merged.deprecated = marks.deprecated
        merged.composed += [text for text in marks.composed if text not in merged.composed]
    return merged


def merged_groups(one: Groups, other: Groups) -> Groups:
    """What satisfies both: each group of one with each of the other, without those that contain another."""
    if not one or not other:
        return [list(group) for group in one or other]
    both = {tuple(sorted({*a, *b})) for a in one for b in other}
    kept: list[tuple[str, ...]] = []
    for group in sorted(both, key=lambda group: (len(group), group))[:_MOST_GROUPS]:
        if not any(set(smaller) <= set(group) for smaller in kept):
            kept.append(group)
    return [list(group) for group in kept]


def _largest(one: int | None, other: int | None) -> int | None:
    return max((n for n in (one, other) if n is not None), default=None)


def _merged_list_size(one: ListSize | None, other: ListSize | None) -> ListSize | None:
    if one is None or other is None:
        return one or other
    return ListSize(
        _largest(one.assumed, other.assumed),
        _union(one.slicing, other.slicing),
        _union(one.sized, other.sized),
        one.require_one and other.require_one,
    )


def _union(one: list[T] | None, other: list[T] | None) -> list[T] | None:
    return None if one is None and other is None else list(dict.fromkeys([*(one or ()), *(other or ())]))


def mark(marks: Marks, meaning: str, values: dict[str, Any]) -> str | None:
    """Adds what one of Federation's or GraphQL's directives says; returns what is wrong with its arguments."""
    if meaning == "tag":
        marks.tags.add(str(values.get("name")))
    elif meaning == "inaccessible":
        marks.inaccessible = True
    elif meaning == "authenticated":
        marks.authenticated = True
    elif meaning == "requiresScopes":
        marks.scopes = merged_groups(marks.scopes, _groups(values.get("scopes")))
    elif meaning == "policy":
        marks.policies = merged_groups(marks.policies, _groups(values.get("policies")))
    elif meaning == "cost":
        marks.cost = _largest(marks.cost, _int(values.get("weight")))
    elif meaning == "listSize":
        marks.list_size = _list_size(values)
    elif meaning == "deprecated":
        reason = values.get("reason")
        marks.deprecated = reason if isinstance(reason, str) else ""
    elif meaning in ("context", "fromContext"):
        return f"@{meaning} is not supported: pass the value as an argument, or @requires it"
    return None


def _groups(value: Any) -> Groups:
    groups: Sequence[Any] = value if isinstance(value, list) else [value]
    return [[str(item) for item in (group if isinstance(group, list) else [group])] for group in groups]


def _list_size(values: dict[str, Any]) -> ListSize:
    return ListSize(
        _int(values.get("assumedSize")),
        _strings(values.get("slicingArguments")),
        _strings(values.get("sizedFields")),
        values.get("requireOneSlicingArgument") is not False,
    )


def _int(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _strings(value: Any) -> list[str] | None:
    return None if value is None else [str(item) for item in (value if isinstance(value, list) else [value])]
