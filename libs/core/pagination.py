"""Lists as Relay connections. A page is one range of an index, wherever in the list it is.

    args = PageArgs(first=50, after=cursor)
    page = await paginator.page(collection, {"wallet_id": id}, args, order=[("at", -1), ("_id", -1)])
    return Connection.of(page, transaction_from_document)

https://relay.dev/graphql/connections.htm
"""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Self, TypeVar

import bson
import strawberry
from bson import CodecOptions

from libs.core.errors import InvalidInput
from libs.core.mongo import Collection, Document

T = TypeVar("T")
U = TypeVar("U")

PAGE_DEFAULT = 20
PAGE_MAX = 100

# Field and direction, 1 or -1. The last field is unique in the list, and no field is ever null.
Order = Sequence[tuple[str, int]]

_MAC_BYTES = 16
_CURSOR_CHARS = 512
_CODEC: CodecOptions[Document] = CodecOptions(tz_aware=True)


@dataclass(frozen=True, slots=True)
class PageArgs:
    """A connection's arguments, checked: `InvalidInput` names the one that is wrong.

    Without `first` and `last` it is the first 20; with `before` alone, the 20 before that.
    """

    first: int | None = None
    after: str | None = None
    last: int | None = None
    before: str | None = None

    def __post_init__(self) -> None:
        if self.first is not None and self.last is not None:
            raise InvalidInput("give first or last, not both", field="last")
        for name in ("first", "last"):
            size = getattr(self, name)
            if size is not None and not 1 <= size <= PAGE_MAX:
                raise InvalidInput(f"{name} must be from 1 to {PAGE_MAX}", field=name, given=size)

    @property
    def size(self) -> int:
        return self.first or self.last or PAGE_DEFAULT

    @property
    def backwards(self) -> bool:
        return self.last is not None or (self.first is None and self.before is not None and self.after is None)


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """Items in the list's order, each with its cursor. `Paginator` makes pages of documents."""

    items: list[T]
    cursors: list[str]
    has_next: bool
    has_previous: bool

    @classmethod
    def empty(cls) -> Self:
        """What a caller sees who may see nothing of the list."""
        return cls([], [], has_next=False, has_previous=False)

    def with_items(self, items: Sequence[U]) -> "Page[U]":
        """The same page of something else, item by item."""
        return Page(list(items), self.cursors, self.has_next, self.has_previous)

    def map(self, convert: Callable[[T], U]) -> "Page[U]":
        return self.with_items([convert(item) for item in self.items])


@strawberry.federation.type(shareable=True)
class PageInfo:
    has_next_page: bool
    has_previous_page: bool
    start_cursor: str | None
    end_cursor: str | None


@strawberry.type
class Edge(Generic[T]):
    node: T
    cursor: str


@strawberry.type
class Connection(Generic[T]):
    edges: list[Edge[T]]
    page_info: PageInfo

    @classmethod
    def of(cls, page: Page[U], node: Callable[[U], T]) -> Self:
        """`page` as GraphQL shows it; `node` makes what the list is of from an item."""
        return cls(
            edges=[Edge(node=node(item), cursor=cursor) for item, cursor in zip(page.items, page.cursors, strict=True)],
            page_info=PageInfo(
                has_next_page=page.has_next,
                has_previous_page=page.has_previous,
                start_cursor=page.cursors[0] if page.cursors else None,
                end_cursor=page.cursors[-1] if page.cursors else None,
            ),
        )


class Paginator:
    """Makes pages and their cursors. A cursor holds the sort key of its document, and is good for its list only.

    `secret` signs cursors: processes that serve the same lists share it.
    """

    def __init__(self, secret: str) -> None:
        self._secret = secret.encode()

    async def page(
        self,
        collection: Collection,
        where: Mapping[str, Any],
        args: PageArgs,
        *,
        order: Order,
        also: Mapping[str, Any] | None = None,
        projection: Mapping[str, Any] | None = None,
    ) -> Page[Document]:
        """The page that `args` ask for of the documents that match `where`, which names the tenant.

        It is one scan of an index of the fields that `where` fixes, then those of `order`. Cursors are bound to
        `where` and `order`; conditions that differ from one request to the next, such as "until now", go into `also`.
        `InvalidInput` for a cursor that is not of this list.
        """
        assert 1 <= len(order) <= 2, "a range of an index is found by one field, or by two"
        list_key = self._list_key(collection, where, order)
        conditions = [dict(where), dict(also or {})]
        for name, cursor, forwards in (("after", args.after, True), ("before", args.before, False)):
            if cursor is not None:
                conditions.extend(_beyond(order, self._open(list_key, cursor, name, order), forwards=forwards))
        documents = await (
            collection.find({"$and": [c for c in conditions if c]}, projection)
            .sort([(field, -direction if args.backwards else direction) for field, direction in order])
            .limit(args.size + 1)
            .to_list()
        )
        more = len(documents) > args.size
        documents = documents[: args.size]
        if args.backwards:
            documents.reverse()
        return Page(
            documents,
            [self._seal(list_key, document, order) for document in documents],
            # On the far side of a cursor lies at least the document that it was made from.
            has_next=args.before is not None if args.backwards else more or args.before is not None,
            has_previous=more or args.after is not None if args.backwards else args.after is not None,
        )

    def _list_key(self, collection: Collection, where: Mapping[str, Any], order: Order) -> bytes:
        name = bson.encode({"list": collection.full_name, "where": dict(where), "order": [list(o) for o in order]})
        return hmac.digest(self._secret, b"cursor\0" + name, hashlib.sha256)

    def _seal(self, list_key: bytes, document: Document, order: Order) -> str:
        position = bson.encode({str(n): document[field] for n, (field, _) in enumerate(order)})
        mac = hmac.digest(list_key, position, hashlib.sha256)[:_MAC_BYTES]
        return base64.urlsafe_b64encode(mac + position).rstrip(b"=").decode()

    def _open(self, list_key: bytes, cursor: str, name: str, order: Order) -> list[Any]:
        try:
            raw = base64.b64decode(cursor[:_CURSOR_CHARS] + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):
            raw = b""
        mac, position = raw[:_MAC_BYTES], raw[_MAC_BYTES:]
        if not hmac.compare_digest(mac, hmac.digest(list_key, position, hashlib.sha256)[:_MAC_BYTES]):
            raise InvalidInput(f"{name} is not a cursor of this list", field=name)
        return list(bson.decode(position, _CODEC).values())


def _beyond(order: Order, position: list[Any], *, forwards: bool) -> list[Document]:
    """The conditions for what comes after (or before) `position`, by one field or by two.

    By two it is `a <= A and not (a = A and b >= B)`. The usual `a < A or (a = A and b < B)` makes MongoDB scan twice
    and merge; a $nor it leaves as a filter on the one range `a <= A`. What that reads in vain are the documents with
    the same `a` as the cursor's.
    """
    (field, direction), value = order[0], position[0]
    down = (direction < 0) == forwards
    if len(order) == 1:
        return [{field: {"$lt" if down else "$gt": value}}]
    (tie, tie_direction), tie_value = order[1], position[1]
    tie_down = (tie_direction < 0) == forwards
    return [
        {field: {"$lte" if down else "$gte": value}},
        {"$nor": [{field: value, tie: {"$gte" if tie_down else "$lte": tie_value}}]},
    ]
