"""A ledger in a file: gzip of chunks, each a line of JSON and after it the documents' bytes, as they were stored.

    {"format": "ledger-archive", "version": 1, "exportedAt": …, "cut": {"0": [4711, "<hash of that block>"]}}
    {"collection": "wallets", "count": 5000, "bytes": 2400000, "sha256": …}    and so many bytes of BSON documents
    …
    {"end": {"transfers": {"count": …, "sha256": …}, …}, "keyId": …, "signature": …}

The last line says what there had to be, and is signed, over the first line and itself, with the key of the journal:
what the journal does not hold, an account's limits say, cannot be changed on the way either.
"""

import gzip
import json
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from struct import Struct
from types import TracebackType
from typing import Any, Self

from libs.core.errors import InvalidInput

FORMAT, VERSION = "ledger-archive", 1
# Ledgers are repetitive: at 3 gzip takes half the time that it takes at 6, for a file a tenth larger.
_COMPRESSION = 3
_LINE_LIMIT, _CHUNK_LIMIT_BYTES = 1024 * 1024, 64 * 1024 * 1024
_SIZE = Struct("<i")


class Damaged(InvalidInput):
    """What is read is not what was written, or was never whole."""


@dataclass(slots=True)
class _Tally:
    count: int = 0
    hash: Any = field(default_factory=sha256)

    def add(self, documents: Sequence[bytes]) -> None:
        self.count += len(documents)
        for document in documents:
            self.hash.update(document)


class _Tallies(dict[str, _Tally]):
    def __missing__(self, collection: str) -> _Tally:
        return self.setdefault(collection, _Tally())

    def told(self) -> dict[str, Any]:
        return {name: {"count": t.count, "sha256": t.hash.hexdigest()} for name, t in sorted(self.items())}


class Writer:
    """`with Writer(path, head) as writer: writer.add(…); writer.finish(…)`. The file has its name once it is whole."""

    def __init__(self, path: Path, head: Mapping[str, Any]) -> None:
        """`FileExistsError` if there is such a file."""
        path.touch(mode=0o600, exist_ok=False)
        self._path, self._part = path, path.with_name(path.name + ".part")
        self._part.unlink(missing_ok=True)
        self._part.touch(mode=0o600)
        self._file = gzip.open(self._part, "wb", compresslevel=_COMPRESSION)  # noqa: SIM115  (closed by `with` on the writer)
        self._tallies = _Tallies()
        self._head = _line({"format": FORMAT, "version": VERSION, **head})
        self._file.write(self._head)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._file.close()
        if kind is None:
            self._part.replace(self._path)
        else:
            self._part.unlink(missing_ok=True)
            self._path.unlink(missing_ok=True)

    def add(self, collection: str, documents: Sequence[bytes]) -> None:
        if not documents:
            return
        self._tallies[collection].add(documents)
        text = b"".join(documents)
        said = {"count": len(documents), "bytes": len(text), "sha256": sha256(text).hexdigest()}
        self._file.write(_line({"collection": collection, **said}) + text)

    def finish(self, key_id: str, sign: Callable[[bytes], bytes]) -> dict[str, int]:
        """How many documents of each collection there are."""
        end = self._tallies.told()
        signature = sign(_digest(self._head, end)).hex()
        self._file.write(_line({"end": end, "keyId": key_id, "signature": signature}))
        return {name: tally.count for name, tally in self._tallies.items()}


@dataclass(frozen=True, slots=True)
class Chunk:
    collection: str
    documents: list[bytes]


class Reader:
    """`with Reader(path, is_signed) as reader: for chunk in reader: …`, which ends well only if the file is whole."""

    def __init__(self, path: Path, is_signed: Callable[[str, bytes, bytes], bool]) -> None:
        """`is_signed(key id, signature, hash)`. `Damaged` if this is no such file, here and while it is read."""
        self._file = gzip.open(path, "rb")  # noqa: SIM115  (closed by `with` on the reader)
        self._is_signed = is_signed
        self._tallies = _Tallies()
        self._place = "the first line"
        try:
            self._head = self._read_line()
            self.head = self._parsed(self._head)
            if (self.head.get("format"), self.head.get("version")) != (FORMAT, VERSION):
                raise Damaged(f"this is no {FORMAT} of version {VERSION}")
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __iter__(self) -> Iterator[Chunk]:
        while True:
            said = self._parsed(self._read_line())
            if "end" in said:
                return self._check_end(said)
            yield self._chunk(said)

    def _chunk(self, said: Mapping[str, Any]) -> Chunk:
        collection, count, size = said.get("collection"), said.get("count"), said.get("bytes")
        if not isinstance(collection, str) or not isinstance(count, int) or not isinstance(size, int):
            raise self._damaged("is no beginning of a chunk")
        tally = self._tallies[collection]
        self._place = f"{collection} {tally.count + 1:,} to {tally.count + count:,}"
        if not 0 < size <= _CHUNK_LIMIT_BYTES:
            raise self._damaged("is larger than it can be")
        text = self._read(lambda: self._file.read(size))
        if sha256(text).hexdigest() != said.get("sha256"):
            raise self._damaged("is not what was written")
        documents = list(self._split(text))
        if len(documents) != count:
            raise self._damaged(f"has {len(documents):,} documents")
        tally.add(documents)
        self._place = f"what follows {self._place}"
        return Chunk(collection, documents)

    def _split(self, text: bytes) -> Iterator[bytes]:
        at = 0
        while at < len(text):
            size = _SIZE.unpack_from(text, at)[0] if at + 4 <= len(text) else 0
            if size < 5 or at + size > len(text):
                raise self._damaged("holds what is no document")
            yield text[at : at + size]
            at += size

    def _check_end(self, said: Mapping[str, Any]) -> None:
        end, told = said["end"], self._tallies.told()
        if end != told:
            wrong = sorted(name for name in {*end, *told} if end.get(name) != told.get(name))
            raise Damaged(f"not all that was exported is in the file, or more: {', '.join(wrong)}")
        signature = said.get("signature", "")
        if not self._is_signed(str(said.get("keyId")), _bytes(signature), _digest(self._head, end)):
            raise Damaged(f"the file is not signed with a key of this journal, but with {said.get('keyId')!r}")
        self._place = "the end"
        if self._read(lambda: self._file.read(1)):
            raise self._damaged("is followed by more")

    def _read_line(self) -> bytes:
        line = self._read(lambda: self._file.readline(_LINE_LIMIT))
        if not line.endswith(b"\n"):
            raise self._damaged("is cut off")
        return line

    def _read(self, read: Callable[[], bytes]) -> bytes:
        try:
            return read()
        except (EOFError, OSError, zlib.error) as error:
            raise self._damaged(f"cannot be read ({error})") from error

    def _parsed(self, line: bytes) -> dict[str, Any]:
        try:
            said = json.loads(line)
        except ValueError:
            said = None
        if not isinstance(said, dict):
            raise self._damaged("is no JSON object")
        return said

    def _damaged(self, what: str) -> Damaged:
        return Damaged(f"the file is cut or damaged: {self._place} {what}")


def _line(said: Mapping[str, Any]) -> bytes:
    return json.dumps(said, sort_keys=True).encode() + b"\n"


def _digest(head: bytes, end: Mapping[str, Any]) -> bytes:
    return sha256(b"ledger-archive\0" + head + _line(end)).digest()


def _bytes(text: object) -> bytes:
    try:
        return bytes.fromhex(str(text))
    except ValueError:
        return b""
