"""A predicate of the access engine as a filter for MongoDB: it finds exactly what the predicate matches in memory."""

from collections.abc import Mapping
from typing import Any

from libs.access_engine import Object
from libs.access_engine.predicate import (
    EVERYTHING,
    NOTHING,
    All,
    Any as AnyOf,
    Compare,
    Contains,
    Leaf,
    Member,
    Not,
    Predicate,
    rewritten,
)
from libs.core.mongo import Document

# What MongoDB answers from the plan alone (EOF, no index and no document touched).
FINDS_NOTHING: Document = {"_id": {"$in": []}}

# These are plain text in every document, or not there; "owner_id" may be a list, of which any is the owner.
_KEYS = frozenset({"id", "owner_id", "tenant_id"})
# MongoDB's types of what a condition compares. A list is none of them, though for MongoDB any element of it would do.
_PLAIN: Document = {"$type": ["bool", "int", "long", "double", "string", "date"], "$not": {"$type": "array"}}
_OPERATORS = {"eq": "$eq", "ne": "$ne", "lt": "$lt", "le": "$lte", "gt": "$gt", "ge": "$gte"}


def within_tenant(predicate: Predicate, tenant_id: str, fields: Mapping[str, str]) -> list[Document]:
    """The conditions, all of which hold for what `predicate` matches in that tenant; the tenant's own is not one.

    `fields` says where each attribute is. What is not in it, these documents do not have.
    """

    def known(leaf: Leaf) -> Predicate:
        if leaf.attribute == "tenant_id":
            return EVERYTHING if leaf.matches(Object(tenant_id=tenant_id)) else NOTHING
        if leaf.attribute not in fields:
            return EVERYTHING if leaf.matches(Object()) else NOTHING
        return leaf

    rest = rewritten(predicate, known)
    if rest == NOTHING:
        return [FINDS_NOTHING]
    return [_filter(part, fields) for part in (rest.parts if isinstance(rest, All) else (rest,))]


def _filter(predicate: Predicate, fields: Mapping[str, str]) -> Document:
    if isinstance(predicate, All):
        return {"$and": [_filter(part, fields) for part in predicate.parts]}
    if isinstance(predicate, AnyOf):
        return {"$or": [_filter(part, fields) for part in predicate.parts]}
    if isinstance(predicate, Not):
        return _negated(predicate.part, fields)
    field = fields[predicate.attribute]
    if isinstance(predicate, Compare):
        return {field: _comparison(predicate)}
    if isinstance(predicate, Member):
        return {field: _membership(predicate)}
    if isinstance(predicate, Contains):
        among = {"$elemMatch": {"$eq": predicate.constant.value}}
        return {field: among if predicate.inside else {"$type": "array", "$not": among}}
    there = [{field: {"$ne": None}}, {field: {"$type": "array"}}]  # a list with null in it is not null
    return {"$or" if predicate.there else "$nor": there}


def _negated(part: Predicate, fields: Mapping[str, str]) -> Document:
    if isinstance(part, AnyOf):
        return {"$nor": [_filter(each, fields) for each in part.parts]}
    if isinstance(part, Compare) and part.attribute in _KEYS and part.operator == "eq":
        return {fields[part.attribute]: {"$ne": part.constant.value}}
    if isinstance(part, Member) and part.attribute in _KEYS and part.inside:
        return {fields[part.attribute]: {"$nin": _values(part)}}
    return {"$nor": [_filter(part, fields)]}


def _comparison(leaf: Compare) -> Any:
    value = leaf.constant.value
    if leaf.attribute not in _KEYS:
        return {_OPERATORS[leaf.operator]: value, **_PLAIN}
    if leaf.operator == "eq":
        return value
    return {"$nin": [value, None]} if leaf.operator == "ne" else {_OPERATORS[leaf.operator]: value}


def _membership(leaf: Member) -> Document:
    values = _values(leaf)
    if leaf.attribute not in _KEYS:
        return {"$in" if leaf.inside else "$nin": values, **_PLAIN}
    return {"$in": values} if leaf.inside else {"$nin": [*values, None]}


def _values(leaf: Member) -> list[Any]:
    return [constant.value for constant in sorted(leaf.constants, key=repr)]
