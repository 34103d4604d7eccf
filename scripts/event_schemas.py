"""The schema of every event type that we publish, in docs/reference/events/, one file per type and dataversion.

python -m scripts.event_schemas           # writes them; refuses a change that could break a subscriber
python -m scripts.event_schemas --check   # exits with 1 if they are not what the code says

A change that breaks needs a new `version=` in the event's class. The old version's file stays: events of that version
may still be on their way, or wait as dead letters. A type that is published no more has its files deleted by hand.
"""

import importlib
import json
import pkgutil
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import libs.core
from libs.core.events import EventData
from libs.core.events.schema import published_schema, unreadable
from scripts import stack

FOLDER = stack.ROOT / "docs" / "reference" / "events"


def main() -> None:
    problems = check(published(), FOLDER) if "--check" in sys.argv[1:] else write(published(), FOLDER)
    if problems:
        sys.exit("\n".join(problems))


def published() -> list[type[EventData]]:
    """The event classes of every service's `events.py`, and of the core library."""
    for module in pkgutil.iter_modules(libs.core.__path__, "libs.core."):
        importlib.import_module(module.name)
    for file in sorted(stack.ROOT.glob("services/*/events.py")):
        importlib.import_module(f"services.{file.parent.name}.events")
    return [data for data in EventData.__subclasses__() if data.__module__.startswith(("services.", "libs."))]


def check(classes: Iterable[type[EventData]], folder: Path) -> list[str]:
    """What is not as the code says, one line each."""
    wanted, there = _texts(classes), _files(folder)
    stale = sorted(name for name, text in wanted.items() if there.get(name) != text)
    problems = [line for name in stale if name in there for line in _breaks(name, wanted[name], there[name])]
    if stale:
        problems.append(f"not as the code says, make format writes them anew: {', '.join(stale)}")
    return problems + _orphans(wanted, there)


def write(classes: Iterable[type[EventData]], folder: Path) -> list[str]:
    """Writes every schema that breaks no subscriber; answers why it refused the others."""
    wanted, there = _texts(classes), _files(folder)
    folder.mkdir(parents=True, exist_ok=True)
    problems = []
    for name, text in wanted.items():
        breaks = _breaks(name, text, there[name]) if name in there else []
        problems += breaks
        if not breaks:
            (folder / name).write_text(text)
    return problems + _orphans(wanted, there)


def _texts(classes: Iterable[type[EventData]]) -> dict[str, str]:
    texts: dict[str, str] = {}
    for data in classes:
        name = f"{data.event_type}.v{data.event_version}.json"
        if name in texts:
            sys.exit(f"two classes are {data.event_type} version {data.event_version}, one of them {data.__qualname__}")
        texts[name] = json.dumps(published_schema(data), indent=2, ensure_ascii=False, sort_keys=True) + "\n"
    return texts


def _files(folder: Path) -> dict[str, str]:
    return {file.name: file.read_text() for file in folder.glob("*.json")}


def _breaks(name: str, new: str, old: str) -> list[str]:
    before: dict[str, Any] = json.loads(old)
    return [
        f"{name} would break its readers, so it needs a new version: {why}"
        for why in unreadable(before, json.loads(new))
    ]


def _orphans(wanted: Mapping[str, str], there: Mapping[str, str]) -> list[str]:
    """Files of types that no class publishes. Those of older versions of a type stay."""
    types = {name.rsplit(".v", 1)[0] for name in wanted}
    orphans = sorted(name for name in there if name.rsplit(".v", 1)[0] not in types)
    return [f"no class publishes {name}: delete it, if no subscriber is left" for name in orphans]


if __name__ == "__main__":
    main()
