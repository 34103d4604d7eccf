"""What clients asked and were told, as lines of JSON: written before a request is sent, and again when it is answered.

    {"type": "invoke", "call": "c0.2/17", "client": "c0.2", "op": "transfer", "ids": […], "asked": {…}, "at": ns}
    {"type": "answer", "call": "c0.2/17", "answers": [{"outcome": "ok", …} per id], "at": ns}
    {"type": "answer", "call": "c0.2/18", "seen": {…}, "at": ns}                    of a read
    {"type": "fault", "name": "kill payment", …}                                    of the nemesis, for people

`at` is the machine's monotonic clock, which all processes share and no fault can turn. What has no answer was cut off.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, Literal, Self

import orjson

# ok: done. refused: a rule said no. fail: told that nothing was done. unknown: not told.
Outcome = Literal["ok", "refused", "fail", "unknown"]
NEVER = 2**63
CUT_OFF = {"outcome": "unknown", "code": "CUT_OFF"}


@dataclass(frozen=True, slots=True)
class Call:
    """One asking for one operation id. `answer` is what was told of it; `answered` is NEVER if nothing was."""

    client: str
    call: str
    op: str
    id: str
    asked: Mapping[str, Any]
    invoked: int
    answered: int
    outcome: Outcome
    answer: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Read:
    """`trouble` is why it was not answered; then it has seen nothing."""

    client: str
    call: str
    op: str
    asked: Mapping[str, Any]
    invoked: int
    answered: int
    seen: Any
    trouble: str = ""


class Recorder:
    """Appends to one file while it is open (`with`). What was written is there even if this process is killed then."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("ab")
        self._numbers = count(1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def invoke(self, client: str, op: str, ids: Sequence[str], asked: Mapping[str, Any]) -> str:
        call = f"{client}/{next(self._numbers)}"
        self._write({"type": "invoke", "call": call, "client": client, "op": op, "ids": ids, "asked": asked})
        return call

    def answer(self, call: str, answers: Sequence[Mapping[str, Any]]) -> None:
        self._write({"type": "answer", "call": call, "answers": answers})

    def seen(self, call: str, data: Any) -> None:
        self._write({"type": "answer", "call": call, "seen": data})

    def fault(self, name: str, **details: Any) -> None:
        self._write({"type": "fault", "name": name, **details})

    def _write(self, entry: dict[str, Any]) -> None:
        self._file.write(orjson.dumps({**entry, "at": time.monotonic_ns()}) + b"\n")
        self._file.flush()


def load(folder: Path) -> tuple[list[Call], list[Read]]:
    """All that was asked for, in the order of asking."""
    entries = [entry for path in folder.glob("*.jsonl") for entry in _entries(path)]
    answers = {entry["call"]: entry for entry in entries if entry["type"] == "answer"}
    invoked = sorted((entry for entry in entries if entry["type"] == "invoke"), key=lambda entry: entry["at"])
    calls = [call for entry in invoked if entry["ids"] for call in _calls(entry, answers.get(entry["call"]))]
    reads = [_read(entry, answers.get(entry["call"], {})) for entry in invoked if not entry["ids"]]
    return calls, reads


def _entries(path: Path) -> Iterator[dict[str, Any]]:
    for line in path.read_bytes().splitlines(keepends=True):
        if line.endswith(b"\n"):  # the last one of a killed process may be cut
            yield orjson.loads(line)


def _calls(entry: Mapping[str, Any], answered: Mapping[str, Any] | None) -> Iterator[Call]:
    for n, operation_id in enumerate(entry["ids"]):
        answer: Mapping[str, Any] = answered["answers"][n] if answered else CUT_OFF
        yield Call(
            client=entry["client"],
            call=entry["call"],
            op=entry["op"],
            id=operation_id,
            asked=entry["asked"],
            invoked=entry["at"],
            answered=answered["at"] if answered else NEVER,
            outcome=answer["outcome"],
            answer=answer,
        )


def _read(entry: Mapping[str, Any], answered: Mapping[str, Any]) -> Read:
    return Read(
        client=entry["client"],
        call=entry["call"],
        op=entry["op"],
        asked=entry["asked"],
        invoked=entry["at"],
        answered=answered.get("at", NEVER),
        seen=answered.get("seen"),
        trouble="" if "seen" in answered else answered.get("answers", [CUT_OFF])[0]["code"],
    )
